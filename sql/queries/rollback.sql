-- name: defer_constraints
-- Let rows be put back table by table.
SET CONSTRAINTS ALL DEFERRED;

-- name: check_constraints
-- What was put back must hold together.
SET CONSTRAINTS ALL IMMEDIATE;

-- name: truncate_ops
-- Drop accepted inputs above the fork, of one build.
DELETE FROM vc.ops WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: truncate_rejections
-- Drop refusals above the fork, of one build.
DELETE FROM vc.rejections WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: truncate_snapshots
-- Drop digests above the fork, of one build; those that the app declared stay.
DELETE FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s AND ops_hash IS NOT NULL;

-- name: truncate_state_files
-- Drop saved states above the fork, of one build.
DELETE FROM vc.state_files WHERE app = %(app)s AND build = %(build)s AND block_id > %(fork)s;

-- name: record
-- Keep what was undone, and why.
INSERT INTO vc.reorgs (fork_block_id, old_block_id, old_hash, new_block_id, new_hash, depth, blocks_undone, ops_undone,
    rows_undone, duration, cause)
VALUES (%(fork)s, %(old_block_id)s, decode(%(old_hash)s, 'hex'), %(new_block_id)s, decode(%(new_hash)s, 'hex'), %(depth)s,
    %(blocks)s, %(ops)s, %(rows)s, make_interval(secs => %(seconds)s), %(cause)s);
