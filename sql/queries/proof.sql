-- name: base
-- The block after which an app began: this database has its ops above it.
SELECT base_block_id FROM virtualchain.apps WHERE name = %(app)s;

-- name: ops
-- The accepted ops of a block in their order, with what of each entered the ops hash.
SELECT vtxindex, txindex, txid, canonical FROM virtualchain.ops
WHERE app = %(app)s AND block_id = %(block_id)s
ORDER BY vtxindex;

-- name: rejected
-- The candidates of a block that were parsed and then rejected, in their order: each has a vtxindex that no op has.
SELECT txid, step, reason FROM virtualchain.rejections
WHERE app = %(app)s AND block_id = %(block_id)s AND step <> 'parse'
ORDER BY txindex, payload_index;

-- name: digests
-- The digests of some blocks of an app.
SELECT block_id, ops_hash, consensus_hash FROM virtualchain.snapshots
WHERE app = %(app)s AND block_id = ANY(%(block_ids)s::integer[]);

-- name: headers
-- The headers of a stretch of the tape, in order.
SELECT block_id, header FROM virtualchain.blocks
WHERE block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id;

-- name: tip
-- The last block of the tape.
SELECT max(block_id) FROM virtualchain.blocks;
