-- name: role
-- A reader's role: whether it exists, what makes it more than a reader, and whether it may log in.
SELECT existing.oid IS NOT NULL AS there, coalesce(existing.rolcanlogin, false) AS logs_in,
    array_remove(ARRAY[
        CASE WHEN existing.rolsuper THEN 'is a superuser' END,
        CASE WHEN existing.rolcreaterole THEN 'can create roles' END,
        CASE WHEN existing.rolcreatedb THEN 'can create databases' END,
        CASE WHEN existing.rolreplication THEN 'can replicate' END,
        CASE WHEN existing.rolbypassrls THEN 'bypasses row-level security' END,
        CASE WHEN pg_has_role(existing.oid, current_user, 'MEMBER') THEN 'is the engine''s role, or can become it' END,
        CASE WHEN EXISTS (SELECT FROM vc.apps AS a WHERE vc.role_of(a.schema) = existing.rolname) THEN 'is the role of an app' END], NULL) AS strange
FROM (SELECT %(role)s::text AS name) AS requested
LEFT JOIN pg_catalog.pg_roles AS existing ON existing.rolname = requested.name;

-- name: create
-- Create the role of a reader: it cannot log in yet, and has no rights but those that it is granted.
CREATE ROLE {role} NOLOGIN;
COMMENT ON ROLE {role} IS 'Reads views of a virtualchain deployment.';

-- name: be_careful
-- Make the role's transactions read-only by default; it has no right to write in our schemas in any case.
ALTER ROLE {role} SET default_transaction_read_only = on;

-- name: join_15
-- Let our role become the reader, so that `virtualchain sql` can run with a reader's rights.
GRANT {role} TO CURRENT_USER;

-- name: join
-- The same since PostgreSQL 16, without taking over its rights.
GRANT {role} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE;

-- name: let_log_in
-- Let the role log in; the password is hashed already, because servers log statements.
ALTER ROLE {role} LOGIN PASSWORD {password};

-- name: remember
-- Record what a role may read: apps are added to those recorded, and null means all.
INSERT INTO vc.readers AS known (role, apps) VALUES (%(role)s, %(apps)s)
ON CONFLICT (role) DO UPDATE SET apps = ARRAY(SELECT DISTINCT a FROM unnest(known.apps || EXCLUDED.apps) AS a ORDER BY a)
WHERE known.apps IS NOT NULL AND EXCLUDED.apps IS NOT NULL;

-- name: remember_all
-- Record that a role may read all apps, including later ones.
UPDATE vc.readers SET apps = NULL WHERE role = %(role)s AND %(apps)s::text[] IS NULL;

-- name: forget
-- Remove a role from the readers.
DELETE FROM vc.readers WHERE role = %(role)s;

-- name: forget_app
-- Remove an app from those that readers may read.
UPDATE vc.readers SET apps = array_remove(apps, %(app)s) WHERE %(app)s = ANY(apps);

-- name: any
-- Whether there is a reader: the statement below, which every opening of a deployment would run, takes milliseconds.
SELECT FROM vc.readers LIMIT 1;

-- name: absent
-- The readers that are recorded here and that this server has no role for.
SELECT role FROM vc.readers WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role) ORDER BY role;

-- name: missing
-- The statements that grant what is missing: to readers the database, the views of the log, those of their apps, and the functions that these call. With a reader, temporary tables are revoked from PUBLIC, who has them again in a restored copy.
WITH ours AS (
    SELECT pg_has_role(current_user, datdba, 'USAGE') AS may_grant FROM pg_catalog.pg_database WHERE datname = current_database()
), readers AS (
    SELECT r.role, r.apps, p.oid FROM vc.readers AS r JOIN pg_catalog.pg_roles AS p ON p.rolname = r.role
), views AS (
    SELECT r.role, r.oid, n.nspname AS schema, c.relname AS name, c.oid AS view, n.oid AS namespace
    FROM readers AS r
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'virtualchain'
        OR EXISTS (SELECT FROM vc.apps AS a WHERE a.schema = n.nspname AND (r.apps IS NULL OR a.name = ANY(r.apps)))
    LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind = 'v'
        AND (n.nspname = 'virtualchain' OR EXISTS (SELECT FROM vc.shown AS p WHERE p.schema = n.nspname AND p.name = c.relname))
)
SELECT format('GRANT CONNECT ON DATABASE %%I TO %%I', current_database(), role)
FROM readers, ours WHERE may_grant AND NOT has_database_privilege(oid, current_database(), 'CONNECT')
UNION ALL
SELECT DISTINCT format('GRANT USAGE ON SCHEMA %%I TO %%I', schema, role)
FROM views WHERE NOT has_schema_privilege(oid, namespace, 'USAGE')
UNION ALL
SELECT format('GRANT SELECT ON %%I.%%I TO %%I', schema, name, role)
FROM views WHERE view IS NOT NULL AND NOT has_table_privilege(oid, view, 'SELECT')
UNION ALL
SELECT DISTINCT format('GRANT EXECUTE ON FUNCTION %%s TO %%I', p.oid::regprocedure, r.role)
FROM readers AS r CROSS JOIN ({called}) AS c JOIN pg_catalog.pg_proc AS p ON p.oid = c.function
WHERE pg_has_role(current_user, p.proowner, 'USAGE') AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
UNION ALL
SELECT format('REVOKE TEMPORARY ON DATABASE %%I FROM PUBLIC', current_database())
FROM ours JOIN pg_catalog.pg_database AS d ON d.datname = current_database()
WHERE may_grant AND EXISTS (SELECT FROM readers) AND EXISTS (
    SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee = 0 AND a.privilege_type = 'TEMPORARY');

-- name: called
-- A part of the ones around it: the functions for readers, those that our views call, and those that these call in turn; whoever reads a view must be allowed to.
SELECT function FROM (
    SELECT oid AS function FROM pg_catalog.pg_proc WHERE pronamespace = 'virtualchain'::regnamespace
    UNION (
    WITH RECURSIVE calls AS (
        SELECT m.match[1]::oid AS function
        FROM pg_catalog.pg_class AS v
        JOIN pg_catalog.pg_namespace AS n ON n.oid = v.relnamespace
        JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = v.oid
        CROSS JOIN LATERAL regexp_matches(w.ev_action::text, ':(?:opfuncid|funcid|aggfnoid|winfnoid) ([1-9]\d*)', 'g') AS m (match)
        WHERE v.relkind = 'v' AND (n.nspname = 'virtualchain'
            OR EXISTS (SELECT FROM vc.shown AS p WHERE p.schema = n.nspname AND p.name = v.relname))
        UNION
        SELECT m.match[1]::oid FROM calls JOIN pg_catalog.pg_proc AS p ON p.oid = calls.function
        CROSS JOIN LATERAL regexp_matches(p.prosqlbody::text, ':(?:opfuncid|funcid|aggfnoid|winfnoid) ([1-9]\d*)', 'g') AS m (match)
    ) SELECT function FROM calls)) AS called

-- name: uncallable
-- The functions that our views call and that a role may not execute.
SELECT p.oid::regprocedure::text FROM ({called}) AS c JOIN pg_catalog.pg_proc AS p ON p.oid = c.function
WHERE NOT has_function_privilege(%(role)s, p.oid, 'EXECUTE') ORDER BY 1;

-- name: take_back
-- The statements that revoke from a role what it was granted here.
SELECT format('REVOKE ALL ON %%I.%%I FROM %%I', n.nspname, c.relname, %(role)s::text)
FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind = 'v'
WHERE n.nspname = 'virtualchain' OR EXISTS (SELECT FROM vc.shown AS p WHERE p.schema = n.nspname AND p.name = c.relname)
UNION ALL
SELECT format('REVOKE ALL ON SCHEMA %%I FROM %%I', n.nspname, %(role)s::text)
FROM pg_catalog.pg_namespace AS n
WHERE n.nspname = 'virtualchain' OR EXISTS (SELECT FROM vc.apps AS a WHERE a.schema = n.nspname)
UNION ALL
SELECT format('REVOKE ALL ON FUNCTION %%s FROM %%I', p.oid::regprocedure, %(role)s::text)
FROM pg_catalog.pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee AND r.rolname = %(role)s
WHERE p.pronamespace IN ('vc'::regnamespace, 'virtualchain'::regnamespace)
UNION ALL
SELECT format('REVOKE ALL ON DATABASE %%I FROM %%I', current_database(), %(role)s::text);

-- name: harden
-- The statements that revoke from PUBLIC what we may revoke: temporary tables, new objects in schema public, large objects, and advisory locks, by which anyone could keep the writer out.
SELECT format('REVOKE TEMPORARY ON DATABASE %%I FROM PUBLIC', current_database())
FROM pg_catalog.pg_database WHERE datname = current_database() AND pg_has_role(current_user, datdba, 'USAGE')
UNION ALL
SELECT 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'
FROM pg_catalog.pg_namespace WHERE nspname = 'public' AND pg_has_role(current_user, nspowner, 'USAGE')
UNION ALL
SELECT format('GRANT EXECUTE ON FUNCTION %%s TO %%I', p.oid::regprocedure, (SELECT rolname FROM pg_catalog.pg_roles AS r
        JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'vc' AND n.nspowner = r.oid))
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^pg_(try_)?advisory_' AND pg_has_role(current_user, p.proowner, 'USAGE')
UNION ALL
SELECT format('REVOKE EXECUTE ON FUNCTION %%s FROM PUBLIC', p.oid::regprocedure)
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^(lo_creat|lo_create|lo_from_bytea|pg_(try_)?advisory_.*)$'
    AND pg_has_role(current_user, p.proowner, 'USAGE');

-- name: remains
-- What a role may do beyond reading its views, because PostgreSQL or an administrator allows it to the role or to everyone; and whether an administrator can prevent it.
SELECT what, place NOT IN (5, 6) AS is_avoidable FROM (VALUES
    (1, has_database_privilege(%(role)s, current_database(), 'TEMPORARY'), 'create temporary tables'),
    (2, has_schema_privilege(%(role)s, 'public', 'CREATE'), 'create objects in schema public'),
    (3, has_function_privilege(%(role)s, 'lo_create(oid)', 'EXECUTE'), 'create large objects'),
    (4, has_function_privilege(%(role)s, 'pg_try_advisory_lock(bigint)', 'EXECUTE'),
        'take advisory locks, including the writer''s while there is no writer'),
    (5, true, 'send NOTIFY, sleep, and keep a CPU busy'),
    (6, true, 'read the system catalogs: names and definitions of all objects, but no rows'),
    (7, EXISTS (SELECT FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.member
        WHERE r.rolname = %(role)s), 'whatever the roles that it is a member of may do')
) AS known (place, is_so, what)
WHERE is_so ORDER BY place;
