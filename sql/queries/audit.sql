-- name: apps
-- Every build of every app: what its digests begin with, its last block, and its opcodes in a range of blocks.
SELECT a.name AS app, a.schema, a.build, a.is_live, a.magics, a.rule, a.first_block_id, a.base_block_id, a.history_from,
    (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS block_id,
    ARRAY(SELECT opcode FROM vc.ops WHERE app = a.name AND build = a.build AND payload IS NOT NULL
            AND block_id BETWEEN %(first)s AND %(last)s
        UNION SELECT opcode FROM vc.rejections WHERE app = a.name AND build = a.build
            AND block_id BETWEEN %(first)s AND %(last)s AND (opcode <> '' OR a.tracking IS NULL)) AS opcodes,
    EXISTS (SELECT FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relkind = 'r'
        WHERE n.nspname = concat_ws('__', a.schema, a.build)) AS keeps_tables,
    encode(a.tracking, 'hex') AS tracking, a.tracking_from, encode(a.last_code_digest, 'hex') AS last_code_digest,
    a.version, a.valid_window, a.confirmations
FROM vc.apps AS a ORDER BY a.name COLLATE "C", a.is_live DESC, a.build COLLATE "C";

-- name: blocks
-- A range of blocks with the columns of an export, but the time in seconds; null if no header can state it.
SELECT block_id, encode(hash, 'hex'), encode(prev_hash, 'hex'),
    CASE WHEN time = date_trunc('second', time) AND extract(epoch FROM time) BETWEEN 0 AND 4294967295
        THEN extract(epoch FROM time)::bigint END, chainwork::text, header
FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id;

-- name: inputs
-- The inputs of a range of blocks.
SELECT block_id, txindex, encode(txid, 'hex'), magics, spent, unusual_keys, fee, raw, spent_at,
    coalesce(tracked_by, '{}')
FROM vc.inputs WHERE block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id, txindex;

-- name: branches
-- What shows that inputs of a range of blocks are in these; the coinbase is null if it is missing. Without the input: a coinbase that is kept for none.
SELECT block_id, i.txindex, i.raw, i.branch, c.coinbase, c.branch
FROM (SELECT block_id, txindex, raw, branch FROM vc.inputs
    WHERE branch IS NOT NULL AND block_id BETWEEN %(first)s AND %(last)s) AS i
FULL JOIN (SELECT * FROM vc.coinbases WHERE block_id BETWEEN %(first)s AND %(last)s) AS c USING (block_id)
ORDER BY block_id, i.txindex;

-- name: homeless_inputs
-- Blocks that have inputs but are not on the tape.
SELECT DISTINCT block_id FROM vc.inputs AS i WHERE NOT EXISTS (SELECT FROM vc.blocks AS b WHERE b.block_id = i.block_id)
    AND block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id;

-- name: homeless_rows
-- Builds of which the log has rows, but which do not exist; what each table has is looked up build by build.
WITH RECURSIVE ops AS (
    (SELECT app, build FROM vc.ops ORDER BY app, build LIMIT 1)
    UNION ALL
    SELECT next.* FROM ops AS last, LATERAL (SELECT app, build FROM vc.ops
        WHERE (app, build) > (last.app, last.build) ORDER BY app, build LIMIT 1) AS next
), rejections AS (
    (SELECT app, build FROM vc.rejections ORDER BY app, build LIMIT 1)
    UNION ALL
    SELECT next.* FROM rejections AS last, LATERAL (SELECT app, build FROM vc.rejections
        WHERE (app, build) > (last.app, last.build) ORDER BY app, build LIMIT 1) AS next
), snapshots AS (
    (SELECT app, build FROM vc.snapshots ORDER BY app, build LIMIT 1)
    UNION ALL
    SELECT next.* FROM snapshots AS last, LATERAL (SELECT app, build FROM vc.snapshots
        WHERE (app, build) > (last.app, last.build) ORDER BY app, build LIMIT 1) AS next
)
SELECT kept.name, app, build FROM (
SELECT 'ops' AS name, app, build FROM ops
    UNION ALL SELECT 'rejections' AS name, app, build FROM rejections
    UNION ALL SELECT 'snapshots' AS name, app, build FROM snapshots
) AS kept WHERE NOT EXISTS (SELECT FROM vc.apps AS a WHERE a.name = app AND a.build = kept.build)
ORDER BY kept.name, app COLLATE "C", build COLLATE "C";

-- name: false_pins
-- Pins that the tape does not keep.
SELECT p.block_id FROM vc.pins AS p JOIN vc.blocks AS b USING (block_id)
WHERE b.hash <> p.hash AND p.block_id BETWEEN %(first)s AND %(last)s ORDER BY p.block_id;

-- name: snapshots
-- A build's digests in a range of blocks and at the block before, and whether the tape has their block.
SELECT s.block_id, encode(s.ops_hash, 'hex') AS ops_hash, encode(s.consensus_hash, 'hex') AS consensus_hash,
    encode(s.state_hash, 'hex') AS state_hash, s.state_number,
    EXISTS (SELECT FROM vc.blocks AS b WHERE b.block_id = s.block_id) AS is_on_tape
FROM vc.snapshots AS s WHERE s.app = %(app)s AND s.build = %(build)s AND s.block_id BETWEEN %(first)s - 1 AND %(last)s
ORDER BY s.block_id;

-- name: ops
-- A build's ops in a range of blocks, in chain order.
SELECT block_id, vtxindex, txindex, opcode, payload, payload_index, fields, canonical FROM vc.ops
WHERE app = %(app)s AND build = %(build)s AND block_id BETWEEN %(first)s AND %(last)s ORDER BY block_id, vtxindex;

-- name: rejections
-- A build's rejections in a range of blocks, in chain order.
SELECT block_id, txindex, opcode, payload_index, step FROM vc.rejections
WHERE app = %(app)s AND build = %(build)s AND block_id BETWEEN %(first)s AND %(last)s
ORDER BY block_id, txindex, payload_index;

-- name: checkpoint
-- What the checkpoint that a build began with says of its block, and what log and tape say.
SELECT c.block_id, c.consensus_hash = s.consensus_hash AND c.state_hash = s.state_hash AS is_in_log,
    c.is_migration OR coalesce(c.block_hash = b.hash, c.block_hash = child.prev_hash, true) AS is_on_tape
FROM vc.checkpoints AS c
LEFT JOIN vc.snapshots AS s USING (app, build, block_id)
LEFT JOIN vc.blocks AS b ON b.block_id = c.block_id
LEFT JOIN vc.blocks AS child ON child.block_id = c.block_id + 1
WHERE c.app = %(app)s AND c.build = %(build)s;

-- name: state_numbers
-- The numbers under a build's state hashes that blocks after a given one changed, up to another one.
SELECT block_id, state_number FROM vc.snapshots
WHERE app = %(app)s AND build = %(build)s AND block_id > %(block_id)s AND block_id <= %(last)s
    AND state_number IS NOT NULL
ORDER BY block_id;

-- name: state_number_at
-- The number under a build's state hash after a block.
SELECT state_number FROM vc.snapshots
WHERE app = %(app)s AND build = %(build)s AND block_id <= %(block_id)s AND state_number IS NOT NULL
ORDER BY block_id DESC LIMIT 1;

-- name: missing_triggers
-- Projections of a schema, and the tape, without a trigger that they need, or with one that does not fire.
SELECT needed.name, needed.trigger FROM (
    SELECT %(tables)s::text AS schema, p.name, t.trigger
    FROM unnest(%(names)s::text[]) AS p (name) CROSS JOIN (VALUES ('keep_history'), ('refuse_truncate')) AS t (trigger)
    UNION ALL SELECT 'vc', 'blocks', 'guard_block'
) AS needed
WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_trigger AS t
    JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname, t.tgname) = (needed.schema, needed.name, needed.trigger) AND t.tgenabled IN ('O', 'A'))
ORDER BY 1, 2;

-- name: rows_at
-- The rows of a projection as of a block.
SELECT ARRAY[{texts}] FROM {table} AS r WHERE since_block <= {block_id}
UNION ALL
SELECT ARRAY[{texts}] FROM {history} AS r WHERE since_block <= {block_id} AND until_block > {block_id};

-- name: changes_after
-- A part of the one below: the rows of one projection that blocks after a given one wrote, and those that they replaced or removed.
SELECT since_block AS block_id, {index} AS place, true AS is_new, ARRAY[{texts}] AS columns
FROM {table} AS r WHERE since_block > {block_id}
UNION ALL
SELECT since_block, {index}, true, ARRAY[{texts}] FROM {history} AS r WHERE since_block > {block_id}
UNION ALL
SELECT until_block, {index}, false, ARRAY[{texts}] FROM {history} AS r WHERE until_block > {block_id}

-- name: changes_between
-- The same up to another block, by the record of what each block wrote, so that the cost does not depend on the size of the table.
SELECT b.since_block AS block_id, {index} AS place, true AS is_new, ARRAY[{texts}] AS columns
FROM (SELECT DISTINCT since_block, {key} FROM {births} WHERE since_block > {block_id} AND since_block <= {last}) AS b
JOIN {table} AS r ON {same_key} AND r.since_block = b.since_block
UNION ALL
SELECT b.since_block, {index}, true, ARRAY[{texts}]
FROM (SELECT DISTINCT since_block, {key} FROM {births} WHERE since_block > {block_id} AND since_block <= {last}) AS b
JOIN {history} AS r ON {same_key} AND r.since_block = b.since_block AND r.until_block > {block_id}
UNION ALL
SELECT until_block, {index}, false, ARRAY[{texts}] FROM {history} AS r WHERE until_block > {block_id} AND until_block <= {last}

-- name: all_changes
-- What all projections' changes are, block by block.
SELECT block_id, place, is_new, columns FROM ({changes}) AS changes ORDER BY block_id;

-- name: unborn
-- Rows of a projection that a block wrote without recording it: the block and the key. (EXCEPT, because a join may be planned badly.)
SELECT since_block, ARRAY[{key_texts}] FROM (
    (SELECT since_block, {key} FROM {table} WHERE since_block > {block_id}
    UNION ALL SELECT since_block, {key} FROM {history} WHERE since_block > {block_id})
    EXCEPT SELECT since_block, {key} FROM {births}) AS b
ORDER BY since_block LIMIT {limit};

-- name: vanished
-- Keys of a projection that a block recorded as written, and of which neither table nor history has a row of that block.
SELECT DISTINCT ARRAY[{key_texts}] FROM {births} AS b
WHERE b.since_block = {block_id}
    AND NOT EXISTS (SELECT FROM {table} AS r WHERE r.since_block = {block_id} AND {same_key})
    AND NOT EXISTS (SELECT FROM {history} AS r WHERE r.since_block = {block_id} AND {same_key})
LIMIT {limit};

-- name: beyond
-- Blocks above a build's last one that its tables mention.
SELECT DISTINCT since_block FROM {births} WHERE since_block > {block_id}
UNION SELECT since_block FROM {table} WHERE since_block > {block_id}
UNION SELECT greatest(since_block, until_block) FROM {history} WHERE greatest(since_block, until_block) > {block_id}
ORDER BY 1 LIMIT {limit};

-- name: state_files
-- The states that a build saved, with the digests of their content, and the state hash in the log.
SELECT f.block_id, encode(sha256(f.content), 'hex') AS digest, encode(s.state_hash, 'hex') AS state_hash
FROM vc.state_files AS f LEFT JOIN vc.snapshots AS s USING (app, build, block_id)
WHERE f.app = %(app)s AND f.build = %(build)s AND f.block_id BETWEEN %(first)s AND %(last)s ORDER BY f.block_id;

-- name: states_without_file
-- Blocks after which an opaque state has another hash than the file that counts there; below the first file, none counts.
SELECT s.block_id FROM vc.snapshots AS s
CROSS JOIN LATERAL (
    SELECT content FROM vc.state_files AS f WHERE f.app = s.app AND f.build = s.build AND f.block_id <= s.block_id
    ORDER BY f.block_id DESC LIMIT 1) AS last
WHERE s.app = %(app)s AND s.build = %(build)s AND s.block_id > %(base)s
    AND s.block_id BETWEEN %(first)s AND %(last)s AND s.state_hash IS DISTINCT FROM sha256(last.content)
ORDER BY s.block_id;
