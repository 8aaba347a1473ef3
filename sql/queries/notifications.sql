-- name: set_lock_timeout
-- Notifications are put into the queue one transaction after the other: do not wait long for another one.
SELECT set_config('lock_timeout', '2s', true);

-- name: block
-- Notify listeners of a new block.
SELECT pg_notify('virtualchain', json_build_object('event', 'block', 'block_id', %(block_id)s::integer, 'block_hash', %(hash)s::text)::text);

-- name: rollback
-- Notify listeners that blocks were undone; the notification names the last block that remains.
SELECT pg_notify('virtualchain', json_build_object('event', 'rollback', 'block_id', %(fork)s::integer,
    'block_hash', (SELECT encode(hash, 'hex') FROM vc.blocks WHERE block_id = %(fork)s))::text);

-- name: pending
-- Notify listeners, on a channel of their own, that pending inputs were judged again.
SELECT pg_notify('virtualchain_pending', '');

-- name: free_queue
-- Ask how full the queue is: that makes the server notice what all listeners have read, which a failed NOTIFY does not.
SELECT pg_catalog.pg_notification_queue_usage();

-- name: holders
-- A given session, or those in a transaction, oldest first: one of them keeps the queue of notifications from being emptied. Of other users' sessions we may not see since when.
SELECT pid, usename::text, datname::text, application_name, host(client_addr) AS client_addr,
    to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC' AS xact_start
FROM pg_catalog.pg_stat_activity
WHERE pid <> pg_backend_pid() AND CASE WHEN %(pid)s::integer IS NOT NULL THEN pid = %(pid)s
    ELSE pid IN (SELECT l.pid FROM pg_catalog.pg_locks AS l WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock') END
ORDER BY xact_start NULLS FIRST, pid LIMIT 5;
