-- name: deployment
-- The chain that this database follows.
SELECT network, encode(genesis_hash, 'hex') AS genesis_hash FROM vc.deployment;

-- name: set_deployment
-- Bind an empty deployment to its chain; a second call changes no more than how that writes its addresses.
INSERT INTO vc.deployment AS d (network, genesis_hash, address_form)
VALUES (%(network)s, decode(%(genesis_hash)s, 'hex'), %(address_form)s)
ON CONFLICT (singleton) DO UPDATE SET address_form = excluded.address_form
WHERE d.network = excluded.network AND d.address_form IS DISTINCT FROM excluded.address_form;

-- name: tip
-- The last block of the tape.
SELECT block_id, header FROM vc.blocks ORDER BY block_id DESC LIMIT 1;

-- name: bottom
-- The first block of the tape.
SELECT block_id, header FROM vc.blocks ORDER BY block_id LIMIT 1;

-- name: blocks
-- A range of blocks of the tape, in order.
SELECT block_id, header FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: hashes_at
-- The hashes of the blocks of the tape at some heights.
SELECT block_id, encode(hash, 'hex') FROM vc.blocks WHERE block_id = ANY (%(heights)s);

-- name: work_above
-- The work of all blocks above one.
SELECT tip.chainwork - block.chainwork
FROM (SELECT chainwork FROM vc.blocks ORDER BY block_id DESC LIMIT 1) AS tip, vc.blocks AS block
WHERE block.block_id = %(block_id)s;

-- name: prepend_block
-- Put a block in front of the first one; its chainwork counts backward.
INSERT INTO vc.blocks (block_id, hash, prev_hash, header, time, chainwork)
SELECT %(block_id)s, decode(%(hash)s, 'hex'), decode(%(prev_hash)s, 'hex'), %(header)s, to_timestamp(%(time)s),
    (SELECT chainwork FROM vc.blocks WHERE block_id = %(block_id)s + 1) - %(child_work)s;

-- name: inputs
-- The inputs in a range of blocks that carry one of these magics, or that an app's tracking asked for, in chain order.
SELECT block_id, txindex, encode(txid, 'hex') AS txid, raw, magics, spent, fee, evidence, spent_at,
    coalesce(tracked_by, '{}') AS tracked_by, (SELECT network FROM vc.deployment) AS network
FROM vc.inputs
WHERE block_id BETWEEN %(first)s AND %(last)s AND (magics && %(magics)s OR %(app)s = ANY (tracked_by))
ORDER BY block_id, txindex;

-- name: too_large
-- The first block of a range up to which the inputs may take more memory than allowed: a transaction's JSON has at
-- most 12 bytes for each of its own, and two for each of the scripts that it spends.
SELECT min(block_id) FROM (
    SELECT block_id, sum(12 * octet_length(raw) + 2 * octet_length(spent)) OVER (ORDER BY block_id) AS size
    FROM vc.inputs
    WHERE block_id BETWEEN %(first)s AND %(last)s AND (magics && %(magics)s OR %(app)s = ANY (tracked_by))
) AS i WHERE size > %(allowed)s;

-- name: coverage
-- The searched ranges; an open end means up to the tape's tip. A build that tracks outputs has what they are spent by up to its cursor;
-- but not if other rules or other code made the state that it began to track with: by its own, other outputs would have been tracked.
-- What was pruned counts as not searched.
SELECT magic, rule, from_block, until_block FROM virtualchain.coverage ORDER BY magic, rule, from_block;

-- name: pruned
-- The last block of which inputs were pruned.
SELECT until_block FROM vc.coverage WHERE magic = '' AND rule = 'pruned';

-- name: prune_part
-- Up to which block inputs can be pruned at once from a block on, so that they are few; at least that block.
SELECT coalesce((SELECT greatest(block_id - 1, %(first)s) FROM vc.inputs
    WHERE block_id BETWEEN %(first)s AND %(last)s AND raw IS NOT NULL
    ORDER BY block_id, txindex OFFSET %(most)s LIMIT 1), %(last)s);

-- name: count_prunable
-- How many inputs of a range of blocks can be pruned, and how many bytes they take with their coinbases.
SELECT count(*), coalesce(sum(pg_column_size(raw) + pg_column_size(spent) + coalesce(pg_column_size(spent_at), 0)
        + coalesce(pg_column_size(branch), 0)), 0)
    + (SELECT coalesce(sum(pg_column_size(coinbase) + pg_column_size(branch)), 0) FROM vc.coinbases WHERE block_id BETWEEN %(first)s AND %(last)s)
FROM vc.inputs WHERE block_id BETWEEN %(first)s AND %(last)s AND raw IS NOT NULL;

-- name: prune_inputs
-- Drop what is large of the inputs in a range of blocks: they keep their place, id, magics and fee.
UPDATE vc.inputs SET raw = NULL, spent = NULL, unusual_keys = '{}', spent_at = NULL, branch = NULL
WHERE block_id BETWEEN %(first)s AND %(last)s AND raw IS NOT NULL;

-- name: prune_coinbases
-- Drop the coinbases of a range of blocks: there is no branch left that they belong to.
DELETE FROM vc.coinbases WHERE block_id BETWEEN %(first)s AND %(last)s;

-- name: forget_pruned_searches
-- Delete searches that ended within what is pruned, and of several that begin there the shorter ones.
DELETE FROM vc.coverage AS c WHERE from_block <= %(last)s AND rule <> 'pruned' AND (until_block <= %(last)s OR EXISTS (
    SELECT FROM vc.coverage AS other
    WHERE (other.magic, other.rule) = (c.magic, c.rule) AND other.from_block <= %(last)s
        AND (coalesce(other.until_block, 2147483647), c.from_block) > (coalesce(c.until_block, 2147483647), other.from_block)));

-- name: begin_searches_later
-- Let searches begin after what is pruned.
UPDATE vc.coverage SET from_block = %(last)s + 1 WHERE from_block <= %(last)s AND rule <> 'pruned';

-- name: lengthen_pruned
-- Record that inputs are pruned up to a block.
UPDATE vc.coverage SET until_block = greatest(until_block, %(last)s) WHERE magic = '' AND rule = 'pruned';

-- name: vacuum
-- Make room of the rows that pruning has replaced, for its next ones and for new inputs.
VACUUM vc.inputs, vc.coinbases;

-- name: begin_pruned
-- Record that inputs are pruned, for the first time.
INSERT INTO vc.coverage (magic, rule, from_block, until_block)
SELECT '', 'pruned', min(block_id), %(last)s FROM vc.blocks;

-- name: open_coverage
-- Record that from this block on, a search covers every new block.
INSERT INTO vc.coverage (magic, rule, from_block) VALUES (%(magic)s, %(rule)s, %(from_block)s);

-- name: close_coverage
-- Record that a search ended with this block.
UPDATE vc.coverage SET until_block = %(until_block)s
WHERE magic = %(magic)s AND rule = %(rule)s AND until_block IS NULL AND from_block <= %(until_block)s;

-- name: forget_coverage
-- Delete the record of a search that never saw a block.
DELETE FROM vc.coverage
WHERE magic = %(magic)s AND rule = %(rule)s AND until_block IS NULL AND from_block > %(until_block)s;

-- name: extend_coverage
-- Extend a search that ended right before this range.
UPDATE vc.coverage SET until_block = %(last)s
WHERE magic = %(magic)s AND rule = %(rule)s AND until_block = %(first)s - 1;

-- name: precede_coverage
-- Extend a search that began right after this range.
UPDATE vc.coverage SET from_block = %(first)s
WHERE magic = %(magic)s AND rule = %(rule)s AND from_block = %(last)s + 1;

-- name: add_coverage
-- Record a range that was searched.
INSERT INTO vc.coverage (magic, rule, from_block, until_block)
VALUES (%(magic)s, %(rule)s, %(first)s, %(last)s);

-- name: forget_searches
-- Delete the record of every search, for a tape without blocks.
DELETE FROM vc.coverage;

-- name: set_durable
-- Set whether a commit waits until it is on disk; it always does if it is to wait for a standby.
SELECT set_config(
    'synchronous_commit',
    CASE WHEN current_setting('synchronous_standby_names') = '' THEN %(setting)s ELSE 'on' END, false);

-- name: flush
-- Write a record to the WAL: the commit then waits for the disk, and so for all commits before it. A transaction that writes none does not wait.
SELECT pg_logical_emit_message(true, 'virtualchain', 'flush');

-- name: hold_block
-- Whether a block is on the tape; if so, it stays there until this transaction ends.
SELECT FROM vc.blocks WHERE block_id = %(block_id)s AND hash = decode(%(hash)s, 'hex') FOR KEY SHARE;

-- name: claim_blocks
-- Wait for other transactions that hold a block above the fork.
SELECT FROM vc.blocks WHERE block_id > %(fork)s FOR UPDATE;

-- name: truncate_inputs
-- Delete the inputs above the fork.
DELETE FROM vc.inputs WHERE block_id > %(fork)s;

-- name: truncate_coinbases
-- Delete the coinbases above the fork.
DELETE FROM vc.coinbases WHERE block_id > %(fork)s;

-- name: truncate_blocks
-- Delete the blocks above the fork.
DELETE FROM vc.blocks WHERE block_id > %(fork)s;

-- name: truncate_searches
-- Delete closed searches that cover only blocks above the fork.
DELETE FROM vc.coverage WHERE from_block > %(fork)s AND until_block IS NOT NULL;

-- name: shorten_searches
-- Let closed searches that end above the fork end at it.
UPDATE vc.coverage SET until_block = %(fork)s WHERE until_block > %(fork)s;

-- name: advance_searches
-- Let open searches that began above the fork begin with the next block.
UPDATE vc.coverage SET from_block = %(fork)s + 1 WHERE from_block > %(fork)s;

-- name: pins
-- The blocks that the followed chain must contain.
SELECT block_id, encode(hash, 'hex') FROM vc.pins ORDER BY block_id;

-- name: pin
-- Require a block in the followed chain.
INSERT INTO vc.pins (block_id, hash) VALUES (%(block_id)s, decode(%(hash)s, 'hex'))
ON CONFLICT (block_id) DO UPDATE SET hash = EXCLUDED.hash;

-- name: unpin
-- Remove the requirement at a height.
DELETE FROM vc.pins WHERE block_id = %(block_id)s;
