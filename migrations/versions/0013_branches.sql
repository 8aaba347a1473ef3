ALTER TABLE vc.inputs
    DROP CONSTRAINT inputs_evidence_check,
    ADD CONSTRAINT inputs_evidence_check CHECK (evidence IN ('undo', 'transaction', 'node', 'export', 'bound', 'proof')),
    ADD COLUMN branch bytea CHECK (octet_length(branch) % 32 = 0);
COMMENT ON COLUMN vc.inputs.evidence IS 'What shows that the senders are right: undo (undo data of a node, whose checksum fits), transaction (the transactions that created the outputs), bound (scripts that the input reveals or that a transaction shows; amounts are the source''s word), proof (the transactions that created the outputs, and the blocks that hold these), node (the word of a node or another source) or export (that of an export); null if it was taken before this was recorded.';
COMMENT ON COLUMN vc.inputs.branch IS 'The Merkle branch from the transaction to the root that its block''s header states, from the bottom up, 32 bytes each; null if it was not checked when the input was taken.';

CREATE TABLE vc.coinbases (
    block_id integer PRIMARY KEY REFERENCES vc.blocks,
    coinbase bytea NOT NULL,
    branch bytea NOT NULL CHECK (octet_length(branch) % 32 = 0)
);
COMMENT ON TABLE vc.coinbases IS 'The coinbase of every block that has inputs with a branch: as it is the first leaf, its own branch shows how deep the Merkle tree is.';
COMMENT ON COLUMN vc.coinbases.block_id IS 'Height of its block.';
COMMENT ON COLUMN vc.coinbases.coinbase IS 'The coinbase without its witness.';
COMMENT ON COLUMN vc.coinbases.branch IS 'The Merkle branch from the coinbase to the root, as long as that of every input of the block.';

CREATE OR REPLACE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics,
    CASE WHEN txindex = 0 THEN '[]' ELSE vc.senders(raw, spent, unusual_keys, (SELECT network FROM vc.deployment)) END AS senders,
    vc.outputs(raw, (SELECT network FROM vc.deployment)) AS outputs, fee, raw, evidence, spent,
    (SELECT array_agg(s.at / 2 ORDER BY s.n) FROM unnest(spent_at) WITH ORDINALITY AS s (at, n)) AS heights,
    coalesce(tracked_by, '{}') AS tracked_by, i.branch, c.coinbase, c.branch AS coinbase_branch
FROM vc.inputs AS i
LEFT JOIN vc.coinbases AS c USING (block_id)
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON COLUMN virtualchain.inputs.evidence IS 'What shows that the senders are right: undo, transaction, bound, proof, node or export; null if it was not recorded.';
COMMENT ON COLUMN virtualchain.inputs.branch IS 'The Merkle branch that shows that it is in its block; null if it was not kept.';
COMMENT ON COLUMN virtualchain.inputs.coinbase IS 'The coinbase of its block, without witness; null if it was not kept.';
COMMENT ON COLUMN virtualchain.inputs.coinbase_branch IS 'The Merkle branch of the coinbase.';
