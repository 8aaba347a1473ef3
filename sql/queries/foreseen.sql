-- name: went
-- Rows of one projection that were there before block $1, and that it has changed or removed since row versions were numbered $2. {row} is an alias that no column has.
SELECT {index}, 'went', jsonb_build_object({pairs})::text, (to_jsonb({row}) - '{{since_block,until_block}}'::text[])::text, age({row}.xmin)
FROM {history} AS {row} WHERE {row}.until_block = $1 AND age({row}.xmin) < $2

-- name: came
-- Rows of one projection that block $1 has made or changed since then.
SELECT {index}, 'came', jsonb_build_object({pairs})::text, (to_jsonb({row}) - '{{since_block}}'::text[])::text, age({row}.xmin)
FROM (SELECT DISTINCT {key} FROM {births} WHERE since_block = $1) AS b
JOIN {table} AS {row} USING ({key}) WHERE {row}.since_block = $1 AND age({row}.xmin) < $2

-- name: gone
-- Keys that block $1 has made or changed, and of which one projection has no row now.
SELECT {index}, 'gone', jsonb_build_object({pairs})::text, NULL, NULL
FROM (SELECT DISTINCT {key} FROM {births} WHERE since_block = $1) AS {row}
WHERE NOT EXISTS (SELECT FROM {table} AS r WHERE {same_key})

-- name: rows
-- Rows of one projection in the form of the queries above, from an array for each of its columns.
SELECT jsonb_build_object({pairs})::text, to_jsonb({row})::text FROM unnest({arrays}) AS {row} ({columns})

-- name: copy
-- Fill a projection with the rows of another one.
INSERT INTO {new} ({columns}, since_block) SELECT {columns}, since_block FROM {table}
