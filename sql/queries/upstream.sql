-- name: deployment
-- The chain that an upstream follows, with how many confirmations it takes a block, and below which block its inputs were pruned.
SELECT network, genesis_hash, pruned_below, coalesce((SELECT confirmations FROM virtualchain.writer), 0) FROM virtualchain.deployment;

-- name: server
-- Which database this is, wherever it is reached: that of a server, which was started at some time, on its primary or a standby.
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()), oid, pg_catalog.pg_postmaster_start_time(),
    pg_catalog.pg_is_in_recovery()
FROM pg_catalog.pg_database WHERE datname = current_database();

-- name: tip
-- The last block of its tape.
SELECT block_id, hash FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1;

-- name: bottom
-- The first block of its tape.
SELECT block_id FROM virtualchain.blocks ORDER BY block_id LIMIT 1;

-- name: hash
-- The hash of a block.
SELECT hash FROM virtualchain.blocks WHERE block_id = %(block_id)s;

-- name: headers
-- The headers in a range of blocks, in order.
SELECT block_id, header FROM virtualchain.blocks WHERE block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: coverage
-- Where its tape was searched for some magics, or has what apps see that track outputs.
SELECT magic, rule, from_block, until_block FROM virtualchain.coverage
WHERE magic = ANY (%(magics)s) OR rule = ANY (%(tracking)s) ORDER BY from_block;

-- name: too_large
-- The first block of a range up to which the inputs for some apps have more bytes than allowed.
SELECT min(block_id) FROM (
    SELECT block_id, sum(octet_length(raw) + octet_length(spent)) OVER (ORDER BY block_id) AS size FROM virtualchain.inputs
    WHERE block_id BETWEEN %(first)s AND %(last)s AND (magics && %(magics)s OR tracked_by && %(apps)s)
) AS i WHERE size > %(allowed)s;

-- name: inputs
-- The inputs for some apps in a range of blocks, in chain order, with what shows that they are in their blocks.
SELECT block_id, txindex, raw, magics, spent, spent_at, branch, coinbase, coinbase_branch FROM virtualchain.inputs
WHERE block_id BETWEEN %(first)s AND %(last)s AND (magics && %(magics)s OR tracked_by && %(apps)s)
ORDER BY block_id, txindex;

-- name: listen
-- Be notified of blocks and rollbacks.
LISTEN virtualchain;
