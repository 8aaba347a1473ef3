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

-- name: sizes
-- About how many rows tables have: as VACUUM last estimated, or by their size if it never has.
SELECT name, CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_table_size(c.oid) / 300 END::bigint
FROM unnest(%(tables)s::text[]) AS name JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass(name);
