-- name: has_apps
-- Whether the database has virtualchain's tables, and our role may read which apps there are.
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'vc' AND c.relname = 'apps' AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'));

-- name: harmful_settings
-- A setting that only a superuser may change back, and with which rows are lost or not kept: its effect, its place, and what resets it.
SELECT format('%s is %s, set %s, which %s', s.name, s.setting, place.described, bad.effect), place.command
FROM (VALUES
    ('session_replication_role', 'replica', 'silences the triggers that keep history'),
    ('zero_damaged_pages', 'on', 'empties damaged pages instead of reporting them'),
    ('ignore_checksum_failure', 'on', 'reads damaged pages as if they were whole')
) AS bad (name, setting, effect)
JOIN pg_catalog.pg_settings AS s ON s.name = bad.name AND s.setting = bad.setting
CROSS JOIN LATERAL (SELECT quote_ident(current_database()) AS database, quote_ident(session_user) AS role) AS ours
CROSS JOIN LATERAL (
    SELECT CASE s.source
        WHEN 'database user' THEN format('for role %s in database %s', role, database)
        WHEN 'user' THEN format('for role %s', role)
        WHEN 'database' THEN format('for database %s', database)
        WHEN 'global' THEN 'for all roles'
        WHEN 'client' THEN 'by the URL''s options or PGOPTIONS'
        ELSE 'in the server''s ' || s.source END AS described,
    CASE s.source
        WHEN 'database user' THEN format('ALTER ROLE %s IN DATABASE %s RESET %s', role, database, s.name)
        WHEN 'user' THEN format('ALTER ROLE %s RESET %s', role, s.name)
        WHEN 'database' THEN format('ALTER DATABASE %s RESET %s', database, s.name)
        WHEN 'global' THEN format('ALTER ROLE ALL RESET %s', s.name)
        WHEN 'client' THEN format('nothing, but take %s out of these', s.name)
        ELSE format('ALTER SYSTEM RESET %s, remove it from postgresql.conf, and run SELECT pg_reload_conf()', s.name)
        END AS command
) AS place
ORDER BY s.name LIMIT 1;

-- name: open_defaults
-- Default privileges that would let others write to tables, sequences or schemas that we make, or let everybody read them; and the statement that revokes them. Other roles may be let read.
SELECT format('default privileges give %s to %s on the %s that %s makes%s, so that %s', string_agg(acl.privilege_type, ', '
        ORDER BY acl.privilege_type), who.name, kind.name, who.owner, coalesce(' in schema ' || who.schema, ''), kind.effect),
    format('ALTER DEFAULT PRIVILEGES FOR ROLE %s%s REVOKE %s ON %s FROM %s', who.owner, coalesce(' IN SCHEMA ' || who.schema, ''),
        string_agg(acl.privilege_type, ', ' ORDER BY acl.privilege_type), upper(kind.name), who.name)
FROM pg_catalog.pg_default_acl AS d
JOIN (VALUES ('r', 'tables', 'others could change the deployment, or read all of it'),
    ('S', 'sequences', 'others could change the deployment, or read all of it'),
    ('n', 'schemas', 'others could put objects beside ours, or use all of them')) AS kind (type, name, effect) ON kind.type = d.defaclobjtype
CROSS JOIN LATERAL aclexplode(d.defaclacl) AS acl
LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL (SELECT quote_ident(pg_get_userbyid(d.defaclrole)) AS owner, quote_ident(n.nspname) AS schema,
    CASE WHEN acl.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END AS name) AS who
WHERE pg_get_userbyid(d.defaclrole) = current_user AND acl.grantee <> d.defaclrole
    AND (acl.grantee = 0 OR acl.privilege_type NOT IN ('SELECT', 'USAGE') OR d.defaclobjtype = 'S' AND acl.privilege_type = 'USAGE')
    AND n.nspname IS DISTINCT FROM 'public'
GROUP BY d.oid, who.name, who.owner, who.schema, kind.name, kind.effect
ORDER BY 1 LIMIT 1;

-- name: hidden_rows
-- A table of ours with row security, which hides rows from the apps' roles, and if it is forced, from us; and the statement that ends it.
SELECT format('table %I.%I has row security, which hides rows', n.nspname, c.relname),
    format('ALTER TABLE %I.%I DISABLE ROW LEVEL SECURITY', n.nspname, c.relname)
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relrowsecurity AND (n.nspname = 'vc' OR EXISTS (SELECT FROM vc.apps AS a WHERE starts_with(n.nspname, a.schema || '__')))
ORDER BY 1 LIMIT 1;

-- name: event_trigger
-- The event trigger, and its function, that an error's context names.
SELECT quote_ident(e.evtname), e.evtfoid::regproc::text
FROM pg_catalog.pg_event_trigger AS e JOIN pg_catalog.pg_proc AS p ON p.oid = e.evtfoid
WHERE e.evtenabled <> 'D' AND strpos(%(context)s, ' ' || e.evtfoid::regprocedure::text) > 0
    OR e.evtenabled <> 'D' AND strpos(%(context)s, '.' || p.proname || '()') > 0
ORDER BY e.evtname LIMIT 1;

-- name: publication
-- A publication of all tables.
SELECT quote_ident(pubname) FROM pg_catalog.pg_publication WHERE puballtables ORDER BY 1 LIMIT 1;
