CREATE SCHEMA IF NOT EXISTS vc;
COMMENT ON SCHEMA vc IS 'The log of a virtualchain deployment: what the chain holds and what the apps made of it. Only the engine writes it; people read the views in the schema virtualchain.';

CREATE TABLE vc.deployment (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    network text NOT NULL,
    genesis_hash bytea NOT NULL CHECK (octet_length(genesis_hash) = 32),
    address_form text
);
COMMENT ON TABLE vc.deployment IS 'The one chain that this database follows.';
COMMENT ON COLUMN vc.deployment.singleton IS 'Always true: there is one row.';
COMMENT ON COLUMN vc.deployment.network IS 'mainnet, testnet3, testnet4, signet, regtest, signet- and the eight hex digits of a custom signet''s message start, or a network of another coin, such as litecoin-regtest.';
COMMENT ON COLUMN vc.deployment.genesis_hash IS 'Hash of block 0, in display order; a node with another one is refused.';
COMMENT ON COLUMN vc.deployment.address_form IS 'How another coin writes addresses: its version of pay-to-public-key-hash, of pay-to-script-hash, another one that is read for that, all in hex, the prefix of segwit addresses, and segwit if there are witness programs, or mweb if some of them are of MWEB, with colons between; null for Bitcoin.';

CREATE TABLE vc.writer (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    confirmations integer NOT NULL CHECK (confirmations >= 0),
    apps text[] NOT NULL,
    started_at timestamptz,
    seen_at timestamptz,
    node_block_id integer,
    node_hash bytea CHECK (octet_length(node_hash) = 32),
    waits_for text,
    version text,
    stopped_at timestamptz,
    metrics jsonb,
    settings jsonb CHECK (jsonb_typeof(settings) = 'object')
);
COMMENT ON TABLE vc.writer IS 'How the process that follows the chain was started last, and what it reports of itself; the lock shows whether it still runs. Nothing is derived from it.';
COMMENT ON COLUMN vc.writer.singleton IS 'Always true: there is one row.';
COMMENT ON COLUMN vc.writer.confirmations IS 'K: how many blocks must be on top of a block before it is taken.';
COMMENT ON COLUMN vc.writer.apps IS 'The apps whose code it has.';
COMMENT ON COLUMN vc.writer.started_at IS 'When it was started, by the clock of the database, like the other times here; null if an earlier version was.';
COMMENT ON COLUMN vc.writer.seen_at IS 'When it reported last: some ten seconds ago at most, unless it is at work on something long, waits for an answer, or is gone.';
COMMENT ON COLUMN vc.writer.node_block_id IS 'Height of the node''s last block then; null if it has not answered yet.';
COMMENT ON COLUMN vc.writer.node_hash IS 'Hash of that block, in display order; null if its height is.';
COMMENT ON COLUMN vc.writer.waits_for IS 'What it waited for then; null while it takes blocks. Of one that has ended, what an operator must decide before another can go on.';
COMMENT ON COLUMN vc.writer.version IS 'The version of virtualchain that it runs.';
COMMENT ON COLUMN vc.writer.stopped_at IS 'When it ended in order; null while it runs, and if it was killed.';
COMMENT ON COLUMN vc.writer.metrics IS 'What it counted until then: an array of objects with name, labels and value; null if an earlier version ran.';
COMMENT ON COLUMN vc.writer.settings IS 'The settings that decide what it takes and does, by name: the next writer says which of them changed; null if an earlier version wrote.';

CREATE TABLE vc.progress (
    at timestamptz PRIMARY KEY,
    block_id integer,
    node_block_id integer,
    inputs bigint NOT NULL CHECK (inputs >= 0),
    ops bigint NOT NULL CHECK (ops >= 0),
    rejections bigint NOT NULL CHECK (rejections >= 0)
);
COMMENT ON TABLE vc.progress IS 'How far the writer was, every ten seconds of the last day. Nothing is derived from it.';
COMMENT ON COLUMN vc.progress.at IS 'When that was, by the clock of the database.';
COMMENT ON COLUMN vc.progress.block_id IS 'Height of the tape''s last block; null if it was empty.';
COMMENT ON COLUMN vc.progress.node_block_id IS 'Height of the node''s last block, as far as the writer knew it; null if the node had not answered yet.';
COMMENT ON COLUMN vc.progress.inputs IS 'How many inputs the blocks held that were taken since the sample before.';
COMMENT ON COLUMN vc.progress.ops IS 'How many inputs apps accepted since then, in these blocks or while catching up.';
COMMENT ON COLUMN vc.progress.rejections IS 'How many they rejected.';

CREATE TABLE vc.blocks (
    block_id integer PRIMARY KEY CHECK (block_id >= 0),
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
    header bytea NOT NULL CHECK (octet_length(header) = 80),
    time timestamptz NOT NULL,
    chainwork numeric NOT NULL
);
CREATE INDEX blocks_hash_text ON vc.blocks USING hash (encode(hash, 'hex'));
COMMENT ON TABLE vc.blocks IS 'Every block that was taken, in one unbroken chain.';
COMMENT ON COLUMN vc.blocks.block_id IS 'Height of the block.';
COMMENT ON COLUMN vc.blocks.hash IS 'Block hash, in display order.';
COMMENT ON COLUMN vc.blocks.prev_hash IS 'Hash of the block before, in display order.';
COMMENT ON COLUMN vc.blocks.header IS 'The 80 bytes that are hashed.';
COMMENT ON COLUMN vc.blocks.time IS 'The time that the miner wrote into the header.';
COMMENT ON COLUMN vc.blocks.chainwork IS 'Expected number of hashes from the first block ever taken up to this one; blocks added in front of it count backwards.';

CREATE TABLE vc.inputs (
    block_id integer NOT NULL,
    txindex integer NOT NULL CHECK (txindex >= 0),
    txid bytea NOT NULL CHECK (octet_length(txid) = 32),
    raw bytea,
    magics bytea[] NOT NULL,
    spent bytea,
    unusual_keys jsonb NOT NULL,
    fee bigint NOT NULL,
    evidence text CHECK (evidence IN ('undo', 'transaction', 'node', 'export', 'bound', 'proof')),
    spent_at integer[],
    tracked_by text[],
    branch bytea CHECK (octet_length(branch) % 32 = 0),
    PRIMARY KEY (block_id, txindex)
);
CREATE INDEX inputs_txid ON vc.inputs USING hash (encode(txid, 'hex'));
COMMENT ON TABLE vc.inputs IS 'Every transaction in which a registered payload rule found a registered magic, whatever its opcode, or that spends outputs that an app tracks: shared by all apps.';
COMMENT ON COLUMN vc.inputs.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.inputs.txindex IS 'Position of the transaction in its block; the coinbase is 0, and an input only for a payload rule that takes it.';
COMMENT ON COLUMN vc.inputs.txid IS 'Transaction id, in display order. Not unique on Bitcoin: the key is the position.';
COMMENT ON COLUMN vc.inputs.raw IS 'The whole transaction as it is in the block, including witnesses; null if it was pruned.';
COMMENT ON COLUMN vc.inputs.magics IS 'The registered magics that its payloads start with; none, if only tracking asked for it.';
COMMENT ON COLUMN vc.inputs.spent IS 'The outputs that the transaction spends, in the order of its inputs, each serialized as in a transaction; a long script is replaced by its size and hash; null if it was pruned.';
COMMENT ON COLUMN vc.inputs.unusual_keys IS 'For inputs that do not reveal their public keys where others do, by the number of the input, those keys: what vc.public_keys cannot see without hashing.';
COMMENT ON COLUMN vc.inputs.fee IS 'Sum of inputs minus sum of outputs, in satoshi.';
COMMENT ON COLUMN vc.inputs.evidence IS 'What shows that the senders are right: undo (undo data of a node, whose checksum fits), transaction (the transactions that created the outputs), bound (scripts that the input reveals or that a transaction shows; amounts are the source''s word), proof (the transactions that created the outputs, and the blocks that hold these), node (the word of a node or another source) or export (that of an export); null if it was taken before this was recorded.';
COMMENT ON COLUMN vc.inputs.spent_at IS 'For each input, where the output that it spends was made: twice the height of the block, plus one if its coinbase made it; null if no app needs that, or if it was pruned.';
COMMENT ON COLUMN vc.inputs.tracked_by IS 'The apps whose tracking asked for it: it spends an output that they tracked before the block, or one of a transaction in the block that they see; null if there is none.';
COMMENT ON COLUMN vc.inputs.branch IS 'The Merkle branch from the transaction to the root that its block''s header states, from the bottom up, 32 bytes each; null if it was not checked when the input was taken, or if it was pruned.';

CREATE TABLE vc.coinbases (
    block_id integer PRIMARY KEY REFERENCES vc.blocks,
    coinbase bytea NOT NULL,
    branch bytea NOT NULL CHECK (octet_length(branch) % 32 = 0)
);
COMMENT ON TABLE vc.coinbases IS 'The coinbase of every block that has inputs with a branch: as it is the first leaf, its own branch shows how deep the Merkle tree is.';
COMMENT ON COLUMN vc.coinbases.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.coinbases.coinbase IS 'The coinbase without its witness.';
COMMENT ON COLUMN vc.coinbases.branch IS 'The Merkle branch from the coinbase to the root, as long as that of every input of the block.';

CREATE TABLE vc.coverage (
    magic bytea NOT NULL,
    rule text NOT NULL,
    from_block integer NOT NULL,
    until_block integer CHECK (until_block >= from_block),
    PRIMARY KEY (magic, rule, from_block)
);
COMMENT ON TABLE vc.coverage IS 'Which blocks of the tape were searched for which magic, or have what outputs that an app tracked were spent by (then the magic is empty, and the rule begins with tracking:). While a search continues its end is open, so that no row is updated per block. One row with the rule pruned and an empty magic: of the blocks up to its end, raw transactions were dropped, and no search that is recorded begins below.';
COMMENT ON COLUMN vc.coverage.magic IS 'The magic that was searched for.';
COMMENT ON COLUMN vc.coverage.rule IS 'Name of the payload rule that was used, and whether it was searched without opcodes and with heights.';
COMMENT ON COLUMN vc.coverage.from_block IS 'The first block that was searched.';
COMMENT ON COLUMN vc.coverage.until_block IS 'The last block that was searched; null while the search continues with every new block.';

CREATE TABLE vc.apps (
    name text NOT NULL,
    version text NOT NULL,
    fingerprint bytea NOT NULL,
    schema text NOT NULL,
    build text NOT NULL,
    magics bytea[] NOT NULL,
    rule text NOT NULL,
    first_block_id integer NOT NULL CHECK (first_block_id >= 0),
    valid_window integer NOT NULL CHECK (valid_window >= 0),
    confirmations integer CHECK (confirmations >= 0),
    own_role boolean NOT NULL,
    status text NOT NULL CHECK (status IN ('running', 'catching_up', 'halted', 'stopped')),
    error jsonb,
    is_live boolean NOT NULL,
    base_block_id integer NOT NULL CHECK (base_block_id >= -1),
    history_from integer NOT NULL CHECK (history_from >= base_block_id),
    on_deep_fork text NOT NULL CHECK (on_deep_fork IN ('rollback', 'checkpoint', 'halt')),
    code_digest bytea CHECK (octet_length(code_digest) = 32),
    last_code_digest bytea CHECK (octet_length(last_code_digest) = 32),
    serial bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    tracking bytea CHECK (octet_length(tracking) = 32),
    tracking_from integer CHECK (tracking_from >= 0),
    unexpected jsonb,
    epoch bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (name, build)
);
CREATE UNIQUE INDEX apps_live ON vc.apps (name) WHERE is_live;
CREATE UNIQUE INDEX apps_schema ON vc.apps (schema) WHERE is_live;
COMMENT ON TABLE vc.apps IS 'The apps of this deployment, a row for each build. The cursor of a build is its last row in vc.snapshots.';
COMMENT ON COLUMN vc.apps.name IS 'The app''s name, as it calls itself.';
COMMENT ON COLUMN vc.apps.version IS 'The app''s version when it was installed.';
COMMENT ON COLUMN vc.apps.fingerprint IS 'SHA-256 of what the app declares: a change requires a new build.';
COMMENT ON COLUMN vc.apps.schema IS 'The schema with the app''s views; its tables are in <schema>__<build>.';
COMMENT ON COLUMN vc.apps.build IS 'Name of the build: its tables are in a schema of their own, and its rows of the log carry it.';
COMMENT ON COLUMN vc.apps.magics IS 'The magics that the app''s payloads start with.';
COMMENT ON COLUMN vc.apps.rule IS 'Name of the payload rule that finds its payloads.';
COMMENT ON COLUMN vc.apps.first_block_id IS 'The block of the app''s first input.';
COMMENT ON COLUMN vc.apps.valid_window IS 'S: for how many blocks a consensus hash stays valid.';
COMMENT ON COLUMN vc.apps.confirmations IS 'The minimum of confirmations that the app accepts; null if it declares none.';
COMMENT ON COLUMN vc.apps.own_role IS 'Whether its reducers run under the role that vc.role_of names; else they run as the engine does.';
COMMENT ON COLUMN vc.apps.status IS 'running; catching_up (advancing along the tape); halted (a callback failed, see error); stopped (the app asked for it).';
COMMENT ON COLUMN vc.apps.error IS 'Why it is halted: block_id, callback, txid, message and traceback.';
COMMENT ON COLUMN vc.apps.is_live IS 'Whether the views show this build; one build of each app is live.';
COMMENT ON COLUMN vc.apps.base_block_id IS 'The block after which it began: the one before its first, or that of its checkpoint. It cannot be rolled back below it.';
COMMENT ON COLUMN vc.apps.history_from IS 'The lowest block that its history can bring back; older history is pruned.';
COMMENT ON COLUMN vc.apps.on_deep_fork IS 'What happens when blocks that it has taken are replaced: rollback, checkpoint (stop, and continue only from an accepted checkpoint) or halt.';
COMMENT ON COLUMN vc.apps.code_digest IS 'SHA-256 of the code that the build began with; null if it has not been run since version 0.1.0.';
COMMENT ON COLUMN vc.apps.last_code_digest IS 'SHA-256 of the code that ran it last: if it is another one, a warning says so.';
COMMENT ON COLUMN vc.apps.tracking IS 'For an app that tracks outputs, the SHA-256 of the rules and the code that decide which; the tape has what it spends from tracking_from up to its cursor.';
COMMENT ON COLUMN vc.apps.tracking_from IS 'The first block that was taken by these rules and this code.';
COMMENT ON COLUMN vc.apps.unexpected IS 'How its digests differ from those that are expected of it: block_id, digest, expected, found, origin; null if they do not.';
COMMENT ON COLUMN vc.apps.epoch IS 'A number that is new whenever the views begin or cease to show the build: a process that began to write under another one adds nothing to its log.';
COMMENT ON COLUMN vc.apps.serial IS 'Number of the build: unlike its name, it is never used again in this database.';

CREATE FUNCTION vc.tracking_rule(app text, tracking bytea) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN concat('tracking:', app, ':', encode(tracking, 'hex'));
COMMENT ON FUNCTION vc.tracking_rule(text, bytea) IS 'The rule by which vc.coverage records what an app that tracks outputs has covered.';

CREATE TABLE vc.ops (
    app text NOT NULL,
    block_id integer NOT NULL,
    vtxindex integer NOT NULL CHECK (vtxindex >= 0),
    txindex integer NOT NULL CHECK (txindex >= 0),
    opcode bytea NOT NULL CHECK (octet_length(opcode) <= 1),
    payload bytea,
    fields jsonb NOT NULL,
    canonical bytea[] NOT NULL,
    build text NOT NULL,
    payload_index integer NOT NULL DEFAULT 0 CHECK (payload_index >= 0),
    PRIMARY KEY (app, build, block_id, vtxindex)
);
COMMENT ON TABLE vc.ops IS 'The log: every input that an app accepted. Rows are appended, or removed with their block, and never changed.';
COMMENT ON COLUMN vc.ops.app IS 'Name of the app.';
COMMENT ON COLUMN vc.ops.build IS 'The build of the app that accepted it.';
COMMENT ON COLUMN vc.ops.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.ops.vtxindex IS 'Position among the app''s parsed candidates in the block, from 0.';
COMMENT ON COLUMN vc.ops.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN vc.ops.opcode IS 'The byte after the magic; empty for an app without opcodes, and for a transaction without a payload.';
COMMENT ON COLUMN vc.ops.payload IS 'The payload after magic and opcode; null if the transaction only spends outputs that the app tracks.';
COMMENT ON COLUMN vc.ops.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
COMMENT ON COLUMN vc.ops.fields IS 'The op as the app committed it; an array if the commit made several ops of it.';
COMMENT ON COLUMN vc.ops.canonical IS 'The serialized ops that entered the block''s ops hash.';

CREATE TABLE vc.rejections (
    app text NOT NULL,
    block_id integer NOT NULL,
    txindex integer NOT NULL CHECK (txindex >= 0),
    opcode bytea NOT NULL CHECK (octet_length(opcode) <= 1),
    step text NOT NULL CHECK (step IN ('parse', 'check', 'commit')),
    reason text NOT NULL,
    build text NOT NULL,
    payload_index integer NOT NULL DEFAULT 0 CHECK (payload_index >= 0),
    PRIMARY KEY (app, build, block_id, txindex, payload_index)
);
COMMENT ON TABLE vc.rejections IS 'Every candidate that an app rejected, and why.';
COMMENT ON COLUMN vc.rejections.app IS 'Name of the app.';
COMMENT ON COLUMN vc.rejections.build IS 'The build of the app that rejected it.';
COMMENT ON COLUMN vc.rejections.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.rejections.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN vc.rejections.opcode IS 'The byte after the magic; empty for an app without opcodes, and for a transaction without a payload.';
COMMENT ON COLUMN vc.rejections.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
COMMENT ON COLUMN vc.rejections.step IS 'The step that rejected it: parse, check or commit.';
COMMENT ON COLUMN vc.rejections.reason IS 'Why the app or the database rejected it.';

CREATE TABLE vc.snapshots (
    app text NOT NULL,
    block_id integer NOT NULL CHECK (block_id >= -1),
    ops_hash bytea CHECK (octet_length(ops_hash) = 32),
    consensus_hash bytea NOT NULL CHECK (octet_length(consensus_hash) = 16),
    state_hash bytea CHECK (octet_length(state_hash) = 32),
    state_number bytea CHECK (octet_length(state_number) = 384),
    build text NOT NULL,
    PRIMARY KEY (app, build, block_id)
);
CREATE INDEX snapshots_state_number ON vc.snapshots (app, build, block_id) WHERE state_number IS NOT NULL;
CREATE INDEX snapshots_consensus_hash ON vc.snapshots USING hash (consensus_hash);
COMMENT ON TABLE vc.snapshots IS 'An app''s digests at each of its blocks; the last row is its cursor.';
COMMENT ON COLUMN vc.snapshots.app IS 'Name of the app.';
COMMENT ON COLUMN vc.snapshots.build IS 'The build of the app.';
COMMENT ON COLUMN vc.snapshots.block_id IS 'Height of the block; -1 for an initial snapshot before the genesis block.';
COMMENT ON COLUMN vc.snapshots.ops_hash IS 'Digest of the block''s ops; null in an initial snapshot, which the app declared.';
COMMENT ON COLUMN vc.snapshots.consensus_hash IS 'Digest of the block''s ops and of all history before it.';
COMMENT ON COLUMN vc.snapshots.state_hash IS 'Digest of every row of every projection after the block; null in an initial snapshot.';
COMMENT ON COLUMN vc.snapshots.state_number IS 'The number that the state hash is computed from, little-endian; null if the block did not change it.';

CREATE TABLE vc.reorgs (
    reorg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    detected_at timestamptz NOT NULL DEFAULT now(),
    fork_block_id integer NOT NULL,
    old_block_id integer NOT NULL,
    old_hash bytea NOT NULL,
    new_block_id integer,
    new_hash bytea,
    depth integer NOT NULL CHECK (depth > 0),
    blocks_undone integer NOT NULL,
    ops_undone bigint NOT NULL,
    duration interval NOT NULL,
    cause text NOT NULL CHECK (cause IN ('work', 'invalid', 'pin', 'operator')),
    rows_undone bigint NOT NULL
);
COMMENT ON TABLE vc.reorgs IS 'Every rollback: of a deep fork, or by the operator.';
COMMENT ON COLUMN vc.reorgs.reorg_id IS 'Running number.';
COMMENT ON COLUMN vc.reorgs.detected_at IS 'When it was detected, by the clock of the database.';
COMMENT ON COLUMN vc.reorgs.fork_block_id IS 'The last block that both branches share.';
COMMENT ON COLUMN vc.reorgs.old_block_id IS 'Height of the abandoned tip.';
COMMENT ON COLUMN vc.reorgs.old_hash IS 'Hash of the abandoned tip.';
COMMENT ON COLUMN vc.reorgs.new_block_id IS 'Height of the node''s tip at that time; null if the node had no block above the fork, or was not asked.';
COMMENT ON COLUMN vc.reorgs.new_hash IS 'Hash of the node''s tip at that time; null if its height is.';
COMMENT ON COLUMN vc.reorgs.depth IS 'How many taken blocks were replaced.';
COMMENT ON COLUMN vc.reorgs.blocks_undone IS 'How many blocks were undone.';
COMMENT ON COLUMN vc.reorgs.ops_undone IS 'How many ops of all apps were undone.';
COMMENT ON COLUMN vc.reorgs.duration IS 'How long undoing took.';
COMMENT ON COLUMN vc.reorgs.cause IS 'work: the node''s branch has more; invalid: the node calls ours invalid; pin: ours does not contain a pinned block; operator: rolled back by hand.';
COMMENT ON COLUMN vc.reorgs.rows_undone IS 'How many rows of projections were removed or restored.';

CREATE TABLE vc.pins (
    block_id integer PRIMARY KEY CHECK (block_id >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE vc.pins IS 'Blocks that the followed chain must contain.';
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
    has_row_blocks boolean NOT NULL,
    PRIMARY KEY (app, build),
    FOREIGN KEY (app, build) REFERENCES vc.apps
);
COMMENT ON TABLE vc.checkpoints IS 'The checkpoints that builds of apps were started from.';
COMMENT ON COLUMN vc.checkpoints.app IS 'Name of the app.';
COMMENT ON COLUMN vc.checkpoints.build IS 'The build that was started from it.';
COMMENT ON COLUMN vc.checkpoints.block_id IS 'The block that it shows; processing began after it.';
COMMENT ON COLUMN vc.checkpoints.network IS 'The network that it was made on.';
COMMENT ON COLUMN vc.checkpoints.block_hash IS 'Hash of its block, in display order.';
COMMENT ON COLUMN vc.checkpoints.consensus_hash IS 'The app''s consensus hash at its block.';
COMMENT ON COLUMN vc.checkpoints.state_hash IS 'The app''s state hash at its block.';
COMMENT ON COLUMN vc.checkpoints.is_migration IS 'Whether it came from another chain than the one that this database follows.';
COMMENT ON COLUMN vc.checkpoints.signers IS 'The public keys with a valid signature, in hex.';
COMMENT ON COLUMN vc.checkpoints.applied_at IS 'When it was applied, by the clock of the database.';
COMMENT ON COLUMN vc.checkpoints.has_row_blocks IS 'Whether it named the block that wrote each row. The first format did not: rows count as written by its block.';

CREATE TABLE vc.state_files (
    app text NOT NULL,
    block_id integer NOT NULL,
    content bytea NOT NULL,
    build text NOT NULL,
    PRIMARY KEY (app, build, block_id),
    FOREIGN KEY (app, build) REFERENCES vc.apps
);
COMMENT ON TABLE vc.state_files IS 'What apps with an opaque state saved: a row for each block that changed it, as far back as blocks can be undone. This copy counts; the file is for the app to read.';
COMMENT ON COLUMN vc.state_files.app IS 'Name of the app.';
COMMENT ON COLUMN vc.state_files.build IS 'The build of the app.';
COMMENT ON COLUMN vc.state_files.block_id IS 'The block after which the app saved this; it is valid until the next row.';
COMMENT ON COLUMN vc.state_files.content IS 'The saved file.';

CREATE TABLE vc.published (
    schema text NOT NULL,
    name text NOT NULL,
    definition text NOT NULL,
    changes text NOT NULL,
    versions text NOT NULL,
    PRIMARY KEY (schema, name)
);
COMMENT ON TABLE vc.published IS 'The views of the apps'' schemas, and what they were made from: if this version of the code makes others, they are replaced.';
COMMENT ON COLUMN vc.published.schema IS 'The app''s schema.';
COMMENT ON COLUMN vc.published.name IS 'Name of the projection, and of its view.';
COMMENT ON COLUMN vc.published.definition IS 'The statement that made the view.';
COMMENT ON COLUMN vc.published.changes IS 'The query that returns what block $1 did to the projection.';
COMMENT ON COLUMN vc.published.versions IS 'The query that returns the versions of the row with key $1 that blocks below $2 wrote, newest first.';

CREATE TABLE vc.pending (
    app text NOT NULL,
    txid bytea NOT NULL CHECK (octet_length(txid) = 32),
    payload_index integer NOT NULL CHECK (payload_index >= 0),
    place integer NOT NULL,
    block_id integer,
    raw bytea NOT NULL,
    opcode bytea,
    payload bytea,
    fields jsonb,
    verdict text NOT NULL CHECK (verdict IN ('accepted', 'refused', 'halts', 'unjudged')),
    step text,
    reason text,
    changes jsonb NOT NULL,
    fee bigint,
    vsize integer,
    seen_at timestamptz,
    PRIMARY KEY (app, txid, payload_index)
);
COMMENT ON TABLE vc.pending IS 'Inputs that no block of the tape holds yet, and what would come of them. Nothing is derived from it; a writer that follows the node''s unconfirmed transactions replaces it.';
COMMENT ON COLUMN vc.pending.app IS 'Name of the app.';
COMMENT ON COLUMN vc.pending.txid IS 'The transaction''s id, in display order.';
COMMENT ON COLUMN vc.pending.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
COMMENT ON COLUMN vc.pending.place IS 'Its place in the order in which the app''s pending inputs were judged, from 0.';
COMMENT ON COLUMN vc.pending.block_id IS 'Height of the block that holds it, which has fewer than K others on top; null while it is unconfirmed.';
COMMENT ON COLUMN vc.pending.raw IS 'The serialized transaction, witness included.';
COMMENT ON COLUMN vc.pending.opcode IS 'The opcode, one byte, or none for an app without opcodes; null if it was not judged.';
COMMENT ON COLUMN vc.pending.payload IS 'The payload, without magic and opcode; null if the transaction only spends outputs that the app tracks, or was not judged.';
COMMENT ON COLUMN vc.pending.fields IS 'The op as it would be committed; of a refused input as it was parsed.';
COMMENT ON COLUMN vc.pending.verdict IS 'accepted, refused, or halts: a callback would fail, and the app would be halted; unjudged if there are too many.';
COMMENT ON COLUMN vc.pending.step IS 'Where it would be refused (parse, check or commit), or the callback that fails.';
COMMENT ON COLUMN vc.pending.reason IS 'Why.';
COMMENT ON COLUMN vc.pending.changes IS 'What it would do to rows: an array of objects with table, action, key, old and new.';
COMMENT ON COLUMN vc.pending.fee IS 'The transaction''s fee in satoshi; null if it is in a block.';
COMMENT ON COLUMN vc.pending.vsize IS 'Its virtual size in bytes; null if it is in a block.';
COMMENT ON COLUMN vc.pending.seen_at IS 'When the node first saw it, by the node''s clock; null if it is in a block.';

CREATE TABLE vc.pending_rows (
    app text NOT NULL,
    "table" text NOT NULL,
    place integer NOT NULL,
    key jsonb NOT NULL,
    content jsonb,
    PRIMARY KEY (app, "table", place)
);
COMMENT ON TABLE vc.pending_rows IS 'The rows of projections that pending inputs would change, as they would be after all of them.';
COMMENT ON COLUMN vc.pending_rows.app IS 'Name of the app.';
COMMENT ON COLUMN vc.pending_rows."table" IS 'Name of the projection.';
COMMENT ON COLUMN vc.pending_rows.place IS 'A number for the primary key: keys of projections can be too long for an index.';
COMMENT ON COLUMN vc.pending_rows.key IS 'The row''s primary key, an object by column.';
COMMENT ON COLUMN vc.pending_rows.content IS 'The row, an object by column; null if it would be deleted.';

CREATE TABLE vc.pending_state (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    judged_at timestamptz NOT NULL,
    block_id integer NOT NULL,
    block_hash bytea NOT NULL CHECK (octet_length(block_hash) = 32)
);
COMMENT ON TABLE vc.pending_state IS 'What the pending inputs were judged on; no row unless a writer follows the node''s unconfirmed transactions.';
COMMENT ON COLUMN vc.pending_state.singleton IS 'There is one row at most.';
COMMENT ON COLUMN vc.pending_state.judged_at IS 'When that was last so, by the clock of the database.';
COMMENT ON COLUMN vc.pending_state.block_id IS 'Height of the node''s last block.';
COMMENT ON COLUMN vc.pending_state.block_hash IS 'Hash of that block, in display order.';

CREATE TABLE vc.pending_views (
    schema text NOT NULL,
    name text NOT NULL,
    PRIMARY KEY (schema, name)
);
COMMENT ON TABLE vc.pending_views IS 'The views that show projections as they would be after the pending inputs.';
COMMENT ON COLUMN vc.pending_views.schema IS 'The app''s schema.';
COMMENT ON COLUMN vc.pending_views.name IS 'Name of the view.';

CREATE VIEW vc.shown AS
SELECT schema, name FROM vc.published UNION ALL SELECT schema, name FROM vc.pending_views;
COMMENT ON VIEW vc.shown IS 'The views of the apps'' schemas.';
COMMENT ON COLUMN vc.shown.schema IS 'The app''s schema.';
COMMENT ON COLUMN vc.shown.name IS 'Name of the view.';

CREATE TABLE vc.webhooks (
    name text PRIMARY KEY,
    app text NOT NULL,
    block_id integer NOT NULL CHECK (block_id >= -1),
    block_hash bytea CHECK (octet_length(block_hash) = 32),
    rollbacks bigint,
    event text NOT NULL CHECK (event IN ('block', 'rollback')),
    part integer CHECK (part >= 0),
    version bigint NOT NULL,
    delivered bigint NOT NULL,
    delivered_at timestamptz,
    failures integer NOT NULL CHECK (failures >= 0),
    error text,
    failed_at timestamptz,
    next_try timestamptz
);
COMMENT ON TABLE vc.webhooks IS 'How far the deliveries of each webhook are. The address and the secret are in the settings alone.';
COMMENT ON COLUMN vc.webhooks.name IS 'Name of the webhook.';
COMMENT ON COLUMN vc.webhooks.app IS 'Name of the app whose events are delivered.';
COMMENT ON COLUMN vc.webhooks.block_id IS 'The block of the last event that was delivered, or that a delivery was begun of; -1 if there was no block.';
COMMENT ON COLUMN vc.webhooks.block_hash IS 'Hash of that block, in display order; null: whatever block is there.';
COMMENT ON COLUMN vc.webhooks.rollbacks IS 'Number of the rollback after which this was so; null if it is not known.';
COMMENT ON COLUMN vc.webhooks.event IS 'What happened: the block was taken, or all above it were undone by a rollback.';
COMMENT ON COLUMN vc.webhooks.part IS 'How many parts of the event were delivered; null: all of them.';
COMMENT ON COLUMN vc.webhooks.version IS 'Grows with each replay: what was under way before it does not count.';
COMMENT ON COLUMN vc.webhooks.delivered IS 'How many deliveries the receiver has accepted.';
COMMENT ON COLUMN vc.webhooks.delivered_at IS 'When it accepted the last one, by the clock of the database.';
COMMENT ON COLUMN vc.webhooks.failures IS 'How many attempts have failed since then.';
COMMENT ON COLUMN vc.webhooks.error IS 'Why the last one failed; null if none has.';
COMMENT ON COLUMN vc.webhooks.failed_at IS 'When it failed.';
COMMENT ON COLUMN vc.webhooks.next_try IS 'When the next attempt is due.';

CREATE TABLE vc.readers (
    role text PRIMARY KEY,
    apps text[]
);
COMMENT ON TABLE vc.readers IS 'Roles that can read views and nothing else; views that are published later are granted to them as well.';
COMMENT ON COLUMN vc.readers.role IS 'Name of the role.';
COMMENT ON COLUMN vc.readers.apps IS 'The apps that it may read; null: all, including later ones.';
