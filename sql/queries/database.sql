-- name: pin_settings
-- Fix every setting that shapes how values are written as text, and which keys fit an index.
SELECT
    set_config('TimeZone', 'UTC', false),
    set_config('DateStyle', 'ISO, MDY', false),
    set_config('IntervalStyle', 'iso_8601', false),
    set_config('extra_float_digits', '1', false),
    set_config('bytea_output', 'hex', false),
    set_config('client_encoding', 'UTF8', false),
    set_config('default_toast_compression', 'pglz', false);

-- name: pin_keepalives
-- Let the server notice within about a minute that a writer's machine is gone, and free its lock.
SELECT
    set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false),
    set_config('tcp_keepalives_count', '3', false);

-- name: pin_read_only
-- Make every transaction of the session read only unless it asks for more.
SELECT set_config('default_transaction_read_only', 'on', false);

-- name: advisory_lock
-- Try to take the lock of the deployment's one writer (the key spells "virt", "chai"); it lasts as long as the session.
SELECT pg_try_advisory_lock(1986622068, 1667784041);

-- name: advisory_lock_holder
-- Who holds the writer's lock: application name, server process and address, as far as we may see them.
SELECT activity.application_name, locks.pid, host(activity.client_addr)
FROM pg_catalog.pg_locks AS locks
LEFT JOIN pg_catalog.pg_stat_activity AS activity USING (pid)
WHERE
    locks.locktype = 'advisory'
    AND locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    AND locks.classid = 1986622068
    AND locks.objid = 1667784041
    AND locks.objsubid = 2
    AND locks.granted;

-- name: create_engine_role
-- The role that the engine works as: it makes databases and the apps' roles, and is no superuser.
CREATE ROLE virtualchain LOGIN CREATEDB CREATEROLE NOSUPERUSER PASSWORD {password};

-- name: data_directory
-- The folder that the server keeps its data in (superusers only).
SELECT current_setting('data_directory');

-- name: database_exists
-- Whether the server has a database of that name.
SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %(name)s);

-- name: create_database
-- A database that belongs to the engine's role.
CREATE DATABASE {name} OWNER virtualchain;
