-- name: create_schema
-- A schema for an app's views, or for the tables of one build.
CREATE SCHEMA {schema};

-- name: drop_schema
-- Remove a build's tables, and what the database made for them.
DROP SCHEMA {schema} CASCADE;

-- name: search_path
-- Let unqualified names of the DDL mean the build's schema, until the transaction ends.
SELECT set_config('search_path', quote_ident(%(tables)s), true);

-- name: session_settings
-- What was set in this session, other than by the server, the database or the user.
SELECT name, setting FROM pg_settings WHERE source = 'session';

-- name: any_row
-- Whether a table has a row.
SELECT 1 FROM {table} LIMIT 1;

-- name: tables
-- The tables of a build with their columns and the columns of their primary keys, in order.
SELECT c.relname AS name,
    ARRAY(SELECT a.attname::text FROM pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
    ARRAY(SELECT a.attname::text FROM pg_index AS i
        CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place) AS key
FROM pg_class AS c
WHERE c.relnamespace = %(tables)s::regnamespace AND c.relkind = 'r'
ORDER BY c.relname COLLATE "C";

-- name: keep_history
-- Give one projection its since_block, its history twin, the record of its births, and the triggers that keep them.
ALTER TABLE {table} ADD COLUMN since_block integer NOT NULL;
COMMENT ON COLUMN {table}.since_block IS 'The block that made the row what it is.';
CREATE TABLE {history} (LIKE {table}, until_block integer NOT NULL, PRIMARY KEY (until_block, {key}));
COMMENT ON TABLE {history} IS 'Rows as they were before the block that changed or removed them.';
COMMENT ON COLUMN {history}.until_block IS 'The block that changed or removed the row.';
CREATE TABLE {births} AS SELECT since_block, {key} FROM {table} WITH NO DATA;
CREATE INDEX ON {births} (since_block);
COMMENT ON TABLE {births} IS 'Keys of the rows that each block made or changed: found without a scan, and without an index that would end HOT updates. A key may stand there twice.';
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    block CONSTANT integer := vc.writing_block(TG_RELID);
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.since_block < block THEN
        INSERT INTO {history} VALUES (OLD.*, block);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.since_block := block;
    IF TG_OP = 'INSERT' OR OLD.since_block < block OR ({old_key}) IS DISTINCT FROM ({new_key}) THEN
        INSERT INTO {births} VALUES (block, {new_key});
    END IF;
    RETURN NEW;
END;
$body$;
COMMENT ON FUNCTION {function}() IS 'Keeps since_block, history and births of one projection, whoever writes.';
CREATE TRIGGER keep_history BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
    WHEN (current_setting('virtualchain.block_id', true) IS DISTINCT FROM 'undo')
    EXECUTE FUNCTION {function}();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION vc.refuse_truncate();
