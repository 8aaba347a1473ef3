-- name: lock
-- Try to take the lock for delivering one webhook; it lasts as long as the session.
SELECT pg_try_advisory_lock(1752133483, hashtext(%(name)s)) AS is_ours;

-- name: add
-- Note a webhook that is new; of one that is known, note its app.
INSERT INTO vc.webhooks AS known (name, app, block_id, block_hash, rollbacks, event, version, delivered, failures)
VALUES (%(name)s, %(app)s, %(block_id)s, decode(%(block_hash)s, 'hex'), %(rollbacks)s, 'block', 1, 0, 0)
ON CONFLICT (name) DO UPDATE SET app = EXCLUDED.app WHERE known.app <> EXCLUDED.app;

-- name: known
-- Which of the webhooks are known.
SELECT name, app FROM vc.webhooks WHERE name = ANY(%(names)s);

-- name: cursor
-- How far a webhook is, and for how many seconds it waits after a failure: never longer than was decided then, whatever the clock did.
SELECT block_id, encode(block_hash, 'hex') AS block_hash, rollbacks, event, part, version, failures,
    greatest(0, extract(epoch FROM least(next_try - now(), next_try - failed_at)))::double precision AS wait
FROM vc.webhooks WHERE name = %(name)s;

-- name: versions
-- The versions of the webhooks' cursors.
SELECT name, version FROM vc.webhooks WHERE name = ANY(%(names)s);

-- name: move
-- Record how far a webhook is, unless it was replayed meanwhile; and a delivery, if there was one.
UPDATE vc.webhooks SET block_id = %(block_id)s, block_hash = decode(%(block_hash)s, 'hex'), rollbacks = %(rollbacks)s,
    event = %(event)s, part = %(part)s, delivered = delivered + %(deliveries)s,
    delivered_at = CASE WHEN %(deliveries)s > 0 THEN now() ELSE delivered_at END,
    failures = CASE WHEN %(deliveries)s > 0 THEN 0 ELSE failures END,
    error = CASE WHEN %(deliveries)s = 0 THEN error END, failed_at = CASE WHEN %(deliveries)s = 0 THEN failed_at END,
    next_try = CASE WHEN %(deliveries)s = 0 THEN next_try END
WHERE name = %(name)s AND version = %(version)s;

-- name: fail
-- Record an attempt that failed, unless the webhook was replayed meanwhile.
UPDATE vc.webhooks SET failures = failures + 1, error = %(error)s, failed_at = now(),
    next_try = now() + %(pause)s * interval '1 second'
WHERE name = %(name)s AND version = %(version)s;

-- name: replay
-- Begin again after a position; what is under way does not count any more.
UPDATE vc.webhooks SET block_id = %(block_id)s, block_hash = decode(%(block_hash)s, 'hex'), rollbacks = %(rollbacks)s,
    event = 'block', part = NULL, version = version + 1, failures = 0, error = NULL, failed_at = NULL, next_try = NULL
WHERE name = %(name)s;

-- name: list
-- How far webhooks are: those of the database, and those of the settings that are new; is_delivered is whether a process has the lock.
SELECT coalesce(w.name, s.name) AS name, coalesce(s.app, w.app) AS app, NULL::text AS receiver,
    EXISTS (
        SELECT FROM pg_catalog.pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.classid = 1752133483 AND l.objsubid = 2 AND l.granted
            AND l.objid::bigint = hashtext(coalesce(w.name, s.name))::bigint & 4294967295
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    ) AS is_delivered,
    w.block_id, a.block_id AS app_block_id, coalesce(w.delivered, 0) AS delivered,
    to_char(w.delivered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS delivered_at, coalesce(w.failures, 0) AS failures, w.error,
    to_char(w.failed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS failed_at,
    to_char(w.next_try AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS next_try
FROM virtualchain.webhooks AS w
FULL JOIN unnest(%(names)s::text[], %(apps)s::text[]) AS s (name, app) ON s.name = w.name
LEFT JOIN virtualchain.apps AS a ON a.name = coalesce(s.app, w.app)
ORDER BY coalesce(w.name, s.name) COLLATE "C";

-- name: next
-- The next block of an app's live build with an op of these opcodes, or one that changed rows.
SELECT min(found.block_id) AS block_id FROM vc.apps AS a CROSS JOIN LATERAL (
    (SELECT o.block_id FROM vc.ops AS o
        WHERE o.app = a.name AND o.build = a.build AND o.block_id > %(after)s AND %(wants_ops)s
            AND (%(opcodes)s::bytea[] IS NULL OR o.opcode = ANY(%(opcodes)s::bytea[]))
        ORDER BY o.block_id LIMIT 1)
    UNION ALL
    (SELECT s.block_id FROM vc.snapshots AS s
        WHERE s.app = a.name AND s.build = a.build AND s.block_id > greatest(%(after)s, a.base_block_id) AND %(wants_changes)s
            AND s.state_number IS NOT NULL
        ORDER BY s.block_id LIMIT 1)
) AS found
WHERE a.name = %(app)s AND a.is_live;
