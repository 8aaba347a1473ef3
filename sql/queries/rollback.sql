-- name: defer_constraints
-- Allow rows to be put back one table after the other.
SET CONSTRAINTS ALL DEFERRED;

-- name: check_constraints
-- Check the constraints on what was put back.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: truncate_ops
-- Delete one build's ops above the fork.
DELETE FROM vc.ops WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: truncate_rejections
-- Delete one build's rejections above the fork.
DELETE FROM vc.rejections WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: truncate_snapshots
-- Delete one build's digests above the fork; initial snapshots, which the app declared, stay.
DELETE FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s AND ops_hash IS NOT NULL;

-- name: truncate_state_files
-- Delete one build's saved states above the fork.
DELETE FROM vc.state_files WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: lower_tracking
-- Let what one build has taken by its present rules and code begin right above the fork, if it began later, but not before its first block.
UPDATE vc.apps SET tracking_from = 1 + greatest(base_block_id, %(fork)s)
WHERE name = %(app)s AND build = %(build)s AND tracking_from > 1 + greatest(base_block_id, %(fork)s);

-- name: forget_unexpected
-- Forget what differed from expected digests of one build if its block is undone.
UPDATE vc.apps SET unexpected = NULL
WHERE name = %(app)s AND build = %(build)s AND (unexpected ->> 'block_id')::integer > %(fork)s;

-- name: count_ops
-- How many ops above the fork one build has.
SELECT count(*) FROM vc.ops WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: count_rows
-- How many rows of a projection have to go, and how many have to come back, until it is as another build's is at the fork.
SELECT removed + ((SELECT count(*) FROM {new} WHERE since_block <= {fork}) - (total - removed))
FROM (SELECT count(*) AS total, count(*) FILTER (WHERE since_block > {fork}) AS removed FROM {old}) AS counted;

-- name: record
-- Record what was undone, and why.
INSERT INTO vc.reorgs (fork_block_id, old_block_id, old_hash, new_block_id, new_hash, depth, blocks_undone, ops_undone,
    rows_undone, duration, cause)
VALUES (%(fork)s, %(old_block_id)s, decode(%(old_hash)s, 'hex'), %(new_block_id)s, decode(%(new_hash)s, 'hex'), %(depth)s,
    %(blocks)s, %(ops)s, %(rows)s, make_interval(secs => %(seconds)s), %(cause)s);
