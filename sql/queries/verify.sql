-- name: first_difference
-- The first block after which two builds of an app have other digests, and these.
SELECT a.block_id, encode(a.consensus_hash, 'hex') AS consensus_hash, encode(b.consensus_hash, 'hex') AS other_consensus_hash,
    encode(a.ops_hash, 'hex') AS ops_hash, encode(b.ops_hash, 'hex') AS other_ops_hash,
    encode(a.state_hash, 'hex') AS state_hash, encode(b.state_hash, 'hex') AS other_state_hash
FROM vc.snapshots AS a
JOIN vc.snapshots AS b ON b.app = a.app AND b.build = %(other)s AND b.block_id = a.block_id
WHERE a.app = %(app)s AND a.build = %(build)s AND (
    a.consensus_hash <> b.consensus_hash OR a.state_hash IS DISTINCT FROM b.state_hash AND %(with_state)s)
ORDER BY a.block_id LIMIT 1;
