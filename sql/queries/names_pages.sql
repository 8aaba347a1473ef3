-- name: find
-- The name that a visitor looks for.
SELECT name FROM names WHERE name = lower(%(text)s);

-- name: name
-- A name, and whether its namespace is ready.
SELECT n.*, s.op AS namespace_op FROM names AS n JOIN namespaces AS s USING (namespace_id) WHERE n.name = %(key)s;

-- name: history
-- Every operation on a name, newest first.
SELECT e.*, o.vtxindex, b.time
FROM name_events AS e
LEFT JOIN virtualchain.blocks AS b USING (block_id)
LEFT JOIN virtualchain.ops AS o ON o.app = %(app)s AND o.block_id = e.block_id AND o.txindex = e.txindex
WHERE e.name = %(key)s ORDER BY e.block_id DESC, e.txindex DESC;

-- name: latest
-- The last operations on any name; nothing if a name is asked for.
SELECT block_id, name, op, owner, txid FROM name_events WHERE %(key)s::text IS NULL
ORDER BY block_id DESC, txindex DESC LIMIT 50;

-- name: namespaces
-- All namespaces; nothing if one is asked for.
SELECT * FROM namespaces WHERE %(key)s::text IS NULL ORDER BY namespace_id;

-- name: namespace
-- A namespace.
SELECT * FROM namespaces WHERE namespace_id = %(key)s;

-- name: names
-- The names of a namespace after one of them, and one more than a page shows.
SELECT name, owner, revoked, first_registered, expires_at FROM names
WHERE namespace_id = %(key)s AND name > coalesce(%(after)s, '') ORDER BY name LIMIT 101;
