-- name: short_lock_timeout
-- Wait at most a second for a lock, because sessions that queue after this one wait just as long.
SELECT set_config('lock_timeout', '1s', true);

-- name: no_lock_timeout
-- Wait for locks without a limit again.
SELECT set_config('lock_timeout', '0', true);

-- name: holders
-- The other sessions that hold locks on views of some apps or on tables of their builds, also of those that this transaction drops; without apps, on anything of ours.
SELECT concat_ws(' ', coalesce(nullif(activity.application_name, ''), 'an unknown program'),
    format('(server process %%s,', lock.pid), format('role %%s,', activity.usename),
    'from ' || host(activity.client_addr) || ',', coalesce(activity.state, 'state unknown'),
    'for ' || extract(epoch FROM date_trunc('second', clock_timestamp() - activity.state_change))::bigint || ' s') || ')'
FROM (
    SELECT DISTINCT pid FROM pg_catalog.pg_locks
    WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        AND relation IN (
            SELECT c.oid FROM pg_catalog.pg_class AS c
            JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE %(apps)s::text[] IS NULL AND n.nspname IN ('vc', 'virtualchain')
                OR EXISTS (SELECT FROM vc.apps AS a WHERE (n.nspname = a.schema OR starts_with(n.nspname, a.schema || '__'))
                    AND (%(apps)s::text[] IS NULL OR a.name = ANY(%(apps)s))))
) AS lock
LEFT JOIN pg_catalog.pg_stat_activity AS activity USING (pid)
ORDER BY lock.pid;
