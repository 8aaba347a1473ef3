-- name: builds
-- Every build of every app, with its last block.
SELECT a.name AS app, a.schema, a.build AS name, a.serial, a.is_live, a.base_block_id, a.history_from, a.on_deep_fork, a.status,
    a.version, encode(a.fingerprint, 'hex') AS fingerprint, a.rule, encode(a.code_digest, 'hex') AS code_digest,
    coalesce(a.last_code_digest <> a.code_digest, false) AS code_changed,
    EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(concat_ws('__', a.schema, a.build)) AND relkind = 'r')
        AS keeps_tables,
    EXISTS (SELECT FROM vc.checkpoints WHERE app = a.name AND build = a.build) AS began_with_checkpoint,
    EXISTS (SELECT FROM vc.checkpoints WHERE app = a.name AND build = a.build AND NOT is_migration) AS shares_base,
    coalesce((SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build), a.base_block_id) AS block_id
FROM vc.apps AS a ORDER BY a.name COLLATE "C", a.build COLLATE "C";

-- name: declared
-- What a build's app declared, as far as it is kept beside the fingerprint.
SELECT magics, first_block_id, valid_window FROM vc.apps WHERE name = %(app)s AND build = %(build)s;

-- name: schema_owner
-- The app that owns a schema.
SELECT name FROM vc.apps WHERE schema = %(schema)s;

-- name: add_build
-- Install a build of an app.
INSERT INTO vc.apps (name, version, fingerprint, schema, build, magics, rule, first_block_id, valid_window,
    confirmations, own_role, status, is_live, base_block_id, history_from, on_deep_fork, code_digest, last_code_digest,
    tracking, tracking_from)
VALUES (%(app)s, %(version)s, decode(%(fingerprint)s, 'hex'), %(schema)s, %(build)s, %(magics)s, %(rule)s,
    %(first_block_id)s, %(valid_window)s, %(confirmations)s, %(own_role)s, %(status)s, %(is_live)s, %(base_block_id)s,
    %(base_block_id)s, coalesce((SELECT on_deep_fork FROM vc.apps WHERE name = %(app)s AND is_live), 'rollback'),
    decode(%(code_digest)s, 'hex'), decode(%(code_digest)s, 'hex'), decode(%(tracking)s, 'hex'),
    CASE WHEN %(tracking)s IS NOT NULL THEN %(base_block_id)s + 1 END);

-- name: identify
-- Record the rules and the code that run a build; the digest of the code that it began with stays.
UPDATE vc.apps SET fingerprint = decode(%(fingerprint)s, 'hex'), rule = %(rule)s,
    code_digest = coalesce(code_digest, decode(%(code_digest)s, 'hex')), last_code_digest = decode(%(code_digest)s, 'hex')
WHERE name = %(app)s AND build = %(build)s
    AND (fingerprint, rule, code_digest, last_code_digest) IS DISTINCT FROM (decode(%(fingerprint)s, 'hex'), %(rule)s,
        coalesce(code_digest, decode(%(code_digest)s, 'hex')), decode(%(code_digest)s, 'hex'));

-- name: keep_tracking
-- Record which blocks a build that tracks outputs has covered, before other code runs it, or it goes; as in `coverage`.
-- Another build that covers them, too, will record it then.
WITH covered AS (
    SELECT name, build, tracking,
        greatest(tracking_from, (SELECT until_block + 1 FROM vc.coverage WHERE magic = '' AND rule = 'pruned')) AS tracking_from,
        (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS until_block
    FROM vc.apps AS a WHERE name = %(app)s AND tracking_from = base_block_id + 1
)
INSERT INTO vc.coverage AS kept (magic, rule, from_block, until_block)
SELECT '', vc.tracking_rule(name, tracking), tracking_from, until_block
FROM covered AS own
WHERE build = %(build)s AND until_block >= tracking_from AND NOT EXISTS (
    SELECT FROM covered AS other
    WHERE other.build <> own.build AND other.tracking = own.tracking AND other.tracking_from <= own.tracking_from
        AND other.until_block >= own.until_block)
ON CONFLICT (magic, rule, from_block) DO UPDATE SET until_block = greatest(kept.until_block, EXCLUDED.until_block);

-- name: retrack
-- Record that other rules or other code decide from the next block on which outputs a build tracks.
UPDATE vc.apps SET tracking = decode(%(tracking)s, 'hex'), tracking_from = 1 + greatest(base_block_id,
    (SELECT max(block_id) FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s))
WHERE name = %(app)s AND build = %(build)s AND tracking <> decode(%(tracking)s, 'hex');

-- name: tracking
-- What decides which outputs a build tracks.
SELECT encode(tracking, 'hex') AS tracking FROM vc.apps WHERE name = %(app)s AND build = %(build)s;

-- name: rename_searches
-- Record searches by a payload rule under its new name as well; of two from one block on, the longer one counts.
INSERT INTO vc.coverage AS kept (magic, rule, from_block, until_block)
SELECT magic, %(rule)s, from_block, until_block FROM vc.coverage WHERE rule = %(former)s
ON CONFLICT (magic, rule, from_block) DO UPDATE SET until_block = CASE
    WHEN kept.until_block IS NOT NULL AND EXCLUDED.until_block IS NOT NULL THEN greatest(kept.until_block, EXCLUDED.until_block)
END;

-- name: drop_searches
-- Delete the record of all searches by a payload rule.
DELETE FROM vc.coverage WHERE rule = %(rule)s;

-- name: comments
-- The comments of tables in a schema, and of their columns.
SELECT c.relname, a.attname, CASE WHEN a.attnum IS NULL THEN obj_description(c.oid, 'pg_class') ELSE col_description(c.oid, a.attnum) END
FROM pg_class AS c
LEFT JOIN LATERAL (
    SELECT NULL::name AS attname, NULL::smallint AS attnum
    UNION ALL SELECT attname, attnum FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
) AS a ON true
WHERE c.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND c.relkind = 'r';

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

-- name: lock_builds
-- Lock all builds of an app, or of all apps, until the transaction ends: nobody else advances, swaps or drops one.
SELECT FROM vc.apps WHERE name = %(app)s OR %(app)s::text IS NULL
ORDER BY name COLLATE "C", build COLLATE "C" FOR UPDATE;

-- name: one_moment
-- Let all statements of the transaction that begins see the database at one moment.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;

-- name: retire
-- Take the live build of this app out of use.
UPDATE vc.apps SET is_live = false, epoch = DEFAULT, status = 'stopped', error = NULL WHERE name = %(app)s AND is_live;

-- name: make_live
-- Make this build the app's live one.
UPDATE vc.apps SET is_live = true, epoch = DEFAULT WHERE name = %(app)s AND build = %(build)s;

-- name: forget_code
-- Remove an app from those whose code the last writer had.
UPDATE vc.writer SET apps = array_remove(apps, %(app)s) WHERE %(app)s = ANY(apps);

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

-- name: missing_block
-- The lowest block of a range that is not on the tape, if there is one.
SELECT CASE WHEN count(*) <= %(last)s - %(first)s THEN (
    SELECT min(id) FROM generate_series(%(first)s::integer, %(last)s::integer) AS id WHERE NOT EXISTS (SELECT FROM vc.blocks AS b WHERE b.block_id = id))
END FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s;
