-- name: projections
-- The projections of all apps, or of one app or name, that the user may read: views with a table of their name in the schema of the live build that is not the twin of another. Their columns, key and indexes are those of the table.
SELECT a.name, a.schema, t.relname::text, obj_description(t.oid, 'pg_class'),
    (SELECT json_agg(json_build_object(
            'name', c.attname, 'type', format_type(c.atttypid, c.atttypmod), 'base', base.name, 'nullable', NOT c.attnotnull,
            'comment', col_description(t.oid, c.attnum), 'is_long', c.attlen < 0) ORDER BY c.attnum)
        FROM pg_catalog.pg_attribute AS c
        CROSS JOIN LATERAL (
            WITH RECURSIVE below AS (
                SELECT c.atttypid AS type
                UNION ALL
                SELECT d.typbasetype FROM below JOIN pg_catalog.pg_type AS d ON d.oid = below.type AND d.typtype = 'd'
            )
            SELECT format_type(b.oid, NULL) AS name FROM below JOIN pg_catalog.pg_type AS b ON b.oid = below.type AND b.typtype <> 'd'
        ) AS base
        WHERE c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped AND c.attname <> 'since_block') AS columns,
    ARRAY(SELECT c.attname::text FROM pg_catalog.pg_index AS i
        CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_catalog.pg_attribute AS c ON c.attrelid = t.oid AND c.attnum = k.attnum
        WHERE i.indrelid = t.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place) AS key,
    ARRAY(SELECT DISTINCT c.attname::text FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_attribute AS c ON c.attrelid = t.oid AND c.attnum = i.indkey[0]
        WHERE i.indrelid = t.oid AND i.indisvalid AND i.indpred IS NULL AND c.attname <> 'since_block' ORDER BY 1) AS indexed,
    CASE WHEN t.reltuples >= 0 THEN t.reltuples::bigint END AS row_estimate
FROM virtualchain.apps AS a
JOIN pg_catalog.pg_class AS t ON t.relnamespace = to_regnamespace(quote_ident(concat(a.schema, '__', a.build))) AND t.relkind = 'r'
JOIN pg_catalog.pg_class AS v ON v.relnamespace = to_regnamespace(quote_ident(a.schema)) AND v.relkind = 'v' AND v.relname = t.relname
WHERE (%(app)s::text IS NULL OR a.name = %(app)s) AND (%(name)s::text IS NULL OR t.relname = %(name)s)
    AND has_schema_privilege(v.relnamespace, 'USAGE') AND has_table_privilege(v.oid, 'SELECT')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS twin WHERE twin.relnamespace = t.relnamespace AND twin.relkind = 'r'
        AND t.relname IN (twin.relname || '_history', twin.relname || '_births'))
ORDER BY a.name COLLATE "C", t.relname COLLATE "C";

-- name: page
-- A page of a projection: rows by a key, as many as fit into 4 MiB, but at least one; {rows} tells whether there are others. Columns have numbers here, because an app may call its own anything.
SELECT {output}, rows FROM (
    SELECT page.*, row_number() OVER place AS place, sum({sizes}) OVER place AS size, count(*) OVER () AS rows
    FROM (SELECT {columns} FROM {view} AS r WHERE {conditions} ORDER BY {order} LIMIT {limit}) AS page
    WINDOW place AS (ORDER BY {numbers} ROWS UNBOUNDED PRECEDING)
) AS measured
WHERE place = 1 OR size <= 4194304
ORDER BY place;

-- name: json_row
-- A part of the one above: a row as JSON; {row} is an alias that no column has.
(SELECT row_to_json({row})::text FROM (SELECT {columns}) AS {row})

-- name: count
-- How many rows of a projection fit, up to a bound.
SELECT count(*) FROM (SELECT FROM {view} AS r WHERE {conditions} LIMIT {limit}) AS counted;
