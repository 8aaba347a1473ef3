-- name: forget
-- Forget all pending inputs: nobody follows the node's unconfirmed transactions.
WITH inputs AS (DELETE FROM vc.pending), rows AS (DELETE FROM vc.pending_rows) DELETE FROM vc.pending_state;

-- name: is_there
-- Whether somebody has noted pending inputs.
SELECT EXISTS (SELECT FROM vc.pending_state);

-- name: judged
-- Record what the pending inputs were judged on, and when.
INSERT INTO vc.pending_state (judged_at, block_id, block_hash) VALUES (clock_timestamp(), %(block_id)s, decode(%(block_hash)s, 'hex'))
ON CONFLICT (singleton) DO UPDATE SET judged_at = EXCLUDED.judged_at, block_id = EXCLUDED.block_id, block_hash = EXCLUDED.block_hash;

-- name: remove
-- Remove inputs of an app that are not pending any more, or whose verdict changed.
DELETE FROM vc.pending WHERE app = %(app)s AND (encode(txid, 'hex'), payload_index) IN (
    SELECT row ->> 0, (row -> 1)::integer FROM jsonb_array_elements(%(keys)s::jsonb) AS row);

-- name: add
-- Add pending inputs of an app.
INSERT INTO vc.pending (app, txid, payload_index, place, block_id, raw, opcode, payload, fields, verdict, step, reason, changes,
    fee, vsize, seen_at)
SELECT %(app)s, decode(row ->> 0, 'hex'), (row -> 1)::integer, (row -> 2)::integer, (row ->> 3)::integer, decode(row ->> 4, 'hex'),
    decode(row ->> 5, 'hex'), decode(row ->> 6, 'hex'), nullif(row -> 7, 'null'), row ->> 8, row ->> 9, row ->> 10, row -> 14,
    (row ->> 11)::bigint, (row ->> 12)::integer, to_timestamp((row ->> 13)::bigint)
FROM jsonb_array_elements(%(rows)s::jsonb) AS row;

-- name: remove_rows
-- Remove what pending inputs of an app would do to rows.
DELETE FROM vc.pending_rows WHERE app = %(app)s;

-- name: add_rows
-- Add what pending inputs of an app would do to rows: table, key, content and place of each.
INSERT INTO vc.pending_rows (app, "table", place, key, content)
SELECT %(app)s, row ->> 0, (row -> 3)::integer, row -> 1, nullif(row -> 2, 'null')
FROM jsonb_array_elements(%(rows)s::jsonb) AS row;

-- name: remove_others
-- Remove what is pending for other apps than these.
WITH inputs AS (DELETE FROM vc.pending WHERE app <> ALL (%(apps)s)) DELETE FROM vc.pending_rows WHERE app <> ALL (%(apps)s);

-- name: unconfirmed
-- The unconfirmed transactions that are anything to an app, in the order in which they were judged, if that is still so.
SELECT encode(txid, 'hex'), raw FROM vc.pending WHERE app = %(app)s AND block_id IS NULL AND EXISTS (
    SELECT FROM vc.pending_state WHERE judged_at > statement_timestamp() - interval '1 minute')
ORDER BY place;
