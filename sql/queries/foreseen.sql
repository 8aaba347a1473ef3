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

-- name: is_large
-- Whether a build has a table of which a copy costs more than what makes copies faster.
SELECT coalesce(max(pg_relation_size(c.oid)), 0) > 1000000 FROM pg_class AS c
WHERE c.relnamespace = %(live)s::regnamespace AND c.relkind = 'r' AND c.relname !~ '_(history|births)$';

-- name: restored
-- Statements that make again what the next query lays aside. The rows that come meanwhile satisfy the foreign keys where they come from.
SELECT statement FROM (
    SELECT 1 AS turn, c.oid AS id, format('ALTER TABLE %%s ENABLE TRIGGER keep_history', c.oid::regclass) AS statement
    FROM pg_class AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = 'keep_history'
    WHERE c.relnamespace = %(tables)s::regnamespace
    UNION ALL
    SELECT 2, i.indexrelid, pg_get_indexdef(i.indexrelid)
    FROM pg_index AS i JOIN pg_trigger AS t ON t.tgrelid = i.indrelid AND t.tgname = 'keep_history'
    JOIN pg_class AS c ON c.oid = i.indrelid
    WHERE c.relnamespace = %(tables)s::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
    UNION ALL
    SELECT 3, f.oid, format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s NOT VALID', f.conrelid::regclass, f.conname, pg_get_constraintdef(f.oid))
    FROM pg_constraint AS f WHERE f.connamespace = %(tables)s::regnamespace AND f.contype = 'f'
) AS restored ORDER BY turn, id;

-- name: laid_aside
-- Statements that lay aside what makes the loading of a copy slow: foreign keys, indexes that are no constraints, the triggers that keep history, and what a crash would need.
SELECT statement FROM (
    SELECT 1 AS turn, f.oid AS id, format('ALTER TABLE %%s DROP CONSTRAINT %%I', f.conrelid::regclass, f.conname) AS statement
    FROM pg_constraint AS f WHERE f.connamespace = %(tables)s::regnamespace AND f.contype = 'f'
    UNION ALL
    SELECT 2, i.indexrelid, format('DROP INDEX %%s', i.indexrelid::regclass)
    FROM pg_index AS i JOIN pg_trigger AS t ON t.tgrelid = i.indrelid AND t.tgname = 'keep_history'
    JOIN pg_class AS c ON c.oid = i.indrelid
    WHERE c.relnamespace = %(tables)s::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
    UNION ALL
    SELECT 3, c.oid, format('ALTER TABLE %%s DISABLE TRIGGER keep_history, SET UNLOGGED', c.oid::regclass)
    FROM pg_class AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgname = 'keep_history'
    WHERE c.relnamespace = %(tables)s::regnamespace
) AS laid_aside ORDER BY turn, id;

-- name: be_brief
-- End a session that has the transaction wait for it, or a statement of it, after some time.
SELECT set_config('idle_in_transaction_session_timeout', %(milliseconds)s, true), set_config('statement_timeout', %(milliseconds)s, true);
