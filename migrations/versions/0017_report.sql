ALTER TABLE vc.writer ADD COLUMN started_at timestamptz, ADD COLUMN seen_at timestamptz, ADD COLUMN node_block_id integer,
    ADD COLUMN node_hash bytea CHECK (octet_length(node_hash) = 32), ADD COLUMN waits_for text, ADD COLUMN version text,
    ADD COLUMN stopped_at timestamptz;
COMMENT ON TABLE vc.writer IS 'How the process that follows the chain was started last, and what it reports of itself; the lock shows whether it still runs. Nothing is derived from it.';
COMMENT ON COLUMN vc.writer.started_at IS 'When it was started, by the clock of the database, like the other times here; null if an earlier version was.';
COMMENT ON COLUMN vc.writer.seen_at IS 'When it reported last: some ten seconds ago at most, unless it is at work on something long, waits for an answer, or is gone.';
COMMENT ON COLUMN vc.writer.node_block_id IS 'Height of the node''s last block then; null if it has not answered yet.';
COMMENT ON COLUMN vc.writer.node_hash IS 'Hash of that block, in display order; null if its height is.';
COMMENT ON COLUMN vc.writer.waits_for IS 'What it waited for then; null while it takes blocks.';
COMMENT ON COLUMN vc.writer.version IS 'The version of virtualchain that it runs.';
COMMENT ON COLUMN vc.writer.stopped_at IS 'When it ended in order; null while it runs, and if it was killed.';

CREATE OR REPLACE VIEW virtualchain.writer AS
SELECT confirmations, apps, started_at, seen_at, node_block_id, encode(node_hash, 'hex') AS node_hash, waits_for, version, stopped_at
FROM vc.writer;
COMMENT ON VIEW virtualchain.writer IS 'How the process that follows the chain was started last, and what it reports of itself; no row before the first start.';
COMMENT ON COLUMN virtualchain.writer.started_at IS 'When it was started, by the clock of the database, like the other times here; null if an earlier version was.';
COMMENT ON COLUMN virtualchain.writer.seen_at IS 'When it reported last: some ten seconds ago at most, unless it is at work on something long, waits for an answer, or is gone.';
COMMENT ON COLUMN virtualchain.writer.node_block_id IS 'Height of the node''s last block then; null if it has not answered yet.';
COMMENT ON COLUMN virtualchain.writer.node_hash IS 'Hash of that block; null if its height is.';
COMMENT ON COLUMN virtualchain.writer.waits_for IS 'What it waited for then; null while it takes blocks.';
COMMENT ON COLUMN virtualchain.writer.version IS 'The version of virtualchain that it runs.';
COMMENT ON COLUMN virtualchain.writer.stopped_at IS 'When it ended in order; null while it runs, and if it was killed.';

CREATE TABLE vc.progress (
    at timestamptz PRIMARY KEY,
    block_id integer,
    node_block_id integer,
    inputs bigint NOT NULL CHECK (inputs >= 0),
    ops bigint NOT NULL CHECK (ops >= 0),
    rejections bigint NOT NULL CHECK (rejections >= 0)
);
COMMENT ON TABLE vc.progress IS 'How far the writer was, every ten seconds of the last day. Nothing is derived from it.';
COMMENT ON COLUMN vc.progress.at IS 'When that was, by the clock of the database.';
COMMENT ON COLUMN vc.progress.block_id IS 'Height of the tape''s last block; null if it was empty.';
COMMENT ON COLUMN vc.progress.node_block_id IS 'Height of the node''s last block, as far as the writer knew it; null if the node had not answered yet.';
COMMENT ON COLUMN vc.progress.inputs IS 'How many inputs the blocks held that were taken since the sample before.';
COMMENT ON COLUMN vc.progress.ops IS 'How many inputs apps accepted since then, in these blocks or while catching up.';
COMMENT ON COLUMN vc.progress.rejections IS 'How many they rejected.';

CREATE VIEW virtualchain.progress AS
SELECT at, block_id, node_block_id, inputs, ops, rejections FROM vc.progress;
COMMENT ON VIEW virtualchain.progress IS 'How far the writer was, every ten seconds of the last day.';
COMMENT ON COLUMN virtualchain.progress.at IS 'When that was, by the clock of the database.';
COMMENT ON COLUMN virtualchain.progress.block_id IS 'Height of the tape''s last block; null if it was empty.';
COMMENT ON COLUMN virtualchain.progress.node_block_id IS 'Height of the node''s last block, as far as the writer knew it; null if the node had not answered yet.';
COMMENT ON COLUMN virtualchain.progress.inputs IS 'How many inputs the blocks held that were taken since the sample before.';
COMMENT ON COLUMN virtualchain.progress.ops IS 'How many inputs apps accepted since then, in these blocks or while catching up.';
COMMENT ON COLUMN virtualchain.progress.rejections IS 'How many they rejected.';

ALTER TABLE vc.published ADD COLUMN versions text NOT NULL DEFAULT '';
ALTER TABLE vc.published ALTER COLUMN versions DROP DEFAULT;
COMMENT ON COLUMN vc.published.versions IS 'The query that returns the versions of the row with key $1 that blocks below $2 wrote, newest first.';

CREATE FUNCTION virtualchain.row_history(app text, "table" text, key jsonb, below integer DEFAULT NULL, most integer DEFAULT NULL)
RETURNS TABLE (from_block integer, until_block integer, "row" jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' SET "IntervalStyle" = 'iso_8601' SET "TimeZone" = 'UTC' AS $$
DECLARE
    -- The role that asks; in this function, current_user is the owner.
    reader CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    query text;
    look text;
    last_shown integer;
    version record;
    texts text[];
BEGIN
    SELECT p.versions, format('SELECT EXISTS (SELECT FROM %I.%I)', p.schema, p.name) INTO query, look
    FROM vc.apps AS a JOIN vc.published AS p ON p.schema = a.schema AND p.name = row_history."table"
    WHERE a.name = row_history.app AND a.is_live AND has_schema_privilege(reader, p.schema, 'USAGE')
        AND has_table_privilege(reader, format('%I.%I', p.schema, p.name), 'SELECT');
    IF query IS NULL OR most < 1 THEN
        RETURN;
    END IF;
    EXECUTE look; -- the view refuses a snapshot that is older than its build, to which the tables may look empty
    last_shown := coalesce(vc.as_of(app), 2147483646);
    FOR version IN EXECUTE query USING key, least(last_shown + 1, below) LOOP
        -- As for virtualchain.changes, a block that wrote the row as it was did not change it.
        IF version.until_block = from_block AND version.texts = texts THEN
            from_block := version.since_block;
            CONTINUE;
        ELSIF from_block IS NOT NULL THEN
            RETURN NEXT;
            most := most - 1;
            IF most = 0 THEN
                RETURN;
            END IF;
        END IF;
        from_block := version.since_block;
        until_block := CASE WHEN version.until_block <= last_shown THEN version.until_block END;
        "row" := version.content;
        texts := version.texts;
    END LOOP;
    IF from_block IS NOT NULL THEN
        RETURN NEXT;
    END IF;
EXCEPTION WHEN undefined_table THEN
    RAISE EXCEPTION 'the views of app % show another build than when this transaction began, and the old one is gone', app
        USING ERRCODE = 'VC007', HINT = 'End the transaction, and read again in a new one.';
END;
$$;
COMMENT ON FUNCTION virtualchain.row_history(text, text, jsonb, integer, integer) IS 'The versions of the row of a projection with a primary key, an object by column, newest first; nothing for a role that may not read its view. With `below`, the from_block of a version, those before it; with `most`, no more than that. A version is valid from from_block to before until_block, which is null for the row as it is; between two versions that do not meet there was no row. If the oldest from_block is not above apps.history_from, earlier ones may have been pruned.';
