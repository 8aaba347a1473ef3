-- Checkpoints that say which block wrote each row; messages and comments in plain English.
ALTER TABLE vc.checkpoints ADD COLUMN has_row_blocks boolean NOT NULL DEFAULT false;
ALTER TABLE vc.checkpoints ALTER COLUMN has_row_blocks DROP DEFAULT;
COMMENT ON COLUMN vc.checkpoints.has_row_blocks IS 'Whether it named the block that wrote each row. The first format did not: rows count as written by its block.';

CREATE OR REPLACE FUNCTION vc.as_of_block(setting text, app text) RETURNS integer
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

CREATE OR REPLACE FUNCTION vc.changes(app_schema text, projection text, block integer)
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
END;
$$;

COMMENT ON SCHEMA vc IS 'The log of a virtualchain deployment: what the chain holds and what the apps made of it. Only the engine writes it; people read the views in the schema virtualchain.';
COMMENT ON COLUMN vc.blocks.header IS 'The 80 bytes that are hashed.';
COMMENT ON COLUMN vc.blocks.chainwork IS 'Expected number of hashes from the first block ever taken up to this one; blocks added in front of it count backwards.';
COMMENT ON COLUMN vc.inputs.txindex IS 'Position of the transaction in its block; the coinbase is 0 and never an input.';
COMMENT ON COLUMN vc.inputs.txid IS 'Transaction id, in display order. Not unique on Bitcoin: the key is the position.';
COMMENT ON COLUMN vc.inputs.raw IS 'The whole transaction as it is in the block, including witnesses.';
COMMENT ON COLUMN vc.inputs.fee IS 'Sum of inputs minus sum of outputs, in satoshi.';
COMMENT ON TABLE vc.coverage IS 'Which blocks of the tape were searched for which magic. While a search continues its end is open, so that no row is updated per block.';
COMMENT ON COLUMN vc.coverage.magic IS 'The magic that was searched for.';
COMMENT ON COLUMN vc.coverage.rule IS 'Name of the payload rule that was used.';
COMMENT ON COLUMN vc.coverage.until_block IS 'The last block that was searched; null while the search continues with every new block.';
COMMENT ON COLUMN vc.apps.fingerprint IS 'SHA-256 of what the app declares: a change requires a new build.';
COMMENT ON COLUMN vc.apps.confirmations IS 'The minimum of confirmations that the app accepts; null if it declares none.';
COMMENT ON COLUMN vc.apps.base_block_id IS 'The block after which it began: the one before its first, or that of its checkpoint. It cannot be rolled back below it.';
COMMENT ON COLUMN vc.apps.on_deep_fork IS 'What happens when blocks that it has taken are replaced: rollback, checkpoint (stop, and continue only from an accepted checkpoint) or halt.';
COMMENT ON TABLE vc.ops IS 'The log: every input that an app accepted. Rows are appended, or removed with their block, and never changed.';
COMMENT ON COLUMN vc.ops.vtxindex IS 'Position among the app''s parsed candidates in the block, from 0.';
COMMENT ON COLUMN vc.ops.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN vc.ops.fields IS 'The op as the app committed it; an array if the commit made several ops of it.';
COMMENT ON COLUMN vc.ops.canonical IS 'The serialized ops that entered the block''s ops hash.';
COMMENT ON TABLE vc.rejections IS 'Every candidate that an app rejected, and why.';
COMMENT ON COLUMN vc.rejections.build IS 'The build of the app that rejected it.';
COMMENT ON COLUMN vc.rejections.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN vc.rejections.step IS 'The step that rejected it: parse, check or commit.';
COMMENT ON COLUMN vc.rejections.reason IS 'Why the app or the database rejected it.';
COMMENT ON COLUMN vc.snapshots.block_id IS 'Height of the block; -1 for an initial snapshot before the genesis block.';
COMMENT ON COLUMN vc.snapshots.state_number IS 'The number that the state hash is computed from, little-endian; null if the block did not change it.';
COMMENT ON COLUMN vc.reorgs.detected_at IS 'When it was detected, by the clock of the database.';
COMMENT ON COLUMN vc.reorgs.old_block_id IS 'Height of the abandoned tip.';
COMMENT ON COLUMN vc.reorgs.old_hash IS 'Hash of the abandoned tip.';
COMMENT ON COLUMN vc.reorgs.new_block_id IS 'Height of the node''s tip at that time; null if the node had no block above the fork, or was not asked.';
COMMENT ON COLUMN vc.reorgs.new_hash IS 'Hash of the node''s tip at that time; null if its height is.';
COMMENT ON COLUMN vc.reorgs.blocks_undone IS 'How many blocks were undone.';
COMMENT ON COLUMN vc.reorgs.cause IS 'work: the node''s branch has more; invalid: the node calls ours invalid; pin: ours does not contain a pinned block; operator: rolled back by hand.';
COMMENT ON COLUMN vc.reorgs.rows_undone IS 'How many rows of projections were removed or restored.';
COMMENT ON TABLE vc.pins IS 'Blocks that the followed chain must contain.';
COMMENT ON COLUMN vc.checkpoints.block_id IS 'The block that it shows; processing began after it.';
COMMENT ON COLUMN vc.checkpoints.signers IS 'The public keys with a valid signature, in hex.';
COMMENT ON TABLE vc.state_files IS 'What apps with an opaque state saved: a row for each block that changed it, as far back as blocks can be undone. This copy counts; the file is for the app to read.';
COMMENT ON COLUMN vc.state_files.block_id IS 'The block after which the app saved this; it is valid until the next row.';
COMMENT ON TABLE vc.published IS 'The views of the apps'' schemas, and what they were made from: if this version of the code makes others, they are replaced.';
COMMENT ON COLUMN vc.published.changes IS 'The query that returns what block $1 did to the projection.';
COMMENT ON TABLE vc.readers IS 'Roles that can read views and nothing else; views that are published later are granted to them as well.';
COMMENT ON COLUMN vc.readers.apps IS 'The apps that it may read; null: all, including later ones.';
COMMENT ON FUNCTION vc.guard_block() IS 'Accepts a block only after its parent or before its child, so that the tape is one chain, whoever writes.';
COMMENT ON FUNCTION vc.refuse_truncate() IS 'TRUNCATE fires no row trigger and would leave no history, so projections refuse it.';
COMMENT ON FUNCTION vc.role_of(text) IS 'The role of the app with this schema: roles belong to the whole server, so the database is part of the name, hashed if the name would be too long or reserved.';
COMMENT ON FUNCTION vc.as_of_block(text, text) IS 'The block that a setting virtualchain.as_of means, by height or hash; an error if an app (null: the log) cannot show it.';
COMMENT ON FUNCTION vc.as_of(text) IS 'The block that the views of an app (null: those on the log) should show; null for the present.';
COMMENT ON FUNCTION vc.as_of_guess() IS 'A lower bound of the block that is shown, null for the present: the planner can use it, because it looks nothing up.';
COMMENT ON FUNCTION vc.changes(text, text, integer) IS 'What a block did to a projection; nothing for a role that may not read its view.';
COMMENT ON COLUMN virtualchain.blocks.header IS 'The 80 bytes that are hashed.';
COMMENT ON COLUMN virtualchain.inputs.txindex IS 'Position of the transaction in its block.';
COMMENT ON COLUMN virtualchain.inputs.fee IS 'Sum of inputs minus sum of outputs, in satoshi.';
COMMENT ON COLUMN virtualchain.inputs.raw IS 'The whole transaction, including witnesses.';
COMMENT ON COLUMN virtualchain.ops.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN virtualchain.ops.vtxindex IS 'Position among the app''s parsed candidates in the block, from 0.';
COMMENT ON COLUMN virtualchain.ops.fields IS 'The op as the app committed it; an array if the commit made several ops of it.';
COMMENT ON COLUMN virtualchain.ops.canonical IS 'The serialized ops that entered the block''s ops hash.';
COMMENT ON VIEW virtualchain.rejections IS 'Every candidate that an app rejected, and why.';
COMMENT ON COLUMN virtualchain.rejections.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN virtualchain.rejections.step IS 'The step that rejected it: parse, check or commit.';
COMMENT ON COLUMN virtualchain.rejections.reason IS 'Why the app or the database rejected it.';
COMMENT ON VIEW virtualchain.apps IS 'The apps of this deployment, and how far each of them is.';
COMMENT ON COLUMN virtualchain.apps.confirmations IS 'The minimum of confirmations that it accepts.';
COMMENT ON COLUMN virtualchain.apps.role IS 'The role that its reducers run under; null if that is the engine''s own, which does not have CREATEROLE.';
COMMENT ON COLUMN virtualchain.apps.base_block_id IS 'The block after which it began: the one before its first, or that of its checkpoint.';
COMMENT ON COLUMN virtualchain.reorgs.detected_at IS 'When it was detected, by the clock of the database.';
COMMENT ON COLUMN virtualchain.reorgs.old_block_id IS 'Height of the abandoned tip.';
COMMENT ON COLUMN virtualchain.reorgs.old_hash IS 'Hash of the abandoned tip.';
COMMENT ON COLUMN virtualchain.reorgs.blocks_undone IS 'How many blocks were undone.';
COMMENT ON COLUMN virtualchain.reorgs.rows_undone IS 'How many rows of projections were removed or restored.';
COMMENT ON COLUMN virtualchain.builds.version IS 'The version of the app that it was made with.';
COMMENT ON VIEW virtualchain.pins IS 'Blocks that the followed chain must contain.';
COMMENT ON COLUMN virtualchain.changes.action IS 'insert, update or delete: the effect of the whole block; a changed key is a delete and an insert.';
COMMENT ON COLUMN virtualchain.changes.new IS 'The row after the block; null for a delete.';
