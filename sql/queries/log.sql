-- name: app
-- One app of the deployment.
SELECT name, version, encode(fingerprint, 'hex') AS fingerprint, schema, build, own_role, status, error
FROM vc.apps WHERE name = %(name)s;

-- name: schema_owner
-- The app that has a schema.
SELECT name FROM vc.apps WHERE schema = %(schema)s;

-- name: add_app
-- Install an app.
INSERT INTO vc.apps (name, version, fingerprint, schema, build, magics, rule, first_block_id, valid_window,
    confirmations, own_role, status)
VALUES (%(name)s, %(version)s, decode(%(fingerprint)s, 'hex'), %(schema)s, %(build)s, %(magics)s, %(rule)s,
    %(first_block_id)s, %(valid_window)s, %(confirmations)s, %(own_role)s, 'running');

-- name: set_own_role
-- Say whether an app's reducers run under a role of their own.
UPDATE vc.apps SET own_role = %(own_role)s WHERE name = %(name)s AND own_role <> %(own_role)s;

-- name: set_status
-- Say how an app fares, and why where it is halted.
UPDATE vc.apps SET status = %(status)s, error = %(error)s
WHERE name = %(name)s AND (status, error) IS DISTINCT FROM (%(status)s, %(error)s::jsonb);

-- name: cursor
-- The last block that an app was advanced to.
SELECT block_id FROM vc.snapshots WHERE app = %(app)s ORDER BY block_id DESC LIMIT 1;

-- name: state_number
-- The number under the state hash as of the app's last block.
SELECT state_number FROM vc.snapshots
WHERE app = %(app)s AND state_number IS NOT NULL ORDER BY block_id DESC LIMIT 1;

-- name: consensus_at
-- The consensus hashes of some blocks.
SELECT block_id, encode(consensus_hash, 'hex') FROM vc.snapshots
WHERE app = %(app)s AND block_id = ANY(%(block_ids)s);

-- name: consensus_between
-- The consensus hashes of a stretch of blocks, in order.
SELECT encode(consensus_hash, 'hex') FROM vc.snapshots
WHERE app = %(app)s AND block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: consensus_hash
-- The consensus hash of one block, as an app's role may ask for it.
SELECT vc.consensus_hash(%(app)s, %(block_id)s);

-- name: is_fresh
-- Whether a consensus hash is one of a stretch of blocks, as an app's role may ask.
SELECT vc.is_fresh(%(app)s, %(consensus_hash)s, %(first)s, %(last)s);

-- name: snapshot
-- An app's digests at a block.
SELECT encode(ops_hash, 'hex'), encode(consensus_hash, 'hex'), encode(state_hash, 'hex')
FROM vc.snapshots WHERE app = %(app)s AND block_id = %(block_id)s;

-- name: add_snapshot
-- An app's digests at a block; with it the app stands there.
INSERT INTO vc.snapshots (app, block_id, ops_hash, consensus_hash, state_hash, state_number)
VALUES (%(app)s, %(block_id)s, decode(%(ops_hash)s, 'hex'), decode(%(consensus_hash)s, 'hex'),
    decode(%(state_hash)s, 'hex'), %(state_number)s);

-- name: add_op
-- Append an accepted input to the log.
INSERT INTO vc.ops (app, block_id, vtxindex, txindex, opcode, payload, fields, canonical)
VALUES (%(app)s, %(block_id)s, %(vtxindex)s, %(txindex)s, %(opcode)s, %(payload)s, %(fields)s, %(canonical)s);

-- name: add_rejection
-- Record a refused candidate.
INSERT INTO vc.rejections (app, block_id, txindex, opcode, step, reason)
VALUES (%(app)s, %(block_id)s, %(txindex)s, %(opcode)s, %(step)s, %(reason)s);

-- name: enter
-- What an app's callbacks see of the database: its own tables first, and its block; and whom they are, if the app has a role.
SELECT set_config('search_path', quote_ident(%(build)s), true),
    set_config('virtualchain.block_id', %(block_id)s::text, true),
    set_config('role', (SELECT vc.role_of(schema) FROM vc.apps WHERE name = %(app)s AND own_role), true);

-- name: leave
-- Behind an app's callbacks: we are ourselves again, and nothing writes to a projection until the next app enters.
SELECT set_config('role', NULL, true), set_config('search_path', '', true), set_config('virtualchain.block_id', '', true);

-- name: defer_constraints
-- Let a block pass through states that its end must not show.
SET CONSTRAINTS ALL DEFERRED;

-- name: check_constraints
-- Judge what was deferred.
SET CONSTRAINTS ALL IMMEDIATE;
