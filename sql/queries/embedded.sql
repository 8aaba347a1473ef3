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
