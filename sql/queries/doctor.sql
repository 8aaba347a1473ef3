-- name: limit
-- Cancel any statement that takes longer, until the transaction ends.
SELECT set_config('statement_timeout', %(milliseconds)s, true);

-- name: server
-- The server, the session's user and what that may see; the clock in seconds since 1970.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer / 10000 AS major,
    current_user AS user_name, pg_is_in_recovery() AS is_standby, extract(epoch FROM clock_timestamp())::float8 AS clock,
    pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all;

-- name: settings
-- The settings as a new session of this user has them, whatever this session has set; of a setting with a unit, the number of units.
SELECT name, CASE WHEN context IN ('user', 'superuser', 'backend', 'superuser-backend') THEN reset_val ELSE setting END AS value
FROM pg_catalog.pg_settings;

-- name: has_schema
-- Whether the database has the schema of a deployment's views.
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'virtualchain') AS is_there;

-- name: collation
-- The version of the database's collation when it was made, and the one that the server has now; null of the locale C.
SELECT datcollversion AS recorded, pg_database_collation_actual_version(oid) AS actual
FROM pg_catalog.pg_database WHERE datname = current_database();

-- name: standbys
-- The standbys that are connected: names, whether commits wait for them, how many bytes and seconds they lag; null if this user may not see it.
SELECT application_name AS name, state, sync_state,
    pg_wal_lsn_diff(CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_lsn() END, replay_lsn)::bigint AS bytes,
    extract(epoch FROM replay_lag)::float8 AS seconds
FROM pg_catalog.pg_stat_replication
WHERE state IS DISTINCT FROM 'backup' ORDER BY application_name COLLATE "C";

-- name: standby
-- Of a standby: whether it receives from its primary, how many bytes it has not replayed, and how old the last replayed commit is.
SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver) AS receives,
    pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::bigint AS bytes,
    extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS age;

-- name: relations
-- How many relations of ours a dump, or a change of the schema, may lock at once.
SELECT count(*) AS relations FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('vc', 'virtualchain')
    OR EXISTS (SELECT FROM virtualchain.apps AS a WHERE n.nspname = a.schema OR starts_with(n.nspname, a.schema || '__'));

-- name: connections
-- How many sessions of clients there are, in all, of this database and of this user, and the limits of the last two (-1: none).
SELECT sum(numbackends)::integer AS used, sum(numbackends) FILTER (WHERE s.datname = current_database())::integer AS of_database,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename = current_user)::integer AS of_user,
    (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()) AS database_limit,
    (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user) AS user_limit,
    (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS is_superuser
FROM pg_catalog.pg_stat_database AS s;

-- name: overrides
-- Settings that are made for this database, or for a role in it or everywhere, and concern this user.
SELECT coalesce(r.rolname, 'every role') AS role, coalesce(d.datname, 'every database') AS database, item AS setting
FROM pg_catalog.pg_db_role_setting AS s
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
CROSS JOIN unnest(s.setconfig) AS item
WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND (s.setrole = 0 OR r.rolname = current_user)
ORDER BY 1, 2, 3;

-- name: event_triggers
-- Event triggers that fire on what the writer does to schemas and tables.
SELECT evtname AS name, evtevent AS event FROM pg_catalog.pg_event_trigger
WHERE evtenabled <> 'D' AND evtevent <> 'login' ORDER BY evtname COLLATE "C";

-- name: publications
-- Publications, and whether they are of all tables.
SELECT pubname AS name, puballtables AS of_all FROM pg_catalog.pg_publication ORDER BY pubname COLLATE "C";

-- name: size
-- The database's size in bytes, and an estimate of how many rows tape and log hold, from the statistics.
SELECT pg_database_size(current_database()) AS bytes, (
    SELECT coalesce(sum(greatest(n_live_tup, 0)), 0) FROM pg_catalog.pg_stat_all_tables
    WHERE schemaname = 'vc' AND relname IN ('blocks', 'inputs', 'ops', 'rejections'))::bigint AS entries;

-- name: added
-- How many blocks, inputs, ops and rejections the writer added in the samples of the last day, and in how many seconds.
SELECT coalesce(sum(inputs + ops + rejections), 0)::bigint + coalesce(max(block_id) - min(block_id), 0) AS entries,
    coalesce(extract(epoch FROM max(at) - min(at)), 0)::float8 AS seconds
FROM virtualchain.progress;

-- name: data_directory
-- The server's data folder; null if this user may not see it.
SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS folder;

-- name: bloated
-- Our tables with many dead rows, the worst first.
SELECT format('%%I.%%I', schemaname, relname) AS name, n_dead_tup AS dead, n_live_tup AS live,
    extract(epoch FROM now() - greatest(last_vacuum, last_autovacuum))::float8 AS age
FROM pg_catalog.pg_stat_all_tables AS t
WHERE (schemaname = 'vc' OR EXISTS (SELECT FROM virtualchain.apps AS a WHERE starts_with(t.schemaname, a.schema || '__')))
    AND n_dead_tup > %(least)s AND n_dead_tup > n_live_tup
ORDER BY n_dead_tup DESC LIMIT 5;

-- name: oldest_rows
-- The age, in transactions, of the oldest rows of the database that are not frozen, and at which they are frozen in any case.
SELECT greatest(age(datfrozenxid), mxid_age(datminmxid)) AS age, current_setting('autovacuum_freeze_max_age')::bigint AS frozen_at
FROM pg_catalog.pg_database WHERE datname = current_database();

-- name: holding_back
-- What keeps VACUUM from removing dead rows: transactions, prepared ones and slots, the oldest first; of slots, the age in transactions.
SELECT what, seconds, transactions FROM (
    SELECT format('the transaction of %%s (server process %%s)', coalesce(nullif(application_name, ''), usename, 'a session'), pid) AS what,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, age(backend_xmin)::bigint AS transactions
    FROM pg_catalog.pg_stat_activity
    WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND backend_type <> 'walsender'
        AND (datname = current_database() OR datname IS NULL)
    UNION ALL
    SELECT format('the prepared transaction %%s', gid), extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)::bigint
    FROM pg_catalog.pg_prepared_xacts
    UNION ALL
    SELECT format('the replication slot %%s', slot_name), NULL, greatest(age(xmin), age(catalog_xmin))::bigint
    FROM pg_catalog.pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL) AS holders
WHERE seconds > %(seconds)s OR seconds IS NULL AND transactions > %(transactions)s
ORDER BY seconds DESC NULLS LAST LIMIT 5;

-- name: slots
-- Replication slots: whether they are used, and how many bytes of WAL they keep.
SELECT slot_name AS name, active, wal_status,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::bigint AS bytes
FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY slot_name COLLATE "C";

-- name: archiver
-- When WAL was last archived, and whether that fails since; in seconds.
SELECT extract(epoch FROM clock_timestamp() - last_archived_time)::float8 AS age, last_failed_wal AS failed,
    coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS is_failing, failed_count::bigint AS failures
FROM pg_catalog.pg_stat_archiver;

-- name: identifier
-- The server's identifier, which its backups have, too.
SELECT system_identifier::text AS identifier FROM pg_control_system();

-- name: invalid_indexes
-- Indexes of our tables that the server does not use or does not enforce.
SELECT format('%%I.%%I', n.nspname, c.relname) AS name
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT (i.indisvalid AND i.indisready) AND (n.nspname = 'vc'
    OR EXISTS (SELECT FROM virtualchain.apps AS a WHERE starts_with(n.nspname, a.schema || '__')))
ORDER BY 1;

-- name: notifications
-- How full the queue of notifications is: 1 means full.
SELECT pg_notification_queue_usage() AS usage;

-- name: tape_tip
-- The tape's last block, and the height of its first; no row if it is empty.
SELECT block_id, hash, (SELECT min(block_id) FROM virtualchain.blocks) AS first_block_id
FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1;

-- name: tape_block
-- One block of the tape.
SELECT hash FROM virtualchain.blocks WHERE block_id = %(block_id)s;

-- name: rights
-- What the session's user may do as the writer: whether the log is its own, and whether it may make roles and schemas.
SELECT pg_has_role(current_user, n.nspowner, 'USAGE') AS owns, r.rolcreaterole OR r.rolsuper AS makes_roles,
    has_database_privilege(current_user, current_database(), 'CREATE') AS makes_schemas
FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.rolname = current_user WHERE n.nspname = 'vc';

-- name: lost_roles
-- Apps whose role does not exist, may not use the schema of their tables, or is more than an app's role.
SELECT a.name AS app, a.role, coalesce(r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb, false) AS is_more
FROM virtualchain.apps AS a
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = a.role
WHERE a.role IS NOT NULL AND (r.oid IS NULL OR r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb
    OR NOT has_schema_privilege(r.oid, a.schema || '__' || a.build, 'USAGE'))
ORDER BY a.name COLLATE "C";

-- name: readers
-- The roles that may read.
SELECT role FROM vc.readers ORDER BY role COLLATE "C";
