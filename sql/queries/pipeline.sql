-- name: savepoint
-- Begin what may be undone alone.
SAVEPOINT call;

-- name: undo
-- Undo it.
ROLLBACK TO call;

-- name: release
-- End it.
RELEASE call;
