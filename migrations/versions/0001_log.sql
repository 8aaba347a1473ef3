CREATE SCHEMA IF NOT EXISTS vc;
COMMENT ON SCHEMA vc IS 'The log of a virtualchain deployment: what the chain said and what the apps made of it. Written by the engine alone; people read the views of schema virtualchain.';

CREATE TABLE vc.deployment (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    network text NOT NULL,
    genesis_hash bytea NOT NULL CHECK (octet_length(genesis_hash) = 32)
);
COMMENT ON TABLE vc.deployment IS 'The one chain that this database follows.';
COMMENT ON COLUMN vc.deployment.singleton IS 'Always true: there is one row.';
COMMENT ON COLUMN vc.deployment.network IS 'mainnet, testnet3, testnet4, signet or regtest.';
COMMENT ON COLUMN vc.deployment.genesis_hash IS 'Hash of block 0, in display order; a node with another one is refused.';

CREATE TABLE vc.blocks (
    block_id integer PRIMARY KEY CHECK (block_id >= 0),
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
    header bytea NOT NULL CHECK (octet_length(header) = 80),
    time timestamptz NOT NULL,
    chainwork numeric NOT NULL
);
COMMENT ON TABLE vc.blocks IS 'Every block that was taken, in one unbroken chain.';
COMMENT ON COLUMN vc.blocks.block_id IS 'Height of the block.';
COMMENT ON COLUMN vc.blocks.hash IS 'Block hash, in display order.';
COMMENT ON COLUMN vc.blocks.prev_hash IS 'Hash of the block before, in display order.';
COMMENT ON COLUMN vc.blocks.header IS 'The 80 bytes that the hash is made of.';
COMMENT ON COLUMN vc.blocks.time IS 'The time that the miner wrote into the header.';
COMMENT ON COLUMN vc.blocks.chainwork IS 'Expected hashes spent from the first block ever taken up to this one; blocks put in front count backwards.';

CREATE TABLE vc.inputs (
    block_id integer NOT NULL REFERENCES vc.blocks,
    txindex integer NOT NULL CHECK (txindex > 0),
    txid bytea NOT NULL CHECK (octet_length(txid) = 32),
    raw bytea NOT NULL,
    magics bytea[] NOT NULL,
    senders jsonb NOT NULL,
    outputs jsonb NOT NULL,
    fee bigint NOT NULL,
    PRIMARY KEY (block_id, txindex)
);
COMMENT ON TABLE vc.inputs IS 'Every transaction in which a registered payload rule found a registered magic, whatever its opcode: shared by all apps.';
COMMENT ON COLUMN vc.inputs.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.inputs.txindex IS 'Place of the transaction in its block; the coinbase is 0 and never an input.';
COMMENT ON COLUMN vc.inputs.txid IS 'Transaction id, in display order. Not unique on Bitcoin: the key is the place.';
COMMENT ON COLUMN vc.inputs.raw IS 'The whole transaction as it stands in the block, witness included.';
COMMENT ON COLUMN vc.inputs.magics IS 'The registered magics that its payload starts with.';
COMMENT ON COLUMN vc.inputs.senders IS 'For each input of the transaction the output that it spends.';
COMMENT ON COLUMN vc.inputs.outputs IS 'The outputs of the transaction.';
COMMENT ON COLUMN vc.inputs.fee IS 'Sum of inputs less sum of outputs, in satoshi.';

CREATE TABLE vc.coverage (
    magic bytea NOT NULL,
    rule text NOT NULL,
    from_block integer NOT NULL,
    until_block integer CHECK (until_block >= from_block),
    PRIMARY KEY (magic, rule, from_block)
);
COMMENT ON TABLE vc.coverage IS 'Which blocks of the tape were searched for what. While a search goes on its end is open, so that no row is updated per block.';
COMMENT ON COLUMN vc.coverage.magic IS 'The magic that was looked for.';
COMMENT ON COLUMN vc.coverage.rule IS 'Name of the payload rule that looked for it.';
COMMENT ON COLUMN vc.coverage.from_block IS 'The first block that was searched.';
COMMENT ON COLUMN vc.coverage.until_block IS 'The last block that was searched; null while the search goes on with every new block.';

CREATE TABLE vc.apps (
    name text PRIMARY KEY,
    version text NOT NULL,
    fingerprint bytea NOT NULL,
    schema text NOT NULL UNIQUE,
    build text NOT NULL,
    magics bytea[] NOT NULL,
    rule text NOT NULL,
    first_block_id integer NOT NULL CHECK (first_block_id >= 0),
    valid_window integer NOT NULL CHECK (valid_window >= 0),
    confirmations integer CHECK (confirmations >= 0),
    own_role boolean NOT NULL,
    status text NOT NULL CHECK (status IN ('running', 'catching_up', 'halted', 'stopped')),
    error jsonb
);
COMMENT ON TABLE vc.apps IS 'The apps of this deployment. An app''s cursor is its last row in vc.snapshots.';
COMMENT ON COLUMN vc.apps.name IS 'The app''s name, as it calls itself.';
COMMENT ON COLUMN vc.apps.version IS 'The app''s version when it was installed.';
COMMENT ON COLUMN vc.apps.fingerprint IS 'SHA-256 of what the app declares: a change asks for a new build.';
COMMENT ON COLUMN vc.apps.schema IS 'The schema with the app''s views; its tables are in <schema>__<build>.';
COMMENT ON COLUMN vc.apps.build IS 'The build that the views show.';
COMMENT ON COLUMN vc.apps.magics IS 'The magics that the app''s payloads start with.';
COMMENT ON COLUMN vc.apps.rule IS 'Name of the payload rule that finds its payloads.';
COMMENT ON COLUMN vc.apps.first_block_id IS 'The block of the app''s first input.';
COMMENT ON COLUMN vc.apps.valid_window IS 'S: for how many blocks a consensus hash stays valid.';
COMMENT ON COLUMN vc.apps.confirmations IS 'The least confirmations that the app accepts; null where it does not say.';
COMMENT ON COLUMN vc.apps.own_role IS 'Whether its reducers run under the role that vc.role_of names; else they run as the engine does.';
COMMENT ON COLUMN vc.apps.status IS 'running; catching_up (advancing along the tape); halted (a callback failed, see error); stopped (the app asked for it).';
COMMENT ON COLUMN vc.apps.error IS 'Why it is halted: block_id, callback, txid, message and traceback.';

CREATE TABLE vc.ops (
    app text NOT NULL,
    block_id integer NOT NULL,
    vtxindex integer NOT NULL CHECK (vtxindex >= 0),
    txindex integer NOT NULL CHECK (txindex > 0),
    opcode bytea NOT NULL CHECK (octet_length(opcode) = 1),
    payload bytea NOT NULL,
    fields jsonb NOT NULL,
    canonical bytea[] NOT NULL,
    PRIMARY KEY (app, block_id, vtxindex)
);
COMMENT ON TABLE vc.ops IS 'The log: every input that an app accepted. Rows are appended, or truncated with their block, never changed.';
COMMENT ON COLUMN vc.ops.app IS 'Name of the app.';
COMMENT ON COLUMN vc.ops.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.ops.vtxindex IS 'Place among the app''s parsed candidates of the block, from 0.';
COMMENT ON COLUMN vc.ops.txindex IS 'Place of its transaction in the block.';
COMMENT ON COLUMN vc.ops.opcode IS 'The byte after the magic.';
COMMENT ON COLUMN vc.ops.payload IS 'The payload after magic and opcode.';
COMMENT ON COLUMN vc.ops.fields IS 'The op as the app committed it; an array where the commit made several of it.';
COMMENT ON COLUMN vc.ops.canonical IS 'The serialised ops that entered the block''s ops hash.';

CREATE TABLE vc.rejections (
    app text NOT NULL,
    block_id integer NOT NULL,
    txindex integer NOT NULL CHECK (txindex > 0),
    opcode bytea NOT NULL CHECK (octet_length(opcode) = 1),
    step text NOT NULL CHECK (step IN ('parse', 'check', 'commit')),
    reason text NOT NULL,
    PRIMARY KEY (app, block_id, txindex)
);
COMMENT ON TABLE vc.rejections IS 'Every candidate that an app refused, and why.';
COMMENT ON COLUMN vc.rejections.app IS 'Name of the app.';
COMMENT ON COLUMN vc.rejections.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.rejections.txindex IS 'Place of its transaction in the block.';
COMMENT ON COLUMN vc.rejections.opcode IS 'The byte after the magic.';
COMMENT ON COLUMN vc.rejections.step IS 'The step that refused it: parse, check or commit.';
COMMENT ON COLUMN vc.rejections.reason IS 'What the app, or the database, had against it.';

CREATE TABLE vc.snapshots (
    app text NOT NULL,
    block_id integer NOT NULL CHECK (block_id >= -1),
    ops_hash bytea CHECK (octet_length(ops_hash) = 32),
    consensus_hash bytea NOT NULL CHECK (octet_length(consensus_hash) = 16),
    state_hash bytea CHECK (octet_length(state_hash) = 32),
    state_number bytea CHECK (octet_length(state_number) = 384),
    PRIMARY KEY (app, block_id)
);
CREATE INDEX snapshots_state_number ON vc.snapshots (app, block_id) WHERE state_number IS NOT NULL;
COMMENT ON TABLE vc.snapshots IS 'An app''s digests at each of its blocks; the last row is its cursor.';
COMMENT ON COLUMN vc.snapshots.app IS 'Name of the app.';
COMMENT ON COLUMN vc.snapshots.block_id IS 'Height of the block; -1 for an initial snapshot in front of the genesis block.';
COMMENT ON COLUMN vc.snapshots.ops_hash IS 'Digest of the block''s ops; null in an initial snapshot, which the app declared.';
COMMENT ON COLUMN vc.snapshots.consensus_hash IS 'Digest of the block''s ops and of all history before it.';
COMMENT ON COLUMN vc.snapshots.state_hash IS 'Digest of every row of every projection after the block; null in an initial snapshot.';
COMMENT ON COLUMN vc.snapshots.state_number IS 'The number under the state hash, little-endian, where the block changed it.';

CREATE TABLE vc.reorgs (
    reorg_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    detected_at timestamptz NOT NULL DEFAULT now(),
    fork_block_id integer NOT NULL,
    old_block_id integer NOT NULL,
    old_hash bytea NOT NULL,
    new_block_id integer NOT NULL,
    new_hash bytea NOT NULL,
    depth integer NOT NULL CHECK (depth > 0),
    blocks_undone integer NOT NULL,
    ops_undone bigint NOT NULL,
    duration interval NOT NULL
);
COMMENT ON TABLE vc.reorgs IS 'Every deep fork that was undone.';
COMMENT ON COLUMN vc.reorgs.reorg_id IS 'Running number.';
COMMENT ON COLUMN vc.reorgs.detected_at IS 'When it was met, by the clock of the database.';
COMMENT ON COLUMN vc.reorgs.fork_block_id IS 'The last block that both branches share.';
COMMENT ON COLUMN vc.reorgs.old_block_id IS 'Height of the tip that was left.';
COMMENT ON COLUMN vc.reorgs.old_hash IS 'Hash of the tip that was left.';
COMMENT ON COLUMN vc.reorgs.new_block_id IS 'Height of the node''s tip at that time.';
COMMENT ON COLUMN vc.reorgs.new_hash IS 'Hash of the node''s tip at that time.';
COMMENT ON COLUMN vc.reorgs.depth IS 'How many taken blocks were replaced.';
COMMENT ON COLUMN vc.reorgs.blocks_undone IS 'How many blocks were truncated.';
COMMENT ON COLUMN vc.reorgs.ops_undone IS 'How many ops of all apps were undone.';
COMMENT ON COLUMN vc.reorgs.duration IS 'How long undoing took.';

CREATE TABLE vc.state_files (
    app text NOT NULL,
    block_id integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (app, block_id)
);
COMMENT ON TABLE vc.state_files IS 'What apps with a state of their own saved: a row where a block changed it, for the undo window. This copy is the truth; the file beside is for the app to read.';
COMMENT ON COLUMN vc.state_files.app IS 'Name of the app.';
COMMENT ON COLUMN vc.state_files.block_id IS 'The block after which the app saved this; it stands until the next row.';
COMMENT ON COLUMN vc.state_files.content IS 'The saved file.';
CREATE FUNCTION vc.guard_block() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM vc.blocks WHERE block_id = NEW.block_id - 1 AND hash = NEW.prev_hash)
        OR EXISTS (SELECT FROM vc.blocks WHERE block_id = NEW.block_id + 1 AND prev_hash = NEW.hash)
        OR NOT EXISTS (SELECT FROM vc.blocks)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'block % has neither its parent nor its child on the tape', NEW.block_id
        USING ERRCODE = 'VC001', HINT = 'Another writer has moved the tape, or the node changed its branch.';
END;
$$;
COMMENT ON FUNCTION vc.guard_block() IS 'Accepts a block only onto its parent or in front of its child, so that the tape is one chain whoever writes.';

CREATE TRIGGER guard_block BEFORE INSERT ON vc.blocks
    FOR EACH ROW EXECUTE FUNCTION vc.guard_block();

CREATE FUNCTION vc.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'projection %.% cannot be truncated: its rows could not be brought back',
        TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'VC002', HINT = 'Use DELETE.';
END;
$$;
COMMENT ON FUNCTION vc.refuse_truncate() IS 'TRUNCATE fires no row trigger, so it would leave no history: projections refuse it.';

CREATE FUNCTION vc.writing_block(relation regclass) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
DECLARE
    writing CONSTANT text := coalesce(current_setting('virtualchain.block_id', true), '');
BEGIN
    IF writing = '' THEN
        RAISE EXCEPTION 'projection % is written by its reducers alone, inside a block', relation
            USING ERRCODE = 'VC003', HINT = 'Its rows follow from the ops; a row written by hand would differ on every other node.';
    END IF;
    RETURN writing::integer;
END;
$$;
COMMENT ON FUNCTION vc.writing_block(regclass) IS 'The block that the engine is writing, from its setting virtualchain.block_id; an error outside of a block.';
CREATE FUNCTION vc.role_of(schema text) RETURNS text
LANGUAGE sql STABLE
RETURN CASE
    WHEN octet_length(concat_ws(':', current_database(), schema)) <= 63 AND current_database() NOT LIKE 'pg\_%'
    THEN concat_ws(':', current_database(), schema)
    ELSE concat_ws(':', left(encode(sha256(convert_to(current_database(), 'UTF8')), 'hex'), 16), schema)
END;
COMMENT ON FUNCTION vc.role_of(text) IS 'The role of the app with this schema: roles belong to the whole server, so the database is part of the name, hashed where the name would be too long or reserved.';

CREATE FUNCTION vc.consensus_hash(app text, block_id integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
RETURN (SELECT encode(s.consensus_hash, 'hex') FROM vc.snapshots AS s
    WHERE s.app = consensus_hash.app AND s.block_id = consensus_hash.block_id);
COMMENT ON FUNCTION vc.consensus_hash(text, integer) IS 'An app''s consensus hash at a block, for reducers: their role reads no table of the log.';

CREATE FUNCTION vc.is_fresh(app text, consensus_hash text, first integer, last integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
RETURN EXISTS (SELECT FROM vc.snapshots AS s
    WHERE s.app = is_fresh.app AND s.block_id BETWEEN first AND last
        AND s.consensus_hash = decode(is_fresh.consensus_hash, 'hex'));
COMMENT ON FUNCTION vc.is_fresh(text, text, integer, integer) IS 'Whether a consensus hash is an app''s at one of a stretch of blocks, for reducers.';
CREATE SCHEMA virtualchain;
COMMENT ON SCHEMA virtualchain IS 'Views on the log, for everyone: hashes and transaction ids are lower-case hex text.';

CREATE VIEW virtualchain.blocks AS
SELECT block_id, encode(hash, 'hex') AS hash, encode(prev_hash, 'hex') AS prev_hash, time, chainwork, header
FROM vc.blocks;
COMMENT ON VIEW virtualchain.blocks IS 'Every block that was taken.';
COMMENT ON COLUMN virtualchain.blocks.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.blocks.hash IS 'Block hash.';
COMMENT ON COLUMN virtualchain.blocks.prev_hash IS 'Hash of the block before.';
COMMENT ON COLUMN virtualchain.blocks.time IS 'The time that the miner wrote into the header.';
COMMENT ON COLUMN virtualchain.blocks.chainwork IS 'Expected hashes spent since the first block ever taken.';
COMMENT ON COLUMN virtualchain.blocks.header IS 'The 80 bytes that the hash is made of.';

CREATE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics, senders, outputs, fee, raw
FROM vc.inputs;
COMMENT ON VIEW virtualchain.inputs IS 'Every transaction that carries a registered magic, judged or not.';
COMMENT ON COLUMN virtualchain.inputs.block_id IS 'Height of its block.';
COMMENT ON COLUMN virtualchain.inputs.txindex IS 'Place of the transaction in its block.';
COMMENT ON COLUMN virtualchain.inputs.txid IS 'Transaction id.';
COMMENT ON COLUMN virtualchain.inputs.magics IS 'The registered magics that its payload starts with.';
COMMENT ON COLUMN virtualchain.inputs.senders IS 'For each input of the transaction the output that it spends.';
COMMENT ON COLUMN virtualchain.inputs.outputs IS 'The outputs of the transaction.';
COMMENT ON COLUMN virtualchain.inputs.fee IS 'Sum of inputs less sum of outputs, in satoshi.';
COMMENT ON COLUMN virtualchain.inputs.raw IS 'The whole transaction, witness included.';

CREATE VIEW virtualchain.ops AS
SELECT o.app, o.block_id, encode(b.hash, 'hex') AS block_hash, b.time, o.txindex, o.vtxindex,
    encode(i.txid, 'hex') AS txid, o.opcode, o.payload, o.fields, o.canonical
FROM vc.ops AS o
JOIN vc.inputs AS i USING (block_id, txindex)
JOIN vc.blocks AS b USING (block_id);
COMMENT ON VIEW virtualchain.ops IS 'Every input that an app accepted, in one row.';
COMMENT ON COLUMN virtualchain.ops.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.ops.block_id IS 'Height of its block.';
COMMENT ON COLUMN virtualchain.ops.block_hash IS 'Hash of its block.';
COMMENT ON COLUMN virtualchain.ops.time IS 'Time of its block.';
COMMENT ON COLUMN virtualchain.ops.txindex IS 'Place of its transaction in the block.';
COMMENT ON COLUMN virtualchain.ops.vtxindex IS 'Place among the app''s parsed candidates of the block, from 0.';
COMMENT ON COLUMN virtualchain.ops.txid IS 'Transaction id.';
COMMENT ON COLUMN virtualchain.ops.opcode IS 'The byte after the magic.';
COMMENT ON COLUMN virtualchain.ops.payload IS 'The payload after magic and opcode.';
COMMENT ON COLUMN virtualchain.ops.fields IS 'The op as the app committed it; an array where the commit made several of it.';
COMMENT ON COLUMN virtualchain.ops.canonical IS 'The serialised ops that entered the block''s ops hash.';

CREATE VIEW virtualchain.rejections AS
SELECT r.app, r.block_id, r.txindex, encode(i.txid, 'hex') AS txid, r.opcode, r.step, r.reason
FROM vc.rejections AS r
JOIN vc.inputs AS i USING (block_id, txindex);
COMMENT ON VIEW virtualchain.rejections IS 'Every candidate that an app refused, and why.';
COMMENT ON COLUMN virtualchain.rejections.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.rejections.block_id IS 'Height of its block.';
COMMENT ON COLUMN virtualchain.rejections.txindex IS 'Place of its transaction in the block.';
COMMENT ON COLUMN virtualchain.rejections.txid IS 'Transaction id.';
COMMENT ON COLUMN virtualchain.rejections.opcode IS 'The byte after the magic.';
COMMENT ON COLUMN virtualchain.rejections.step IS 'The step that refused it: parse, check or commit.';
COMMENT ON COLUMN virtualchain.rejections.reason IS 'What the app, or the database, had against it.';

CREATE VIEW virtualchain.snapshots AS
SELECT s.app, s.block_id, encode(b.hash, 'hex') AS block_hash, encode(s.ops_hash, 'hex') AS ops_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash
FROM vc.snapshots AS s
LEFT JOIN vc.blocks AS b USING (block_id);
COMMENT ON VIEW virtualchain.snapshots IS 'An app''s digests at each of its blocks.';
COMMENT ON COLUMN virtualchain.snapshots.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.snapshots.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.snapshots.block_hash IS 'Hash of the block; null for an initial snapshot below the first block taken.';
COMMENT ON COLUMN virtualchain.snapshots.ops_hash IS 'Digest of the block''s ops; null in an initial snapshot.';
COMMENT ON COLUMN virtualchain.snapshots.consensus_hash IS 'Digest of the block''s ops and of all history before it.';
COMMENT ON COLUMN virtualchain.snapshots.state_hash IS 'Digest of every row of every projection after the block; null in an initial snapshot.';

CREATE VIEW virtualchain.apps AS
SELECT a.name, a.version, a.schema, a.build, a.magics, a.rule, a.first_block_id, a.valid_window, a.confirmations,
    CASE WHEN a.own_role THEN vc.role_of(a.schema) END AS role, a.status, a.error, s.block_id, encode(b.hash, 'hex') AS block_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash
FROM vc.apps AS a
LEFT JOIN LATERAL (
    SELECT block_id, consensus_hash, state_hash FROM vc.snapshots
    WHERE app = a.name ORDER BY block_id DESC LIMIT 1
) AS s ON true
LEFT JOIN vc.blocks AS b USING (block_id);
COMMENT ON VIEW virtualchain.apps IS 'The apps of this deployment and where each of them stands.';
COMMENT ON COLUMN virtualchain.apps.name IS 'The app''s name.';
COMMENT ON COLUMN virtualchain.apps.version IS 'Its version.';
COMMENT ON COLUMN virtualchain.apps.schema IS 'The schema with its views.';
COMMENT ON COLUMN virtualchain.apps.build IS 'The build that the views show.';
COMMENT ON COLUMN virtualchain.apps.magics IS 'The magics that its payloads start with.';
COMMENT ON COLUMN virtualchain.apps.rule IS 'Name of the payload rule that finds its payloads.';
COMMENT ON COLUMN virtualchain.apps.first_block_id IS 'The block of its first input.';
COMMENT ON COLUMN virtualchain.apps.valid_window IS 'For how many blocks a consensus hash stays valid.';
COMMENT ON COLUMN virtualchain.apps.confirmations IS 'The least confirmations that it accepts.';
COMMENT ON COLUMN virtualchain.apps.role IS 'The role that its reducers run under; null where that is the engine''s own, for want of CREATEROLE.';
COMMENT ON COLUMN virtualchain.apps.status IS 'running, catching_up, halted or stopped.';
COMMENT ON COLUMN virtualchain.apps.error IS 'Why it is halted.';
COMMENT ON COLUMN virtualchain.apps.block_id IS 'Its last block.';
COMMENT ON COLUMN virtualchain.apps.block_hash IS 'Hash of its last block.';
COMMENT ON COLUMN virtualchain.apps.consensus_hash IS 'Its consensus hash at that block.';
COMMENT ON COLUMN virtualchain.apps.state_hash IS 'Its state hash at that block.';

CREATE VIEW virtualchain.reorgs AS
SELECT reorg_id, detected_at, fork_block_id, old_block_id, encode(old_hash, 'hex') AS old_hash,
    new_block_id, encode(new_hash, 'hex') AS new_hash, depth, blocks_undone, ops_undone, duration
FROM vc.reorgs;
COMMENT ON VIEW virtualchain.reorgs IS 'Every deep fork that was undone.';
COMMENT ON COLUMN virtualchain.reorgs.reorg_id IS 'Running number.';
COMMENT ON COLUMN virtualchain.reorgs.detected_at IS 'When it was met, by the clock of the database.';
COMMENT ON COLUMN virtualchain.reorgs.fork_block_id IS 'The last block that both branches share.';
COMMENT ON COLUMN virtualchain.reorgs.old_block_id IS 'Height of the tip that was left.';
COMMENT ON COLUMN virtualchain.reorgs.old_hash IS 'Hash of the tip that was left.';
COMMENT ON COLUMN virtualchain.reorgs.new_block_id IS 'Height of the node''s tip at that time.';
COMMENT ON COLUMN virtualchain.reorgs.new_hash IS 'Hash of the node''s tip at that time.';
COMMENT ON COLUMN virtualchain.reorgs.depth IS 'How many taken blocks were replaced.';
COMMENT ON COLUMN virtualchain.reorgs.blocks_undone IS 'How many blocks were truncated.';
COMMENT ON COLUMN virtualchain.reorgs.ops_undone IS 'How many ops of all apps were undone.';
COMMENT ON COLUMN virtualchain.reorgs.duration IS 'How long undoing took.';
