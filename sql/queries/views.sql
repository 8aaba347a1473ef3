-- name: has_views
-- Whether the database has the schema that these queries read from.
SELECT to_regclass('virtualchain.apps') IS NOT NULL;

-- name: network
-- The network that the deployment follows; no row before its first start.
SELECT network FROM virtualchain.deployment;

-- name: inputs_pruned_below
-- The block below which inputs were pruned; null if none were.
SELECT pruned_below FROM virtualchain.deployment;

-- name: apps
-- Every app, or those named, with its last block and status.
-- A database that was not upgraded yet has neither code_changed nor unexpected.
SELECT name, version, schema, build, first_block_id, block_id, block_hash, consensus_hash, state_hash, role, status, error,
    coalesce((to_jsonb(a) ->> 'code_changed')::boolean, false) AS code_changed,
    nullif(to_jsonb(a) -> 'unexpected', 'null') AS unexpected
FROM virtualchain.apps AS a
WHERE %(apps)s::text[] IS NULL OR name = ANY(%(apps)s)
ORDER BY name COLLATE "C";

-- name: digests
-- The digests of every app, or of those named, at a block.
SELECT app AS name, block_id, block_hash, ops_hash, consensus_hash, state_hash
FROM virtualchain.snapshots
WHERE block_id = %(block_id)s AND (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s))
ORDER BY app COLLATE "C";

-- name: digests_at
-- The digests of an app at some blocks.
SELECT block_id, block_hash, consensus_hash, state_hash FROM virtualchain.snapshots
WHERE app = %(app)s AND block_id = ANY(%(blocks)s) ORDER BY block_id;

-- name: latest_digests
-- The digests of every app, or of those named, at its last block.
SELECT s.app AS name, s.block_id, s.block_hash, s.ops_hash, s.consensus_hash, s.state_hash
FROM virtualchain.apps AS a
JOIN virtualchain.snapshots AS s ON s.app = a.name AND s.block_id = a.block_id
WHERE %(apps)s::text[] IS NULL OR a.name = ANY(%(apps)s)
ORDER BY a.name COLLATE "C";

-- name: ops
-- Ops in chain order, or in reverse, by {direction}.
SELECT app, block_id, block_hash, to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS time, txindex, vtxindex, txid, opcode, payload, fields, canonical, payload_index
FROM virtualchain.ops
WHERE (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s))
    AND block_id BETWEEN %(first)s AND %(last)s
    AND (%(opcode)s::bytea IS NULL OR opcode = %(opcode)s)
    AND (NOT %(only_spends)s OR payload IS NULL)
    AND (%(txid)s::text IS NULL OR txid = %(txid)s)
ORDER BY block_id {direction}, txindex {direction}, app COLLATE "C" {direction}, vtxindex {direction}
LIMIT %(limit)s;

-- name: rejections
-- Rejections in chain order, or in reverse, by {direction}.
SELECT app, block_id, txindex, txid, opcode, step, reason, payload_index
FROM virtualchain.rejections
WHERE (%(apps)s::text[] IS NULL OR app = ANY(%(apps)s))
    AND block_id BETWEEN %(first)s AND %(last)s
    AND (%(opcode)s::bytea IS NULL OR opcode = %(opcode)s)
    AND (%(txid)s::text IS NULL OR txid = %(txid)s)
ORDER BY block_id {direction}, txindex {direction}, app COLLATE "C" {direction}, payload_index {direction}
LIMIT %(limit)s;

-- name: search_path
-- Resolve unqualified names to the apps' views, then to those of the log, until the transaction ends.
SELECT set_config('search_path', concat_ws(', ',
    (SELECT string_agg(quote_ident(schema), ', ' ORDER BY name COLLATE "C") FROM virtualchain.apps),
    'virtualchain'), true);

-- name: pins
-- Blocks that the followed chain must hold.
SELECT block_id, hash FROM virtualchain.pins ORDER BY block_id;

-- name: builds
-- Every build of every app, with its last block.
SELECT app, build, is_live, version, status, block_id FROM virtualchain.builds
ORDER BY app COLLATE "C", build COLLATE "C";

-- name: writer
-- How the writer was started last, and what it reported last, `age` seconds ago; no row before the first start.
SELECT confirmations, apps, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS started_at,
    to_char(seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS seen_at,
    greatest(extract(epoch FROM now() - seen_at), 0)::float8 AS age, node_block_id, node_hash, waits_for, version,
    to_char(stopped_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS stopped_at
FROM virtualchain.writer;

-- name: is_standby
-- Whether the server is a standby, which cannot see the locks of its primary.
SELECT pg_is_in_recovery();

-- name: last_reorg
-- The last rollback; its duration in seconds.
SELECT reorg_id, to_char(detected_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS detected_at, fork_block_id,
    old_block_id, old_hash, new_block_id, new_hash, depth, blocks_undone, ops_undone,
    extract(epoch FROM duration)::float8 AS duration, cause, rows_undone
FROM virtualchain.reorgs ORDER BY reorg_id DESC LIMIT 1;

-- name: powers
-- What lets the session's user touch the server's files or programs, even in a read-only transaction; no row for other users.
SELECT what FROM (VALUES
    (1, (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user), 'is a superuser'),
    (2, pg_has_role(session_user, 'pg_execute_server_program', 'MEMBER'), 'can run programs on the server'),
    (3, pg_has_role(session_user, 'pg_write_server_files', 'MEMBER'), 'can write files on the server'),
    (4, pg_has_role(session_user, 'pg_read_server_files', 'MEMBER'), 'can read files on the server')
) AS power (place, is_so, what)
WHERE is_so ORDER BY place LIMIT 1;

-- name: reader
-- A reader of all apps that the session's user may become.
SELECT r.role FROM vc.readers AS r JOIN pg_catalog.pg_roles AS p ON p.rolname = r.role
WHERE r.apps IS NULL AND NOT (p.rolsuper OR p.rolcreaterole OR p.rolcreatedb OR p.rolreplication OR p.rolbypassrls)
    AND pg_has_role(session_user, p.oid, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
    AND r.role <> session_user
ORDER BY r.role COLLATE "C" LIMIT 1;

-- name: become
-- Run what follows with the rights of another role, until the transaction ends.
SELECT set_config('role', %(role)s, true);

-- name: as_of
-- Let every view show its rows as of a block, until the transaction ends; empty means now.
SELECT set_config('virtualchain.as_of', %(as_of)s, true);

-- name: timeout
-- Cancel any statement that takes longer, until the transaction ends.
SELECT set_config('statement_timeout', %(milliseconds)s, true);

-- name: script_of
-- The output script that an address stands for; null if it is not one.
SELECT virtualchain.script_of(%(address)s);
