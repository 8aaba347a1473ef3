-- name: writers
-- The sessions that write to a deployment or make a build, in any database: its name, and the session's.
SELECT DISTINCT d.datname, coalesce(nullif(a.application_name, ''), 'an unknown program')
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_database AS d ON d.oid = l.database
LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.classid IN (1986622068, 1986622069) AND l.granted ORDER BY 1, 2;

-- name: databases
-- The databases that can be connected to.
SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname;

-- name: administer
-- The statements that let the engine administer the roles that it has made: before PostgreSQL 16 it needed no grant for that, and since then whoever creates a role gets this one.
SELECT format('GRANT %I TO virtualchain WITH ADMIN TRUE' || CASE WHEN m.roleid IS NULL THEN ', INHERIT FALSE, SET FALSE' ELSE '' END, r.rolname)
FROM pg_catalog.pg_roles AS r
LEFT JOIN (
    SELECT roleid, bool_or(admin_option) AS administers FROM pg_catalog.pg_auth_members
    WHERE member = 'virtualchain'::regrole GROUP BY roleid
) AS m ON m.roleid = r.oid
WHERE current_setting('server_version_num')::integer >= 160000 AND NOT r.rolsuper
    AND r.rolname <> 'virtualchain' AND NOT starts_with(r.rolname, 'pg_') AND m.administers IS NOT TRUE;

-- name: replicas
-- The standbys that are connected: address, state, whether commits wait for it, and how many bytes it has not replayed.
SELECT
    coalesce(host(client_addr), 'a socket'), state, sync_state IN ('sync', 'quorum'),
    coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), 0)::bigint
FROM pg_catalog.pg_stat_replication WHERE state <> 'backup' ORDER BY pid;

-- name: following
-- Of a standby: how it logs in to its primary, and whether it is connected to it.
SELECT current_setting('primary_conninfo'), EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver);

-- name: keep_for_standbys
-- Keep what a standby needs that is away for a while.
ALTER SYSTEM SET wal_keep_size = '1GB';

-- name: wait_for_standbys
-- Have commits wait until one standby has written them to its disk.
ALTER SYSTEM SET synchronous_standby_names = '*';

-- name: wait_for_nobody
-- Have commits wait for this server alone.
ALTER SYSTEM RESET synchronous_standby_names;

-- name: reload
-- Read the settings again.
SELECT pg_reload_conf();
