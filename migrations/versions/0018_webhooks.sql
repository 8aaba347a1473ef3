CREATE TABLE vc.webhooks (
    name text PRIMARY KEY,
    app text NOT NULL,
    block_id integer NOT NULL CHECK (block_id >= -1),
    block_hash bytea CHECK (octet_length(block_hash) = 32),
    rollbacks bigint,
    event text NOT NULL CHECK (event IN ('block', 'rollback')),
    part integer CHECK (part >= 0),
    version bigint NOT NULL,
    delivered bigint NOT NULL,
    delivered_at timestamptz,
    failures integer NOT NULL CHECK (failures >= 0),
    error text,
    failed_at timestamptz,
    next_try timestamptz
);
COMMENT ON TABLE vc.webhooks IS 'How far the deliveries of each webhook are. The address and the secret are in the settings alone.';
COMMENT ON COLUMN vc.webhooks.name IS 'Name of the webhook.';
COMMENT ON COLUMN vc.webhooks.app IS 'Name of the app whose events are delivered.';
COMMENT ON COLUMN vc.webhooks.block_id IS 'The block of the last event that was delivered, or that a delivery was begun of; -1 if there was no block.';
COMMENT ON COLUMN vc.webhooks.block_hash IS 'Hash of that block, in display order; null: whatever block is there.';
COMMENT ON COLUMN vc.webhooks.rollbacks IS 'Number of the rollback after which this was so; null if it is not known.';
COMMENT ON COLUMN vc.webhooks.event IS 'What happened: the block was taken, or all above it were undone by a rollback.';
COMMENT ON COLUMN vc.webhooks.part IS 'How many parts of the event were delivered; null: all of them.';
COMMENT ON COLUMN vc.webhooks.version IS 'Grows with each replay: what was under way before it does not count.';
COMMENT ON COLUMN vc.webhooks.delivered IS 'How many deliveries the receiver has accepted.';
COMMENT ON COLUMN vc.webhooks.delivered_at IS 'When it accepted the last one, by the clock of the database.';
COMMENT ON COLUMN vc.webhooks.failures IS 'How many attempts have failed since then.';
COMMENT ON COLUMN vc.webhooks.error IS 'Why the last one failed; null if none has.';
COMMENT ON COLUMN vc.webhooks.failed_at IS 'When it failed.';
COMMENT ON COLUMN vc.webhooks.next_try IS 'When the next attempt is due.';

CREATE VIEW virtualchain.webhooks AS
SELECT name, app, block_id, delivered, delivered_at, failures, error, failed_at, next_try FROM vc.webhooks;
COMMENT ON VIEW virtualchain.webhooks IS 'How far the deliveries of each webhook are.';
COMMENT ON COLUMN virtualchain.webhooks.name IS 'Name of the webhook.';
COMMENT ON COLUMN virtualchain.webhooks.app IS 'Name of the app whose events are delivered.';
COMMENT ON COLUMN virtualchain.webhooks.block_id IS 'The block of the last event; there was nothing to deliver since, or it is being delivered.';
COMMENT ON COLUMN virtualchain.webhooks.delivered IS 'How many deliveries the receiver has accepted.';
COMMENT ON COLUMN virtualchain.webhooks.delivered_at IS 'When it accepted the last one.';
COMMENT ON COLUMN virtualchain.webhooks.failures IS 'How many attempts have failed since then.';
COMMENT ON COLUMN virtualchain.webhooks.error IS 'Why the last one failed; null if none has.';
COMMENT ON COLUMN virtualchain.webhooks.failed_at IS 'When it failed.';
COMMENT ON COLUMN virtualchain.webhooks.next_try IS 'When the next attempt is due.';
