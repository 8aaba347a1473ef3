-- name: begin
-- Begin a block's transaction.
BEGIN;

-- name: begin_part
-- Begin a part of a block's transaction that may be undone alone.
SAVEPOINT part;

-- name: undo_part
-- Undo such a part.
ROLLBACK TO part;

-- name: end_part
-- End such a part.
RELEASE part;

-- name: commit
-- End a block's transaction.
COMMIT;

-- name: rollback
-- Undo a block's transaction.
ROLLBACK;

-- name: add_rows
-- Append what a block adds to tape and log. A build that somebody has swapped or dropped meanwhile does not take it: it has another epoch, or none. Of the parts below come those for which there are rows.
WITH {parts}held AS (
    SELECT row FROM jsonb_array_elements(%(snapshots)s::jsonb) AS row
    JOIN vc.apps AS a ON a.name = row ->> 0 AND a.build = row ->> 1 AND a.epoch = (row -> 2)::bigint AND a.is_live = (row -> 3)::boolean
    FOR KEY SHARE OF a
)
INSERT INTO vc.snapshots (app, build, block_id, ops_hash, consensus_hash, state_hash, state_number)
SELECT row ->> 0, row ->> 1, %(block_id)s, decode(row ->> 4, 'hex'), decode(row ->> 5, 'hex'),
    decode(row ->> 6, 'hex'), decode(row ->> 7, 'hex')
FROM held;

-- name: epochs
-- The epochs of all builds, and whether they are live.
SELECT name, build, epoch, is_live FROM vc.apps;

-- name: block
-- A part of the one above: the block.
block AS (
    INSERT INTO vc.blocks (block_id, hash, prev_hash, header, time, chainwork)
    SELECT %(block_id)s, decode(%(hash)s, 'hex'), decode(%(prev_hash)s, 'hex'), %(header)s, to_timestamp(%(time)s),
        coalesce((SELECT chainwork FROM vc.blocks WHERE block_id = %(block_id)s - 1) + %(work)s, 0)
)

-- name: inputs
-- A part of it: the block's inputs.
taken AS (
    INSERT INTO vc.inputs (block_id, txindex, txid, raw, magics, spent, unusual_keys, fee, evidence, spent_at, tracked_by, branch)
    SELECT %(block_id)s, (row -> 0)::integer, decode(row ->> 1, 'hex'), decode(row ->> 2, 'hex'),
        ARRAY(SELECT decode(magic, 'hex') FROM jsonb_array_elements_text(row -> 3) AS magic),
        decode(row ->> 4, 'hex'), row -> 5, (row -> 6)::bigint, row ->> 7,
        CASE WHEN row ->> 8 IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements(row -> 8)::integer) END,
        nullif(ARRAY(SELECT jsonb_array_elements_text(row -> 9)), '{}'), decode(row ->> 10, 'hex')
    FROM jsonb_array_elements(%(inputs)s::jsonb) AS row
    ON CONFLICT (block_id, txindex) DO UPDATE -- another app's search has already found it
    SET magics = ARRAY(SELECT DISTINCT m FROM unnest(inputs.magics || EXCLUDED.magics) AS m ORDER BY m),
        tracked_by = nullif(ARRAY(SELECT DISTINCT a FROM unnest(inputs.tracked_by || EXCLUDED.tracked_by) AS a ORDER BY a), '{}'),
        spent_at = coalesce(inputs.spent_at, EXCLUDED.spent_at), branch = coalesce(inputs.branch, EXCLUDED.branch),
        -- what was pruned comes back
        raw = coalesce(inputs.raw, EXCLUDED.raw), spent = coalesce(inputs.spent, EXCLUDED.spent),
        unusual_keys = CASE WHEN inputs.raw IS NULL THEN EXCLUDED.unusual_keys ELSE inputs.unusual_keys END,
        evidence = CASE WHEN inputs.raw IS NULL THEN EXCLUDED.evidence ELSE inputs.evidence END
)

-- name: coinbase
-- A part of it: the block's coinbase, if its inputs have Merkle branches.
rooted AS (
    INSERT INTO vc.coinbases (block_id, coinbase, branch)
    SELECT %(block_id)s, decode(%(coinbase)s, 'hex'), decode(%(coinbase_branch)s, 'hex')
    ON CONFLICT (block_id) DO NOTHING
)

-- name: ops
-- A part of it: the ops that builds have accepted.
accepted AS (
    INSERT INTO vc.ops (app, build, block_id, vtxindex, txindex, opcode, payload, fields, canonical, payload_index)
    SELECT part ->> 0, part ->> 1, %(block_id)s, (row -> 0)::integer, (row -> 1)::integer, decode(row ->> 2, 'hex'),
        decode(row ->> 3, 'hex'), row -> 4,
        ARRAY(SELECT decode(op, 'hex') FROM jsonb_array_elements_text(row -> 5) AS op), (row -> 6)::integer
    FROM jsonb_array_elements(%(ops)s::jsonb) AS part, jsonb_array_elements(part -> 2) AS row
)

-- name: rejections
-- A part of it: the candidates that builds have refused.
refused AS (
    INSERT INTO vc.rejections (app, build, block_id, txindex, opcode, step, reason, payload_index)
    SELECT part ->> 0, part ->> 1, %(block_id)s, (row -> 0)::integer, decode(row ->> 1, 'hex'), row ->> 2, row ->> 3,
        (row -> 4)::integer
    FROM jsonb_array_elements(%(rejections)s::jsonb) AS part, jsonb_array_elements(part -> 2) AS row
)
