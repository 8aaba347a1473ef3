CREATE TABLE coins (
    txid text,
    vout integer,
    hash text,
    name text,
    block_id integer NOT NULL,
    since integer NOT NULL,
    PRIMARY KEY (txid, vout)
);
COMMENT ON TABLE coins IS 'Every unspent output that holds a reservation or a name; the tracked set.';
COMMENT ON COLUMN coins.hash IS 'A reservation''s HASH160(salt + name), hex; null for a name.';
COMMENT ON COLUMN coins.name IS 'The name, hex; null for a reservation.';
COMMENT ON COLUMN coins.block_id IS 'The block that made the output.';
COMMENT ON COLUMN coins.since IS 'The block in which the name was registered, or reserved.';

CREATE TABLE names (
    name text PRIMARY KEY,
    label text,
    value text NOT NULL,
    owner text NOT NULL,
    txid text NOT NULL,
    vout integer NOT NULL,
    block_id integer NOT NULL,
    since integer NOT NULL
);
CREATE INDEX names_label ON names (label);
COMMENT ON TABLE names IS 'Every name; it has expired 36,000 blocks after block_id.';
COMMENT ON COLUMN names.name IS 'The name, hex: it may be any bytes.';
COMMENT ON COLUMN names.label IS 'The name as text; null if it is not UTF-8, or has a NUL.';
COMMENT ON COLUMN names.value IS 'What its owner set last, hex.';
COMMENT ON COLUMN names.owner IS 'The script that owns it, hex: that of its output, after the operation.';
COMMENT ON COLUMN names.txid IS 'The transaction of its last operation, whose output holds it.';
COMMENT ON COLUMN names.block_id IS 'The block of its last operation.';
COMMENT ON COLUMN names.since IS 'The block in which it was registered.';
