-- name: columns
-- The columns of one projection: types with their modifiers, whether they may be null, and their defaults as expressions.
SELECT a.attname, t.typname, a.atttypmod, format_type(a.atttypid, NULL), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass AND a.attname = ANY (%(columns)s)
ORDER BY a.attnum;

-- name: deferrable_key
-- Whether the key of one projection is deferrable: then no statement can insert or replace a row by its key.
SELECT 1 FROM pg_constraint
WHERE conrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass AND contype = 'p' AND condeferrable;

-- name: computed_check
-- Whether a check of one projection computes something, by any function but comparisons and those that always have a result: it may not fit, or be divided by zero, though all values of the row fit their columns.
SELECT 1
FROM pg_constraint AS k
WHERE k.conrelid = format('%%I.%%I', %(tables)s::text, %(table)s::text)::regclass AND k.contype = 'c' AND (
    k.conbin::text ~ 'COERCETODOMAIN'
    OR EXISTS (
        SELECT FROM regexp_matches(k.conbin::text, ':(?:opfuncid|funcid) (\d+)', 'g') AS m (match)
        JOIN pg_proc AS p ON p.oid = m.match[1]::oid
        WHERE (p.prorettype <> 'boolean'::regtype OR p.proname ~ 'adjacent') AND p.proname NOT IN ('ascii', 'bit_length', 'btrim',
            'char_length', 'character_length', 'length', 'lower', 'ltrim', 'md5', 'octet_length', 'position', 'rtrim', 'strpos', 'upper')))
LIMIT 1;

-- name: default
-- The value of a column's default, as the column stores it.
SELECT CAST(({expression}) AS {type})

-- name: read
-- The rows of one projection with these keys, or with keys that begin so.
SELECT {own_columns} FROM unnest({keys}) AS k ({key}) JOIN {table} AS r USING ({key})

-- name: edge
-- The first rows of one projection whose keys begin so, in the order of their keys, or the last ones, from the end.
SELECT {own_columns} FROM {table} AS r WHERE {condition} ORDER BY {order} LIMIT {most}

-- name: at
-- The rows of one projection for these outputs; each takes 36 bytes.
SELECT {own_columns} FROM ({outpoints}) AS k JOIN {table} AS r USING (txid, vout)

-- name: present
-- Those of these outputs of which one projection has a row.
SELECT txid, vout FROM ({outpoints}) AS k WHERE EXISTS (SELECT FROM {table} AS r WHERE r.txid = k.txid AND r.vout = k.vout)

-- name: outpoints
-- A part of those above: outputs, from one piece of data. One with a number that no table can hold becomes negative.
SELECT encode(substring($1::bytea FROM 36 * n + 1 FOR 32), 'hex') AS txid,
    ('x' || encode(substring($1::bytea FROM 36 * n + 33 FOR 4), 'hex'))::bit(32)::integer AS vout
FROM generate_series(0, octet_length($1::bytea) / 36 - 1) AS n

-- name: write
-- Insert rows, or replace those with their keys, and do what the table's triggers would do: keep the history of rows, and record their keys.
WITH written AS (SELECT * FROM unnest({row_keys}) AS w ({key})), {kept}, born AS ({born})
INSERT INTO {table} ({columns}, since_block)
SELECT w.*, {block} FROM unnest({rows}) AS w ({columns})
ON CONFLICT ({key}) DO UPDATE SET {changes}

-- name: remove
-- Remove the rows with these keys, and keep their history.
WITH written AS (SELECT * FROM unnest({keys}) AS w ({key})), {kept}
DELETE FROM {table} AS r USING written AS w WHERE {same_key}

-- name: bear
-- Record the keys of rows that were put and removed in one go.
WITH written AS (SELECT * FROM unnest({keys}) AS w ({key})) {born}

-- name: kept
-- A part of those above: the history of rows that an earlier block wrote.
kept AS (INSERT INTO {history} SELECT r.*, {block} FROM written JOIN {table} AS r USING ({key}) WHERE r.since_block < {block})

-- name: born
-- A part of those above: the keys that the block has not recorded yet.
INSERT INTO {births} (since_block, {key})
SELECT {block}, {written_key} FROM written LEFT JOIN {table} AS r USING ({key}) WHERE r.since_block IS DISTINCT FROM {block}
