-- name: columns
-- The columns of a build's projections with their types, domains resolved to what they are made of.
SELECT c.relname, a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL)
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE c.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND c.relkind = 'r' AND c.relname = ANY (%(names)s)
ORDER BY c.relname, a.attnum;

-- name: keys
-- The columns of each unique index of a build's projections, and whether it is the primary key's, and checked row by row.
SELECT c.relname, i.indisprimary, i.indimmediate,
    ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum ORDER BY k.place) AS columns,
    0 = ANY (i.indkey::int2[]) AS has_expression
FROM pg_class AS c
JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisunique
WHERE c.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND c.relname = ANY (%(names)s)
ORDER BY c.relname, i.indexrelid;

-- name: types
-- The enums and domains that a build's projections made.
SELECT typname, typtype = 'e' FROM pg_type
WHERE typnamespace = to_regnamespace(quote_ident(%(tables)s)) AND typtype IN ('e', 'd');

-- name: functions
-- Whether all built-in functions of a name depend on their arguments alone; not those named like a type, which are casts.
SELECT proname, bool_and(provolatile = 'i') FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%(names)s)
    AND NOT EXISTS (SELECT FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = proname)
GROUP BY proname;
