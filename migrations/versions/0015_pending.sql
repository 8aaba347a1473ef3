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

CREATE VIEW virtualchain.pending AS
SELECT p.app, encode(p.txid, 'hex') AS txid, p.payload_index, p.place, p.block_id, p.opcode, p.payload, p.fields, p.verdict, p.step,
    p.reason, CASE WHEN has_schema_privilege(a.schema, 'USAGE') THEN p.changes END AS changes,
    p.fee, p.vsize, round(p.fee::numeric / p.vsize, 3) AS fee_rate, p.seen_at
FROM vc.pending AS p
JOIN vc.apps AS a ON a.name = p.app AND a.is_live
WHERE (SELECT vc.last_shown()) = 2147483647
    AND EXISTS (SELECT FROM vc.pending_state AS s WHERE s.judged_at > statement_timestamp() - interval '1 minute');
COMMENT ON VIEW virtualchain.pending IS 'Inputs that are not in the log yet, and what would come of them in the next block; empty unless a writer runs with --pending, and as of earlier blocks.';
COMMENT ON COLUMN virtualchain.pending.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.pending.txid IS 'The transaction''s id.';
COMMENT ON COLUMN virtualchain.pending.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
COMMENT ON COLUMN virtualchain.pending.place IS 'Its place in the order in which the app''s pending inputs were judged, from 0.';
COMMENT ON COLUMN virtualchain.pending.block_id IS 'Height of the block that holds it, which has fewer than K others on top; null while it is unconfirmed.';
COMMENT ON COLUMN virtualchain.pending.opcode IS 'The opcode, one byte, or none for an app without opcodes; null if it was not judged.';
COMMENT ON COLUMN virtualchain.pending.payload IS 'The payload, without magic and opcode; null if the transaction only spends outputs that the app tracks, or was not judged.';
COMMENT ON COLUMN virtualchain.pending.fields IS 'The op as it would be committed; of a refused input as it was parsed.';
COMMENT ON COLUMN virtualchain.pending.verdict IS 'accepted, refused, or halts: a callback would fail, and the app would be halted; unjudged if there are too many.';
COMMENT ON COLUMN virtualchain.pending.step IS 'Where it would be refused (parse, check or commit), or the callback that fails.';
COMMENT ON COLUMN virtualchain.pending.reason IS 'Why.';
COMMENT ON COLUMN virtualchain.pending.changes IS 'What it would do to rows: an array of objects with table, action, key, old and new; null for who may not read the app''s views.';
COMMENT ON COLUMN virtualchain.pending.fee IS 'The transaction''s fee in satoshi; null if it is in a block.';
COMMENT ON COLUMN virtualchain.pending.vsize IS 'Its virtual size in bytes; null if it is in a block.';
COMMENT ON COLUMN virtualchain.pending.fee_rate IS 'Satoshi a virtual byte; null if it is in a block.';
COMMENT ON COLUMN virtualchain.pending.seen_at IS 'When the node first saw it, by the node''s clock; null if it is in a block.';
