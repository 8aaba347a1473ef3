-- name: is_owner
-- One row if the user is more than a reader: if it may read the engine's own tables.
SELECT true WHERE has_schema_privilege('vc', 'USAGE') AND has_table_privilege('vc.readers', 'SELECT');

-- name: reads_all
-- One row if the user may read the views of the log and of all apps.
SELECT true FROM virtualchain.deployment RIGHT JOIN (SELECT) AS always ON true
WHERE NOT EXISTS (SELECT FROM virtualchain.apps AS a WHERE NOT has_schema_privilege(a.schema, 'USAGE'));

-- name: join
-- Let the owner end the server's sessions, as when it drops the database: since PostgreSQL 16 that takes the role's rights.
GRANT {role} TO CURRENT_USER WITH INHERIT TRUE;

-- name: begin
-- Begin a transaction that only reads, and set which block the views show and how long a statement may take: in one message.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL virtualchain.as_of = {as_of};
SET LOCAL statement_timeout = {milliseconds};

-- name: version
-- What changes when anything that is shown does, but for pending inputs and when the writer was seen last: the tip, the last rollback, and a digest of the rest.
SELECT b.block_id, b.hash, r.reorg_id, r.fork_block_id, r.blocks_undone, r.ops_undone, md5(concat(
    (SELECT string_agg(a::text, '' ORDER BY a.name COLLATE "C") FROM virtualchain.apps AS a),
    (SELECT string_agg(u::text, '' ORDER BY u.app COLLATE "C", u.build COLLATE "C") FROM virtualchain.builds AS u),
    (SELECT string_agg(p::text, '' ORDER BY p.block_id) FROM virtualchain.pins AS p),
    (SELECT string_agg((to_jsonb(w) - 'seen_at')::text, '') FROM virtualchain.writer AS w),
    b.block_id, b.hash, r.reorg_id)) AS digest
FROM (SELECT) AS always
LEFT JOIN (SELECT block_id, hash FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1) AS b ON true
LEFT JOIN (SELECT reorg_id, fork_block_id, blocks_undone, ops_undone FROM virtualchain.reorgs ORDER BY reorg_id DESC LIMIT 1) AS r ON true;

-- name: enter_app
-- An app at the block that is shown, and the blocks that can be; unqualified names then resolve to its views and those of the log.
SELECT a.block_id, CASE WHEN a.history_from > a.base_block_id THEN a.history_from ELSE (SELECT min(block_id) FROM virtualchain.blocks) END AS lowest,
    (SELECT u.block_id FROM virtualchain.builds AS u WHERE u.app = a.name AND u.is_live) AS highest,
    set_config('search_path', format('%%I, virtualchain', a.schema), true) AS search_path
FROM virtualchain.apps AS a WHERE a.name = %(app)s;

-- name: page_rows
-- The first rows of an app's {query}, at most {limit}.
SELECT * FROM (
{query}
) AS page LIMIT {limit};
