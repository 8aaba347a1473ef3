-- name: build
-- One build of an app.
SELECT version, encode(fingerprint, 'hex') AS fingerprint, schema, is_live, first_block_id, base_block_id, history_from,
    status, error
FROM vc.apps WHERE name = %(app)s AND build = %(build)s;

-- name: set_status
-- Say how a build of an app fares, and why where it is halted.
UPDATE vc.apps SET status = %(status)s, error = %(error)s
WHERE name = %(app)s AND build = %(build)s AND (status, error) IS DISTINCT FROM (%(status)s, %(error)s::jsonb);

-- name: set_history_from
-- Say from which block on the history of a build is kept; behind a rollback it may have been pruned further already.
UPDATE vc.apps SET history_from = %(history_from)s
WHERE name = %(app)s AND build = %(build)s AND history_from < %(history_from)s;

-- name: cursor
-- The last block that a build was advanced to.
SELECT block_id FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s ORDER BY block_id DESC LIMIT 1;

-- name: state_number
-- The number under the state hash as of a build's last block.
SELECT state_number FROM vc.snapshots
WHERE app = %(app)s AND build = %(build)s AND state_number IS NOT NULL ORDER BY block_id DESC LIMIT 1;

-- name: consensus_at
-- The consensus hashes of some blocks.
SELECT block_id, encode(consensus_hash, 'hex') FROM vc.snapshots
WHERE app = %(app)s AND build = %(build)s AND block_id = ANY(%(block_ids)s);

-- name: consensus_between
-- The consensus hashes of a stretch of blocks, in order.
SELECT encode(consensus_hash, 'hex') FROM vc.snapshots
WHERE app = %(app)s AND build = %(build)s AND block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: consensus_hash
-- The consensus hash of one block, as an app's role may ask for it.
SELECT vc.consensus_hash(%(app)s, %(build)s, %(block_id)s);

-- name: is_fresh
-- Whether a consensus hash is one of a stretch of blocks, as an app's role may ask.
SELECT vc.is_fresh(%(app)s, %(build)s, %(consensus_hash)s, %(first)s, %(last)s);

-- name: snapshot
-- An app's digests at a block.
SELECT encode(ops_hash, 'hex'), encode(consensus_hash, 'hex'), encode(state_hash, 'hex')
FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s AND block_id = %(block_id)s;

-- name: add_snapshot
-- An app's digests at a block; with it the app stands there.
INSERT INTO vc.snapshots (app, build, block_id, ops_hash, consensus_hash, state_hash, state_number)
VALUES (%(app)s, %(build)s, %(block_id)s, decode(%(ops_hash)s, 'hex'), decode(%(consensus_hash)s, 'hex'),
    decode(%(state_hash)s, 'hex'), %(state_number)s);

-- name: add_op
-- Append an accepted input to the log.
INSERT INTO vc.ops (app, build, block_id, vtxindex, txindex, opcode, payload, fields, canonical)
VALUES (%(app)s, %(build)s, %(block_id)s, %(vtxindex)s, %(txindex)s, %(opcode)s, %(payload)s, %(fields)s, %(canonical)s);

-- name: add_rejection
-- Record a refused candidate.
INSERT INTO vc.rejections (app, build, block_id, txindex, opcode, step, reason)
VALUES (%(app)s, %(build)s, %(block_id)s, %(txindex)s, %(opcode)s, %(step)s, %(reason)s);

-- name: enter
-- What an app's callbacks see of the database: its own tables first, and its block; and whom they are, if the app has a role.
SELECT set_config('search_path', quote_ident(%(tables)s), true),
    set_config('virtualchain.block_id', %(block_id)s::text, true),
    set_config('role', (SELECT vc.role_of(schema) FROM vc.apps
        WHERE name = %(app)s AND build = %(build)s AND own_role), true);

-- name: leave
-- Behind an app's callbacks: we are ourselves again, and nothing writes to a projection until the next app enters.
SELECT set_config('role', NULL, true), set_config('search_path', '', true), set_config('virtualchain.block_id', '', true);

-- name: defer_constraints
-- Let a block pass through states that its end must not show.
SET CONSTRAINTS ALL DEFERRED;

-- name: check_constraints
-- Judge what was deferred.
SET CONSTRAINTS ALL IMMEDIATE;
