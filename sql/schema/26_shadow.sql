CREATE SCHEMA vc__shadow;
COMMENT ON SCHEMA vc__shadow IS 'Functions that raise, in place of built-in ones whose results depend on more than values: reducers find these first.';
GRANT USAGE ON SCHEMA vc__shadow TO PUBLIC;

CREATE FUNCTION vc__shadow.refuse(function text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'reducers may not call %: its result depends on more than values', function USING ERRCODE = 'VC006';
END;
$$;
COMMENT ON FUNCTION vc__shadow.refuse(text) IS 'Raises, naming the function that a reducer called.';

DO $$
DECLARE
    built_in record;
BEGIN
    FOR built_in IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
        FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proname IN (
            'clock_timestamp', 'current_database', 'current_schema', 'current_schemas', 'current_setting',
            'gen_random_uuid', 'inet_client_addr', 'inet_server_addr', 'now', 'pg_advisory_lock', 'pg_advisory_xact_lock',
            'pg_backend_pid', 'pg_current_xact_id', 'pg_notify', 'pg_postmaster_start_time', 'pg_sleep',
            'pg_try_advisory_lock', 'random', 'set_config', 'setseed', 'statement_timestamp', 'timeofday',
            'transaction_timestamp', 'txid_current', 'version')
    LOOP
        EXECUTE format('CREATE FUNCTION vc__shadow.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', built_in.proname,
            built_in.arguments, built_in.result,
            format('BEGIN PERFORM vc__shadow.refuse(%L); END', built_in.proname));
    END LOOP;
END;
$$;
