CREATE OR REPLACE FUNCTION vc.keep_block() RETURNS trigger
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

CREATE OR REPLACE FUNCTION vc.keep_build() RETURNS trigger
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
