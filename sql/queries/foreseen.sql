-- name: went
-- Rows of one projection that were there before block $1, and that it has changed or removed since row versions were numbered $2. {row} is an alias that no column has.
SELECT {index}, 'went', jsonb_build_object({pairs})::text, (to_jsonb({row}) - '{{since_block,until_block}}'::text[])::text, ARRAY[{texts}]::text, age({row}.xmin)
FROM {history} AS {row} WHERE {row}.until_block = $1 AND age({row}.xmin) < $2

-- name: came
-- Rows of one projection that block $1 has made or changed since then.
SELECT {index}, 'came', jsonb_build_object({pairs})::text, (to_jsonb({row}) - '{{since_block}}'::text[])::text, ARRAY[{texts}]::text, age({row}.xmin)
FROM (SELECT DISTINCT {key} FROM {births} WHERE since_block = $1) AS b
JOIN {table} AS {row} USING ({key}) WHERE {row}.since_block = $1 AND age({row}.xmin) < $2

-- name: gone
-- Keys that block $1 has made or changed, and of which one projection has no row now. Keys may be equal and have other texts, as spans of 1 month and of 30 days do.
SELECT {index}, 'gone', born.key, NULL, NULL, NULL
FROM (SELECT DISTINCT jsonb_build_object({pairs})::text AS key FROM {births} AS {row} WHERE since_block = $1) AS born
WHERE NOT EXISTS (
    SELECT FROM (SELECT DISTINCT {key} FROM {births} WHERE since_block = $1) AS b
    JOIN {table} AS {row} USING ({key}) WHERE jsonb_build_object({pairs}) = born.key::jsonb)

-- name: rows
-- Rows of one projection in the form of the queries above, from an array for each of its columns.
SELECT jsonb_build_object({pairs})::text, to_jsonb({row})::text, ARRAY[{texts}]::text
FROM (SELECT {columns} FROM unnest({arrays}) AS r ({columns})) AS {row}

-- name: own_types
-- The columns of a table whose types the app's projections make, and these types.
SELECT a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass AND a.attnum > 0
    AND NOT a.attisdropped AND t.typnamespace = %(tables)s::regnamespace;

-- name: copy
-- Fill a projection with the rows of another one.
INSERT INTO {new} ({columns}, since_block) SELECT {values}, since_block FROM {table}
