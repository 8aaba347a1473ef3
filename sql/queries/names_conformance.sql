-- name: digests
-- An app's digests by block.
SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots
WHERE app = %(app)s AND ops_hash IS NOT NULL ORDER BY block_id;

-- name: accepted
-- The operations that an app accepted, in order.
SELECT block_id, txindex, opcode, canonical FROM virtualchain.ops WHERE app = %(app)s ORDER BY block_id, vtxindex;

-- name: refused
-- The transactions that an app rejected, and why.
SELECT block_id, txindex, step, reason FROM virtualchain.rejections WHERE app = %(app)s ORDER BY block_id, txindex;
