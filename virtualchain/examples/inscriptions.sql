CREATE TABLE inscriptions (
    id text PRIMARY KEY,
    block_id integer NOT NULL,
    txindex integer NOT NULL,
    txid text NOT NULL,
    number integer NOT NULL,
    input integer NOT NULL,
    vout integer,
    content_type bytea,
    content_type_text text,
    content_encoding bytea,
    body_size integer,
    body_sha256 text,
    metadata_size integer,
    metadata_sha256 text,
    metaprotocol bytea,
    metaprotocol_text text,
    delegate text,
    pointer bigint,
    is_incomplete boolean NOT NULL,
    has_repeated boolean NOT NULL,
    has_unknown_even boolean NOT NULL
);
CREATE INDEX inscriptions_block ON inscriptions (block_id);
CREATE INDEX inscriptions_body ON inscriptions (body_sha256);
CREATE INDEX inscriptions_delegate ON inscriptions (delegate);
COMMENT ON TABLE inscriptions IS 'Every inscription, as it was revealed; its payload is in virtualchain.ops.';
COMMENT ON COLUMN inscriptions.id IS 'TXIDiN: the transaction that revealed it, and its number.';
COMMENT ON COLUMN inscriptions.number IS 'Its place among the envelopes of that transaction, from 0.';
COMMENT ON COLUMN inscriptions.input IS 'The input whose witness holds the envelope.';
COMMENT ON COLUMN inscriptions.vout IS 'The output of that transaction on which it began; null if on none.';
COMMENT ON COLUMN inscriptions.content_type IS 'Field 1; any bytes.';
COMMENT ON COLUMN inscriptions.content_type_text IS 'The same as text; null if it is not UTF-8, or has a NUL.';
COMMENT ON COLUMN inscriptions.content_encoding IS 'Field 9; any bytes.';
COMMENT ON COLUMN inscriptions.body_size IS 'Bytes of the body; null if there is none.';
COMMENT ON COLUMN inscriptions.body_sha256 IS 'SHA-256 of the body, whose pushes are joined; hex.';
COMMENT ON COLUMN inscriptions.metadata_size IS 'Bytes of the metadata: all fields 5, joined.';
COMMENT ON COLUMN inscriptions.metadata_sha256 IS 'SHA-256 of the metadata, hex.';
COMMENT ON COLUMN inscriptions.metaprotocol IS 'Field 7; any bytes.';
COMMENT ON COLUMN inscriptions.metaprotocol_text IS 'The same as text, as with the content type.';
COMMENT ON COLUMN inscriptions.delegate IS 'Field 11: the inscription whose content stands for this one''s.';
COMMENT ON COLUMN inscriptions.pointer IS 'Field 2, if it counts: the satoshi among those of all outputs.';
COMMENT ON COLUMN inscriptions.is_incomplete IS 'Whether its last field has no value.';
COMMENT ON COLUMN inscriptions.has_repeated IS 'Whether a field occurs more than once.';
COMMENT ON COLUMN inscriptions.has_unknown_even IS 'Whether it has an unknown field with an even tag.';

CREATE TABLE parents (
    inscription text,
    parent text,
    is_present boolean NOT NULL,
    PRIMARY KEY (inscription, parent)
);
CREATE INDEX parents_parent ON parents (parent);
COMMENT ON TABLE parents IS 'The parents that an inscription names (fields 3), without repetitions.';
COMMENT ON COLUMN parents.is_present IS 'Whether the transaction also moved the parent, or revealed it first: whoever inscribed could spend it.';

CREATE TABLE locations (
    txid text,
    vout integer,
    inscription text,
    position bigint NOT NULL,
    value bigint NOT NULL,
    owner text,
    PRIMARY KEY (txid, vout, inscription)
);
CREATE INDEX locations_inscription ON locations (inscription);
CREATE INDEX locations_owner ON locations (owner);
COMMENT ON TABLE locations IS 'The unspent output that each inscription is in; the tracked set.';
COMMENT ON COLUMN locations.position IS 'Its satoshi in the output, from 0.';
COMMENT ON COLUMN locations.value IS 'The output''s value in satoshi.';
COMMENT ON COLUMN locations.owner IS 'The output''s address, if it has one.';

CREATE TABLE moves (
    inscription text,
    block_id integer,
    txindex integer,
    txid text NOT NULL,
    status text NOT NULL,
    vout integer,
    position bigint,
    owner text,
    PRIMARY KEY (inscription, block_id, txindex)
);
COMMENT ON TABLE moves IS 'Where each transaction put an inscription; the first is its reveal.';
COMMENT ON COLUMN moves.status IS 'held: in an output; burned: in an OP_RETURN; fees: left to the miner; unbound: on no satoshi. Only what is held is followed.';
COMMENT ON COLUMN moves.vout IS 'The output of the transaction; null if it is in none.';
COMMENT ON COLUMN moves.position IS 'Its satoshi in the output, from 0.';
COMMENT ON COLUMN moves.owner IS 'The output''s address, if it has one.';
