ALTER TABLE vc.apps ADD COLUMN epoch bigint GENERATED ALWAYS AS IDENTITY;
COMMENT ON COLUMN vc.apps.epoch IS 'A number that is new whenever the views begin or cease to show the build: a process that began to write under another one adds nothing to its log.';

CREATE FUNCTION vc.refuse_build(app text, build text) RETURNS integer
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another process has swapped or dropped build % of app %', build, app USING ERRCODE = 'VC008';
END;
$$;
COMMENT ON FUNCTION vc.refuse_build(text, text) IS 'Raises an error: a block that was sent ahead is of a build that has another epoch now, or is gone.';
