-- name: has_revision
-- Whether Alembic's version table exists.
SELECT to_regclass('vc.alembic_version') IS NOT NULL;

-- name: revision
-- The revision of the schema.
SELECT version_num FROM vc.alembic_version;

-- name: has_own_revision
-- Whether the schema knows its own revision: readers may ask for it.
SELECT to_regprocedure('virtualchain.revision()') IS NOT NULL;

-- name: own_revision
-- The revision of the schema, for those who may only read views as well.
SELECT virtualchain.revision();

-- name: lock
-- Let one process migrate at a time; the others wait and then find nothing to do.
SELECT pg_advisory_xact_lock(hashtext('virtualchain migrate'));

-- name: create_schema
-- Create the schema of Alembic's version table, which Alembic expects to exist.
CREATE SCHEMA IF NOT EXISTS vc;
