CREATE OR REPLACE VIEW virtualchain.inputs AS
SELECT block_id, txindex, encode(txid, 'hex') AS txid, magics,
    CASE WHEN txindex = 0 THEN '[]' ELSE vc.senders(raw, spent, unusual_keys, (SELECT network FROM vc.deployment)) END AS senders,
    vc.outputs(raw, (SELECT network FROM vc.deployment)) AS outputs, fee, raw, evidence, spent,
    (SELECT array_agg(s.at / 2 ORDER BY s.n) FROM unnest(spent_at) WITH ORDINALITY AS s (at, n)) AS heights,
    coalesce(tracked_by, '{}') AS tracked_by, i.branch, c.coinbase, c.branch AS coinbase_branch, spent_at
FROM vc.inputs AS i
LEFT JOIN vc.coinbases AS c USING (block_id)
WHERE block_id <= (SELECT vc.last_shown()) AND (SELECT vc.last_shown()) IS NOT NULL;
COMMENT ON COLUMN virtualchain.inputs.spent_at IS 'For each input, where the output that it spends was made: twice the height of the block, plus one if its coinbase made it; null if no app needs that.';

CREATE VIEW virtualchain.coverage AS
SELECT magic, rule, from_block, until_block FROM vc.coverage WHERE rule <> 'pruned'
UNION ALL
SELECT ''::bytea, vc.tracking_rule(a.name, a.tracking), s.from_block, s.until_block
FROM vc.apps AS a CROSS JOIN LATERAL (
    SELECT greatest(a.tracking_from, (SELECT until_block + 1 FROM vc.coverage WHERE magic = '' AND rule = 'pruned')) AS from_block,
        (SELECT max(block_id) FROM vc.snapshots WHERE app = a.name AND build = a.build) AS until_block
) AS s
WHERE a.tracking_from = a.base_block_id + 1 AND s.until_block >= s.from_block;
COMMENT ON VIEW virtualchain.coverage IS 'Which blocks were searched for which magic, by which payload rule; blocks whose inputs were pruned count as not searched. With an empty magic and a rule that begins with tracking: the blocks of which the tape has all that an app sees that tracks outputs.';
COMMENT ON COLUMN virtualchain.coverage.magic IS 'The magic that was searched for.';
COMMENT ON COLUMN virtualchain.coverage.rule IS 'Name of the payload rule that was used, and whether it was searched without opcodes and with heights.';
COMMENT ON COLUMN virtualchain.coverage.from_block IS 'The first block that was searched.';
COMMENT ON COLUMN virtualchain.coverage.until_block IS 'The last block that was searched; null while the search continues with every new block.';
