-- name: genesis
-- The genesis block of the chain that the deployment follows, in hex.
SELECT genesis_hash FROM virtualchain.deployment;

-- name: rows
-- The rows that an app's view shows, as the texts of their columns, in the order of the state root.
SELECT ARRAY[{texts}] FROM {view} AS r ORDER BY {order};

-- name: stored_key
-- The texts of a key as its row has them: the database decides which value equals which.
SELECT ARRAY[{texts}] FROM {view} AS r WHERE {conditions};

-- name: key_column
-- A part of the one above. A literal that is compared with a column is read as its type reads it, but not rounded or cut to the column's length.
{column} = {text}

-- name: limited_types
-- The types of an app's columns that round or cut values, or fill them up; of a domain, the type below.
WITH RECURSIVE types AS (
    SELECT a.attname, a.atttypid AS type, a.atttypmod AS modifier
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname = %(view)s AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT d.attname, t.typbasetype, t.typtypmod FROM types AS d JOIN pg_type AS t ON t.oid = d.type WHERE t.typtype = 'd'
)
SELECT attname::text, format_type(type, modifier) FROM types WHERE modifier >= 0;

-- name: text_of_value
-- A literal as the type of a column writes it.
SELECT format('%s', value) FROM (SELECT {column} FROM {view} WHERE false UNION ALL SELECT {text}) AS literal (value);

-- name: text_of_limited_value
-- The same, as the column stores it, unless that would change the value: then no row has it.
SELECT format('%s', CASE WHEN value::{type} = value THEN value::{type} ELSE value END)
FROM (SELECT {column} FROM {view} WHERE false UNION ALL SELECT {text}) AS literal (value);
