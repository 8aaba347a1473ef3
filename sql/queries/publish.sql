-- name: view
-- The view that people read: the app's own columns, either now ({era} 0) or as of the block in virtualchain.as_of: current rows ({era} 1) and earlier versions ({era} 2). A snapshot to which the build was not live is refused. No branch has conditions of its own, and {era} is a constant in each, so the planner sorts and joins the branches by their indexes and skips those that do not apply.
CREATE OR REPLACE VIEW {view} AS
SELECT {columns}
FROM (
    SELECT {columns}, since_block, 2147483647 AS until_block, 0 AS {era} FROM {table}
    UNION ALL
    SELECT {columns}, since_block, 2147483647, 1 FROM {table}
    UNION ALL
    SELECT {columns}, since_block, until_block, 2 FROM {history}
) AS rows
WHERE CASE WHEN {era} = 0 THEN (SELECT vc.as_of({app}, {build})) IS NULL
        ELSE (SELECT vc.as_of({app}, {build})) IS NOT NULL END
    AND ({era} = 0 OR since_block <= (SELECT vc.as_of({app})))
    AND ({era} < 2 OR until_block > (SELECT vc.as_of({app})))
    AND ({era} < 2 OR until_block > vc.as_of_guess())

-- name: changes
-- What block $1 did to a projection: rows by key, before and after the block; the latter are current or in history. {row} is an alias that no column has; rows differ if their texts do, as for the state hash.
WITH went AS (
    SELECT jsonb_build_object({pairs}) AS key, to_jsonb({row}) - '{{since_block,until_block}}'::text[] AS content, ARRAY[{texts}] AS texts
    FROM {history} AS {row} WHERE {row}.until_block = $1
), born AS (
    SELECT DISTINCT {key} FROM {births} WHERE since_block = $1
), came AS (
    SELECT jsonb_build_object({pairs}) AS key, to_jsonb({row}) - '{{since_block}}'::text[] AS content, ARRAY[{texts}] AS texts
    FROM born JOIN {table} AS {row} USING ({key}) WHERE {row}.since_block = $1
    UNION ALL
    SELECT jsonb_build_object({pairs}), to_jsonb({row}) - '{{since_block,until_block}}'::text[], ARRAY[{texts}]
    FROM born JOIN {history} AS {row} USING ({key})
    WHERE {row}.since_block = $1 AND {row}.until_block > $1
)
SELECT CASE WHEN went.content IS NULL THEN 'insert' WHEN came.content IS NULL THEN 'delete' ELSE 'update' END,
    key, went.content, came.content
FROM went FULL JOIN came USING (key)
WHERE went.texts IS DISTINCT FROM came.texts
ORDER BY key

-- name: versions
-- The versions of the row of a projection with key $1, an object by column, that blocks below $2 wrote; newest first. {row} is an alias that no column has.
SELECT since_block, until_block, content, texts
FROM (
    SELECT since_block, 2147483647 AS until_block, to_jsonb({row}) - '{{since_block}}'::text[] AS content, ARRAY[{texts}] AS texts
    FROM {table} AS {row} WHERE {has_key}
    UNION ALL
    SELECT since_block, until_block, to_jsonb({row}) - '{{since_block,until_block}}'::text[], ARRAY[{texts}]
    FROM {history} AS {row} WHERE {has_key}
) AS versions
WHERE since_block < $2
ORDER BY until_block DESC

-- name: has_key
-- A part of the one above: one column of the key, compared as a value. The births have the columns of the key alone.
{row}.{column} = (SELECT its.{column} FROM jsonb_populate_record(NULL::{births}, $1) AS its)

-- name: live_build
-- The serial number of an app's live build.
SELECT serial FROM vc.apps WHERE name = %(app)s AND is_live;

-- name: published
-- The statements that the views of an app's schema were made from, by name.
SELECT name, definition, changes, versions FROM vc.published WHERE schema = %(schema)s;

-- name: drop_view
-- Drop the view of a projection that is gone or has other columns.
DROP VIEW IF EXISTS {view};

-- name: forget
-- Delete the record of a view.
DELETE FROM vc.published WHERE schema = %(schema)s AND name = %(name)s;

-- name: record
-- Record what a view was made from.
INSERT INTO vc.published (schema, name, definition, changes, versions)
VALUES (%(schema)s, %(name)s, %(definition)s, %(changes)s, %(versions)s)
ON CONFLICT (schema, name) DO UPDATE
SET definition = EXCLUDED.definition, changes = EXCLUDED.changes, versions = EXCLUDED.versions;

-- name: copy_comments
-- The statements that copy the comments of a table and its columns to its view.
SELECT format('COMMENT ON %%s IS %%L', target, description)
FROM (
    SELECT CASE d.objsubid WHEN 0 THEN format('VIEW %%I.%%I', %(schema)s::text, c.relname)
        ELSE format('COLUMN %%I.%%I.%%I', %(schema)s::text, c.relname, a.attname) END AS target, d.description
    FROM pg_description AS d
    JOIN pg_class AS c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
    WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r' AND c.relname = %(table)s
        AND a.attname IS DISTINCT FROM 'since_block'
) AS comments;

-- name: drop_schema
-- Drop the schema of an app's views; fails if it contains anything else.
DROP SCHEMA {schema};

-- name: pending_views
-- The views of an app's schema that show its projections as they would be after the pending inputs.
SELECT name FROM vc.pending_views WHERE schema = %(schema)s;

-- name: record_pending_view
-- Record such a view.
INSERT INTO vc.pending_views (schema, name) VALUES (%(schema)s, %(name)s) ON CONFLICT DO NOTHING;

-- name: forget_pending_view
-- Delete the record of such a view.
DELETE FROM vc.pending_views WHERE schema = %(schema)s AND name = %(name)s;

-- name: pending_view
-- The view of a projection as it would be after the pending inputs: the rows that they leave alone, and those that they write. Keys are compared as values: how they are written depends on the reader's session.
CREATE OR REPLACE VIEW {pending} AS
SELECT {columns} FROM {view} AS {row} WHERE NOT EXISTS (
    SELECT FROM vc.pending_rows AS changed CROSS JOIN LATERAL jsonb_populate_record(NULL::{view}, changed.key) AS {its}
    WHERE changed.app = {app} AND changed."table" = {name} AND {same_key}
        AND (SELECT vc.last_shown()) = 2147483647
        AND EXISTS (SELECT FROM vc.pending_state AS s WHERE s.judged_at > statement_timestamp() - interval '1 minute'))
UNION ALL
SELECT {written} FROM vc.pending_rows AS changed CROSS JOIN LATERAL jsonb_populate_record(NULL::{view}, changed.content) AS {row}
WHERE changed.app = {app} AND changed."table" = {name} AND changed.content IS NOT NULL
    AND (SELECT vc.last_shown()) = 2147483647
    AND EXISTS (SELECT FROM vc.pending_state AS s WHERE s.judged_at > statement_timestamp() - interval '1 minute')
