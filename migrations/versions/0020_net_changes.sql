CREATE FUNCTION virtualchain.net_changes(first integer, last integer, only_app text DEFAULT NULL, only_table text DEFAULT NULL)
RETURNS TABLE (app text, "table" text, key jsonb, old jsonb, new jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1000
SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' SET "IntervalStyle" = 'iso_8601' SET "TimeZone" = 'UTC' AS $$
DECLARE
    -- The role that asks; in this function, current_user is the owner.
    reader CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    low CONSTANT integer := least(first, last, vc.last_shown());
    high CONSTANT integer := least(greatest(first, last), vc.last_shown());
    place record;
    names text;
    pairs text;
BEGIN
    FOR place IN
        SELECT a.name, p.schema, p.name AS projection, concat(a.schema, '__', a.build) AS tables
        FROM vc.apps AS a JOIN vc.published AS p USING (schema)
        WHERE a.is_live AND (only_app IS NULL OR a.name = only_app) AND (only_table IS NULL OR p.name = only_table)
            AND (low >= a.history_from OR a.history_from = a.base_block_id AND a.base_block_id < a.first_block_id)
            AND has_schema_privilege(reader, p.schema, 'USAGE')
            AND has_table_privilege(reader, format('%I.%I', p.schema, p.name), 'SELECT')
    LOOP
        SELECT string_agg(quote_ident(c.attname), ', ' ORDER BY k.place),
            string_agg(format('%L, r.%I', c.attname, c.attname), ', ' ORDER BY k.place) INTO names, pairs
        FROM pg_index AS i CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS c ON c.attrelid = i.indrelid AND c.attnum = k.attnum
        WHERE i.indrelid = format('%I.%I', place.tables, place.projection)::regclass AND i.indisprimary AND k.place <= i.indnkeyatts;
        app := place.name;
        "table" := place.projection;
        FOR key, old, new IN EXECUTE format($query$
            WITH touched AS MATERIALIZED (
                SELECT %1$s FROM %3$I.%4$I WHERE since_block > $1 AND since_block <= $2
                UNION
                SELECT %1$s FROM %3$I.%5$I WHERE until_block > $1 AND until_block <= $2
            ), versions AS (
                SELECT jsonb_build_object(%2$s) AS key, to_jsonb(r.*) - '{since_block}'::text[] AS content, r.since_block, 2147483647 AS until_block
                FROM touched JOIN %3$I.%6$I AS r USING (%1$s)
                UNION ALL
                SELECT jsonb_build_object(%2$s), to_jsonb(r.*) - '{since_block,until_block}'::text[], r.since_block, r.until_block
                FROM touched JOIN %3$I.%5$I AS r USING (%1$s)
                WHERE r.until_block > $1 AND (r.since_block <= $1 OR r.since_block <= $2 AND r.until_block > $2)
            )
            SELECT key, CASE WHEN $3 THEN was.content ELSE became.content END, CASE WHEN $3 THEN became.content ELSE was.content END
            FROM (SELECT v.key, v.content FROM versions AS v WHERE v.since_block <= $1 AND v.until_block > $1) AS was
            FULL JOIN (SELECT v.key, v.content FROM versions AS v WHERE v.since_block <= $2 AND v.until_block > $2) AS became USING (key)
            WHERE was.content::text IS DISTINCT FROM became.content::text$query$,
            names, pairs, place.tables, place.projection || '_births', place.projection || '_history', place.projection)
            USING low, high, first <= last
        LOOP
            RETURN NEXT;
        END LOOP;
    END LOOP;
EXCEPTION WHEN undefined_table THEN
    RAISE EXCEPTION 'the views of app % show another build than when this transaction began, and the old one is gone', place.name
        USING ERRCODE = 'VC007', HINT = 'End the transaction, and read again in a new one.';
END;
$$;
COMMENT ON FUNCTION virtualchain.net_changes(integer, integer, text, text) IS 'How rows of projections differ after block `last` from what they were after block `first`, earlier or later: old and new are null if there was no row. Nothing for an app whose history does not reach the lower block, or whose views the role may not read.';
