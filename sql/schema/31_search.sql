-- What readers find without reading all of the log: its views do not show by which build its rows are kept.

CREATE FUNCTION virtualchain.newest_ops(app text, first integer DEFAULT 0, before_block integer DEFAULT NULL, before_vtxindex integer DEFAULT NULL,
    opcode bytea DEFAULT NULL, most integer DEFAULT 50)
RETURNS TABLE (block_id integer, vtxindex integer, fits boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most_looked_at CONSTANT integer := 50000;
    last CONSTANT integer := vc.last_shown();
    live CONSTANT text := (SELECT a.build FROM vc.apps AS a WHERE a.name = newest_ops.app AND a.is_live);
    looked_at integer := 0;
BEGIN
    FOR block_id, vtxindex, fits IN
        SELECT o.block_id, o.vtxindex, newest_ops.opcode IS NULL OR o.opcode = newest_ops.opcode
        FROM vc.ops AS o
        WHERE o.app = newest_ops.app AND o.build = live AND o.block_id >= first AND o.block_id <= last
            AND (o.block_id, o.vtxindex) < (coalesce(before_block, 2147483647), coalesce(before_vtxindex, 0))
        ORDER BY o.block_id DESC, o.vtxindex DESC LIMIT most_looked_at
    LOOP
        EXIT WHEN most < 1;
        looked_at := looked_at + 1;
        IF fits OR looked_at = most_looked_at THEN
            RETURN NEXT;
            most := most - 1;
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION virtualchain.newest_ops(text, integer, integer, integer, bytea, integer) IS 'The places of an app''s ops, newest first: those from block `first` on and before a place, perhaps with one opcode, and no more than `most`. 50,000 are looked at; if that is not enough, the last row is the last that was (fits is false if it has another opcode), and the rest is before it.';

CREATE FUNCTION virtualchain.newest_rejections(app text, first integer DEFAULT 0, before_block integer DEFAULT NULL, before_txindex integer DEFAULT NULL,
    before_payload_index integer DEFAULT NULL, opcode bytea DEFAULT NULL, step text DEFAULT NULL, most integer DEFAULT 50)
RETURNS TABLE (block_id integer, txindex integer, payload_index integer, fits boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most_looked_at CONSTANT integer := 50000;
    last CONSTANT integer := vc.last_shown();
    live CONSTANT text := (SELECT a.build FROM vc.apps AS a WHERE a.name = newest_rejections.app AND a.is_live);
    looked_at integer := 0;
BEGIN
    FOR block_id, txindex, payload_index, fits IN
        SELECT r.block_id, r.txindex, r.payload_index, (newest_rejections.opcode IS NULL OR r.opcode = newest_rejections.opcode)
            AND (newest_rejections.step IS NULL OR r.step = newest_rejections.step)
        FROM vc.rejections AS r
        WHERE r.app = newest_rejections.app AND r.build = live AND r.block_id >= first AND r.block_id <= last
            AND (r.block_id, r.txindex, r.payload_index)
                < (coalesce(before_block, 2147483647), coalesce(before_txindex, 0), coalesce(before_payload_index, 0))
        ORDER BY r.block_id DESC, r.txindex DESC, r.payload_index DESC LIMIT most_looked_at
    LOOP
        EXIT WHEN most < 1;
        looked_at := looked_at + 1;
        IF fits OR looked_at = most_looked_at THEN
            RETURN NEXT;
            most := most - 1;
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION virtualchain.newest_rejections(text, integer, integer, integer, integer, bytea, text, integer) IS 'The places of an app''s rejections, newest first, perhaps with one opcode or step; see newest_ops.';

CREATE FUNCTION virtualchain.activity(first integer DEFAULT NULL, last integer DEFAULT NULL, parts integer DEFAULT 200, only_app text DEFAULT NULL)
RETURNS TABLE (app text, first_block_id integer, last_block_id integer, ops bigint, rejections bigint, is_estimate boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 200
-- Plans do not depend on the range, and to make one takes longer than to count a block.
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    lowest integer;
    highest integer;
    width integer;
    sampled integer;
BEGIN
    SELECT min(b.block_id), max(b.block_id) INTO lowest, highest FROM vc.blocks AS b WHERE b.block_id <= vc.last_shown();
    first := greatest(first, lowest);
    last := least(last, highest);
    IF first <= last IS NOT TRUE OR parts < 1 THEN
        RETURN;
    END IF;
    width := (last - first) / parts + 1;
    -- To count a million entries takes a tenth of a second. Beyond that, eight blocks stand for the others of their part.
    SELECT CASE WHEN sum(greatest(c.reltuples, 0)) * (last - first + 1) / (highest - lowest + 1) > 1000000 AND width > 8 THEN 8 END INTO sampled
    FROM pg_class AS c WHERE c.oid IN ('vc.ops'::regclass, 'vc.rejections'::regclass);
    RETURN QUERY
    WITH ranges AS (
        SELECT n.part, r.low, least(r.low + CASE WHEN sampled IS NULL THEN width ELSE 1 END - 1, last) AS high
        FROM generate_series(0, (last - first) / width) AS n (part)
        CROSS JOIN LATERAL (
            SELECT first + n.part * width + k * width / coalesce(sampled, 1) AS low FROM generate_series(0, coalesce(sampled, 1) - 1) AS k) AS r
        WHERE r.low <= last
    ), counted AS (
        SELECT a.name, r.part, sum(r.high - r.low + 1) AS blocks, sum(accepted.entries) AS ops, sum(rejected.entries) AS rejections
        FROM vc.apps AS a CROSS JOIN ranges AS r
        CROSS JOIN LATERAL (SELECT count(*) AS entries FROM vc.ops AS o
            WHERE o.app = a.name AND o.build = a.build AND o.block_id BETWEEN r.low AND r.high) AS accepted
        CROSS JOIN LATERAL (SELECT count(*) AS entries FROM vc.rejections AS o
            WHERE o.app = a.name AND o.build = a.build AND o.block_id BETWEEN r.low AND r.high) AS rejected
        WHERE a.is_live AND (only_app IS NULL OR a.name = only_app)
        GROUP BY a.name, r.part
    )
    SELECT c.name, p.low, p.high, round(c.ops * (p.high - p.low + 1) / c.blocks)::bigint,
        round(c.rejections * (p.high - p.low + 1) / c.blocks)::bigint, sampled IS NOT NULL
    FROM counted AS c
    CROSS JOIN LATERAL (SELECT first + c.part * width AS low, least(first + (c.part + 1) * width - 1, last) AS high) AS p
    ORDER BY p.low, c.name COLLATE "C";
END;
$$;
COMMENT ON FUNCTION virtualchain.activity(integer, integer, integer, text) IS 'How many ops and rejections of each app, or of one, a range of blocks has, in at most so many parts of the same length. If that would take long, some blocks of each part are counted, and the numbers are estimates.';

CREATE FUNCTION virtualchain.blocks_of(consensus_hash text) RETURNS TABLE (app text, block_id integer)
LANGUAGE sql STABLE STRICT SECURITY DEFINER ROWS 1 SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT s.app, s.block_id
    FROM vc.snapshots AS s JOIN vc.apps AS a ON a.name = s.app AND a.build = s.build AND a.is_live
    WHERE s.consensus_hash = CASE WHEN blocks_of.consensus_hash ~ '^[0-9A-Fa-f]{32}$' THEN decode(blocks_of.consensus_hash, 'hex') END
        AND s.block_id <= vc.last_shown()
    ORDER BY s.block_id DESC, s.app COLLATE "C" LIMIT 100;
END;
COMMENT ON FUNCTION virtualchain.blocks_of(text) IS 'The apps and blocks with a consensus hash, newest first: none if it is not one.';

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
