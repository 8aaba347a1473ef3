-- name: latest
-- What the app saved last.
SELECT content FROM vc.state_files WHERE app = %(app)s AND build = %(build)s ORDER BY block_id DESC LIMIT 1;

-- name: keep
-- Keep what the app saved behind a block.
INSERT INTO vc.state_files (app, build, block_id, content) VALUES (%(app)s, %(build)s, %(block_id)s, %(content)s);

-- name: prune
-- Drop what stood before the undo window; the last one before it still stands at its beginning.
DELETE FROM vc.state_files
WHERE app = %(app)s AND build = %(build)s AND block_id < (
    SELECT max(block_id) FROM vc.state_files WHERE app = %(app)s AND build = %(build)s AND block_id <= %(oldest)s);
