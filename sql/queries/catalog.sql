-- name: columns
-- The columns of a build's projections with their types, domains resolved to what they are made of; whether they may not be null, and whether a check or a domain limits them.
SELECT c.relname, a.attname, format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL), a.attnotnull, t.typtype = 'd' OR EXISTS (
    SELECT FROM pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype NOT IN ('n', 'f') AND a.attnum = ANY (k.conkey)
    UNION ALL
    SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisunique AND (a.attnum = ANY (i.indkey::int2[]) OR 0 = ANY (i.indkey::int2[])))
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE c.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND c.relkind = 'r' AND c.relname = ANY (%(names)s)
ORDER BY c.relname, a.attnum;

-- name: keys
-- The columns of each unique index of a build's projections: whether it is the primary key's, checked row by row, has an expression, leaves rows out.
SELECT c.relname, i.indisprimary, i.indimmediate,
    ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts ORDER BY k.place) AS columns,
    0 = ANY (i.indkey::int2[]) AS has_expression, i.indpred IS NOT NULL AS is_partial
FROM pg_class AS c
JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisunique
WHERE c.relnamespace = to_regnamespace(quote_ident(%(tables)s)) AND c.relname = ANY (%(names)s)
ORDER BY c.relname, i.indexrelid;

-- name: types
-- The enums and domains that a build's projections made, and what the domains are made of.
SELECT typname, typtype = 'e', format_type(nullif(typbasetype, 0), NULL) FROM pg_type
WHERE typnamespace = to_regnamespace(quote_ident(%(tables)s)) AND typtype IN ('e', 'd');

-- name: functions
-- Whether all built-in functions of a name depend on their arguments alone, and some return no float and nothing that another library or the server's internals decide. False for a type, whose name calls a cast, except for ranges.
SELECT typname, false FROM pg_type
WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = ANY (%(names)s) AND typtype NOT IN ('r', 'm')
UNION ALL
SELECT proname, bool_and(provolatile = 'i') AND bool_or(
    prorettype <> ALL (ARRAY['float4', 'float8', 'point', 'line', 'lseg', 'box', 'path', 'polygon', 'circle', 'xml', 'money', 'cstring',
        'internal', 'tsquery', 'jsonpath', '_xml']::regtype[])
    AND NOT proargtypes::oid[] && ARRAY['cstring', 'internal', 'xml']::regtype[]::oid[])
FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%(names)s)
    AND NOT EXISTS (SELECT FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = proname AND typtype NOT IN ('r', 'm'))
GROUP BY proname;
