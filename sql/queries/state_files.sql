-- name: latest
-- The state that the app saved last.
SELECT content FROM vc.state_files WHERE app = %(app)s AND build = %(build)s ORDER BY block_id DESC LIMIT 1;

-- name: keep
-- Store what the app saved after a block.
INSERT INTO vc.state_files (app, build, block_id, content) VALUES (%(app)s, %(build)s, %(block_id)s, %(content)s);

-- name: prune
-- Drop states from before the undo window, except the last, which is still current when the window begins.
DELETE FROM vc.state_files
WHERE app = %(app)s AND build = %(build)s AND block_id < (
    SELECT max(block_id) FROM vc.state_files WHERE app = %(app)s AND build = %(build)s AND block_id <= %(oldest)s);
