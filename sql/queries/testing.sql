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

-- name: is_migrated
-- Whether a database has virtualchain's tables.
SELECT to_regclass('vc.apps') IS NOT NULL;

-- name: reset_settings
-- Let a database have its server's settings.
ALTER DATABASE {database} RESET ALL;

-- name: set_setting
-- Give a database a setting of its own, for sessions that begin later.
ALTER DATABASE {database} SET {setting} TO {value};

-- name: known_settings
-- Those of some settings that the server has.
SELECT name FROM pg_catalog.pg_settings WHERE name = ANY(%(names)s) ORDER BY name;

-- name: keep_quiet
-- Move rows without a trace: triggers that keep history stay quiet, and constraints are checked at the end.
SELECT set_config('virtualchain.block_id', 'undo', true);
SET CONSTRAINTS ALL DEFERRED;

-- name: shuffle
-- Store a table's rows in another order, which depends on a seed; nothing that a query may see changes.
CREATE TEMPORARY TABLE shuffled ON COMMIT DROP AS
    SELECT * FROM {table} AS t ORDER BY md5({seed} || t::text);
DELETE FROM {table};
INSERT INTO {table} SELECT * FROM shuffled;
DROP TABLE shuffled;

-- name: analyze
-- Update the planner's statistics.
ANALYZE;

-- name: verdicts
-- The verdicts and digests of the blocks above one, which must be equal on every machine that has taken the same blocks.
SELECT block_id, txid, verdict, details FROM (
    SELECT block_id, txindex, txid, 'accepted' AS verdict, concat_ws(' ', vtxindex, fields, canonical) AS details
    FROM virtualchain.ops
    UNION ALL SELECT block_id, txindex, txid, 'refused', concat(step, ': ', reason) FROM virtualchain.rejections
    UNION ALL SELECT block_id, NULL, NULL, 'digests', concat_ws(' ', ops_hash, consensus_hash, state_hash)
    FROM virtualchain.snapshots) AS log
WHERE block_id > %(above)s
ORDER BY block_id, txindex, verdict COLLATE "C";

-- name: rows_as_of
-- The rows of a projection as of a block: the key as text, and the row, with the block that wrote it, as JSON.
SELECT ROW({key})::text AS key, to_jsonb(r)::text FROM (
    SELECT {columns}, since_block FROM {table} WHERE since_block <= {block_id}
    UNION ALL
    SELECT {columns}, since_block FROM {history} WHERE since_block <= {block_id} AND until_block > {block_id}) AS r
ORDER BY ROW({key})::text COLLATE "C";

-- name: last_block
-- The last block of the tape.
SELECT max(block_id) FROM vc.blocks;

-- name: ops_of_app
-- The ops of an app, in order.
SELECT block_id, txid, opcode, fields FROM virtualchain.ops WHERE app = %(app)s ORDER BY block_id, vtxindex;

-- name: rejections_of_app
-- The rejections of an app, in order.
SELECT block_id, txid, step, reason FROM virtualchain.rejections WHERE app = %(app)s
ORDER BY block_id, txindex, payload_index;

-- name: hashes_of_app
-- The consensus hash and the state hash of an app at its last block.
SELECT consensus_hash, state_hash FROM virtualchain.snapshots WHERE app = %(app)s ORDER BY block_id DESC LIMIT 1;

-- name: rows
-- All rows of a projection, in the order of its key.
SELECT {columns} FROM {table} ORDER BY {key};

-- name: changes_of_app
-- What each block did to the rows of an app, each change as text.
SELECT jsonb_build_array(block_id, "table", key, action, old, new)::text FROM virtualchain.changes
WHERE app = %(app)s ORDER BY block_id, "table" COLLATE "C", key::text COLLATE "C", action COLLATE "C";

-- name: earlier_rows
-- The rows of a projection as they were before they were changed, each as text.
SELECT to_jsonb(h)::text FROM {history} AS h ORDER BY 1;

-- name: changes_by_block
-- What each block did to the rows of an app: the block, and the change as text.
SELECT block_id, concat("table", ' ', key, ' ', action, ' ', new) FROM virtualchain.changes
WHERE app = %(app)s ORDER BY block_id, "table" COLLATE "C", key::text COLLATE "C", action COLLATE "C";

-- name: hashes_by_block
-- The hashes of an app, by block.
SELECT block_id, consensus_hash, state_hash FROM virtualchain.snapshots WHERE app = %(app)s ORDER BY block_id;
