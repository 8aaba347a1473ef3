-- name: blocks
-- The blocks of a stretch, as files hold them.
SELECT block_id, encode(hash, 'hex') AS hash, encode(prev_hash, 'hex') AS prev_hash, time, chainwork, header
FROM vc.blocks
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id;

-- name: inputs
-- The inputs of a stretch, as files hold them.
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics, senders, outputs, fee, raw
FROM vc.inputs
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, txindex;

-- name: ops
-- The ops of a stretch, in chain order.
SELECT app, block_id, block_hash, time, txindex, vtxindex, txid, opcode, payload, fields, canonical
FROM virtualchain.ops
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, txindex, app COLLATE "C", vtxindex;

-- name: rejections
-- The rejections of a stretch, in chain order.
SELECT app, block_id, txindex, txid, opcode, step, reason
FROM virtualchain.rejections
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, txindex, app COLLATE "C";

-- name: snapshots
-- The digests of a stretch, in chain order.
SELECT app, block_id, block_hash, ops_hash, consensus_hash, state_hash
FROM virtualchain.snapshots
WHERE block_id BETWEEN {first} AND {last}
ORDER BY block_id, app COLLATE "C";

-- name: rows
-- What any view shows.
SELECT * FROM {relation};

-- name: rows_in_order
-- What a projection's view shows, in the order of its key: the same file on every node.
SELECT * FROM {relation} ORDER BY {key};

-- name: views
-- The apps' views, the builds that they show, and whose they are.
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
-- What the database calls some types, in their order.
SELECT format_type(t.oid, NULL)
FROM unnest(%(oids)s::oid[]) WITH ORDINALITY AS t (oid, place)
ORDER BY place;

-- name: unfit
-- Which columns hold values that Parquet has no form for.
SELECT {tests} FROM ({query}) AS q;

-- name: has_odd_date
-- Part of the above: a day or time that is infinite, or in a year before 1 or after 9999.
coalesce(bool_or(NOT isfinite({column}) OR {column} NOT BETWEEN '0001-01-02' AND '9999-12-30'), false);

-- name: has_odd_array
-- Part of the above: an array that is no plain list.
coalesce(bool_or(array_ndims({column}) > 1 OR array_lower({column}, 1) <> 1), false);

-- name: to_csv
-- All rows of a query as CSV, the names of its columns first; null is nothing, empty text is "".
COPY ({query}) TO STDOUT (FORMAT csv, HEADER);

-- name: to_rows
-- All rows of a query as they come.
COPY ({query}) TO STDOUT;

-- name: ends
-- The first and the last block of a stretch of the tape.
SELECT block_id, encode(hash, 'hex') AS hash
FROM vc.blocks
WHERE block_id IN (
    (SELECT min(block_id) FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s),
    (SELECT max(block_id) FROM vc.blocks WHERE block_id BETWEEN %(first)s AND %(last)s))
ORDER BY block_id;

-- name: apps
-- Every app, and its digests as of a block.
SELECT a.name, a.version, encode(own.fingerprint, 'hex') AS fingerprint, s.block_id, s.block_hash, s.consensus_hash, s.state_hash
FROM virtualchain.apps AS a
JOIN vc.apps AS own ON own.name = a.name AND own.build = a.build
LEFT JOIN LATERAL (
    SELECT block_id, block_hash, consensus_hash, state_hash FROM virtualchain.snapshots
    WHERE app = a.name AND block_id <= %(last)s ORDER BY block_id DESC LIMIT 1
) AS s ON true
ORDER BY a.name COLLATE "C";

-- name: take_blocks
-- Append many blocks; the guard looks at each.
COPY vc.blocks (block_id, hash, prev_hash, header, time, chainwork) FROM STDIN;

-- name: take_inputs
-- Keep many inputs.
COPY vc.inputs (block_id, txindex, txid, raw, magics, senders, outputs, fee) FROM STDIN;

-- name: chainwork
-- The work up to a block.
SELECT chainwork FROM vc.blocks WHERE block_id = %(block_id)s;

-- name: add_coverage
-- Say that a stretch was searched, or is searched from a block on.
INSERT INTO vc.coverage (magic, rule, from_block, until_block)
VALUES (%(magic)s, %(rule)s, %(from_block)s, %(until_block)s);

-- name: end_coverage
-- Say with which block a search that went on has ended.
UPDATE vc.coverage SET until_block = %(until_block)s
WHERE magic = %(magic)s AND rule = %(rule)s AND until_block IS NULL;
