-- name: deployment
-- A deployment at a glance.
SELECT row_to_json(glance)::text FROM (
    SELECT d.network, d.genesis_hash, pg_is_in_recovery() AS is_standby, statement_timestamp() AS now,
        (SELECT min(block_id) FROM virtualchain.blocks) AS first_block,
        (SELECT row_to_json(b) FROM (SELECT block_id, hash, time FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1) AS b) AS last_block,
        coalesce((SELECT json_agg(row_to_json(a) ORDER BY a.name COLLATE "C") FROM virtualchain.apps AS a), '[]') AS apps,
        coalesce((SELECT json_agg(row_to_json(b) ORDER BY b.app COLLATE "C", b.build COLLATE "C") FROM virtualchain.builds AS b), '[]') AS builds,
        coalesce((SELECT json_agg(row_to_json(p) ORDER BY p.block_id) FROM virtualchain.pins AS p), '[]') AS pins,
        (SELECT row_to_json(w) FROM virtualchain.writer AS w) AS writer,
        (SELECT row_to_json(r) FROM (
            SELECT reorg_id, detected_at, fork_block_id, old_block_id, old_hash, new_block_id, new_hash, depth, blocks_undone, ops_undone,
                extract(epoch FROM duration)::float8 AS duration, cause, rows_undone
            FROM virtualchain.reorgs ORDER BY reorg_id DESC LIMIT 1) AS r) AS last_reorg,
        (SELECT count(*) FROM virtualchain.reorgs) AS reorgs,
        (SELECT count(*) FROM virtualchain.pending) AS pending
    FROM (VALUES (true)) AS always LEFT JOIN virtualchain.deployment AS d ON true
) AS glance;

-- name: app
-- An app, with how far it is.
SELECT row_to_json(a)::text FROM virtualchain.apps AS a WHERE a.name = %(app)s;

-- name: blocks
-- Blocks, newest first, with how many ops and rejections they have.
WITH page AS MATERIALIZED (
    SELECT block_id, hash, time FROM virtualchain.blocks WHERE block_id < %(before)s ORDER BY block_id DESC LIMIT %(limit)s
), counted AS (
    SELECT first_block_id AS block_id, sum(ops) AS ops, sum(rejections) AS rejections
    FROM virtualchain.activity((SELECT min(block_id) FROM page), (SELECT max(block_id) FROM page), (SELECT count(*)::integer FROM page))
    GROUP BY first_block_id
)
SELECT row_to_json(shown)::text, count(*) OVER (), block_id::text FROM (
    SELECT p.block_id, p.hash, p.time, coalesce(c.ops, 0) AS ops, coalesce(c.rejections, 0) AS rejections
    FROM page AS p LEFT JOIN counted AS c USING (block_id)
) AS shown
ORDER BY shown.block_id DESC;

-- name: block
-- A block by height or hash, with the digests of the apps that took it.
SELECT row_to_json(shown)::text FROM (
    SELECT b.block_id, b.hash, b.prev_hash, (SELECT hash FROM virtualchain.blocks WHERE block_id = b.block_id + 1) AS next_hash,
        b.time, b.chainwork, b.header, (SELECT min(block_id) FROM virtualchain.blocks) AS first_block_id,
        (SELECT max(block_id) FROM virtualchain.blocks) AS last_block_id,
        coalesce((SELECT json_agg(row_to_json(taken) ORDER BY taken.app COLLATE "C") FROM (
            SELECT s.app, s.ops_hash, s.consensus_hash, s.state_hash, c.ops, c.rejections
            FROM virtualchain.snapshots AS s JOIN virtualchain.activity(b.block_id, b.block_id, 1) AS c USING (app)
            WHERE s.block_id = b.block_id) AS taken), '[]') AS apps
    FROM virtualchain.blocks AS b
    WHERE b.block_id = coalesce(%(block_id)s::integer, (SELECT block_id FROM virtualchain.blocks WHERE hash = %(hash)s::text))
) AS shown;

-- name: ops
-- Ops, newest first, as many as fit into 4 MiB, but at least one. A row without an op says how far was looked.
WITH places AS MATERIALIZED (
    SELECT a.name AS app, p.block_id, p.vtxindex, p.fits
    FROM virtualchain.apps AS a
    CROSS JOIN LATERAL virtualchain.newest_ops(a.name, coalesce(%(block_id)s::integer, 0), %(last)s::integer,
        CASE WHEN a.name COLLATE "C" > %(last_app)s THEN 0 WHEN a.name = %(last_app)s THEN %(vtxindex)s ELSE 2147483647 END,
        %(opcode)s::bytea, %(limit)s) AS p
    WHERE %(app)s::text IS NULL OR a.name = %(app)s
    ORDER BY p.block_id DESC, a.name COLLATE "C" DESC, p.vtxindex DESC LIMIT %(limit)s
), measured AS (
    SELECT o.*, p.fits, row_number() OVER place AS place, count(*) OVER () AS rows,
        sum(300 + 2 * coalesce(octet_length(o.payload), 0) + 4 * pg_column_size(o.fields)) OVER place AS size
    FROM places AS p JOIN virtualchain.ops AS o USING (app, block_id, vtxindex)
    WINDOW place AS (ORDER BY o.block_id DESC, o.app COLLATE "C" DESC, o.vtxindex DESC ROWS UNBOUNDED PRECEDING)
)
SELECT CASE WHEN m.fits THEN (SELECT row_to_json(o)::text FROM (SELECT m.app, m.block_id, m.block_hash, m.time, m.txindex, m.vtxindex, m.txid,
        m.opcode, m.payload, m.fields, m.payload_index) AS o) END,
    m.rows, json_build_array(m.block_id, m.app, m.vtxindex)::text
FROM measured AS m WHERE m.place = 1 OR m.size <= 4194304 ORDER BY m.place;

-- name: rejections
-- Rejections, newest first. A row without one says how far was looked.
WITH places AS MATERIALIZED (
    SELECT a.name AS app, p.block_id, p.txindex, p.payload_index, p.fits
    FROM virtualchain.apps AS a
    CROSS JOIN LATERAL virtualchain.newest_rejections(a.name, coalesce(%(block_id)s::integer, 0), %(last)s::integer,
        CASE WHEN a.name COLLATE "C" > %(last_app)s THEN 0 WHEN a.name = %(last_app)s THEN %(txindex)s ELSE 2147483647 END,
        CASE WHEN a.name = %(last_app)s THEN %(payload_index)s ELSE 0 END, %(opcode)s::bytea, %(step)s::text, %(limit)s) AS p
    WHERE %(app)s::text IS NULL OR a.name = %(app)s
    ORDER BY p.block_id DESC, a.name COLLATE "C" DESC, p.txindex DESC, p.payload_index DESC LIMIT %(limit)s
)
SELECT CASE WHEN p.fits THEN row_to_json(r)::text END, count(*) OVER (), json_build_array(p.block_id, p.app, p.txindex, p.payload_index)::text
FROM places AS p JOIN virtualchain.rejections AS r USING (app, block_id, txindex, payload_index)
ORDER BY p.block_id DESC, p.app COLLATE "C" DESC, p.txindex DESC, p.payload_index DESC;

-- name: op
-- An op with its transaction.
SELECT row_to_json(shown)::text FROM (
    SELECT o.*, (SELECT row_to_json(t) FROM (
            SELECT fee, senders, outputs, raw, evidence, tracked_by, magics FROM virtualchain.inputs AS i
            WHERE i.block_id = o.block_id AND i.txindex = o.txindex) AS t) AS transaction
    FROM virtualchain.ops AS o WHERE o.app = %(app)s AND o.block_id = %(block_id)s AND o.vtxindex = %(vtxindex)s
) AS shown;

-- name: transaction
-- A transaction, with what every app made of it; no row if nothing is known of it.
WITH places AS MATERIALIZED (
    SELECT i.block_id, b.hash AS block_hash, b.time, i.txindex, i.fee, i.senders, i.outputs, i.raw, i.evidence, i.tracked_by, i.magics
    FROM virtualchain.inputs AS i JOIN virtualchain.blocks AS b USING (block_id)
    WHERE i.txid = %(txid)s ORDER BY i.block_id LIMIT 10
)
SELECT row_to_json(shown)::text FROM (
    SELECT %(txid)s::text AS txid,
        coalesce((SELECT json_agg(row_to_json(p)) FROM places AS p), '[]') AS places,
        coalesce((SELECT json_agg(row_to_json(o) ORDER BY o.app COLLATE "C", o.block_id, o.vtxindex)
            FROM places AS p JOIN virtualchain.ops AS o USING (block_id, txindex)), '[]') AS ops,
        coalesce((SELECT json_agg(row_to_json(r) ORDER BY r.app COLLATE "C", r.block_id, r.payload_index)
            FROM places AS p JOIN virtualchain.rejections AS r USING (block_id, txindex)), '[]') AS rejections,
        coalesce((SELECT json_agg(row_to_json(q) ORDER BY q.app COLLATE "C", q.payload_index)
            FROM virtualchain.pending AS q WHERE q.txid = %(txid)s), '[]') AS pending
) AS shown
WHERE EXISTS (SELECT FROM places) OR shown.pending::text <> '[]';

-- name: snapshots
-- An app's digests, newest first.
SELECT row_to_json(shown)::text, count(*) OVER (), block_id::text FROM (
    SELECT * FROM virtualchain.snapshots WHERE app = %(app)s AND block_id < %(before)s ORDER BY block_id DESC LIMIT %(limit)s
) AS shown
ORDER BY shown.block_id DESC;

-- name: reorgs
-- Rollbacks, newest first; durations in seconds.
SELECT row_to_json(shown)::text, count(*) OVER (), reorg_id::text FROM (
    SELECT reorg_id, detected_at, fork_block_id, old_block_id, old_hash, new_block_id, new_hash, depth, blocks_undone, ops_undone,
        extract(epoch FROM duration)::float8 AS duration, cause, rows_undone
    FROM virtualchain.reorgs WHERE reorg_id < %(before)s ORDER BY reorg_id DESC LIMIT %(limit)s
) AS shown
ORDER BY shown.reorg_id DESC;

-- name: pending
-- Pending inputs, in the order in which they were judged.
SELECT row_to_json(p)::text FROM virtualchain.pending AS p WHERE %(app)s::text IS NULL OR app = %(app)s
ORDER BY app COLLATE "C", place LIMIT %(limit)s;

-- name: opcodes
-- The opcodes among an app's last ops.
SELECT row_to_json(counted)::text FROM (
    SELECT o.opcode, count(*) AS ops, max(o.block_id) AS last_block_id
    FROM virtualchain.newest_ops(%(app)s, most => 1000) AS p
    JOIN virtualchain.ops AS o ON o.app = %(app)s AND o.block_id = p.block_id AND o.vtxindex = p.vtxindex
    GROUP BY o.opcode
) AS counted
ORDER BY ops DESC, opcode;

-- name: activity
-- How many ops and rejections there are in each part of a range of blocks.
SELECT row_to_json(shown)::text FROM (
    SELECT a.*, b.time FROM virtualchain.activity(%(first)s, %(last)s, %(points)s, %(app)s) AS a
    LEFT JOIN virtualchain.blocks AS b ON b.block_id = a.last_block_id
) AS shown ORDER BY first_block_id, app COLLATE "C";

-- name: progress
-- How far the writer was during the last day, in a bounded number of parts of the same length.
WITH parts AS (
    SELECT p.*, width_bucket(extract(epoch FROM p.at), s.first, s.last + 1, %(points)s) AS part, extract(epoch FROM p.at - lag(p.at) OVER (ORDER BY p.at)) AS seconds
    FROM virtualchain.progress AS p
    CROSS JOIN (SELECT extract(epoch FROM min(at)) AS first, extract(epoch FROM max(at)) AS last FROM virtualchain.progress) AS s
)
SELECT row_to_json(shown)::text FROM (
    SELECT max(at) AS at, (array_agg(block_id ORDER BY at DESC))[1] AS block_id, (array_agg(node_block_id ORDER BY at DESC))[1] AS node_block_id,
        round(sum(seconds), 3) AS seconds, sum(inputs) AS inputs, sum(ops) AS ops, sum(rejections) AS rejections
    FROM parts GROUP BY part
) AS shown ORDER BY at;
