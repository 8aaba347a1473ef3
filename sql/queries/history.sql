-- name: went
-- Rows of one projection that a block changed or removed, as they were before it.
SELECT {index}, false, ARRAY[{texts}] FROM {history} AS r WHERE until_block = $1

-- name: came
-- Rows of one projection that a block made or changed, as they are after it; a row that it made twice counts once.
SELECT {index}, true, ARRAY[{texts}] FROM (SELECT DISTINCT {key} FROM {births} WHERE since_block = $1) AS b
JOIN {table} AS r USING ({key}) WHERE r.since_block = $1

-- name: begin_undo
-- Silence the triggers that keep history, and have every row looked up by its key, so that the cost depends on what is undone and not on the size of the tables.
SELECT set_config('virtualchain.block_id', 'undo', true), set_config('search_path', '', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('enable_bitmapscan', 'off', true);

-- name: end_undo
-- Allow no more writes to projections, and restore the planner's settings.
SELECT set_config('virtualchain.block_id', '', true),
    set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true),
    set_config('enable_mergejoin', 'on', true), set_config('enable_bitmapscan', 'on', true);

-- name: unmake
-- Remove the rows that blocks above the fork made or changed.
DELETE FROM {table} AS r USING {births} AS b WHERE b.since_block > $1 AND r.since_block > $1 AND {same_key};

-- name: put_back
-- Put back the rows as they were at the fork.
INSERT INTO {table} ({columns}, since_block)
SELECT {columns}, since_block FROM {history} WHERE until_block > $1 AND since_block <= $1;

-- name: forget_changes
-- Drop the history of the changes above the fork.
DELETE FROM {history} WHERE until_block > $1;

-- name: forget_births
-- Drop the record of what was made above the fork.
DELETE FROM {births} WHERE since_block > $1;

-- name: prune_history
-- Drop rows that build $3 of app $2 replaced up to block $1; those dropped earlier stay on disk while a reader's snapshot needs them, so they are not scanned again.
DELETE FROM {history} WHERE until_block BETWEEN (SELECT history_from FROM vc.apps WHERE name = $2 AND build = $3) AND $1;

-- name: prune_births
-- Drop the record of what it made up to block $1, in the same way.
DELETE FROM {births} WHERE since_block BETWEEN (SELECT history_from FROM vc.apps WHERE name = $2 AND build = $3) AND $1;

-- name: newest
-- The last block that changed one projection, as far as history goes.
SELECT greatest((SELECT max(since_block) FROM {births}), (SELECT max(until_block) FROM {history}))

-- name: live_builds
-- The last block of each live build, and whether the tape has that block.
SELECT a.name, a.schema, a.build, a.base_block_id, s.block_id,
    s.block_id <= a.base_block_id OR EXISTS (SELECT FROM vc.blocks AS b WHERE b.block_id = s.block_id) AS is_on_tape
FROM vc.apps AS a
CROSS JOIN LATERAL (
    SELECT block_id, state_hash FROM vc.snapshots
    WHERE app = a.name AND build = a.build ORDER BY block_id DESC LIMIT 1
) AS s
WHERE a.is_live
ORDER BY a.name COLLATE "C";

-- name: latest_number
-- The state hash after the last block of build $2 of app $1, and the number that it is computed from.
SELECT encode((SELECT state_hash FROM vc.snapshots WHERE app = $1 AND build = $2 ORDER BY block_id DESC LIMIT 1), 'hex'),
    (SELECT state_number FROM vc.snapshots WHERE app = $1 AND build = $2 AND state_number IS NOT NULL
        ORDER BY block_id DESC LIMIT 1);
