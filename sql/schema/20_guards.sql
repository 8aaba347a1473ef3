CREATE FUNCTION vc.guard_block() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM vc.blocks WHERE block_id = NEW.block_id - 1 AND hash = NEW.prev_hash)
        OR EXISTS (SELECT FROM vc.blocks WHERE block_id = NEW.block_id + 1 AND prev_hash = NEW.hash)
        OR NOT EXISTS (SELECT FROM vc.blocks)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'block % has neither its parent nor its child on the tape', NEW.block_id
        USING ERRCODE = 'VC001', HINT = 'Another writer has moved the tape, or the node changed its branch.';
END;
$$;
COMMENT ON FUNCTION vc.guard_block() IS 'Accepts a block only after its parent or before its child, so that the tape is one chain, whoever writes.';

CREATE TRIGGER guard_block BEFORE INSERT ON vc.blocks
    FOR EACH ROW EXECUTE FUNCTION vc.guard_block();

CREATE FUNCTION vc.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'projection %.% cannot be truncated: its rows could not be brought back',
        TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'VC002', HINT = 'Use DELETE.';
END;
$$;
COMMENT ON FUNCTION vc.refuse_truncate() IS 'TRUNCATE fires no row trigger and would leave no history, so projections refuse it.';

CREATE FUNCTION vc.writing_block(relation regclass) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
DECLARE
    writing CONSTANT text := coalesce(current_setting('virtualchain.block_id', true), '');
BEGIN
    IF writing = '' THEN
        RAISE EXCEPTION 'projection % is written by its reducers alone, inside a block', relation
            USING ERRCODE = 'VC003', HINT = 'Its rows follow from the ops; a row written by hand would differ on every other node.';
    END IF;
    RETURN writing::integer;
END;
$$;
COMMENT ON FUNCTION vc.writing_block(regclass) IS 'The block that the engine is writing, from its setting virtualchain.block_id; an error outside of a block.';
