-- name: clone_database
-- Create a database for one test, as a copy of the template.
CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy;

-- name: create_database
-- Create an empty database for one test, with the locale C, whatever the server's own is.
CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE 'C' STRATEGY file_copy;

-- name: drop_database
-- Drop a test's database even if clients are connected to it.
DROP DATABASE IF EXISTS {name} WITH (FORCE);

-- name: roles_of_database
-- The roles of the apps in a database, which outlive the database.
SELECT rolname FROM pg_catalog.pg_roles
WHERE split_part(rolname, ':', 1) IN (%(name)s, left(encode(sha256(convert_to(%(name)s, 'UTF8')), 'hex'), 16));

-- name: drop_role
-- Drop a role that no database uses any longer.
DROP ROLE {name};

-- name: log
-- Everything that must be equal in two runs over the same blocks.
SELECT block_id, txid, verdict, details FROM (
    SELECT block_id, txid, 'accepted' AS verdict, concat_ws(' ', vtxindex, fields, canonical) AS details
    FROM virtualchain.ops
    UNION ALL SELECT block_id, txid, 'refused', concat(step, ': ', reason) FROM virtualchain.rejections
    UNION ALL SELECT block_id, NULL, 'digests', concat_ws(' ', ops_hash, consensus_hash, state_hash)
    FROM virtualchain.snapshots) AS log
ORDER BY block_id, txid COLLATE "C", verdict COLLATE "C";
