-- name: went
-- Rows of one projection that a block changed or removed, as they were before it.
SELECT {place}, false, ARRAY[{texts}] FROM {history} AS r WHERE until_block = $1

-- name: came
-- Rows of one projection that a block made or changed, as they are after it; one that it made twice counts once.
SELECT {place}, true, ARRAY[{texts}] FROM (SELECT DISTINCT {key} FROM {births} WHERE since_block = $1) AS b
JOIN {table} AS r USING ({key}) WHERE r.since_block = $1

-- name: text
-- The text of a column as its type's output function gives it; null stays null.
CASE num_nulls(r.{column}) WHEN 0 THEN format('%s', r.{column}) END

-- name: begin_undo
-- Silence the triggers that keep history, and have every row found by its key: what is undone decides the cost, not the size of its table.
SELECT set_config('virtualchain.block_id', 'undo', true), set_config('search_path', '', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('enable_bitmapscan', 'off', true);

-- name: end_undo
-- Nothing writes to a projection any more, and plans are made as ever.
SELECT set_config('virtualchain.block_id', '', true),
    set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true),
    set_config('enable_mergejoin', 'on', true), set_config('enable_bitmapscan', 'on', true);

-- name: unmake
-- Remove the rows that blocks above the fork made, or made what they are.
DELETE FROM {table} AS r USING {births} AS b WHERE b.since_block > $1 AND r.since_block > $1 AND {same_key};

-- name: put_back
-- Put back the rows as they were at the fork.
INSERT INTO {table} ({columns}, since_block)
SELECT {columns}, since_block FROM {history} WHERE until_block > $1 AND since_block <= $1;

-- name: forget_changes
-- Drop what was kept of the changes above the fork.
DELETE FROM {history} WHERE until_block > $1;

-- name: forget_births
-- Drop the record of what was made above the fork.
DELETE FROM {births} WHERE since_block > $1;

-- name: prune_history
-- Drop rows that stood in no block from this one on; what is before $2 was dropped earlier, and while a reader keeps its snapshot, it lies there still.
DELETE FROM {history} WHERE until_block BETWEEN $2 AND $1;

-- name: prune_births
-- Drop the record of what was made up to this block; what is before $2 was dropped earlier.
DELETE FROM {births} WHERE since_block BETWEEN $2 AND $1;

-- name: newest
-- The last block that changed one projection, as far as history goes.
SELECT greatest((SELECT max(since_block) FROM {births}), (SELECT max(until_block) FROM {history}))
