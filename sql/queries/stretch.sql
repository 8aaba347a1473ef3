-- name: lend_rows
-- Fill a projection of a build with the rows of another build's as of a block.
INSERT INTO {new} ({columns}, since_block)
SELECT {columns}, since_block FROM {table} WHERE since_block <= {block_id}
UNION ALL
SELECT {columns}, since_block FROM {history} WHERE since_block <= {block_id} AND until_block > {block_id};

-- name: lend_file
-- Let a build begin with the state that another one had saved last, up to a block.
INSERT INTO vc.state_files (app, build, block_id, content)
SELECT app, %(again)s, %(block_id)s, content FROM vc.state_files
WHERE app = %(app)s AND build = %(build)s AND block_id <= %(block_id)s ORDER BY block_id DESC LIMIT 1;

-- name: lend_digests
-- Let a build begin with the digests of another one at a block.
INSERT INTO vc.snapshots (app, build, block_id, consensus_hash, state_hash, state_number)
SELECT app, %(again)s, block_id, consensus_hash, state_hash, (
    SELECT n.state_number FROM vc.snapshots AS n
    WHERE n.app = s.app AND n.build = s.build AND n.block_id <= s.block_id AND n.state_number IS NOT NULL
    ORDER BY n.block_id DESC LIMIT 1)
FROM vc.snapshots AS s WHERE app = %(app)s AND build = %(build)s AND block_id = %(block_id)s;
