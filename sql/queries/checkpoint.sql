-- name: live_app
-- An app's live build, and the chain that it follows.
SELECT a.name AS app, a.version, encode(a.fingerprint, 'hex') AS fingerprint, a.schema, a.build, a.first_block_id,
    a.base_block_id, a.history_from, EXISTS (SELECT FROM vc.checkpoints AS c WHERE c.app = a.name AND c.build = a.build
        AND NOT c.is_migration AND NOT c.has_row_blocks) AS has_unknown_blocks, d.network, encode(d.genesis_hash, 'hex') AS genesis_hash,
    (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS block_id
FROM vc.apps AS a CROSS JOIN vc.deployment AS d WHERE a.name = %(app)s AND a.is_live;

-- name: digests
-- An app's digests at a block, and the block's hash: from the tape or, if that begins later, from the checkpoint that the app began with.
SELECT encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash,
    encode(coalesce((SELECT hash FROM vc.blocks AS b WHERE b.block_id = s.block_id),
        (SELECT block_hash FROM vc.checkpoints AS c WHERE c.app = s.app AND c.build = s.build AND c.block_id = s.block_id
            AND NOT c.is_migration)), 'hex') AS block_hash
FROM vc.snapshots AS s WHERE s.app = %(app)s AND s.build = %(build)s AND s.block_id = %(block_id)s;

-- name: digests_of_live
-- What a checkpoint of an app's live build at a block would say of code, block and state.
SELECT a.version, encode(a.fingerprint, 'hex'), encode(coalesce((SELECT hash FROM vc.blocks AS b WHERE b.block_id = s.block_id),
        (SELECT block_hash FROM vc.checkpoints AS c WHERE c.app = s.app AND c.build = s.build AND c.block_id = s.block_id
            AND NOT c.is_migration)), 'hex'), encode(s.consensus_hash, 'hex'), encode(s.state_hash, 'hex')
FROM vc.apps AS a JOIN vc.snapshots AS s ON s.app = a.name AND s.build = a.build
WHERE a.name = %(app)s AND a.is_live AND s.block_id = %(block_id)s;

-- name: saved_file
-- The last state file of an opaque app, up to a block.
SELECT content FROM vc.state_files WHERE app = %(app)s AND build = %(build)s AND block_id <= %(block_id)s
ORDER BY block_id DESC LIMIT 1;

-- name: copy_snapshots
-- All digests of an app up to a block.
COPY (SELECT block_id, encode(ops_hash, 'hex'), encode(consensus_hash, 'hex'), encode(state_hash, 'hex') FROM vc.snapshots
    WHERE app = {app} AND build = {build} AND block_id <= {block_id} ORDER BY block_id) TO STDOUT;

-- name: copy_rows
-- The rows of a projection as of a block, each with the block that wrote it, in the order of the state root, so that every node writes the same bytes.
COPY (SELECT {columns}, since_block FROM (
        SELECT {columns}, since_block FROM {table} WHERE since_block <= {block_id}
        UNION ALL
        SELECT {columns}, since_block FROM {history} WHERE since_block <= {block_id} AND until_block > {block_id}) AS r
    ORDER BY {order}) TO STDOUT;

-- name: scan_in_order
-- Read tables from their beginning, until the transaction ends.
SET LOCAL synchronize_seqscans = off;

-- name: copy_loaded
-- The rows of a projection, each with the block that wrote it, in the order in which they are stored.
COPY {table} ({columns}, since_block) TO STDOUT;

-- name: begin_load
-- Keep the triggers that record history quiet: rows are loaded with the block that wrote them.
SELECT set_config('virtualchain.block_id', 'undo', true);

-- name: defer_constraints
-- Check constraints only after all tables are loaded, so that their order does not matter.
SET CONSTRAINTS ALL DEFERRED;

-- name: check_constraints
-- Check the constraints of all rows that were loaded.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: end_load
-- Make projections read-only again.
SELECT set_config('virtualchain.block_id', '', true);

-- name: load_rows
-- Load rows into a projection.
COPY {table} ({columns}, since_block) FROM STDIN;

-- name: load_snapshots
-- Load digests into the log of a build.
COPY vc.snapshots (app, build, block_id, ops_hash, consensus_hash, state_hash) FROM STDIN;

-- name: set_state_number
-- Store the number that the state hash of a build's last block is the digest of.
UPDATE vc.snapshots SET state_number = %(state_number)s
WHERE app = %(app)s AND build = %(build)s AND block_id = %(block_id)s;

-- name: begin_at
-- Insert the only snapshot of an app that came from another chain: its digests there, at the block where it begins here.
INSERT INTO vc.snapshots (app, build, block_id, ops_hash, consensus_hash, state_hash)
VALUES (%(app)s, %(build)s, %(block_id)s, NULL, decode(%(consensus_hash)s, 'hex'), decode(%(state_hash)s, 'hex'));

-- name: record
-- Record the checkpoint that a build was started from.
INSERT INTO vc.checkpoints (app, build, block_id, network, block_hash, consensus_hash, state_hash, is_migration, signers,
    has_row_blocks)
VALUES (%(app)s, %(build)s, %(block_id)s, %(network)s, decode(%(block_hash)s, 'hex'), decode(%(consensus_hash)s, 'hex'),
    decode(%(state_hash)s, 'hex'), %(is_migration)s, %(signers)s, true);
