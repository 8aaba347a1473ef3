CREATE OR REPLACE VIEW virtualchain.apps AS
SELECT a.name, a.version, a.schema, a.build, a.magics, a.rule, a.first_block_id, a.valid_window, a.confirmations,
    CASE WHEN a.own_role THEN vc.role_of(a.schema) END AS role, a.status, a.error, s.block_id, encode(b.hash, 'hex') AS block_hash,
    encode(s.consensus_hash, 'hex') AS consensus_hash, encode(s.state_hash, 'hex') AS state_hash,
    a.base_block_id, a.history_from, a.on_deep_fork,
    coalesce(a.last_code_digest <> a.code_digest, false) AS code_changed, a.unexpected,
    encode(a.fingerprint, 'hex') AS fingerprint, encode(a.last_code_digest, 'hex') AS code_digest
FROM vc.apps AS a
LEFT JOIN LATERAL (
    SELECT block_id, consensus_hash, state_hash FROM vc.snapshots
    WHERE app = a.name AND build = a.build AND block_id <= (SELECT vc.last_shown()) ORDER BY block_id DESC LIMIT 1
) AS s ON true
LEFT JOIN vc.blocks AS b USING (block_id)
WHERE a.is_live AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON COLUMN virtualchain.apps.fingerprint IS 'SHA-256 of what it declares: nodes that run the same rules have the same.';
COMMENT ON COLUMN virtualchain.apps.code_digest IS 'SHA-256 of the code that ran it last.';
