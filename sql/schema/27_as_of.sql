CREATE FUNCTION vc.as_of_block(setting text, app text) RETURNS integer
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked CONSTANT text := btrim(setting);
    lowest integer;
    highest integer;
    block bigint;
BEGIN
    SELECT min(b.block_id), max(b.block_id) INTO lowest, highest FROM vc.blocks AS b;
    IF asked ~ '^[0-9]{1,10}$' THEN
        block := asked;
    ELSIF asked ~ '^[0-9A-Fa-f]{64}$' THEN
        SELECT b.block_id INTO block FROM vc.blocks AS b WHERE b.hash = decode(asked, 'hex');
        IF block IS NULL THEN
            RAISE EXCEPTION 'virtualchain.as_of: no block here has the hash %', lower(asked)
                USING ERRCODE = 'VC004', HINT = 'It may have been replaced: look for it in virtualchain.blocks and virtualchain.reorgs.';
        END IF;
    ELSE
        RAISE EXCEPTION 'virtualchain.as_of is not a block: %', quote_literal(left(setting, 100))
            USING ERRCODE = 'VC004', HINT = 'Set it to a block''s height or hash, or to the empty string for the present.';
    END IF;
    IF block BETWEEN lowest AND highest IS NOT TRUE THEN
        RAISE EXCEPTION 'virtualchain.as_of: block % is not here: %', block,
            coalesce(format('the blocks here are %s to %s', lowest, highest), 'there is no block yet')
            USING ERRCODE = 'VC004';
    END IF;
    IF app IS NULL THEN
        RETURN block;
    END IF;
    SELECT CASE WHEN a.history_from > a.base_block_id
            OR EXISTS (SELECT FROM vc.checkpoints AS c WHERE c.app = a.name AND c.build = a.build) THEN a.history_from ELSE lowest END,
        coalesce((SELECT max(s.block_id) FROM vc.snapshots AS s WHERE s.app = a.name AND s.build = a.build), a.base_block_id)
    INTO lowest, highest
    FROM vc.apps AS a WHERE a.name = as_of_block.app AND a.is_live;
    IF block NOT BETWEEN lowest AND highest THEN
        RAISE EXCEPTION 'virtualchain.as_of: app % cannot show block %: %', app, block,
            CASE WHEN lowest > highest THEN 'it has taken no block yet'
                ELSE format('it has blocks %s to %s', lowest, highest) END
            USING ERRCODE = 'VC004', HINT = CASE WHEN block < lowest THEN 'Older history is pruned.'
                ELSE 'An app that is halted or catching up lags behind other apps.' END;
    END IF;
    RETURN block;
END;
$$;
COMMENT ON FUNCTION vc.as_of_block(text, text) IS 'The block that a setting virtualchain.as_of means, by height or hash; an error if an app (null: the log) cannot show it.';

CREATE FUNCTION vc.as_of(app text) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN coalesce(current_setting('virtualchain.as_of', true), '') <> ''
    THEN vc.as_of_block(current_setting('virtualchain.as_of', true), app) END;
COMMENT ON FUNCTION vc.as_of(text) IS 'The block that the views of an app (null: those on the log) should show; null for the present.';

CREATE FUNCTION vc.require_live(build_serial bigint) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM vc.apps AS a WHERE a.serial = build_serial AND a.is_live) THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'these views show another build than when this transaction began, and the transaction cannot see it'
        USING ERRCODE = 'VC007', HINT = 'End the transaction, and read again in a new one.';
END;
$$;
COMMENT ON FUNCTION vc.require_live(bigint) IS 'Always true; an error if the build with this serial number is not the live one in the snapshot that the query sees, to which its tables would look empty.';

CREATE FUNCTION vc.as_of(app text, build_serial bigint) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN vc.require_live(build_serial) THEN vc.as_of(app) END;
COMMENT ON FUNCTION vc.as_of(text, bigint) IS 'The block that the views of an app, made for this build, should show; null for the present.';

CREATE FUNCTION vc.as_of_guess() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN current_setting('virtualchain.as_of', true) ~ '^[0-9]{1,9}$' THEN current_setting('virtualchain.as_of', true)::integer
    WHEN coalesce(current_setting('virtualchain.as_of', true), '') <> '' THEN -1 END;
COMMENT ON FUNCTION vc.as_of_guess() IS 'A lower bound of the block that is shown, null for the present: the planner can use it, because it looks nothing up.';

CREATE FUNCTION vc.last_shown() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(vc.as_of(NULL), 2147483647);
COMMENT ON FUNCTION vc.last_shown() IS 'The last block that the views on the log show.';

CREATE FUNCTION vc.changes(app_schema text, projection text, block integer)
RETURNS TABLE (action text, key jsonb, old jsonb, new jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' SET "IntervalStyle" = 'iso_8601' SET "TimeZone" = 'UTC' AS $$
DECLARE
    -- The role that asks; in this function, current_user is the owner.
    reader CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    query text;
BEGIN
    SELECT p.changes INTO query FROM vc.published AS p WHERE p.schema = app_schema AND p.name = projection
        AND has_schema_privilege(reader, app_schema, 'USAGE')
        AND has_table_privilege(reader, format('%I.%I', app_schema, projection), 'SELECT');
    IF query IS NOT NULL THEN
        RETURN QUERY EXECUTE query USING block;
    END IF;
EXCEPTION WHEN undefined_table THEN
    RAISE EXCEPTION 'the views of schema % show another build than when this transaction began, and the old one is gone', app_schema
        USING ERRCODE = 'VC007', HINT = 'End the transaction, and read again in a new one.';
END;
$$;
COMMENT ON FUNCTION vc.changes(text, text, integer) IS 'What a block did to a projection; nothing for a role that may not read its view.';

REVOKE EXECUTE ON FUNCTION vc.guard_block(), vc.refuse_truncate(), vc.writing_block(regclass),
    vc.consensus_hash(text, text, integer), vc.is_fresh(text, text, text, integer, integer),
    vc.newest_blocks(text, text, text[], integer) FROM PUBLIC;
