-- name: blocks
-- A range of blocks, with the columns of the exported file.
SELECT block_id, encode(hash, 'hex') AS hash, encode(prev_hash, 'hex') AS prev_hash, time, chainwork, header
FROM vc.blocks
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id;

-- name: inputs
-- The inputs of a range of blocks, with the columns of the exported file.
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics,
    CASE WHEN txindex = 0 THEN '[]' ELSE vc.senders(raw, spent, unusual_keys, network) END AS senders,
    vc.outputs(raw, network) AS outputs, fee, raw, spent_at,
    coalesce(tracked_by, '{{}}') AS tracked_by
FROM vc.inputs CROSS JOIN vc.deployment
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, txindex;

-- name: ops
-- The ops of a range of blocks, in chain order.
SELECT app, block_id, block_hash, time, txindex, vtxindex, txid, opcode, payload, fields, canonical, payload_index
FROM virtualchain.ops
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, txindex, app COLLATE "C", vtxindex;

-- name: rejections
-- The rejections of a range of blocks, in chain order.
SELECT app, block_id, txindex, txid, opcode, step, reason, payload_index
FROM virtualchain.rejections
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, txindex, app COLLATE "C", payload_index;

-- name: snapshots
-- The digests of a range of blocks, in chain order.
SELECT app, block_id, block_hash, ops_hash, consensus_hash, state_hash
FROM virtualchain.snapshots
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, app COLLATE "C";

-- name: rows
-- All rows of a view.
SELECT * FROM {relation};

-- name: rows_in_order
-- All rows of a projection's view, in key order, so that every node writes the same file.
SELECT * FROM {relation} ORDER BY {key};

-- name: views
-- The apps' views, with the schema and the build of each.
SELECT a.schema, c.relname AS name, a.build
FROM virtualchain.apps AS a
JOIN pg_catalog.pg_namespace AS n ON n.nspname = a.schema
JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
WHERE c.relkind IN ('v', 'm')
ORDER BY a.schema COLLATE "C", c.relname COLLATE "C";

-- name: relation_exists
-- Whether there is a table or view of that name.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND c.relkind IN ('r', 'p', 'f', 'v', 'm'));

-- name: columns
-- A query without its rows, to see its columns.
SELECT * FROM ({query}) AS q LIMIT 0;

-- name: type_names
-- The database's names of the given types, in the given order.
SELECT format_type(t.oid, NULL)
FROM unnest(%(oids)s::oid[]) WITH ORDINALITY AS t (oid, place)
ORDER BY place;

-- name: unrepresentable
-- Whether each of the given tests is true, one for each column whose values Parquet might not be able to represent.
SELECT {tests} FROM ({query}) AS q;

-- name: unrepresentable_date
-- A test for `unrepresentable`: a date or time that is infinite, or outside of the years 1 to 9999.
coalesce(bool_or(NOT isfinite({column}) OR {column} NOT BETWEEN '0001-01-02' AND '9999-12-30'), false);

-- name: unrepresentable_array
-- A test for `unrepresentable`: an array that has several dimensions or does not start at index 1.
coalesce(bool_or(array_ndims({column}) > 1 OR array_lower({column}, 1) <> 1), false);

-- name: to_csv
-- All rows of a query as CSV with a header; null is an empty field, and an empty string is "".
COPY ({query}) TO STDOUT (FORMAT csv, HEADER);

-- name: to_rows
-- All rows of a query in COPY's text format.
COPY ({query}) TO STDOUT;

-- name: ends
-- The first and the last block on the tape within a range.
SELECT block_id, encode(hash, 'hex') AS hash
FROM vc.blocks
WHERE block_id IN (
    (SELECT min(block_id) FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s),
    (SELECT max(block_id) FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s))
ORDER BY block_id;

-- name: apps
-- Every app, with its digests as of a block.
SELECT a.name, a.version, encode(own.fingerprint, 'hex') AS fingerprint, s.block_id, s.block_hash, s.consensus_hash, s.state_hash
FROM virtualchain.apps AS a
JOIN vc.apps AS own ON own.name = a.name AND own.build = a.build
LEFT JOIN LATERAL (
    SELECT block_id, block_hash, consensus_hash, state_hash FROM virtualchain.snapshots
    WHERE app = a.name AND block_id <= %(last)s ORDER BY block_id DESC LIMIT 1
) AS s ON true
ORDER BY a.name COLLATE "C";

-- name: copy_blocks
-- Append many blocks; the trigger that guards the tape checks each.
COPY vc.blocks (block_id, hash, prev_hash, header, time, chainwork) FROM STDIN;

-- name: copy_inputs
-- Append many inputs, in COPY's binary format.
COPY vc.inputs (block_id, txindex, txid, raw, magics, spent, unusual_keys, fee, evidence, spent_at, tracked_by) FROM STDIN (FORMAT binary);

-- name: chainwork
-- The chain work up to a block.
SELECT chainwork FROM vc.blocks WHERE block_id = %(block_id)s;

-- name: add_coverage
-- Record that a range of blocks was searched, or that blocks are searched from one on.
INSERT INTO vc.coverage (magic, rule, from_block, until_block)
VALUES (%(magic)s, %(rule)s, %(from_block)s, %(until_block)s);

-- name: end_coverage
-- Record the last block of a search that was open.
UPDATE vc.coverage SET until_block = %(until_block)s
WHERE magic = %(magic)s AND rule = %(rule)s AND until_block IS NULL;

-- name: hashes_of_app
-- An app's consensus hashes, in the order of blocks.
SELECT block_id, consensus_hash FROM virtualchain.snapshots WHERE app = %(app)s ORDER BY block_id;
