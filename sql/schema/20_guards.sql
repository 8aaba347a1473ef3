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

CREATE FUNCTION vc.require_block() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM vc.blocks WHERE block_id = NEW.block_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the tape has no block %', NEW.block_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION vc.require_block() IS 'Accepts an input only in a block of the tape, which nobody removes before the transaction ends.';

CREATE FUNCTION vc.require_build() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM vc.apps WHERE name = NEW.app AND build = NEW.build FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'app % has no build %', NEW.app, NEW.build USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION vc.require_build() IS 'Accepts a row of the log only from a build that exists, which nobody drops before the transaction ends.';

CREATE FUNCTION vc.keep_block() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'a block is removed in a READ COMMITTED transaction: this one does not see every input'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    IF EXISTS (SELECT FROM vc.inputs WHERE block_id = OLD.block_id) THEN
        RAISE EXCEPTION 'block % has inputs on the tape', OLD.block_id USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION vc.keep_block() IS 'Keeps a block while the tape has inputs of it.';

CREATE FUNCTION vc.keep_build() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'a build is removed in a READ COMMITTED transaction: this one does not see every row of the log'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    IF EXISTS (SELECT FROM vc.ops WHERE app = OLD.name AND build = OLD.build)
        OR EXISTS (SELECT FROM vc.rejections WHERE app = OLD.name AND build = OLD.build)
        OR EXISTS (SELECT FROM vc.snapshots WHERE app = OLD.name AND build = OLD.build)
    THEN
        RAISE EXCEPTION 'build % of app % has rows in the log', OLD.build, OLD.name USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION vc.keep_build() IS 'Keeps a build while the log has rows of it.';

CREATE FUNCTION vc.refuse_build(app text, build text) RETURNS integer
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another process has swapped or dropped build % of app %', build, app USING ERRCODE = 'VC008';
END;
$$;
COMMENT ON FUNCTION vc.refuse_build(text, text) IS 'Raises an error: a block that was sent ahead is of a build that has another epoch now, or is gone.';

-- Foreign keys would look up the build for every row, which takes a tenth of the time of a block. Whoever appends whole
-- blocks has locked the builds, and says so with the setting virtualchain.appends.
CREATE TRIGGER require_block AFTER INSERT OR UPDATE OF block_id ON vc.inputs
    FOR EACH ROW WHEN (current_setting('virtualchain.appends', true) IS DISTINCT FROM 'blocks') EXECUTE FUNCTION vc.require_block();
CREATE TRIGGER require_build AFTER INSERT OR UPDATE OF app, build ON vc.ops
    FOR EACH ROW WHEN (current_setting('virtualchain.appends', true) IS DISTINCT FROM 'blocks') EXECUTE FUNCTION vc.require_build();
CREATE TRIGGER require_build AFTER INSERT OR UPDATE OF app, build ON vc.rejections
    FOR EACH ROW WHEN (current_setting('virtualchain.appends', true) IS DISTINCT FROM 'blocks') EXECUTE FUNCTION vc.require_build();
CREATE TRIGGER require_build AFTER INSERT OR UPDATE OF app, build ON vc.snapshots
    FOR EACH ROW WHEN (current_setting('virtualchain.appends', true) IS DISTINCT FROM 'blocks') EXECUTE FUNCTION vc.require_build();
CREATE TRIGGER keep_block AFTER DELETE ON vc.blocks
    FOR EACH ROW EXECUTE FUNCTION vc.keep_block();
CREATE TRIGGER keep_block_id AFTER UPDATE OF block_id ON vc.blocks
    FOR EACH ROW WHEN (OLD.block_id <> NEW.block_id) EXECUTE FUNCTION vc.keep_block();
CREATE TRIGGER keep_build AFTER DELETE ON vc.apps
    FOR EACH ROW EXECUTE FUNCTION vc.keep_build();
CREATE TRIGGER keep_build_name AFTER UPDATE OF name, build ON vc.apps
    FOR EACH ROW WHEN ((OLD.name, OLD.build) IS DISTINCT FROM (NEW.name, NEW.build)) EXECUTE FUNCTION vc.keep_build();

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
