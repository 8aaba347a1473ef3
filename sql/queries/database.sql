-- name: server_process
-- The process of the server that runs this statement.
SELECT pg_backend_pid();

-- name: pin_settings
-- Disable the timeouts that could end the session, its transaction or a statement; pin what affects the text form of values, the meaning of literals and statements, which keys fit an index, that an error does not end the session, and which block views show; for the session, or until the transaction ends.
SELECT set_config(name, setting, %(is_local)s)
FROM (VALUES
    ('statement_timeout', '0'),
    ('idle_session_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0'),
    ('transaction_timeout', '0'),
    ('lock_timeout', '0'),
    ('search_path', ''),
    ('client_encoding', 'UTF8'),
    ('TimeZone', 'UTC'),
    ('timezone_abbreviations', 'Default'),
    ('DateStyle', 'ISO, MDY'),
    ('IntervalStyle', 'iso_8601'),
    ('extra_float_digits', '1'),
    ('bytea_output', 'hex'),
    ('xmlbinary', 'base64'),
    ('xmloption', 'content'),
    ('lc_monetary', 'C'),
    ('lc_numeric', 'C'),
    ('lc_time', 'C'),
    ('array_nulls', 'on'),
    ('standard_conforming_strings', 'on'),
    ('transform_null_equals', 'off'),
    ('quote_all_identifiers', 'off'),
    ('default_text_search_config', 'pg_catalog.simple'),
    ('gin_fuzzy_search_limit', '0'),
    ('default_toast_compression', 'pglz'),
    ('client_min_messages', 'notice'), -- a flood of messages would slow everything down
    ('exit_on_error', 'off'),
    ('virtualchain.as_of', ''), -- not that of the environment, the role or the database
    ('virtualchain.block_id', '')
) AS pinned (name, setting)
WHERE name <> 'transaction_timeout' OR current_setting('server_version_num')::integer >= 170000;

-- name: append_blocks
-- Let the session add rows to tape and log without a look at each one's block and build: it adds them with their block, and holds the builds.
SELECT set_config('virtualchain.appends', 'blocks', false);

-- name: pin_writing
-- Pin how transactions run, that commits wait for the disk and how new tables are stored. Row security that would hide rows is an error.
SELECT set_config(name, setting, false)
FROM (VALUES
    ('default_transaction_isolation', 'read committed'),
    ('default_transaction_read_only', 'off'),
    ('default_transaction_deferrable', 'off'),
    ('default_table_access_method', 'heap'),
    ('row_security', 'off'),
    ('jit', 'off'), -- it takes longer than any statement of a block
    ('synchronous_commit', 'on')
) AS pinned (name, setting);

-- name: pin_keepalives
-- Let the server notice within about a minute that a writer's machine is gone, and release its lock.
SELECT
    set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false),
    set_config('tcp_keepalives_count', '3', false);

-- name: pin_read_only
-- Make the session's transactions read-only by default.
SELECT set_config('default_transaction_read_only', 'on', false);

-- name: advisory_lock
-- Try to take the lock of the deployment's one writer (the key spells "virt", "chai"); it lasts as long as the session.
SELECT pg_try_advisory_lock(1986622068, 1667784041);

-- name: build_lock
-- Try to take the lock for making one build of an app; it lasts as long as the session.
SELECT pg_try_advisory_lock(1986622069, hashtext(%(build)s));

-- name: advisory_lock_holder
-- The holder of the writer's lock: application name, server process and address, as far as we may see them; a prepared transaction has no process, but a name.
SELECT activity.application_name, locks.pid, host(activity.client_addr), (
    SELECT min(prepared.gid)
    FROM pg_catalog.pg_locks AS own
    JOIN pg_catalog.pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
    WHERE locks.pid IS NULL AND own.pid IS NULL AND own.virtualtransaction = locks.virtualtransaction)
FROM pg_catalog.pg_locks AS locks
LEFT JOIN pg_catalog.pg_stat_activity AS activity USING (pid)
WHERE
    locks.locktype = 'advisory'
    AND locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND locks.classid = 1986622068
    AND locks.objid = 1667784041
    AND locks.objsubid = 2
    AND locks.granted;

-- name: probe_space
-- Write 16 MB to the disk, until the transaction ends.
CREATE TEMPORARY TABLE probe ON COMMIT DROP AS SELECT FROM generate_series(1, 500000);

-- name: locale
-- The database's locale, and whether it is C for collation and character type.
SELECT concat_ws(', ', CASE datlocprovider WHEN 'i' THEN 'ICU' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
        own_locale, 'LC_COLLATE ' || datcollate, 'LC_CTYPE ' || datctype) AS locale,
    datcollate IN ('C', 'POSIX') AND datctype IN ('C', 'POSIX')
        AND (datlocprovider = 'c' OR datlocprovider = 'b' AND own_locale = 'C') AS is_c
FROM (
    SELECT *, CASE WHEN datlocprovider <> 'c' THEN -- the column's name depends on the server's version
        coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') END AS own_locale
    FROM pg_catalog.pg_database AS d WHERE datname = current_database()) AS ours;

-- name: create_engine_role
-- Create the role of the engine, which creates databases and the apps' roles, and is not a superuser.
CREATE ROLE virtualchain LOGIN CREATEDB CREATEROLE NOSUPERUSER PASSWORD {password};

-- name: timeline
-- Of a primary: which cluster it is of, and the timeline of its log, in hexadecimal digits.
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8);

-- name: reached
-- Of any server: which cluster it is of, and the timeline of its log; of a standby, as its last restart point has it.
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint())
    ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END;

-- name: data_directory
-- The server's data folder (superusers only).
SELECT current_setting('data_directory');

-- name: database_exists
-- Whether the server has a database with this name.
SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %(name)s);

-- name: create_engine_database
-- Create a database with the locale C that belongs to the engine's role.
CREATE DATABASE {name} OWNER virtualchain TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C';

-- name: create_database
-- Create a database with the locale C, whatever the server's own is.
CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C';

-- name: drop_database
-- Drop a database even if clients are connected to it.
DROP DATABASE IF EXISTS {name} WITH (FORCE);
