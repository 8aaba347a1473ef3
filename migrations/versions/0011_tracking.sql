ALTER TABLE vc.inputs
    DROP CONSTRAINT inputs_txindex_check,
    ADD CONSTRAINT inputs_txindex_check CHECK (txindex >= 0),
    ADD COLUMN spent_at integer[],
    ADD COLUMN tracked_by text[];
COMMENT ON TABLE vc.inputs IS 'Every transaction in which a registered payload rule found a registered magic, whatever its opcode, or that spends outputs that an app tracks: shared by all apps.';
COMMENT ON COLUMN vc.inputs.txindex IS 'Position of the transaction in its block; the coinbase is 0, and an input only for a payload rule that takes it.';
COMMENT ON COLUMN vc.inputs.magics IS 'The registered magics that its payloads start with; none, if only tracking asked for it.';
COMMENT ON COLUMN vc.inputs.spent_at IS 'For each input, where the output that it spends was made: twice the height of the block, plus one if its coinbase made it; null if no app needs that.';
COMMENT ON COLUMN vc.inputs.tracked_by IS 'The apps whose tracking asked for it: it spends an output that they tracked before the block, or one of a transaction in the block that they see; null if there is none.';
COMMENT ON TABLE vc.coverage IS 'Which blocks of the tape were searched for which magic, or have what outputs that an app tracked were spent by (then the magic is empty, and the rule begins with tracking:). While a search continues its end is open, so that no row is updated per block.';
COMMENT ON COLUMN vc.coverage.rule IS 'Name of the payload rule that was used, and whether it was searched without opcodes and with heights.';

ALTER TABLE vc.apps
    ADD COLUMN tracking bytea CHECK (octet_length(tracking) = 32),
    ADD COLUMN tracking_from integer CHECK (tracking_from >= 0);
COMMENT ON COLUMN vc.apps.tracking IS 'For an app that tracks outputs, the SHA-256 of the rules and the code that decide which; the tape has what it spends from tracking_from up to its cursor.';
COMMENT ON COLUMN vc.apps.tracking_from IS 'The first block that was taken by these rules and this code.';

CREATE FUNCTION vc.tracking_rule(app text, tracking bytea) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN concat('tracking:', app, ':', encode(tracking, 'hex'));
COMMENT ON FUNCTION vc.tracking_rule(text, bytea) IS 'The rule by which vc.coverage records what an app that tracks outputs has covered.';

ALTER TABLE vc.ops
    DROP CONSTRAINT ops_txindex_check,
    ADD CONSTRAINT ops_txindex_check CHECK (txindex >= 0),
    DROP CONSTRAINT ops_opcode_check,
    ADD CONSTRAINT ops_opcode_check CHECK (octet_length(opcode) <= 1),
    ALTER COLUMN payload DROP NOT NULL,
    ADD COLUMN payload_index integer NOT NULL DEFAULT 0 CHECK (payload_index >= 0);
COMMENT ON COLUMN vc.ops.opcode IS 'The byte after the magic; empty for an app without opcodes, and for a transaction without a payload.';
COMMENT ON COLUMN vc.ops.payload IS 'The payload after magic and opcode; null if the transaction only spends outputs that the app tracks.';
COMMENT ON COLUMN vc.ops.payload_index IS 'Which of the transaction''s payloads it is, from 0.';

ALTER TABLE vc.rejections
    DROP CONSTRAINT rejections_txindex_check,
    ADD CONSTRAINT rejections_txindex_check CHECK (txindex >= 0),
    DROP CONSTRAINT rejections_opcode_check,
    ADD CONSTRAINT rejections_opcode_check CHECK (octet_length(opcode) <= 1),
    ADD COLUMN payload_index integer NOT NULL DEFAULT 0 CHECK (payload_index >= 0),
    DROP CONSTRAINT rejections_pkey,
    ADD PRIMARY KEY (app, build, block_id, txindex, payload_index);
COMMENT ON COLUMN vc.rejections.opcode IS 'The byte after the magic; empty for an app without opcodes, and for a transaction without a payload.';
COMMENT ON COLUMN vc.rejections.payload_index IS 'Which of the transaction''s payloads it is, from 0.';

CREATE OR REPLACE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics,
    CASE WHEN txindex = 0 THEN '[]' ELSE vc.senders(raw, spent, unusual_keys, (SELECT network FROM vc.deployment)) END AS senders,
    vc.outputs(raw, (SELECT network FROM vc.deployment)) AS outputs, fee, raw, evidence, spent,
    (SELECT array_agg(s.at / 2 ORDER BY s.n) FROM unnest(spent_at) WITH ORDINALITY AS s (at, n)) AS heights,
    coalesce(tracked_by, '{}') AS tracked_by
FROM vc.inputs
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.inputs IS 'Every transaction that carries a registered magic, judged or not, or spends outputs that an app tracks.';
COMMENT ON COLUMN virtualchain.inputs.magics IS 'The registered magics that its payloads start with.';
COMMENT ON COLUMN virtualchain.inputs.heights IS 'For each input the height of the block that made the output which it spends; null if no app needs that.';
COMMENT ON COLUMN virtualchain.inputs.tracked_by IS 'The apps that it was kept for because of an output which it spends.';

CREATE OR REPLACE VIEW virtualchain.ops AS
SELECT o.app, o.block_id, encode(b.hash, 'hex') AS block_hash, b.time, o.txindex, o.vtxindex,
    encode(i.txid, 'hex') AS txid, o.opcode, o.payload, o.fields, o.canonical, o.payload_index
FROM vc.ops AS o
JOIN vc.apps AS a ON a.name = o.app AND a.build = o.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
JOIN vc.blocks AS b USING (block_id)
WHERE o.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON COLUMN virtualchain.ops.opcode IS 'The byte after the magic; empty if there is none.';
COMMENT ON COLUMN virtualchain.ops.payload IS 'The payload after magic and opcode; null if the transaction only spends outputs that the app tracks.';
COMMENT ON COLUMN virtualchain.ops.payload_index IS 'Which of the transaction''s payloads it is, from 0.';

CREATE OR REPLACE VIEW virtualchain.rejections AS
SELECT r.app, r.block_id, r.txindex, encode(i.txid, 'hex') AS txid, r.opcode, r.step, r.reason, r.payload_index
FROM vc.rejections AS r
JOIN vc.apps AS a ON a.name = r.app AND a.build = r.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
WHERE r.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON COLUMN virtualchain.rejections.opcode IS 'The byte after the magic; empty if there is none.';
COMMENT ON COLUMN virtualchain.rejections.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
