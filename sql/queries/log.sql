-- name: build
-- One build of an app.
SELECT version, encode(fingerprint, 'hex') AS fingerprint, schema, is_live, first_block_id, base_block_id, history_from,
    status, error
FROM vc.apps WHERE name = %(app)s AND build = %(build)s;

-- name: epoch
-- A build's serial number and epoch, provided that it is live, or is not.
SELECT serial, epoch FROM vc.apps WHERE name = %(app)s AND build = %(build)s AND is_live = %(is_live)s;

-- name: hold
-- Whether a build is live, and its epoch; until the transaction ends, nobody swaps or drops it.
SELECT is_live, epoch FROM vc.apps WHERE name = %(app)s AND build = %(build)s FOR KEY SHARE;

-- name: keep
-- As `hold`, for whoever does not wait for the answer: it fails (VC008) if the build is gone, or has another epoch.
SELECT CASE WHEN (SELECT epoch FROM vc.apps WHERE name = %(app)s AND build = %(build)s AND is_live = %(is_live)s FOR KEY SHARE) IS DISTINCT FROM %(epoch)s
    THEN vc.refuse_build(%(app)s, %(build)s) END;

-- name: set_status
-- Set the status of a build, and the reason if it is halted; on request only if the build is live.
UPDATE vc.apps SET status = %(status)s, error = %(error)s
WHERE name = %(app)s AND build = %(build)s AND (is_live OR NOT %(if_live)s) AND (status, error) IS DISTINCT FROM (%(status)s, %(error)s::jsonb);

-- name: set_unexpected
-- Record how a build differs from the digests that are expected of it; null if it does not.
UPDATE vc.apps SET unexpected = %(unexpected)s
WHERE name = %(app)s AND build = %(build)s AND unexpected IS DISTINCT FROM %(unexpected)s::jsonb;

-- name: set_history_from
-- Record the lowest block that a build's history can restore; after a rollback it may already be pruned further.
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
-- The consensus hashes of a range of blocks, in order.
SELECT encode(consensus_hash, 'hex') FROM vc.snapshots
WHERE app = %(app)s AND build = %(build)s AND block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: consensus_hash
-- The consensus hash of one block, through a function that an app's role may call.
SELECT vc.consensus_hash(%(app)s, %(build)s, %(block_id)s);

-- name: consensus_hashes
-- The consensus hashes of a range of blocks, in order, through a function that an app's role may call.
SELECT consensus_hash FROM (
    SELECT block_id, vc.consensus_hash(%(app)s, %(build)s, block_id) AS consensus_hash
    FROM pg_catalog.generate_series(%(first)s::integer, %(last)s::integer) AS block_id) AS hashes
WHERE consensus_hash IS NOT NULL ORDER BY block_id;

-- name: is_fresh
-- Whether a consensus hash belongs to a range of blocks, through a function that an app's role may call.
SELECT vc.is_fresh(%(app)s, %(build)s, %(consensus_hash)s, %(first)s, %(last)s);

-- name: newest_blocks
-- For each of some consensus hashes the newest block up to one that has it, through a function that an app's role may call.
SELECT consensus_hash, block_id FROM vc.newest_blocks(%(app)s, %(build)s, %(hashes)s, %(last)s);

-- name: snapshot
-- An app's digests at a block.
SELECT encode(ops_hash, 'hex'), encode(consensus_hash, 'hex'), encode(state_hash, 'hex')
FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s AND block_id = %(block_id)s;

-- name: digests_at
-- An app's digests at some blocks, and the blocks' hashes as far as the tape has them.
SELECT s.block_id, encode(b.hash, 'hex'), encode(s.consensus_hash, 'hex'), encode(s.state_hash, 'hex')
FROM vc.snapshots AS s LEFT JOIN vc.blocks AS b USING (block_id)
WHERE s.app = %(app)s AND s.build = %(build)s AND s.block_id = ANY(%(block_ids)s) ORDER BY s.block_id;

-- name: add_initial
-- Record the consensus hash that an app begins with, at a block before its first.
INSERT INTO vc.snapshots (app, build, block_id, consensus_hash)
VALUES (%(app)s, %(build)s, %(block_id)s, decode(%(consensus_hash)s, 'hex'));

-- name: enter
-- Set what an app's callbacks see: its own tables first, functions that raise before built-in ones, the current block, the settings that values and literals depend on, and the app's role if it has one.
SELECT set_config('search_path', quote_ident(%(tables)s) || ', vc__shadow, pg_catalog', true),
    set_config('virtualchain.block_id', %(block_id)s::text, true), {pins},
    set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true),
    set_config('plan_cache_mode', 'force_generic_plan', true), -- a custom plan would compute some parameters early
    set_config('role', (SELECT vc.role_of(schema) FROM vc.apps
        WHERE name = %(app)s AND build = %(build)s AND own_role), true);

-- name: leave
-- After an app's callbacks, return to the engine's role and settings, allow no writes to projections until the next app enters (or, with undo, silence their triggers), and have rows looked up by their keys, because plans are kept while tables grow.
SELECT pg_catalog.set_config('role', NULL, true), pg_catalog.set_config('search_path', '', true),
    pg_catalog.set_config('virtualchain.block_id', %(block_id)s, true), {pins},
    pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('enable_hashjoin', 'off', true),
    pg_catalog.set_config('enable_mergejoin', 'off', true), pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: handle_rows
-- Before callbacks of which no statement is expected: silence the tables' triggers, and have rows looked up by their keys.
SELECT pg_catalog.set_config('virtualchain.block_id', 'undo', true),
    pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('enable_hashjoin', 'off', true),
    pg_catalog.set_config('enable_mergejoin', 'off', true), pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: deferrable
-- A constraint of a build's tables that may be deferred.
SELECT 1 FROM pg_constraint WHERE connamespace = to_regnamespace(quote_ident(%(tables)s)) AND condeferrable LIMIT 1;

-- name: refusing
-- Something for which a build's tables may refuse rows whose values fit: a constraint that is no primary key, a deferrable one, or an index that is more than a list of columns or whose entries have limits of their own.
SELECT 1 FROM pg_class AS t
WHERE t.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND t.relkind IN ('r', 'p') AND (
    EXISTS (SELECT FROM pg_constraint WHERE (conrelid = t.oid OR confrelid = t.oid) AND contype NOT IN ('p', 'n'))
    OR EXISTS (SELECT FROM pg_index WHERE indrelid = t.oid AND NOT indisprimary
        AND (indisunique OR indexprs IS NOT NULL OR indpred IS NOT NULL))
    OR EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS own ON own.oid = i.indexrelid JOIN pg_am AS m ON m.oid = own.relam
        WHERE i.indrelid = t.oid AND (NOT i.indimmediate OR m.amname NOT IN ('btree', 'hash')))
    OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.oid AND attgenerated <> ''))
LIMIT 1;

-- name: pins
-- The settings of `pin_settings` that values and literals depend on, once more: an app may have changed them.
pg_catalog.set_config('TimeZone', 'UTC', true), pg_catalog.set_config('DateStyle', 'ISO, MDY', true),
    pg_catalog.set_config('IntervalStyle', 'iso_8601', true), pg_catalog.set_config('extra_float_digits', '1', true),
    pg_catalog.set_config('bytea_output', 'hex', true), pg_catalog.set_config('standard_conforming_strings', 'on', true);

-- name: defer_constraints
-- Allow states within a block that must not remain at its end.
SET CONSTRAINTS ALL DEFERRED;

-- name: check_constraints
-- Check the deferred constraints.
SET CONSTRAINTS ALL IMMEDIATE;
