-- name: publish
-- The view that people read: the app's own columns only.
CREATE OR REPLACE VIEW {view} AS SELECT {columns} FROM {table};

-- name: copy_comment
-- Carry the table's comment over to its view, and each column's.
SELECT format('COMMENT ON %%s IS %%L', target, description)
FROM (
    SELECT CASE d.objsubid WHEN 0 THEN format('VIEW %%I.%%I', %(schema)s::text, c.relname)
        ELSE format('COLUMN %%I.%%I.%%I', %(schema)s::text, c.relname, a.attname) END AS target, d.description
    FROM pg_description AS d
    JOIN pg_class AS c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
    WHERE c.relnamespace = %(build)s::regnamespace AND c.relkind = 'r' AND c.relname = %(table)s
        AND a.attname IS DISTINCT FROM 'since_block'
) AS comments;

-- name: views
-- The views of an app's schema.
SELECT relname::text FROM pg_class WHERE relnamespace = %(schema)s::regnamespace AND relkind = 'v' ORDER BY 1;

-- name: drop_view
-- Remove a view, unless something of others depends on it.
DROP VIEW {view};

-- name: drop_schema
-- Remove the schema of an app's views, unless others put something into it.
DROP SCHEMA {schema};
