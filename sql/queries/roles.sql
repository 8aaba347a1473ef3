-- name: role
-- An app's role: its name, whether it exists and is more than an app's role, whether we may create roles and enter this one.
SELECT expected.name, existing.oid IS NOT NULL AS there,
    existing.rolcanlogin OR existing.rolsuper OR existing.rolcreaterole OR existing.rolcreatedb AS strange,
    ours.rolcreaterole OR ours.rolsuper AS may_create,
    pg_has_role(session_user, existing.oid,
        CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END) AS may_be
FROM (SELECT vc.role_of(%(schema)s) AS name) AS expected
JOIN pg_catalog.pg_roles AS ours ON ours.rolname = current_user
LEFT JOIN pg_catalog.pg_roles AS existing ON existing.rolname = expected.name;

-- name: create
-- Create the role of an app, which cannot log in and has only the privileges that it is granted.
CREATE ROLE {role} NOLOGIN;
COMMENT ON ROLE {role} IS 'Reducers of a virtualchain app run under this role.';

-- name: join
-- Let the engine enter an app's role.
GRANT {role} TO CURRENT_USER;

-- name: is_incomplete
-- Whether an app's role is missing a privilege that the two statements below grant.
SELECT NOT (
    has_schema_privilege(%(role)s, %(tables)s, 'USAGE') AND has_schema_privilege(%(role)s, 'vc', 'USAGE')
    AND has_function_privilege(%(role)s, 'vc.consensus_hash(text, text, integer)', 'EXECUTE')
    AND has_function_privilege(%(role)s, 'vc.is_fresh(text, text, text, integer, integer)', 'EXECUTE')
    AND has_function_privilege(%(role)s, 'vc.newest_blocks(text, text, text[], integer)', 'EXECUTE')
    AND NOT EXISTS (
        SELECT FROM unnest(%(projections)s::text[]) AS p (name)
        CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS needed (privilege)
        WHERE NOT has_table_privilege(%(role)s, format('%%I.%%I', %(tables)s::text, p.name), needed.privilege)));

-- name: role_of_build
-- The role under which the reducers of a build run; no row if they run as the engine does.
SELECT vc.role_of(schema) FROM vc.apps WHERE name = %(app)s AND build = %(build)s AND own_role;

-- name: admit_to_schema
-- Let reducers use a schema with tables of their app.
GRANT USAGE ON SCHEMA {tables} TO {role};

-- name: admit
-- Grant what the reducers of every app need besides: three functions on the log.
GRANT USAGE ON SCHEMA vc TO {role};
GRANT EXECUTE ON FUNCTION vc.consensus_hash(text, text, integer), vc.is_fresh(text, text, text, integer, integer),
    vc.newest_blocks(text, text, text[], integer) TO {role};

-- name: admit_to_table
-- Let reducers read and write a projection; triggers write its history.
GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role};

-- name: drop
-- Drop an app's role and its privileges.
DROP OWNED BY {role};
DROP ROLE {role};
