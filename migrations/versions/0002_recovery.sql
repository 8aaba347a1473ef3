-- Apps have builds, one of which is live; a build knows how far back it can go.
ALTER TABLE vc.apps DROP CONSTRAINT apps_pkey, DROP CONSTRAINT apps_schema_key;
ALTER TABLE vc.apps ADD COLUMN is_live boolean NOT NULL DEFAULT true,
    ADD COLUMN base_block_id integer CHECK (base_block_id >= -1),
    ADD COLUMN history_from integer CHECK (history_from >= base_block_id),
    ADD COLUMN on_deep_fork text NOT NULL DEFAULT 'rollback' CHECK (on_deep_fork IN ('rollback', 'checkpoint', 'halt'));
UPDATE vc.apps SET base_block_id = greatest(first_block_id - 1,
    (SELECT max(block_id) FROM vc.snapshots WHERE app = name AND ops_hash IS NULL));
UPDATE vc.apps SET history_from = base_block_id;
ALTER TABLE vc.apps ALTER COLUMN is_live DROP DEFAULT, ALTER COLUMN on_deep_fork DROP DEFAULT,
    ALTER COLUMN base_block_id SET NOT NULL, ALTER COLUMN history_from SET NOT NULL, ADD PRIMARY KEY (name, build);
CREATE UNIQUE INDEX apps_live ON vc.apps (name) WHERE is_live;
CREATE UNIQUE INDEX apps_schema ON vc.apps (schema) WHERE is_live;
COMMENT ON TABLE vc.apps IS 'The apps of this deployment, a row for each build. The cursor of a build is its last row in vc.snapshots.';
COMMENT ON COLUMN vc.apps.build IS 'Name of the build: its tables are in a schema of their own, and its rows of the log carry it.';
COMMENT ON COLUMN vc.apps.is_live IS 'Whether the views show this build; one build of each app is live.';
COMMENT ON COLUMN vc.apps.base_block_id IS 'The block behind which it began: the one before its first, or that of its checkpoint. Nothing goes back below it.';
COMMENT ON COLUMN vc.apps.history_from IS 'The lowest block that its history can bring back; older history is pruned.';
COMMENT ON COLUMN vc.apps.on_deep_fork IS 'What happens when blocks that it has taken are replaced: rollback, checkpoint (stop, and go on from an accepted checkpoint only) or halt.';

-- The log is kept by build.
ALTER TABLE vc.ops DROP CONSTRAINT ops_pkey;
ALTER TABLE vc.ops ADD COLUMN build text NOT NULL DEFAULT '1';
ALTER TABLE vc.ops ALTER COLUMN build DROP DEFAULT, ADD PRIMARY KEY (app, build, block_id, vtxindex);
COMMENT ON COLUMN vc.ops.build IS 'The build of the app that accepted it.';
ALTER TABLE vc.rejections DROP CONSTRAINT rejections_pkey;
ALTER TABLE vc.rejections ADD COLUMN build text NOT NULL DEFAULT '1';
ALTER TABLE vc.rejections ALTER COLUMN build DROP DEFAULT, ADD PRIMARY KEY (app, build, block_id, txindex);
COMMENT ON COLUMN vc.rejections.build IS 'The build of the app that refused it.';
ALTER TABLE vc.snapshots DROP CONSTRAINT snapshots_pkey;
ALTER TABLE vc.snapshots ADD COLUMN build text NOT NULL DEFAULT '1';
ALTER TABLE vc.snapshots ALTER COLUMN build DROP DEFAULT, ADD PRIMARY KEY (app, build, block_id);
COMMENT ON COLUMN vc.snapshots.build IS 'The build of the app.';
ALTER TABLE vc.state_files DROP CONSTRAINT state_files_pkey;
ALTER TABLE vc.state_files ADD COLUMN build text NOT NULL DEFAULT '1';
ALTER TABLE vc.state_files ALTER COLUMN build DROP DEFAULT, ADD PRIMARY KEY (app, build, block_id);
COMMENT ON COLUMN vc.state_files.build IS 'The build of the app.';
DROP INDEX vc.snapshots_state_number;
CREATE INDEX snapshots_state_number ON vc.snapshots (app, build, block_id) WHERE state_number IS NOT NULL;

-- Reorgs tell why, and of rollbacks without a new branch.
ALTER TABLE vc.reorgs ALTER COLUMN new_block_id DROP NOT NULL, ALTER COLUMN new_hash DROP NOT NULL,
    ADD COLUMN cause text NOT NULL CHECK (cause IN ('work', 'invalid', 'pin', 'operator')),
    ADD COLUMN rows_undone bigint NOT NULL;
COMMENT ON TABLE vc.reorgs IS 'Every rollback: of a deep fork, or by the operator.';
COMMENT ON COLUMN vc.reorgs.new_block_id IS 'Height of the node''s tip at that time; null where the node had no block above the fork, or was not asked.';
COMMENT ON COLUMN vc.reorgs.new_hash IS 'Hash of the node''s tip at that time; null as its height.';
COMMENT ON COLUMN vc.reorgs.cause IS 'work: the node''s branch has more; invalid: the node calls ours invalid; pin: ours lacks a pinned block; operator: rolled back by hand.';
COMMENT ON COLUMN vc.reorgs.rows_undone IS 'How many rows of projections were removed or put back.';

CREATE TABLE vc.pins (
    block_id integer PRIMARY KEY CHECK (block_id >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE vc.pins IS 'Blocks that the followed chain must hold.';
COMMENT ON COLUMN vc.pins.block_id IS 'Height of the block.';
COMMENT ON COLUMN vc.pins.hash IS 'Hash of the block, in display order.';

CREATE TABLE vc.checkpoints (
    app text NOT NULL,
    build text NOT NULL,
    block_id integer NOT NULL CHECK (block_id >= 0),
    network text NOT NULL,
    block_hash bytea NOT NULL CHECK (octet_length(block_hash) = 32),
    consensus_hash bytea NOT NULL CHECK (octet_length(consensus_hash) = 16),
    state_hash bytea NOT NULL CHECK (octet_length(state_hash) = 32),
    is_migration boolean NOT NULL,
    signers text[] NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (app, build)
);
COMMENT ON TABLE vc.checkpoints IS 'The checkpoints that builds of apps were started from.';
COMMENT ON COLUMN vc.checkpoints.app IS 'Name of the app.';
COMMENT ON COLUMN vc.checkpoints.build IS 'The build that was started from it.';
COMMENT ON COLUMN vc.checkpoints.block_id IS 'The block that it shows; processing began behind it.';
COMMENT ON COLUMN vc.checkpoints.network IS 'The network that it was made on.';
COMMENT ON COLUMN vc.checkpoints.block_hash IS 'Hash of its block, in display order.';
COMMENT ON COLUMN vc.checkpoints.consensus_hash IS 'The app''s consensus hash at its block.';
COMMENT ON COLUMN vc.checkpoints.state_hash IS 'The app''s state hash at its block.';
COMMENT ON COLUMN vc.checkpoints.is_migration IS 'Whether it came from another chain than the one that this database follows.';
COMMENT ON COLUMN vc.checkpoints.signers IS 'The public keys whose signatures held, hex.';
COMMENT ON COLUMN vc.checkpoints.applied_at IS 'When it was applied, by the clock of the database.';

DROP FUNCTION vc.consensus_hash(text, integer);
DROP FUNCTION vc.is_fresh(text, text, integer, integer);
CREATE FUNCTION vc.consensus_hash(app text, build text, block_id integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
RETURN (SELECT encode(s.consensus_hash, 'hex') FROM vc.snapshots AS s
    WHERE s.app = consensus_hash.app AND s.build = consensus_hash.build AND s.block_id = consensus_hash.block_id);
COMMENT ON FUNCTION vc.consensus_hash(text, text, integer) IS 'The consensus hash of a build of an app at a block, for reducers: their role reads no table of the log.';

CREATE FUNCTION vc.is_fresh(app text, build text, consensus_hash text, first integer, last integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
RETURN EXISTS (SELECT FROM vc.snapshots AS s
    WHERE s.app = is_fresh.app AND s.build = is_fresh.build AND s.block_id BETWEEN first AND last
        AND s.consensus_hash = decode(is_fresh.consensus_hash, 'hex'));
COMMENT ON FUNCTION vc.is_fresh(text, text, text, integer, integer) IS 'Whether a consensus hash is that of a build of an app at one of a stretch of blocks, for reducers.';

CREATE OR REPLACE VIEW virtualchain.ops AS
SELECT o.app, o.block_id, encode(b.hash, 'hex') AS block_hash, b.time, o.txindex, o.vtxindex,
    encode(i.txid, 'hex') AS txid, o.opcode, o.payload, o.fields, o.canonical
FROM vc.ops AS o
JOIN vc.apps AS a ON a.name = o.app AND a.build = o.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
JOIN vc.blocks AS b USING (block_id);
CREATE OR REPLACE VIEW virtualchain.rejections AS
SELECT r.app, r.block_id, r.txindex, encode(i.txid, 'hex') AS txid, r.opcode, r.step, r.reason
FROM vc.rejections AS r
JOIN vc.apps AS a ON a.name = r.app AND a.build = r.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex);
CREATE OR REPLACE VIEW virtualchain.snapshots AS
SELECT s.app, s.block_id, encode(b.hash, 'hex') AS block_hash, encode(s.ops_hash, 'hex') AS ops_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash
FROM vc.snapshots AS s
JOIN vc.apps AS a ON a.name = s.app AND a.build = s.build AND a.is_live
LEFT JOIN vc.blocks AS b USING (block_id);
CREATE OR REPLACE VIEW virtualchain.apps AS
SELECT a.name, a.version, a.schema, a.build, a.magics, a.rule, a.first_block_id, a.valid_window, a.confirmations,
    CASE WHEN a.own_role THEN vc.role_of(a.schema) END AS role, a.status, a.error, s.block_id, encode(b.hash, 'hex') AS block_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash,
    a.base_block_id, a.history_from, a.on_deep_fork
FROM vc.apps AS a
LEFT JOIN LATERAL (
    SELECT block_id, consensus_hash, state_hash FROM vc.snapshots
    WHERE app = a.name AND build = a.build ORDER BY block_id DESC LIMIT 1
) AS s ON true
LEFT JOIN vc.blocks AS b USING (block_id)
WHERE a.is_live;
CREATE OR REPLACE VIEW virtualchain.reorgs AS
SELECT reorg_id, detected_at, fork_block_id, old_block_id, encode(old_hash, 'hex') AS old_hash,
    new_block_id, encode(new_hash, 'hex') AS new_hash, depth, blocks_undone, ops_undone, duration, cause, rows_undone
FROM vc.reorgs;
COMMENT ON COLUMN virtualchain.apps.base_block_id IS 'The block behind which it began: the one before its first, or that of its checkpoint.';
COMMENT ON COLUMN virtualchain.apps.history_from IS 'The lowest block that its history still shows.';
COMMENT ON COLUMN virtualchain.apps.on_deep_fork IS 'What happens when blocks that it has taken are replaced: rollback, checkpoint or halt.';
COMMENT ON VIEW virtualchain.reorgs IS 'Every rollback: of a deep fork, or by the operator.';
COMMENT ON COLUMN virtualchain.reorgs.cause IS 'work, invalid, pin or operator: why blocks were undone.';
COMMENT ON COLUMN virtualchain.reorgs.rows_undone IS 'How many rows of projections were removed or put back.';

CREATE VIEW virtualchain.builds AS
SELECT a.name AS app, a.build, a.is_live, a.version, a.status,
    (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS block_id
FROM vc.apps AS a;
COMMENT ON VIEW virtualchain.builds IS 'Every build of every app: the live one, and those beside it.';
COMMENT ON COLUMN virtualchain.builds.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.builds.build IS 'Name of the build.';
COMMENT ON COLUMN virtualchain.builds.is_live IS 'Whether the app''s views show it.';
COMMENT ON COLUMN virtualchain.builds.version IS 'The app''s version that it was made with.';
COMMENT ON COLUMN virtualchain.builds.status IS 'running, catching_up, halted or stopped.';
COMMENT ON COLUMN virtualchain.builds.block_id IS 'Its last block.';

CREATE VIEW virtualchain.pins AS
SELECT block_id, encode(hash, 'hex') AS hash FROM vc.pins;
COMMENT ON VIEW virtualchain.pins IS 'Blocks that the followed chain must hold.';
COMMENT ON COLUMN virtualchain.pins.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.pins.hash IS 'Hash of the block.';
