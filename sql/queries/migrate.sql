-- name: has_revision
-- Whether the table that alembic keeps its revision in exists.
SELECT to_regclass('vc.alembic_version') IS NOT NULL;

-- name: revision
-- The revision that the schema is at.
SELECT version_num FROM vc.alembic_version;

-- name: lock
-- One process migrates at a time; others wait and find nothing left to do.
SELECT pg_advisory_xact_lock(hashtext('virtualchain migrate'));

-- name: create_schema
-- The schema that alembic's own table lies in must be there before alembic looks.
CREATE SCHEMA IF NOT EXISTS vc;
