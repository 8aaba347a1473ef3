-- name: places
-- Where each live build stands, and whether the tape has its block: what one transaction wrote, side by side.
SELECT a.name, a.schema, a.build, a.base_block_id, s.block_id,
    s.block_id <= a.base_block_id OR EXISTS (SELECT FROM vc.blocks AS b WHERE b.block_id = s.block_id) AS is_on_tape
FROM vc.apps AS a
CROSS JOIN LATERAL (
    SELECT block_id, state_hash FROM vc.snapshots
    WHERE app = a.name AND build = a.build ORDER BY block_id DESC LIMIT 1
) AS s
WHERE a.is_live
ORDER BY a.name COLLATE "C";

-- name: latest_number
-- The state hash behind a build's last block, and the number that it is made of.
SELECT encode((SELECT state_hash FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s
        ORDER BY block_id DESC LIMIT 1), 'hex') AS state_hash,
    (SELECT state_number FROM vc.snapshots WHERE app = %(app)s AND build = %(build)s AND state_number IS NOT NULL
        ORDER BY block_id DESC LIMIT 1) AS state_number;
