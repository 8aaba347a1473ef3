-- name: deployment
-- The network that a node follows, and the hash of its block 0; no row before its first start.
SELECT network, genesis_hash FROM virtualchain.deployment;

-- name: tape
-- The first and the last block of a node's tape; null if it has none.
SELECT min(block_id) AS first, max(block_id) AS last FROM virtualchain.blocks;

-- name: pruned_below
-- The first block of a node's tape whose inputs are all complete; null if all are.
SELECT pruned_below FROM virtualchain.deployment;

-- name: block_hash
-- The hash of a block.
SELECT hash FROM virtualchain.blocks WHERE block_id = %(block_id)s;

-- name: apps
-- A node's apps: what they declare, how far each of them is, and how far back its history reaches.
SELECT a.name, a.version, a.schema, a.rule, ARRAY(SELECT encode(m, 'hex') FROM unnest(a.magics) AS m) AS magics,
    a.first_block_id, a.valid_window, a.fingerprint, a.code_digest, a.status, a.base_block_id, a.history_from, a.block_id,
    a.consensus_hash, a.state_hash,
    (SELECT min(block_id) FROM virtualchain.snapshots AS s WHERE s.app = a.name) AS first_digests
FROM virtualchain.apps AS a ORDER BY a.name COLLATE "C";

-- name: consensus_hash
-- An app's consensus hash at a block.
SELECT consensus_hash FROM virtualchain.snapshots WHERE app = %(app)s AND block_id = %(block_id)s;

-- name: digest_sums
-- For each stretch of {size} blocks, a digest over all of an app's digests there. (Those of an initial snapshot may be of block -1.)
SELECT s.number, (
    SELECT encode(sha256(convert_to(string_agg(concat_ws(',', block_id, coalesce(ops_hash, '-'), consensus_hash, state_hash),
        ';' ORDER BY block_id), 'UTF8')), 'hex')
    FROM virtualchain.snapshots
    WHERE app = %(app)s AND block_id BETWEEN greatest(nullif(s.number, 0) * {size}, %(first)s) AND least(s.number * {size} + {size} - 1, %(last)s)),
    NULL
FROM generate_series(%(first)s::integer / {size}, %(last)s::integer / {size}) AS s (number);

-- name: digests
-- An app's digests in a range of blocks.
SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots
WHERE app = %(app)s AND block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: input_sums
-- For each stretch of {size} blocks, a digest over the inputs that an app judged there, and one over the heights of what they spend, which is null if one of them is not known. (OFFSET, so that heights are computed once.)
SELECT s.number, i.rows, i.heights
FROM generate_series(%(first)s::integer / {size}, %(last)s::integer / {size}) AS s (number)
CROSS JOIN LATERAL (
    SELECT encode(sha256(string_agg(content, ''::bytea ORDER BY block_id, txindex)), 'hex') AS rows,
        CASE WHEN bool_and(heights IS NOT NULL) THEN encode(sha256(convert_to(
            string_agg(heights::text, ';' ORDER BY block_id, txindex), 'UTF8')), 'hex') END AS heights
    FROM (
        SELECT block_id, txindex, heights, sha256(raw || spent || convert_to(
            concat_ws(',', block_id, txindex, txid, octet_length(raw), fee), 'UTF8')) AS content
        FROM virtualchain.inputs AS i
        WHERE block_id BETWEEN greatest(s.number * {size}, %(first)s) AND least(s.number * {size} + {size} - 1, %(last)s)
            AND (magics && %(magics)s::bytea[] OR %(app)s = ANY(tracked_by) AND {is_judged})
        OFFSET 0) AS rows
) AS i;

-- name: is_judged
-- A part of the one above, and of the one below: whether the app has a verdict on an input. Of what is there only because of its tracking, other code of the same app may have asked for more.
EXISTS (SELECT FROM virtualchain.ops AS o WHERE (o.app, o.block_id, o.txindex) = (%(app)s, i.block_id, i.txindex)
    UNION ALL SELECT FROM virtualchain.rejections AS r WHERE (r.app, r.block_id, r.txindex) = (%(app)s, i.block_id, i.txindex))

-- name: inputs
-- The inputs that an app judged in a range of blocks: digests of what is long, and what makes two of them different.
SELECT block_id, txindex, txid, encode(sha256(raw), 'hex') AS raw, encode(sha256(spent), 'hex') AS senders, fee, heights
FROM virtualchain.inputs AS i
WHERE block_id BETWEEN %(first)s AND %(last)s
    AND (magics && %(magics)s::bytea[] OR %(app)s = ANY(tracked_by) AND {is_judged})
ORDER BY block_id, txindex;

-- name: verdicts
-- An app's verdicts on the candidates of a block, in chain order.
SELECT txindex, payload_index, vtxindex, txid, canonical,
    jsonb_build_object('accepted', fields, 'opcode', encode(opcode, 'hex'), 'payload', encode(payload, 'hex')) AS verdict
FROM virtualchain.ops WHERE app = %(app)s AND block_id = %(block_id)s
UNION ALL
SELECT txindex, payload_index, NULL, txid, NULL, jsonb_build_object('rejected', step, 'reason', reason)
FROM virtualchain.rejections WHERE app = %(app)s AND block_id = %(block_id)s
ORDER BY txindex, payload_index, vtxindex;

-- name: views
-- The views of an app, whether this role may read them, and their columns.
SELECT c.relname AS name, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS is_readable,
    ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum) AS columns
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind = 'v' ORDER BY c.relname COLLATE "C";

-- name: changes
-- What a block did to the projections of an app.
SELECT "table", key, new FROM virtualchain.changes WHERE app = %(app)s AND block_id = %(block_id)s;

-- name: row
-- The row of a view that has a key.
SELECT to_jsonb({row}) AS content FROM {view} AS {row} WHERE {is_key};

-- name: row_sums
-- For each of 256 parts of a view's rows, chosen by their digests, a digest over them.
SELECT substr(d.digest, 1, 2), encode(sha256(convert_to(string_agg(d.digest, '' ORDER BY d.digest COLLATE "C"), 'UTF8')), 'hex')
FROM (SELECT encode(sha256(convert_to(to_jsonb({row})::text, 'UTF8')), 'hex') AS digest FROM {view} AS {row}) AS d
GROUP BY 1 ORDER BY 1;

-- name: rows
-- The rows of one of these parts, by their digests.
SELECT d.digest, d.content FROM (
    SELECT encode(sha256(convert_to(to_jsonb({row})::text, 'UTF8')), 'hex') AS digest, to_jsonb({row}) AS content
    FROM {view} AS {row}) AS d
WHERE substr(d.digest, 1, 2) = %(part)s ORDER BY d.digest COLLATE "C";
