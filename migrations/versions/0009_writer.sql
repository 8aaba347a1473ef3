CREATE TABLE vc.writer (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    confirmations integer NOT NULL CHECK (confirmations >= 0),
    apps text[] NOT NULL
);
COMMENT ON TABLE vc.writer IS 'How the process that follows the chain was started last; the lock shows whether it still runs.';
COMMENT ON COLUMN vc.writer.singleton IS 'Always true: there is one row.';
COMMENT ON COLUMN vc.writer.confirmations IS 'K: how many blocks must be on top of a block before it is taken.';
COMMENT ON COLUMN vc.writer.apps IS 'The apps whose code it has.';

CREATE VIEW virtualchain.writer AS
SELECT confirmations, apps FROM vc.writer;
COMMENT ON VIEW virtualchain.writer IS 'How the process that follows the chain was started last; no row before the first start.';
COMMENT ON COLUMN virtualchain.writer.confirmations IS 'K: how many blocks must be on top of a block before it is taken.';
COMMENT ON COLUMN virtualchain.writer.apps IS 'The apps whose code it has; others are not advanced.';

CREATE FUNCTION virtualchain.revision() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT version_num FROM vc.alembic_version);
END;
$$;
COMMENT ON FUNCTION virtualchain.revision() IS 'The revision of the schema, for readers as well.';
