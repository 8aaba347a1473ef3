CREATE TABLE points (
    name text PRIMARY KEY,
    issuer text NOT NULL,
    amount bigint NOT NULL,
    issued_at integer NOT NULL
);
COMMENT ON TABLE points IS 'Every kind of points.';
COMMENT ON COLUMN points.name IS 'The name, which is the issuer''s choice.';
COMMENT ON COLUMN points.issuer IS 'The address that issued them.';
COMMENT ON COLUMN points.amount IS 'How many there are.';
COMMENT ON COLUMN points.issued_at IS 'The block in which they were issued.';

CREATE TABLE balances (
    name text,
    owner text,
    balance bigint NOT NULL,
    PRIMARY KEY (name, owner)
);
COMMENT ON TABLE balances IS 'Who has how many points; whoever has had some and has none left has 0.';
COMMENT ON COLUMN balances.name IS 'The name of the points.';
COMMENT ON COLUMN balances.owner IS 'The owner''s address.';
COMMENT ON COLUMN balances.balance IS 'How many.';
