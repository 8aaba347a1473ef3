CREATE SCHEMA virtualchain;
COMMENT ON SCHEMA virtualchain IS 'Views on the log, for everyone: hashes and transaction ids are lower-case hex text.';

CREATE VIEW virtualchain.blocks AS
SELECT block_id, encode(hash, 'hex') AS hash, encode(prev_hash, 'hex') AS prev_hash, time, chainwork, header
FROM vc.blocks
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.blocks IS 'Every block that was taken.';
COMMENT ON COLUMN virtualchain.blocks.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.blocks.hash IS 'Block hash.';
COMMENT ON COLUMN virtualchain.blocks.prev_hash IS 'Hash of the block before.';
COMMENT ON COLUMN virtualchain.blocks.time IS 'The time that the miner wrote into the header.';
COMMENT ON COLUMN virtualchain.blocks.chainwork IS 'Expected hashes spent since the first block ever taken.';
COMMENT ON COLUMN virtualchain.blocks.header IS 'The 80 bytes that are hashed.';

CREATE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics,
    CASE WHEN txindex = 0 THEN '[]' ELSE vc.senders(raw, spent, unusual_keys, (SELECT coalesce(address_form, network) FROM vc.deployment)) END AS senders,
    vc.outputs(raw, (SELECT coalesce(address_form, network) FROM vc.deployment)) AS outputs, fee, raw, evidence, spent,
    (SELECT array_agg(s.at / 2 ORDER BY s.n) FROM unnest(spent_at) WITH ORDINALITY AS s (at, n)) AS heights,
    coalesce(tracked_by, '{}') AS tracked_by, i.branch, c.coinbase, c.branch AS coinbase_branch, spent_at
FROM vc.inputs AS i
LEFT JOIN vc.coinbases AS c USING (block_id)
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.inputs IS 'Every transaction that carries a registered magic, judged or not, or spends outputs that an app tracks.';
COMMENT ON COLUMN virtualchain.inputs.block_id IS 'Height of its block.';
COMMENT ON COLUMN virtualchain.inputs.txindex IS 'Position of the transaction in its block.';
COMMENT ON COLUMN virtualchain.inputs.txid IS 'Transaction id.';
COMMENT ON COLUMN virtualchain.inputs.magics IS 'The registered magics that its payloads start with.';
COMMENT ON COLUMN virtualchain.inputs.senders IS 'For each input of the transaction the output that it spends; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.outputs IS 'The outputs of the transaction; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.fee IS 'Sum of inputs minus sum of outputs, in satoshi.';
COMMENT ON COLUMN virtualchain.inputs.raw IS 'The whole transaction, including witnesses; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.spent IS 'The outputs that the transaction spends, in the order of its inputs, each serialized as in a transaction: fast to search for a script; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.heights IS 'For each input the height of the block that made the output which it spends; null if no app needs that.';
COMMENT ON COLUMN virtualchain.inputs.spent_at IS 'For each input, where the output that it spends was made: twice the height of the block, plus one if its coinbase made it; null if no app needs that.';
COMMENT ON COLUMN virtualchain.inputs.tracked_by IS 'The apps that it was kept for because of an output which it spends.';
COMMENT ON COLUMN virtualchain.inputs.branch IS 'The Merkle branch that shows that it is in its block; null if it was not kept.';
COMMENT ON COLUMN virtualchain.inputs.coinbase IS 'The coinbase of its block, without witness; null if it was not kept.';
COMMENT ON COLUMN virtualchain.inputs.coinbase_branch IS 'The Merkle branch of the coinbase.';
COMMENT ON COLUMN virtualchain.inputs.evidence IS 'What shows that the senders are right: undo, transaction, bound, proof, node or export; null if it was not recorded.';

CREATE VIEW virtualchain.ops AS
SELECT o.app, o.block_id, encode(b.hash, 'hex') AS block_hash, b.time, o.txindex, o.vtxindex,
    encode(i.txid, 'hex') AS txid, o.opcode, o.payload, o.fields, o.canonical, o.payload_index
FROM vc.ops AS o
JOIN vc.apps AS a ON a.name = o.app AND a.build = o.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
JOIN vc.blocks AS b USING (block_id)
WHERE o.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.ops IS 'Every input that an app accepted, in one row.';
COMMENT ON COLUMN virtualchain.ops.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.ops.block_id IS 'Height of its block.';
COMMENT ON COLUMN virtualchain.ops.block_hash IS 'Hash of its block.';
COMMENT ON COLUMN virtualchain.ops.time IS 'Time of its block.';
COMMENT ON COLUMN virtualchain.ops.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN virtualchain.ops.vtxindex IS 'Position among the app''s parsed candidates in the block, from 0.';
COMMENT ON COLUMN virtualchain.ops.txid IS 'Transaction id.';
COMMENT ON COLUMN virtualchain.ops.opcode IS 'The byte after the magic; empty if there is none.';
COMMENT ON COLUMN virtualchain.ops.payload IS 'The payload after magic and opcode; null if the transaction only spends outputs that the app tracks.';
COMMENT ON COLUMN virtualchain.ops.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
COMMENT ON COLUMN virtualchain.ops.fields IS 'The op as the app committed it; an array if the commit made several ops of it.';
COMMENT ON COLUMN virtualchain.ops.canonical IS 'The serialized ops that entered the block''s ops hash.';

CREATE VIEW virtualchain.rejections AS
SELECT r.app, r.block_id, r.txindex, encode(i.txid, 'hex') AS txid, r.opcode, r.step, r.reason, r.payload_index
FROM vc.rejections AS r
JOIN vc.apps AS a ON a.name = r.app AND a.build = r.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
WHERE r.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.rejections IS 'Every candidate that an app rejected, and why.';
COMMENT ON COLUMN virtualchain.rejections.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.rejections.block_id IS 'Height of its block.';
COMMENT ON COLUMN virtualchain.rejections.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN virtualchain.rejections.txid IS 'Transaction id.';
COMMENT ON COLUMN virtualchain.rejections.opcode IS 'The byte after the magic; empty if there is none.';
COMMENT ON COLUMN virtualchain.rejections.payload_index IS 'Which of the transaction''s payloads it is, from 0.';
COMMENT ON COLUMN virtualchain.rejections.step IS 'The step that rejected it: parse, check or commit.';
COMMENT ON COLUMN virtualchain.rejections.reason IS 'Why the app or the database rejected it.';

CREATE VIEW virtualchain.snapshots AS
SELECT s.app, s.block_id, encode(b.hash, 'hex') AS block_hash, encode(s.ops_hash, 'hex') AS ops_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash
FROM vc.snapshots AS s
JOIN vc.apps AS a ON a.name = s.app AND a.build = s.build AND a.is_live
LEFT JOIN vc.blocks AS b USING (block_id)
WHERE s.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
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
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash,
    a.base_block_id, a.history_from, a.on_deep_fork,
    coalesce(a.last_code_digest <> a.code_digest, false) AS code_changed, a.unexpected,
    encode(a.fingerprint, 'hex') AS fingerprint, encode(a.last_code_digest, 'hex') AS code_digest
FROM vc.apps AS a
LEFT JOIN LATERAL (
    SELECT block_id, consensus_hash, state_hash FROM vc.snapshots
    WHERE app = a.name AND build = a.build AND block_id <= (SELECT vc.last_shown()) ORDER BY block_id DESC LIMIT 1
) AS s ON true
LEFT JOIN vc.blocks AS b USING (block_id)
WHERE a.is_live AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.apps IS 'The apps of this deployment, and how far each of them is.';
COMMENT ON COLUMN virtualchain.apps.name IS 'The app''s name.';
COMMENT ON COLUMN virtualchain.apps.version IS 'Its version.';
COMMENT ON COLUMN virtualchain.apps.schema IS 'The schema with its views.';
COMMENT ON COLUMN virtualchain.apps.build IS 'The build that the views show.';
COMMENT ON COLUMN virtualchain.apps.magics IS 'The magics that its payloads start with.';
COMMENT ON COLUMN virtualchain.apps.rule IS 'Name of the payload rule that finds its payloads.';
COMMENT ON COLUMN virtualchain.apps.first_block_id IS 'The block of its first input.';
COMMENT ON COLUMN virtualchain.apps.valid_window IS 'For how many blocks a consensus hash stays valid.';
COMMENT ON COLUMN virtualchain.apps.confirmations IS 'The minimum of confirmations that it accepts.';
COMMENT ON COLUMN virtualchain.apps.role IS 'The role that its reducers run under; null if that is the engine''s own, which does not have CREATEROLE.';
COMMENT ON COLUMN virtualchain.apps.status IS 'running, catching_up, halted or stopped.';
COMMENT ON COLUMN virtualchain.apps.error IS 'Why it is halted.';
COMMENT ON COLUMN virtualchain.apps.block_id IS 'Its last block.';
COMMENT ON COLUMN virtualchain.apps.block_hash IS 'Hash of its last block.';
COMMENT ON COLUMN virtualchain.apps.consensus_hash IS 'Its consensus hash at that block.';
COMMENT ON COLUMN virtualchain.apps.state_hash IS 'Its state hash at that block.';
COMMENT ON COLUMN virtualchain.apps.base_block_id IS 'The block after which it began: the one before its first, or that of its checkpoint.';
COMMENT ON COLUMN virtualchain.apps.history_from IS 'The lowest block that its history still shows.';
COMMENT ON COLUMN virtualchain.apps.on_deep_fork IS 'What happens when blocks that it has taken are replaced: rollback, checkpoint or halt.';
COMMENT ON COLUMN virtualchain.apps.code_changed IS 'Whether other code ran it last than its tables were begun with, under the same version.';
COMMENT ON COLUMN virtualchain.apps.unexpected IS 'How its digests differ from those that are expected of it: block_id, digest, expected, found, origin; null if they do not.';
COMMENT ON COLUMN virtualchain.apps.fingerprint IS 'SHA-256 of what it declares: nodes that run the same rules have the same.';
COMMENT ON COLUMN virtualchain.apps.code_digest IS 'SHA-256 of the code that ran it last.';

CREATE VIEW virtualchain.reorgs AS
SELECT reorg_id, detected_at, fork_block_id, old_block_id, encode(old_hash, 'hex') AS old_hash,
    new_block_id, encode(new_hash, 'hex') AS new_hash, depth, blocks_undone, ops_undone, duration, cause, rows_undone
FROM vc.reorgs;
COMMENT ON VIEW virtualchain.reorgs IS 'Every rollback: of a deep fork, or by the operator.';
COMMENT ON COLUMN virtualchain.reorgs.reorg_id IS 'Running number.';
COMMENT ON COLUMN virtualchain.reorgs.detected_at IS 'When it was detected, by the clock of the database.';
COMMENT ON COLUMN virtualchain.reorgs.fork_block_id IS 'The last block that both branches share.';
COMMENT ON COLUMN virtualchain.reorgs.old_block_id IS 'Height of the abandoned tip.';
COMMENT ON COLUMN virtualchain.reorgs.old_hash IS 'Hash of the abandoned tip.';
COMMENT ON COLUMN virtualchain.reorgs.new_block_id IS 'Height of the node''s tip at that time.';
COMMENT ON COLUMN virtualchain.reorgs.new_hash IS 'Hash of the node''s tip at that time.';
COMMENT ON COLUMN virtualchain.reorgs.depth IS 'How many taken blocks were replaced.';
COMMENT ON COLUMN virtualchain.reorgs.blocks_undone IS 'How many blocks were undone.';
COMMENT ON COLUMN virtualchain.reorgs.ops_undone IS 'How many ops of all apps were undone.';
COMMENT ON COLUMN virtualchain.reorgs.duration IS 'How long undoing took.';
COMMENT ON COLUMN virtualchain.reorgs.cause IS 'work, invalid, pin or operator: why blocks were undone.';
COMMENT ON COLUMN virtualchain.reorgs.rows_undone IS 'How many rows of projections were removed or restored.';

CREATE VIEW virtualchain.builds AS
SELECT a.name AS app, a.build, a.is_live, a.version, a.status,
    (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS block_id
FROM vc.apps AS a;
COMMENT ON VIEW virtualchain.builds IS 'Every build of every app: the live one, and those beside it.';
COMMENT ON COLUMN virtualchain.builds.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.builds.build IS 'Name of the build.';
COMMENT ON COLUMN virtualchain.builds.is_live IS 'Whether the app''s views show it.';
COMMENT ON COLUMN virtualchain.builds.version IS 'The version of the app that it was made with.';
COMMENT ON COLUMN virtualchain.builds.status IS 'running, catching_up, halted or stopped.';
COMMENT ON COLUMN virtualchain.builds.block_id IS 'Its last block.';

CREATE VIEW virtualchain.pins AS
SELECT block_id, encode(hash, 'hex') AS hash FROM vc.pins;
COMMENT ON VIEW virtualchain.pins IS 'Blocks that the followed chain must contain.';
COMMENT ON COLUMN virtualchain.pins.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.pins.hash IS 'Hash of the block.';

CREATE VIEW virtualchain.changes AS
SELECT a.name AS app, p.name AS "table", s.block_id, c.action, c.key, c.old, c.new
FROM vc.apps AS a
JOIN vc.published AS p USING (schema)
JOIN vc.snapshots AS s ON s.app = a.name AND s.build = a.build
CROSS JOIN LATERAL vc.changes(p.schema, p.name, s.block_id) AS c
WHERE a.is_live AND s.state_number IS NOT NULL AND s.block_id > a.history_from
    AND s.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.changes IS 'What each block did to the projections, as far back as history is kept: blocks above apps.history_from.';
COMMENT ON COLUMN virtualchain.changes.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.changes."table" IS 'Name of the projection.';
COMMENT ON COLUMN virtualchain.changes.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.changes.action IS 'insert, update or delete: the effect of the whole block; a changed key is a delete and an insert.';
COMMENT ON COLUMN virtualchain.changes.key IS 'The row''s primary key, an object by column.';
COMMENT ON COLUMN virtualchain.changes.old IS 'The row before the block, an object by column; null for an insert.';
COMMENT ON COLUMN virtualchain.changes.new IS 'The row after the block; null for a delete.';

CREATE VIEW virtualchain.deployment AS
SELECT network, encode(genesis_hash, 'hex') AS genesis_hash,
    (SELECT until_block + 1 FROM vc.coverage WHERE magic = '' AND rule = 'pruned') AS pruned_below
FROM vc.deployment;
COMMENT ON VIEW virtualchain.deployment IS 'The one chain that this database follows; no row before the first start.';
COMMENT ON COLUMN virtualchain.deployment.network IS 'mainnet, testnet3, testnet4, signet, regtest, signet- and the eight hex digits of a custom signet''s message start, or a network of another coin, such as litecoin-regtest.';
COMMENT ON COLUMN virtualchain.deployment.genesis_hash IS 'Hash of block 0.';
COMMENT ON COLUMN virtualchain.deployment.pruned_below IS 'Of inputs in blocks below this one, raw transactions were dropped (`virtualchain prune`); null if of none.';

CREATE VIEW virtualchain.coverage AS
SELECT magic, rule, from_block, until_block FROM vc.coverage WHERE rule <> 'pruned'
UNION ALL
SELECT ''::bytea, vc.tracking_rule(a.name, a.tracking), s.from_block, s.until_block
FROM vc.apps AS a CROSS JOIN LATERAL (
    SELECT greatest(a.tracking_from, (SELECT until_block + 1 FROM vc.coverage WHERE magic = '' AND rule = 'pruned')) AS from_block,
        (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS until_block
) AS s
WHERE a.tracking_from = a.base_block_id + 1 AND s.until_block >= s.from_block;
COMMENT ON VIEW virtualchain.coverage IS 'Which blocks were searched for which magic, by which payload rule; blocks whose inputs were pruned count as not searched. With an empty magic and a rule that begins with tracking: the blocks of which the tape has all that an app sees that tracks outputs.';
COMMENT ON COLUMN virtualchain.coverage.magic IS 'The magic that was searched for.';
COMMENT ON COLUMN virtualchain.coverage.rule IS 'Name of the payload rule that was used, and whether it was searched without opcodes and with heights.';
COMMENT ON COLUMN virtualchain.coverage.from_block IS 'The first block that was searched.';
COMMENT ON COLUMN virtualchain.coverage.until_block IS 'The last block that was searched; null while the search continues with every new block.';

CREATE VIEW virtualchain.writer AS
SELECT confirmations, apps, started_at, seen_at, node_block_id, encode(node_hash, 'hex') AS node_hash, waits_for, version, stopped_at
FROM vc.writer;
COMMENT ON VIEW virtualchain.writer IS 'How the process that follows the chain was started last, and what it reports of itself; no row before the first start.';
COMMENT ON COLUMN virtualchain.writer.confirmations IS 'K: how many blocks must be on top of a block before it is taken.';
COMMENT ON COLUMN virtualchain.writer.apps IS 'The apps whose code it has; others are not advanced.';
COMMENT ON COLUMN virtualchain.writer.started_at IS 'When it was started, by the clock of the database, like the other times here; null if an earlier version was.';
COMMENT ON COLUMN virtualchain.writer.seen_at IS 'When it reported last: some ten seconds ago at most, unless it is at work on something long, waits for an answer, or is gone.';
COMMENT ON COLUMN virtualchain.writer.node_block_id IS 'Height of the node''s last block then; null if it has not answered yet.';
COMMENT ON COLUMN virtualchain.writer.node_hash IS 'Hash of that block; null if its height is.';
COMMENT ON COLUMN virtualchain.writer.waits_for IS 'What it waited for then; null while it takes blocks. Of one that has ended, what an operator must decide before another can go on.';
COMMENT ON COLUMN virtualchain.writer.version IS 'The version of virtualchain that it runs.';
COMMENT ON COLUMN virtualchain.writer.stopped_at IS 'When it ended in order; null while it runs, and if it was killed.';

CREATE VIEW virtualchain.metrics AS
SELECT m.name, m.labels, m.value
FROM vc.writer AS w, LATERAL jsonb_to_recordset(w.metrics) AS m (name text, labels jsonb, value double precision);
COMMENT ON VIEW virtualchain.metrics IS 'What the writer counted until its last report, as Prometheus gets it: see docs/monitoring.md; no row before the first start.';
COMMENT ON COLUMN virtualchain.metrics.name IS 'The name of the metric.';
COMMENT ON COLUMN virtualchain.metrics.labels IS 'Its labels, an object of texts.';
COMMENT ON COLUMN virtualchain.metrics.value IS 'Its value.';

CREATE VIEW virtualchain.progress AS
SELECT at, block_id, node_block_id, inputs, ops, rejections FROM vc.progress;
COMMENT ON VIEW virtualchain.progress IS 'How far the writer was, every ten seconds of the last day.';
COMMENT ON COLUMN virtualchain.progress.at IS 'When that was, by the clock of the database.';
COMMENT ON COLUMN virtualchain.progress.block_id IS 'Height of the tape''s last block; null if it was empty.';
COMMENT ON COLUMN virtualchain.progress.node_block_id IS 'Height of the node''s last block, as far as the writer knew it; null if the node had not answered yet.';
COMMENT ON COLUMN virtualchain.progress.inputs IS 'How many inputs the blocks held that were taken since the sample before.';
COMMENT ON COLUMN virtualchain.progress.ops IS 'How many inputs apps accepted since then, in these blocks or while catching up.';
COMMENT ON COLUMN virtualchain.progress.rejections IS 'How many they rejected.';

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

CREATE VIEW virtualchain.webhooks AS
SELECT name, app, block_id, delivered, delivered_at, failures, error, failed_at, next_try FROM vc.webhooks;
COMMENT ON VIEW virtualchain.webhooks IS 'How far the deliveries of each webhook are.';
COMMENT ON COLUMN virtualchain.webhooks.name IS 'Name of the webhook.';
COMMENT ON COLUMN virtualchain.webhooks.app IS 'Name of the app whose events are delivered.';
COMMENT ON COLUMN virtualchain.webhooks.block_id IS 'The block of the last event; there was nothing to deliver since, or it is being delivered.';
COMMENT ON COLUMN virtualchain.webhooks.delivered IS 'How many deliveries the receiver has accepted.';
COMMENT ON COLUMN virtualchain.webhooks.delivered_at IS 'When it accepted the last one.';
COMMENT ON COLUMN virtualchain.webhooks.failures IS 'How many attempts have failed since then.';
COMMENT ON COLUMN virtualchain.webhooks.error IS 'Why the last one failed; null if none has.';
COMMENT ON COLUMN virtualchain.webhooks.failed_at IS 'When it failed.';
COMMENT ON COLUMN virtualchain.webhooks.next_try IS 'When the next attempt is due.';

CREATE FUNCTION virtualchain.revision() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT version_num FROM vc.alembic_version);
END;
$$;
COMMENT ON FUNCTION virtualchain.revision() IS 'The revision of the schema, for readers as well.';

CREATE FUNCTION virtualchain.script_of(address text) RETURNS bytea
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    form CONSTANT text := (SELECT address_form FROM vc.deployment);
    prefix CONSTANT text := substring(lower(address)
        FROM '^(' || coalesce(nullif(split_part(form, ':', 4), ''), 'bc|tb|bcrt') || ')1[02-9ac-hj-np-z]{8,80}$');
    symbols text;
    bits bit varying := '';
    number numeric := 0;
    bytes bytea := '';
    script bytea;
    network CONSTANT text := CASE WHEN form IS NOT NULL THEN form WHEN prefix = 'bc' OR address ~ '^[13]' THEN 'mainnet' WHEN prefix = 'bcrt' THEN 'regtest' ELSE 'testnet3' END;
BEGIN
    IF prefix IS NOT NULL AND address IN (lower(address), upper(address)) THEN
        address := lower(address);
        symbols := translate(substr(address, length(prefix) + 2),
            'qpzry9x8gf2tvdw0s3jn54khce6mua7l', ' !"#$%&''()*+,-./0123456789:;<=>?');
        FOR place IN 2 .. length(symbols) - 6 LOOP
            bits := bits || (ascii(substr(symbols, place, 1)) & 31)::bit(5);
        END LOOP;
        FOR place IN 0 .. length(bits) / 8 - 1 LOOP
            bytes := bytes || set_byte('\x00', 0, substring(bits FROM 8 * place + 1 FOR 8)::bit(8)::integer);
        END LOOP;
        script := set_byte('\x00', 0, CASE left(symbols, 1) WHEN ' ' THEN 0 ELSE (ascii(symbols) & 31) + 80 END)
            || set_byte('\x00', 0, length(bytes)) || bytes;
    ELSIF address ~ '^[1-9A-HJ-NP-Za-km-z]{25,35}$' THEN
        FOR place IN 1 .. length(address) LOOP
            number := number * 58 + strpos('123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz', substr(address, place, 1)) - 1;
        END LOOP;
        WHILE number > 0 OR octet_length(bytes) < 25 LOOP
            bytes := set_byte('\x00', 0, mod(number, 256)::integer) || bytes;
            number := div(number, 256);
        END LOOP;
        script := CASE WHEN encode(substr(bytes, 1, octet_length(bytes) - 24), 'hex') = ANY (
                CASE WHEN form IS NULL THEN ARRAY['00', '6f'] ELSE ARRAY[split_part(form, ':', 1)] END)
            THEN '\x76a914'::bytea || substr(bytes, octet_length(bytes) - 23, 20) || '\x88ac'
            ELSE '\xa914'::bytea || substr(bytes, octet_length(bytes) - 23, 20) || '\x87' END;
        IF address = vc.base58_address(decode(nullif(split_part(form, ':', 3), ''), 'hex') || substr(bytes, octet_length(bytes) - 23, 20)) THEN
            RETURN script;
        END IF;
    END IF;
    -- Written again, it has the right checksum, version and padding.
    IF address = ANY(vc.addresses(script, vc.type_on(network, script, vc.script_type(script)), network)) THEN
        RETURN script;
    END IF;
    RAISE EXCEPTION 'not an address: %', quote_literal(left(address, 100)) USING ERRCODE = 'invalid_parameter_value';
END;
$$;
COMMENT ON FUNCTION virtualchain.script_of(text) IS 'The output script that an address of any Bitcoin network stands for, or of the deployment''s if that is another coin''s: to look for it in inputs.spent and inputs.raw is faster than to compute the addresses of every row.';

CREATE FUNCTION virtualchain.row_history(app text, "table" text, key jsonb, below integer DEFAULT NULL, most integer DEFAULT NULL)
RETURNS TABLE (from_block integer, until_block integer, "row" jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' SET "IntervalStyle" = 'iso_8601' SET "TimeZone" = 'UTC' AS $$
DECLARE
    -- The role that asks; in this function, current_user is the owner.
    reader CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    query text;
    look text;
    last_shown integer;
    version record;
    texts text[];
BEGIN
    SELECT p.versions, format('SELECT EXISTS (SELECT FROM %I.%I)', p.schema, p.name) INTO query, look
    FROM vc.apps AS a JOIN vc.published AS p ON p.schema = a.schema AND p.name = row_history."table"
    WHERE a.name = row_history.app AND a.is_live AND has_schema_privilege(reader, p.schema, 'USAGE')
        AND has_table_privilege(reader, format('%I.%I', p.schema, p.name), 'SELECT');
    IF query IS NULL OR most < 1 THEN
        RETURN;
    END IF;
    EXECUTE look; -- the view refuses a snapshot that is older than its build, to which the tables may look empty
    last_shown := coalesce(vc.as_of(app), 2147483646);
    FOR version IN EXECUTE query USING key, least(last_shown + 1, below) LOOP
        -- As for virtualchain.changes, a block that wrote the row as it was did not change it.
        IF version.until_block = from_block AND version.texts = texts THEN
            from_block := version.since_block;
            CONTINUE;
        ELSIF from_block IS NOT NULL THEN
            RETURN NEXT;
            most := most - 1;
            IF most = 0 THEN
                RETURN;
            END IF;
        END IF;
        from_block := version.since_block;
        until_block := CASE WHEN version.until_block <= last_shown THEN version.until_block END;
        "row" := version.content;
        texts := version.texts;
    END LOOP;
    IF from_block IS NOT NULL THEN
        RETURN NEXT;
    END IF;
EXCEPTION WHEN undefined_table THEN
    RAISE EXCEPTION 'the views of app % show another build than when this transaction began, and the old one is gone', app
        USING ERRCODE = 'VC007', HINT = 'End the transaction, and read again in a new one.';
END;
$$;
COMMENT ON FUNCTION virtualchain.row_history(text, text, jsonb, integer, integer) IS 'The versions of the row of a projection with a primary key, an object by column, newest first; nothing for a role that may not read its view. With `below`, the from_block of a version, those before it; with `most`, no more than that. A version is valid from from_block to before until_block, which is null for the row as it is; between two versions that do not meet there was no row. If the oldest from_block is not above apps.history_from, earlier ones may have been pruned.';
