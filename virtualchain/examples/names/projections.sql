CREATE TABLE namespaces (
    namespace_id text COLLATE "C" PRIMARY KEY,
    op text COLLATE "C" NOT NULL,
    preorder_hash text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    sender text COLLATE "C" NOT NULL,
    sender_pubkey text COLLATE "C",
    address text COLLATE "C" NOT NULL,
    recipient text COLLATE "C" NOT NULL,
    recipient_address text COLLATE "C" NOT NULL,
    block_number integer NOT NULL,
    reveal_block integer NOT NULL,
    ready_block integer NOT NULL,
    lifetime bigint NOT NULL,
    coeff integer NOT NULL,
    base integer NOT NULL,
    buckets integer[] NOT NULL,
    nonalpha_discount integer NOT NULL,
    no_vowel_discount integer NOT NULL,
    txid text COLLATE "C" NOT NULL,
    txindex integer NOT NULL
);
CREATE INDEX namespaces_preorder_hash ON namespaces (preorder_hash);
COMMENT ON TABLE namespaces IS 'Every namespace that was ever revealed.';
COMMENT ON COLUMN namespaces.namespace_id IS 'The part of its names after the dot.';
COMMENT ON COLUMN namespaces.op IS '& once revealed: names can be imported; ! once ready: anyone may register names.';
COMMENT ON COLUMN namespaces.preorder_hash IS 'The preorder that the reveal used.';
COMMENT ON COLUMN namespaces.version IS '1: fees for names are burned; 2: for the first year they are paid to the creator.';
COMMENT ON COLUMN namespaces.sender IS 'Script of the last operation''s sender, hex.';
COMMENT ON COLUMN namespaces.sender_pubkey IS 'Public key of the creator, hex; null if a script created it.';
COMMENT ON COLUMN namespaces.address IS 'Address of the creator, who preordered and revealed it.';
COMMENT ON COLUMN namespaces.recipient IS 'Script of the importer, who may import names and make it ready, hex.';
COMMENT ON COLUMN namespaces.recipient_address IS 'The address of that script.';
COMMENT ON COLUMN namespaces.block_number IS 'The block of the preorder of its first reveal.';
COMMENT ON COLUMN namespaces.reveal_block IS 'The block of its reveal.';
COMMENT ON COLUMN namespaces.ready_block IS 'The block in which it became ready; 0 if it is not ready.';
COMMENT ON COLUMN namespaces.lifetime IS 'The number of blocks for which a name is registered, before an epoch''s multiplier.';
COMMENT ON COLUMN namespaces.coeff IS 'Coefficient of the price.';
COMMENT ON COLUMN namespaces.base IS 'Base of the price.';
COMMENT ON COLUMN namespaces.buckets IS 'Exponents of the price for names of 1, 2, … 16 and more characters.';
COMMENT ON COLUMN namespaces.nonalpha_discount IS 'Divisor of the price if a name has digits, - or _.';
COMMENT ON COLUMN namespaces.no_vowel_discount IS 'Divisor of the price if a name has no vowel.';
COMMENT ON COLUMN namespaces.txid IS 'The transaction of the last operation.';
COMMENT ON COLUMN namespaces.txindex IS 'Its position in its block.';

CREATE TABLE names (
    name text COLLATE "C" PRIMARY KEY,
    namespace_id text COLLATE "C" NOT NULL REFERENCES namespaces DEFERRABLE,
    name_hash128 text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    owner_script text COLLATE "C" NOT NULL,
    sender_pubkey text COLLATE "C",
    value_hash text COLLATE "C",
    expires_at bigint NOT NULL,
    revoked boolean NOT NULL,
    imported boolean NOT NULL,
    block_number integer NOT NULL,
    preorder_block_number integer NOT NULL,
    first_registered integer NOT NULL,
    last_renewed integer NOT NULL,
    preorder_hash text COLLATE "C" NOT NULL,
    consensus_hash text COLLATE "C",
    importer text COLLATE "C",
    importer_address text COLLATE "C",
    op text COLLATE "C" NOT NULL,
    op_fee numeric NOT NULL,
    txid text COLLATE "C" NOT NULL,
    txindex integer NOT NULL
);
CREATE INDEX names_owner ON names (owner);
CREATE INDEX names_owner_script ON names USING hash (owner_script); -- a script may be longer than a B-tree takes
CREATE INDEX names_name_hash128 ON names (name_hash128);
CREATE INDEX names_preorder_hash ON names (preorder_hash);
CREATE INDEX names_namespace_id ON names (namespace_id);
CREATE INDEX names_expires_at ON names (expires_at);
COMMENT ON TABLE names IS 'Every name that was ever registered or imported, as it is now: expiry deletes nothing.';
COMMENT ON COLUMN names.name IS 'The full name.';
COMMENT ON COLUMN names.namespace_id IS 'The part after the dot.';
COMMENT ON COLUMN names.name_hash128 IS 'The first half of the name''s SHA-256, hex, by which a transfer refers to it.';
COMMENT ON COLUMN names.owner IS 'The owner''s address.';
COMMENT ON COLUMN names.owner_script IS 'The owner''s script, hex.';
COMMENT ON COLUMN names.sender_pubkey IS 'Public key that registered or imported it, hex; null after a transfer or if a script did.';
COMMENT ON COLUMN names.value_hash IS 'Hash of its zone file, hex; null if it has none.';
COMMENT ON COLUMN names.expires_at IS 'The first block in which it is no longer registered, unless it is renewed.';
COMMENT ON COLUMN names.revoked IS 'Whether its owner revoked it; it is then unusable until it expires.';
COMMENT ON COLUMN names.imported IS 'Whether the creator of the namespace imported it.';
COMMENT ON COLUMN names.block_number IS 'The block of its first preorder or import.';
COMMENT ON COLUMN names.preorder_block_number IS 'The block of its last preorder or import.';
COMMENT ON COLUMN names.first_registered IS 'The block in which the current registration began.';
COMMENT ON COLUMN names.last_renewed IS 'The block in which it was last registered or renewed.';
COMMENT ON COLUMN names.preorder_hash IS 'The preorder hash that it used; for an import, the one that it would have used.';
COMMENT ON COLUMN names.consensus_hash IS 'The consensus hash that its last update named; null before the first.';
COMMENT ON COLUMN names.importer IS 'Script of the sender who imported it, hex.';
COMMENT ON COLUMN names.importer_address IS 'The address of the sender who imported it.';
COMMENT ON COLUMN names.op IS 'The last operation: : registration, :: renewal, ; import, + update, >> transfer, >~ transfer without value, ~ revocation.';
COMMENT ON COLUMN names.op_fee IS 'The last fee paid for it, in satoshis; for an import, its price, a double in full precision.';
COMMENT ON COLUMN names.txid IS 'The transaction of the last operation.';
COMMENT ON COLUMN names.txindex IS 'Its position in its block.';

CREATE TABLE name_events (
    block_id integer NOT NULL,
    txindex integer NOT NULL,
    name text COLLATE "C" NOT NULL REFERENCES names DEFERRABLE,
    op text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    value_hash text COLLATE "C",
    revoked boolean NOT NULL,
    last_renewed integer NOT NULL,
    expires_at bigint NOT NULL,
    txid text COLLATE "C" NOT NULL,
    PRIMARY KEY (block_id, txindex)
);
CREATE INDEX name_events_name ON name_events (name, block_id, txindex);
COMMENT ON TABLE name_events IS 'Every operation on a name, with the state of the name after it.';
COMMENT ON COLUMN name_events.block_id IS 'The block that holds the operation.';
COMMENT ON COLUMN name_events.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN name_events.name IS 'The full name.';
COMMENT ON COLUMN name_events.op IS 'The operation, as in names.op.';
COMMENT ON COLUMN name_events.owner IS 'The owner''s address after it.';
COMMENT ON COLUMN name_events.value_hash IS 'Hash of the zone file after it, hex.';
COMMENT ON COLUMN name_events.revoked IS 'Whether the name was revoked after it.';
COMMENT ON COLUMN name_events.last_renewed IS 'The block in which the name was last registered or renewed.';
COMMENT ON COLUMN name_events.expires_at IS 'The block in which it would have expired, as of then.';
COMMENT ON COLUMN name_events.txid IS 'The operation''s transaction.';

CREATE TABLE preorders (
    preorder_hash text COLLATE "C" NOT NULL,
    block_number integer NOT NULL,
    txindex integer NOT NULL,
    op text COLLATE "C" NOT NULL,
    sender text COLLATE "C" NOT NULL,
    sender_pubkey text COLLATE "C",
    address text COLLATE "C" NOT NULL,
    consensus_hash text COLLATE "C" NOT NULL,
    op_fee bigint NOT NULL,
    fee_address text COLLATE "C" NOT NULL,
    txid text COLLATE "C" NOT NULL,
    PRIMARY KEY (preorder_hash, block_number, txindex)
);
COMMENT ON TABLE preorders IS 'Preorders that have not been used yet.';
COMMENT ON COLUMN preorders.preorder_hash IS 'Commitment to a name or namespace, its sender and its future owner.';
COMMENT ON COLUMN preorders.block_number IS 'The block that holds it.';
COMMENT ON COLUMN preorders.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN preorders.op IS '? of a name, * of a namespace.';
COMMENT ON COLUMN preorders.sender IS 'The sender''s script, hex.';
COMMENT ON COLUMN preorders.sender_pubkey IS 'The sender''s public key, hex; null if a script sent it.';
COMMENT ON COLUMN preorders.address IS 'The sender''s address.';
COMMENT ON COLUMN preorders.consensus_hash IS 'The consensus hash that it named.';
COMMENT ON COLUMN preorders.op_fee IS 'The fee paid, in satoshis.';
COMMENT ON COLUMN preorders.fee_address IS 'The address that the fee was paid to.';
COMMENT ON COLUMN preorders.txid IS 'Its transaction.';

CREATE TABLE keyring (
    namespace_id text COLLATE "C" NOT NULL REFERENCES namespaces DEFERRABLE,
    address text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace_id, address)
);
COMMENT ON TABLE keyring IS 'The addresses that may import names into a namespace: the importer''s, and those of keys derived from its key.';
COMMENT ON COLUMN keyring.namespace_id IS 'The namespace.';
COMMENT ON COLUMN keyring.address IS 'An address that may import.';

CREATE TABLE announcements (
    block_id integer NOT NULL,
    txindex integer NOT NULL,
    address text COLLATE "C" NOT NULL,
    message_hash text COLLATE "C" NOT NULL,
    txid text COLLATE "C" NOT NULL,
    PRIMARY KEY (block_id, txindex)
);
COMMENT ON TABLE announcements IS 'What the network''s developers announced; no rule reads it.';
COMMENT ON COLUMN announcements.block_id IS 'The block that holds the announcement.';
COMMENT ON COLUMN announcements.txindex IS 'Position of its transaction in the block.';
COMMENT ON COLUMN announcements.address IS 'The sender''s address.';
COMMENT ON COLUMN announcements.message_hash IS 'Hash of the message, hex.';
COMMENT ON COLUMN announcements.txid IS 'Its transaction.';
