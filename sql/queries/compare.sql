-- name: first_difference
-- The first block after which two builds of an app have different digests, and those digests.
SELECT a.block_id, (SELECT encode(hash, 'hex') FROM vc.blocks WHERE block_id = a.block_id) AS block_hash,
    encode(a.consensus_hash, 'hex') AS consensus_hash, encode(b.consensus_hash, 'hex') AS other_consensus_hash,
    encode(a.ops_hash, 'hex') AS ops_hash, encode(b.ops_hash, 'hex') AS other_ops_hash,
    encode(a.state_hash, 'hex') AS state_hash, encode(b.state_hash, 'hex') AS other_state_hash
FROM vc.snapshots AS a
JOIN vc.snapshots AS b ON b.app = a.app AND b.build = %(other)s AND b.block_id = a.block_id
WHERE a.app = %(app)s AND a.build = %(build)s AND (
    a.consensus_hash <> b.consensus_hash OR a.state_hash IS DISTINCT FROM b.state_hash AND %(with_state)s)
ORDER BY a.block_id LIMIT 1;

-- name: places
-- The last block of each of two builds of an app, and the digests there.
SELECT build, block_id, encode(consensus_hash, 'hex') AS consensus_hash, encode(state_hash, 'hex') AS state_hash
FROM (
    SELECT DISTINCT ON (build) build, block_id, consensus_hash, state_hash FROM vc.snapshots
    WHERE app = %(app)s AND build = ANY(%(builds)s) ORDER BY build, block_id DESC) AS last;

-- name: first_verdict
-- The first candidate of a block that one of two builds accepted and that they judged differently: both verdicts, null for a build that saw no candidate. What both rejected enters no digest.
SELECT %(block_id)s AS block_id, txindex, encode(i.txid, 'hex') AS txid, a.verdict, b.verdict AS other_verdict
FROM ({verdicts}) AS a
FULL JOIN ({other_verdicts}) AS b USING (txindex, payload_index)
JOIN vc.inputs AS i USING (txindex)
WHERE i.block_id = %(block_id)s AND a.verdict IS DISTINCT FROM b.verdict
    AND (coalesce(a.verdict ? 'accepted', false) OR coalesce(b.verdict ? 'accepted', false))
ORDER BY txindex, payload_index LIMIT 1;

-- name: accepted
-- The transactions of a block that one or both of two builds accepted, in order.
SELECT encode(i.txid, 'hex') FROM vc.inputs AS i
WHERE i.block_id = %(block_id)s AND EXISTS (
    SELECT FROM vc.ops AS o
    WHERE o.app = %(app)s AND o.build = ANY(%(builds)s) AND o.block_id = i.block_id AND o.txindex = i.txindex)
ORDER BY i.txindex;

-- name: verdicts
-- A part of the one above: a build's verdicts on the candidates of a block.
SELECT txindex, payload_index, jsonb_build_object('accepted', fields, 'canonical', to_jsonb(canonical)) AS verdict FROM vc.ops
WHERE app = %(app)s AND build = {build} AND block_id = %(block_id)s
UNION ALL
SELECT txindex, payload_index, jsonb_build_object('refused', step, 'reason', reason) FROM vc.rejections
WHERE app = %(app)s AND build = {build} AND block_id = %(block_id)s

-- name: count_rows
-- How many rows a table has.
SELECT count(*) FROM {table};

-- name: first_row
-- The first row, ordered by its text, that only one of two tables has.
SELECT row_text, bool_or(is_others) AS is_others FROM (
    SELECT {text} AS row_text, false AS is_others FROM {table} AS r
    UNION ALL
    SELECT {text}, true FROM {other} AS r) AS both_tables
GROUP BY row_text HAVING count(*) = 1
ORDER BY row_text COLLATE "C" LIMIT 1;

-- name: different_rows
-- The rows that two builds do not have equally often, by what identifies them, and whether the first build has one more.
SELECT key, block_id, txindex, vtxindex, count(*) FILTER (WHERE NOT is_others) > count(*) FILTER (WHERE is_others) AS is_in_first
FROM (SELECT *, false AS is_others FROM ({first}) AS f UNION ALL SELECT *, true FROM ({second}) AS s) AS rows
GROUP BY key, block_id, txindex, vtxindex, content
HAVING count(*) FILTER (WHERE NOT is_others) <> count(*) FILTER (WHERE is_others)
ORDER BY block_id, txindex, key, is_in_first LIMIT {limit};

-- name: projection_rows
-- A part of the one above: the rows of a projection as of a block, with the blocks that wrote them.
SELECT ARRAY[{key_texts}] AS key, since_block AS block_id, NULL::integer AS txindex, NULL::integer AS vtxindex,
    format('%s', ARRAY[{texts}]) AS content
FROM (SELECT {columns}, since_block FROM {table} WHERE since_block <= {last}
    UNION ALL SELECT {columns}, since_block FROM {history} WHERE since_block <= {last} AND until_block > {last}) AS r

-- name: history_rows
-- A part of the one above: the history of a projection up to a block, as far back as both builds have it.
SELECT ARRAY[{key_texts}] AS key, until_block AS block_id, NULL::integer AS txindex, NULL::integer AS vtxindex,
    format('%s %s', since_block, ARRAY[{texts}]) AS content
FROM {history} AS r WHERE until_block > {oldest} AND until_block <= {last}

-- name: births_rows
-- A part of the one above: the keys that each block wrote.
SELECT DISTINCT ARRAY[{key_texts}] AS key, since_block AS block_id, NULL::integer AS txindex, NULL::integer AS vtxindex, '' AS content
FROM {births} AS r WHERE since_block > {oldest} AND since_block <= {last}

-- name: ops_rows
-- A part of the one above: a build's ops.
SELECT NULL::text[] AS key, block_id, txindex, vtxindex, format('%s', ROW(opcode, payload, payload_index, fields, canonical)) AS content
FROM vc.ops WHERE app = {app} AND build = {build} AND block_id BETWEEN {log_from} AND {last}

-- name: rejections_rows
-- A part of the one above: a build's rejections.
SELECT NULL::text[] AS key, block_id, txindex, NULL::integer AS vtxindex, format('%s', ROW(opcode, payload_index, step, reason)) AS content
FROM vc.rejections WHERE app = {app} AND build = {build} AND block_id BETWEEN {log_from} AND {last}

-- name: snapshots_rows
-- A part of the one above: a build's digests.
SELECT NULL::text[] AS key, block_id, NULL::integer AS txindex, NULL::integer AS vtxindex,
    format('%s', ROW(ops_hash, consensus_hash, state_hash, state_number)) AS content
FROM vc.snapshots WHERE app = {app} AND build = {build} AND block_id BETWEEN {log_from} AND {last}

-- name: state_files_rows
-- A part of the one above: what a build saved, as far back as both builds keep it.
SELECT NULL::text[] AS key, block_id, NULL::integer AS txindex, NULL::integer AS vtxindex, format('%s', sha256(content)) AS content
FROM vc.state_files WHERE app = {app} AND build = {build} AND block_id > {oldest} AND block_id <= {last}
