-- Reading: time travel, what blocks did, and roles that read.
CREATE TABLE vc.published (
    schema text NOT NULL,
    name text NOT NULL,
    definition text NOT NULL,
    changes text NOT NULL,
    PRIMARY KEY (schema, name)
);
COMMENT ON TABLE vc.published IS 'The views of the apps'' schemas, and what they were made from: where this version of the code makes others, they are made anew.';
COMMENT ON COLUMN vc.published.schema IS 'The app''s schema.';
COMMENT ON COLUMN vc.published.name IS 'Name of the projection, and of its view.';
COMMENT ON COLUMN vc.published.definition IS 'The statement that made the view.';
COMMENT ON COLUMN vc.published.changes IS 'The query that tells what block $1 did to the projection.';

CREATE TABLE vc.readers (
    role text PRIMARY KEY,
    apps text[]
);
COMMENT ON TABLE vc.readers IS 'Roles that read views and nothing else: they are granted what is published later, too.';
COMMENT ON COLUMN vc.readers.role IS 'Name of the role.';
COMMENT ON COLUMN vc.readers.apps IS 'The apps that it may read; null: all, and those to come.';

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
        RAISE EXCEPTION 'virtualchain.as_of is no block: %', quote_literal(left(setting, 100))
            USING ERRCODE = 'VC004', HINT = 'Set it to a block''s height or hash, or to nothing for now.';
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
                ELSE 'An app that is halted or catches up stands behind the others.' END;
    END IF;
    RETURN block;
END;
$$;
COMMENT ON FUNCTION vc.as_of_block(text, text) IS 'The block that a setting virtualchain.as_of means, by height or hash; an error where an app (null: the log) cannot show it.';

CREATE FUNCTION vc.as_of(app text) RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN coalesce(current_setting('virtualchain.as_of', true), '') <> ''
    THEN vc.as_of_block(current_setting('virtualchain.as_of', true), app) END;
COMMENT ON FUNCTION vc.as_of(text) IS 'The block that the views of an app (null: those on the log) are to show; null for now.';

CREATE FUNCTION vc.as_of_guess() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN current_setting('virtualchain.as_of', true) ~ '^[0-9]{1,9}$' THEN current_setting('virtualchain.as_of', true)::integer
    WHEN coalesce(current_setting('virtualchain.as_of', true), '') <> '' THEN -1 END;
COMMENT ON FUNCTION vc.as_of_guess() IS 'A bound below the block that is shown, null for now: the planner can reckon with it, because it looks nothing up.';

CREATE FUNCTION vc.last_shown() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(vc.as_of(NULL), 2147483647);
COMMENT ON FUNCTION vc.last_shown() IS 'The last block that the views on the log show.';

CREATE FUNCTION vc.changes(app_schema text, projection text, block integer)
RETURNS TABLE (action text, key jsonb, old jsonb, new jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp SET bytea_output = 'hex' SET "IntervalStyle" = 'iso_8601' SET "TimeZone" = 'UTC' AS $$
DECLARE
    -- Whoever asks: in here, current_user is the owner.
    reader CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
    query text;
BEGIN
    SELECT p.changes INTO query FROM vc.published AS p WHERE p.schema = app_schema AND p.name = projection
        AND has_schema_privilege(reader, app_schema, 'USAGE')
        AND has_table_privilege(reader, format('%I.%I', app_schema, projection), 'SELECT');
    IF query IS NOT NULL THEN
        RETURN QUERY EXECUTE query USING block;
    END IF;
END;
$$;
COMMENT ON FUNCTION vc.changes(text, text, integer) IS 'What a block did to a projection; nothing for whoever may not read its view.';

REVOKE EXECUTE ON FUNCTION vc.guard_block(), vc.refuse_truncate(), vc.writing_block(regclass),
    vc.consensus_hash(text, text, integer), vc.is_fresh(text, text, text, integer, integer) FROM PUBLIC;

CREATE OR REPLACE VIEW virtualchain.blocks AS
SELECT block_id, encode(hash, 'hex') AS hash, encode(prev_hash, 'hex') AS prev_hash, time, chainwork, header
FROM vc.blocks
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;

CREATE OR REPLACE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics, senders, outputs, fee, raw
FROM vc.inputs
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;

CREATE OR REPLACE VIEW virtualchain.ops AS
SELECT o.app, o.block_id, encode(b.hash, 'hex') AS block_hash, b.time, o.txindex, o.vtxindex,
    encode(i.txid, 'hex') AS txid, o.opcode, o.payload, o.fields, o.canonical
FROM vc.ops AS o
JOIN vc.apps AS a ON a.name = o.app AND a.build = o.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
JOIN vc.blocks AS b USING (block_id)
WHERE o.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;

CREATE OR REPLACE VIEW virtualchain.rejections AS
SELECT r.app, r.block_id, r.txindex, encode(i.txid, 'hex') AS txid, r.opcode, r.step, r.reason
FROM vc.rejections AS r
JOIN vc.apps AS a ON a.name = r.app AND a.build = r.build AND a.is_live
JOIN vc.inputs AS i USING (block_id, txindex)
WHERE r.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;

CREATE OR REPLACE VIEW virtualchain.snapshots AS
SELECT s.app, s.block_id, encode(b.hash, 'hex') AS block_hash, encode(s.ops_hash, 'hex') AS ops_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash
FROM vc.snapshots AS s
JOIN vc.apps AS a ON a.name = s.app AND a.build = s.build AND a.is_live
LEFT JOIN vc.blocks AS b USING (block_id)
WHERE s.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;

CREATE OR REPLACE VIEW virtualchain.apps AS
SELECT a.name, a.version, a.schema, a.build, a.magics, a.rule, a.first_block_id, a.valid_window, a.confirmations,
    CASE WHEN a.own_role THEN vc.role_of(a.schema) END AS role, a.status, a.error, s.block_id, encode(b.hash, 'hex') AS block_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash,
    a.base_block_id, a.history_from, a.on_deep_fork
FROM vc.apps AS a
LEFT JOIN LATERAL (
    SELECT block_id, consensus_hash, state_hash FROM vc.snapshots
    WHERE app = a.name AND build = a.build AND block_id <= (SELECT vc.last_shown()) ORDER BY block_id DESC LIMIT 1
) AS s ON true
LEFT JOIN vc.blocks AS b USING (block_id)
WHERE a.is_live AND (SELECT vc.last_shown()) IS NOT NULL;

CREATE VIEW virtualchain.changes AS
SELECT a.name AS app, p.name AS "table", s.block_id, c.action, c.key, c.old, c.new
FROM vc.apps AS a
JOIN vc.published AS p USING (schema)
JOIN vc.snapshots AS s ON s.app = a.name AND s.build = a.build
CROSS JOIN LATERAL vc.changes(p.schema, p.name, s.block_id) AS c
WHERE a.is_live AND s.state_number IS NOT NULL AND s.block_id > a.history_from
    AND s.block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON VIEW virtualchain.changes IS 'What each block did to the projections, as far back as history is kept: blocks above apps.history_from.';
COMMENT ON COLUMN virtualchain.changes.app IS 'Name of the app.';
COMMENT ON COLUMN virtualchain.changes."table" IS 'Name of the projection.';
COMMENT ON COLUMN virtualchain.changes.block_id IS 'Height of the block.';
COMMENT ON COLUMN virtualchain.changes.action IS 'insert, update or delete: what the block came to, whatever happened inside of it; a new key is a delete and an insert.';
COMMENT ON COLUMN virtualchain.changes.key IS 'The row''s primary key, an object by column.';
COMMENT ON COLUMN virtualchain.changes.old IS 'The row before the block, an object by column; null for an insert.';
COMMENT ON COLUMN virtualchain.changes.new IS 'The row behind the block; null for a delete.';
