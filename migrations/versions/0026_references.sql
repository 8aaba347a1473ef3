ALTER TABLE vc.inputs DROP CONSTRAINT inputs_block_id_fkey;
ALTER TABLE vc.ops DROP CONSTRAINT ops_app_build_fkey;
ALTER TABLE vc.rejections DROP CONSTRAINT rejections_app_build_fkey;
ALTER TABLE vc.snapshots DROP CONSTRAINT snapshots_app_build_fkey;

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
