-- name: clone_database
-- A database for one test, as the template is now.
CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy;

-- name: create_database
-- An empty database for one test.
CREATE DATABASE {name} STRATEGY file_copy;

-- name: drop_database
-- Remove a test's database, whoever is still connected to it.
DROP DATABASE IF EXISTS {name} WITH (FORCE);

-- name: roles_of_database
-- The roles of the apps in a database, which outlive it.
SELECT rolname FROM pg_catalog.pg_roles
WHERE split_part(rolname, ':', 1) IN (%(name)s, left(encode(sha256(convert_to(%(name)s, 'UTF8')), 'hex'), 16));

-- name: drop_role
-- Remove a role that no database knows any more.
DROP ROLE {name};

-- name: log
-- All that two runs over the same blocks must agree on.
SELECT block_id, txid, verdict, details FROM (
    SELECT block_id, txid, 'accepted' AS verdict, concat_ws(' ', vtxindex, fields, canonical) AS details
    FROM virtualchain.ops
    UNION ALL SELECT block_id, txid, 'refused', concat(step, ': ', reason) FROM virtualchain.rejections
    UNION ALL SELECT block_id, NULL, 'digests', concat_ws(' ', ops_hash, consensus_hash, state_hash)
    FROM virtualchain.snapshots) AS log
ORDER BY block_id, txid COLLATE "C", verdict COLLATE "C";
