-- What a maker wrote whose build was dropped meanwhile belongs to no build: the next one of that name would continue it.
DELETE FROM vc.ops AS r WHERE NOT EXISTS (SELECT FROM vc.apps AS a WHERE a.name = r.app AND a.build = r.build);
DELETE FROM vc.rejections AS r WHERE NOT EXISTS (SELECT FROM vc.apps AS a WHERE a.name = r.app AND a.build = r.build);
DELETE FROM vc.snapshots AS r WHERE NOT EXISTS (SELECT FROM vc.apps AS a WHERE a.name = r.app AND a.build = r.build);
DELETE FROM vc.state_files AS r WHERE NOT EXISTS (SELECT FROM vc.apps AS a WHERE a.name = r.app AND a.build = r.build);
DELETE FROM vc.checkpoints AS r WHERE NOT EXISTS (SELECT FROM vc.apps AS a WHERE a.name = r.app AND a.build = r.build);

ALTER TABLE vc.ops ADD FOREIGN KEY (app, build) REFERENCES vc.apps;
ALTER TABLE vc.rejections ADD FOREIGN KEY (app, build) REFERENCES vc.apps;
ALTER TABLE vc.snapshots ADD FOREIGN KEY (app, build) REFERENCES vc.apps;
ALTER TABLE vc.state_files ADD FOREIGN KEY (app, build) REFERENCES vc.apps;
ALTER TABLE vc.checkpoints ADD FOREIGN KEY (app, build) REFERENCES vc.apps;

ALTER TABLE vc.apps ADD COLUMN serial bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
COMMENT ON COLUMN vc.apps.serial IS 'Number of the build: unlike its name, it is never used again in this database.';

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
EXCEPTION WHEN undefined_table THEN
    RAISE EXCEPTION 'the views of schema % show another build than when this transaction began, and the old one is gone', app_schema
        USING ERRCODE = 'VC007', HINT = 'End the transaction, and read again in a new one.';
END;
$$;
