-- name: columns
-- The columns of one projection: types with their modifiers, whether they may be null, and their defaults as expressions.
SELECT a.attname, t.typname, a.atttypmod, format_type(a.atttypid, NULL), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass AND a.attname = ANY (%(columns)s)
ORDER BY a.attnum;

-- name: default
-- The value of a column's default, as the column stores it.
SELECT CAST(({expression}) AS {type})

-- name: read
-- The rows of one projection with these keys.
SELECT {own_columns} FROM unnest({keys}) AS k ({key}) JOIN {table} AS r USING ({key})

-- name: keep
-- Keep the history of the rows with these keys, and record the keys of those that are put: what the table's triggers would do.
WITH written AS (SELECT * FROM unnest({keys}, {is_put}) AS w ({key}, vc__is_put)), kept AS (
    INSERT INTO {history}
    SELECT r.*, {block} FROM written JOIN {table} AS r USING ({key}) WHERE r.since_block < {block}
)
INSERT INTO {births} (since_block, {key})
SELECT {block}, {written_key} FROM written LEFT JOIN {table} AS r USING ({key})
WHERE written.vc__is_put AND r.since_block IS DISTINCT FROM {block}

-- name: remove
-- Remove the rows with these keys.
DELETE FROM {table} AS r USING unnest({keys}) AS w ({key}) WHERE {same_key}

-- name: put
-- Insert rows, or replace those with their keys.
INSERT INTO {table} ({columns}, since_block)
SELECT w.*, {block} FROM unnest({rows}) AS w ({columns})
ON CONFLICT ({key}) DO UPDATE SET {changes}

-- name: step_out
-- Before rows are written for an app: leave its role, silence the triggers that keep history, and have rows looked up by their keys.
SELECT pg_catalog.set_config('role', NULL, true), pg_catalog.set_config('search_path', '', true),
    pg_catalog.set_config('virtualchain.block_id', 'undo', true),
    pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('enable_hashjoin', 'off', true),
    pg_catalog.set_config('enable_mergejoin', 'off', true);
