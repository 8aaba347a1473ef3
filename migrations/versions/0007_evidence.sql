ALTER TABLE vc.inputs ADD COLUMN evidence text CHECK (evidence IN ('undo', 'transaction', 'node', 'export'));
COMMENT ON COLUMN vc.inputs.evidence IS 'What shows that the senders are right: undo (undo data of a node, whose checksum fits), transaction (the transactions that created the outputs), node (the word of a node or another source) or export (that of an export); null if it was taken before this was recorded.';

CREATE OR REPLACE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics, senders, outputs, fee, raw, evidence
FROM vc.inputs
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON COLUMN virtualchain.inputs.evidence IS 'What shows that the senders are right: undo, transaction, node or export; null if it was not recorded.';
