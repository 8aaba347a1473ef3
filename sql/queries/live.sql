-- name: listen
-- Hear of blocks and rollbacks as they are committed.
LISTEN virtualchain;

-- name: now
-- Show the present, whatever the role's or the database's own settings say, until the transaction ends.
SELECT set_config('virtualchain.as_of', '', true), set_config('statement_timeout', '0', true);

-- name: place
-- How far the chosen apps have come, and of a lagging stretch which app's history no longer tells it: above which block all of them do.
SELECT coalesce(CASE WHEN %(apps)s::text[] IS NULL THEN max(a.block_id) ELSE min(coalesce(a.block_id, -1)) END, -1) AS last,
    coalesce(max(a.history_from) FILTER (WHERE a.history_from > a.base_block_id), -1) AS pruned
FROM virtualchain.apps AS a WHERE %(apps)s::text[] IS NULL OR a.name = ANY(%(apps)s);

-- name: rollbacks
-- The last rollback, and how deep those behind another one went.
SELECT coalesce(max(reorg_id), 0) AS last, min(fork_block_id) FILTER (WHERE reorg_id > %(seen)s) AS deepest FROM virtualchain.reorgs;

-- name: hashes
-- Those of some blocks that are here, with their hashes.
SELECT block_id, hash FROM virtualchain.blocks WHERE block_id = ANY(%(block_ids)s) ORDER BY block_id;

-- name: blocks
-- A stretch of blocks.
SELECT block_id, hash, time FROM virtualchain.blocks WHERE block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: ops
-- What the chosen apps accepted in a stretch of blocks.
SELECT app, block_id, vtxindex, txindex, txid, opcode, payload, fields FROM virtualchain.ops
WHERE (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s)) AND block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id, app COLLATE "C", vtxindex;

-- name: changes
-- What a stretch of blocks did to the chosen apps' projections.
SELECT app, "table", block_id, action, key, old, new FROM virtualchain.changes
WHERE (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s)) AND block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id, app COLLATE "C", "table" COLLATE "C", key;
