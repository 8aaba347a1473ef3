-- name: live_app
-- The build of an app that the views show.
SELECT version, encode(fingerprint, 'hex') AS fingerprint, schema, build FROM vc.apps WHERE name = %(app)s AND is_live;

-- name: builds
-- Every build of every app, with its last block.
SELECT a.name AS app, a.schema, a.build AS name, a.is_live, a.base_block_id, a.history_from, a.on_deep_fork, a.status,
    encode(a.fingerprint, 'hex') AS fingerprint,
    EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(concat_ws('__', a.schema, a.build)) AND relkind = 'r')
        AS keeps_tables,
    EXISTS (SELECT FROM vc.checkpoints WHERE app = a.name AND build = a.build) AS began_with_checkpoint,
    EXISTS (SELECT FROM vc.checkpoints WHERE app = a.name AND build = a.build AND NOT is_migration) AS shares_base,
    coalesce((SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build), a.base_block_id) AS block_id
FROM vc.apps AS a ORDER BY a.name COLLATE "C", a.build COLLATE "C";

-- name: schema_owner
-- The app that owns a schema.
SELECT name FROM vc.apps WHERE schema = %(schema)s;

-- name: add_build
-- Install a build of an app.
INSERT INTO vc.apps (name, version, fingerprint, schema, build, magics, rule, first_block_id, valid_window,
    confirmations, own_role, status, is_live, base_block_id, history_from, on_deep_fork)
VALUES (%(app)s, %(version)s, decode(%(fingerprint)s, 'hex'), %(schema)s, %(build)s, %(magics)s, %(rule)s,
    %(first_block_id)s, %(valid_window)s, %(confirmations)s, %(own_role)s, %(status)s, %(is_live)s, %(base_block_id)s,
    %(base_block_id)s, coalesce((SELECT on_deep_fork FROM vc.apps WHERE name = %(app)s AND is_live), 'rollback'));

-- name: set_own_role
-- Record whether an app's reducers run under a role of their own.
UPDATE vc.apps SET own_role = %(own_role)s
WHERE name = %(app)s AND build = %(build)s AND own_role <> %(own_role)s;

-- name: set_on_deep_fork
-- Set what happens to the deployment when blocks that this app has taken are replaced.
UPDATE vc.apps SET on_deep_fork = %(on_deep_fork)s WHERE name = %(app)s AND on_deep_fork <> %(on_deep_fork)s;

-- name: checkpoint
-- The checkpoint that a build started from, and the lowest block whose consensus hash enters later ones.
SELECT c.block_id, encode(c.block_hash, 'hex') AS block_hash, encode(c.consensus_hash, 'hex') AS consensus_hash,
    c.is_migration, a.first_block_id
FROM vc.checkpoints AS c JOIN vc.apps AS a ON a.name = c.app AND a.build = c.build
WHERE c.app = %(app)s AND c.build = %(build)s;

-- name: set_short_lock_timeout
-- Wait at most a second for a lock, because sessions that queue after this one wait just as long.
SELECT set_config('lock_timeout', '1s', true);

-- name: retire
-- Take the live build of this app out of use.
UPDATE vc.apps SET is_live = false, status = 'stopped', error = NULL WHERE name = %(app)s AND is_live;

-- name: make_live
-- Make this build the app's live one.
UPDATE vc.apps SET is_live = true WHERE name = %(app)s AND build = %(build)s;

-- name: drop_ops
-- Delete a build's rows from vc.ops.
DELETE FROM vc.ops WHERE app = %(app)s AND build = %(build)s;

-- name: drop_rejections
-- Delete a build's rows from vc.rejections.
DELETE FROM vc.rejections WHERE app = %(app)s AND build = %(build)s;

-- name: drop_snapshots
-- Delete a build's rows from vc.snapshots.
DELETE FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s;

-- name: drop_state_files
-- Delete a build's rows from vc.state_files.
DELETE FROM vc.state_files WHERE app = %(app)s AND build = %(build)s;

-- name: drop_checkpoints
-- Delete a build's rows from vc.checkpoints.
DELETE FROM vc.checkpoints WHERE app = %(app)s AND build = %(build)s;

-- name: drop_apps
-- Delete a build's own row.
DELETE FROM vc.apps WHERE name = %(app)s AND build = %(build)s;
