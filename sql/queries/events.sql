-- name: listen
-- Receive a notification for each block and rollback as it is committed.
LISTEN virtualchain;

-- name: listen_for_pending
-- Receive a notification whenever pending inputs were judged again.
LISTEN virtualchain_pending;

-- name: now
-- Show the current block, whatever the settings of the role or the database, until the transaction ends.
SELECT set_config('virtualchain.as_of', '', true), set_config('statement_timeout', '0', true);

-- name: available
-- The last block of the chosen apps, and the block above which the history of all of them is complete.
SELECT coalesce(CASE WHEN %(apps)s::text[] IS NULL THEN max(a.block_id) ELSE min(coalesce(a.block_id, -1)) END, -1) AS last,
    coalesce(max(a.history_from) FILTER (WHERE a.history_from > a.base_block_id), -1) AS pruned
FROM virtualchain.apps AS a WHERE %(apps)s::text[] IS NULL OR a.name = ANY(%(apps)s);

-- name: unreadable
-- Those of the chosen apps whose views the user was not granted: their changes would be left out.
SELECT name FROM virtualchain.apps
WHERE (%(apps)s::text[] IS NULL OR name = ANY(%(apps)s)) AND NOT has_schema_privilege(schema, 'USAGE')
ORDER BY name COLLATE "C";

-- name: rollbacks
-- The last rollback, and the lowest fork among those after a given one.
SELECT coalesce(max(reorg_id), 0) AS last, min(fork_block_id) FILTER (WHERE reorg_id > %(seen)s) AS deepest FROM virtualchain.reorgs;

-- name: hashes
-- The hashes of the given blocks, if they are on the tape.
SELECT block_id, hash FROM virtualchain.blocks WHERE block_id = ANY(%(block_ids)s) ORDER BY block_id;

-- name: tip
-- The last block of the tape.
SELECT coalesce(max(block_id), -1) AS block_id FROM virtualchain.blocks;

-- name: blocks
-- A range of blocks, each with the number of the last rollback that undid a block of its height: it was taken after that.
SELECT b.block_id, b.hash, b.time,
    (SELECT coalesce(max(r.reorg_id), 0) FROM virtualchain.reorgs AS r WHERE r.fork_block_id < b.block_id) AS rollbacks
FROM virtualchain.blocks AS b WHERE b.block_id BETWEEN %(first)s AND %(last)s ORDER BY b.block_id;

-- name: place
-- A block of the tape, with the number of the last rollback that undid a block of its height.
SELECT b.block_id, b.hash AS block_hash,
    (SELECT coalesce(max(r.reorg_id), 0) FROM virtualchain.reorgs AS r WHERE r.fork_block_id < b.block_id) AS rollbacks
FROM virtualchain.blocks AS b WHERE b.block_id = %(block_id)s;

-- name: ops
-- The ops of the chosen apps in a range of blocks.
SELECT app, block_id, vtxindex, txindex, txid, opcode, payload, fields, payload_index FROM virtualchain.ops
WHERE (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s)) AND block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id, app COLLATE "C", vtxindex;

-- name: changes
-- The changes that a range of blocks made to the chosen apps' projections.
SELECT app, "table", block_id, action, key, old, new FROM virtualchain.changes
WHERE (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s)) AND block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id, app COLLATE "C", "table" COLLATE "C", key;

-- name: pending
-- The pending inputs of the chosen apps, in the order in which they were judged.
SELECT app, txid, payload_index, block_id, opcode, payload, fields, verdict, step, reason, changes, fee, vsize, seen_at
FROM virtualchain.pending WHERE %(apps)s::text[] IS NULL OR app = ANY(%(apps)s)
ORDER BY app COLLATE "C", place;
