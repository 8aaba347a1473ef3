-- name: begin
-- Record how the writer was started, and that it runs.
INSERT INTO vc.writer (confirmations, apps, started_at, seen_at, version, metrics)
VALUES (%(confirmations)s, %(apps)s, now() - %(age)s * interval '1 second', now(), %(version)s, %(metrics)s)
ON CONFLICT (singleton) DO UPDATE SET confirmations = EXCLUDED.confirmations, apps = EXCLUDED.apps,
    started_at = EXCLUDED.started_at, seen_at = EXCLUDED.seen_at, node_block_id = NULL, node_hash = NULL,
    waits_for = NULL, version = EXCLUDED.version, stopped_at = NULL, metrics = EXCLUDED.metrics;

-- name: note
-- Record that the writer still runs, and what it knows.
UPDATE vc.writer
SET seen_at = now(), node_block_id = %(node_block_id)s, node_hash = decode(%(node_hash)s, 'hex'), waits_for = %(waits_for)s,
    metrics = %(metrics)s;

-- name: sample
-- Record how far the writer is, and drop what is older than a day, or was recorded before the clock was set back.
WITH dropped AS (DELETE FROM vc.progress WHERE at < now() - interval '1 day' OR at > now())
INSERT INTO vc.progress (at, block_id, node_block_id, inputs, ops, rejections)
VALUES (now(), (SELECT max(block_id) FROM vc.blocks), %(node_block_id)s, %(inputs)s, %(ops)s, %(rejections)s)
ON CONFLICT (at) DO NOTHING;

-- name: end
-- Record that the writer ended in order, and what an operator must decide before another one can go on.
UPDATE vc.writer SET seen_at = now(), stopped_at = now(), waits_for = %(stops_for)s, metrics = %(metrics)s;

-- name: settings
-- The settings of the writer that was started last, as that one recorded them.
SELECT settings FROM vc.writer;

-- name: keep_settings
-- Record the settings of this writer.
UPDATE vc.writer SET settings = %(settings)s;
