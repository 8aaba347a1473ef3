ALTER TABLE vc.inputs ALTER COLUMN raw DROP NOT NULL, ALTER COLUMN spent DROP NOT NULL;
COMMENT ON COLUMN vc.inputs.raw IS 'The whole transaction as it is in the block, including witnesses; null if it was pruned.';
COMMENT ON COLUMN vc.inputs.spent IS 'The outputs that the transaction spends, in the order of its inputs, each serialized as in a transaction; a long script is replaced by its size and hash; null if it was pruned.';
COMMENT ON COLUMN vc.inputs.spent_at IS 'For each input, where the output that it spends was made: twice the height of the block, plus one if its coinbase made it; null if no app needs that, or if it was pruned.';
COMMENT ON COLUMN vc.inputs.branch IS 'The Merkle branch from the transaction to the root that its block''s header states, from the bottom up, 32 bytes each; null if it was not checked when the input was taken, or if it was pruned.';
COMMENT ON TABLE vc.coverage IS 'Which blocks of the tape were searched for which magic, or have what outputs that an app tracked were spent by (then the magic is empty, and the rule begins with tracking:). While a search continues its end is open, so that no row is updated per block. One row with the rule pruned and an empty magic: of the blocks up to its end, raw transactions were dropped, and no search that is recorded begins below.';
COMMENT ON COLUMN vc.writer.waits_for IS 'What it waited for then; null while it takes blocks. Of one that has ended, what an operator must decide before another can go on.';
COMMENT ON COLUMN virtualchain.writer.waits_for IS 'What it waited for then; null while it takes blocks. Of one that has ended, what an operator must decide before another can go on.';
COMMENT ON COLUMN virtualchain.inputs.senders IS 'For each input of the transaction the output that it spends; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.outputs IS 'The outputs of the transaction; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.raw IS 'The whole transaction, including witnesses; null if it was pruned.';
COMMENT ON COLUMN virtualchain.inputs.spent IS 'The outputs that the transaction spends, in the order of its inputs, each serialized as in a transaction: fast to search for a script; null if it was pruned.';

CREATE OR REPLACE VIEW virtualchain.deployment AS
SELECT network, encode(genesis_hash, 'hex') AS genesis_hash,
    (SELECT until_block + 1 FROM vc.coverage WHERE magic = '' AND rule = 'pruned') AS pruned_below
FROM vc.deployment;
COMMENT ON COLUMN virtualchain.deployment.pruned_below IS 'Of inputs in blocks below this one, raw transactions were dropped (`virtualchain prune`); null if of none.';
