-- name: name
-- A name, live or not, with the columns of its namespace that decide whether it is live.
SELECT n.*, s.op AS namespace_op, s.reveal_block, s.ready_block, s.lifetime
FROM names AS n JOIN namespaces AS s USING (namespace_id)
WHERE n.name = %(name)s;

-- name: name_of_hash128
-- The name with a hash, as a transfer names it; columns as above.
SELECT n.*, s.op AS namespace_op, s.reveal_block, s.ready_block, s.lifetime
FROM names AS n JOIN namespaces AS s USING (namespace_id)
WHERE n.name_hash128 = %(name_hash128)s;

-- name: names_of_owner
-- The unrevoked names of an owner, expired or not; columns as above.
SELECT n.*, s.op AS namespace_op, s.reveal_block, s.ready_block, s.lifetime
FROM names AS n JOIN namespaces AS s USING (namespace_id)
WHERE n.owner_script = %(owner_script)s AND NOT n.revoked
ORDER BY n.name;

-- name: names_of_preorder
-- The names that used a preorder; columns as above.
SELECT n.*, s.op AS namespace_op, s.reveal_block, s.ready_block, s.lifetime
FROM names AS n JOIN namespaces AS s USING (namespace_id)
WHERE n.preorder_hash = %(preorder_hash)s;

-- name: names_of_namespaces
-- What decides when the names of some namespaces expire.
SELECT n.name, n.namespace_id, n.first_registered, n.last_renewed, n.expires_at,
    s.op AS namespace_op, s.reveal_block, s.ready_block, s.lifetime
FROM names AS n JOIN namespaces AS s USING (namespace_id)
WHERE n.namespace_id = ANY (%(namespace_ids)s)
ORDER BY n.name;

-- name: set_expiry
-- Update when some names expire.
MERGE INTO names AS n USING unnest(%(names)s::text[], %(expiries)s::bigint[]) AS e (name, expires_at)
ON n.name = e.name
WHEN MATCHED THEN UPDATE SET expires_at = e.expires_at;

-- name: keep_name
-- Write a name as an operation left it.
INSERT INTO names (name, namespace_id, name_hash128, owner, owner_script, sender_pubkey, value_hash, expires_at, revoked,
    imported, block_number, preorder_block_number, first_registered, last_renewed, preorder_hash, consensus_hash,
    importer, importer_address, op, op_fee, txid, txindex)
VALUES (%(name)s, %(namespace_id)s, %(name_hash128)s, %(address)s, %(sender)s, %(sender_pubkey)s, %(value_hash)s,
    %(expires_at)s, %(revoked)s, %(imported)s, %(block_number)s, %(preorder_block_number)s, %(first_registered)s,
    %(last_renewed)s, %(preorder_hash)s, %(consensus_hash)s, %(importer)s, %(importer_address)s, %(op)s, %(op_fee)s,
    %(txid)s, %(vtxindex)s)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, owner_script = excluded.owner_script,
    sender_pubkey = excluded.sender_pubkey, value_hash = excluded.value_hash, expires_at = excluded.expires_at,
    revoked = excluded.revoked, imported = excluded.imported, block_number = excluded.block_number,
    preorder_block_number = excluded.preorder_block_number, first_registered = excluded.first_registered,
    last_renewed = excluded.last_renewed, preorder_hash = excluded.preorder_hash,
    consensus_hash = excluded.consensus_hash, importer = excluded.importer,
    importer_address = excluded.importer_address, op = excluded.op, op_fee = excluded.op_fee, txid = excluded.txid,
    txindex = excluded.txindex;

-- name: add_event
-- Record a name as an operation left it.
INSERT INTO name_events (block_id, txindex, name, op, owner, value_hash, revoked, last_renewed, expires_at, txid)
VALUES (%(block_id)s, %(vtxindex)s, %(name)s, %(op)s, %(address)s, %(value_hash)s, %(revoked)s, %(last_renewed)s,
    %(expires_at)s, %(txid)s);

-- name: namespace
-- A namespace that was ever revealed.
SELECT * FROM namespaces WHERE namespace_id = %(namespace_id)s;

-- name: all_namespaces
-- The ids of all namespaces.
SELECT namespace_id FROM namespaces ORDER BY namespace_id;

-- name: namespaces_of_preorder
-- The namespaces that used a preorder.
SELECT namespace_id FROM namespaces WHERE preorder_hash = %(preorder_hash)s;

-- name: keep_namespace
-- Write a namespace as an operation left it.
INSERT INTO namespaces (namespace_id, op, preorder_hash, version, sender, sender_pubkey, address, recipient,
    recipient_address, block_number, reveal_block, ready_block, lifetime, coeff, base, buckets, nonalpha_discount,
    no_vowel_discount, txid, txindex)
VALUES (%(namespace_id)s, %(op)s, %(preorder_hash)s, %(version)s, %(sender)s, %(sender_pubkey)s, %(address)s,
    %(recipient)s, %(recipient_address)s, %(block_number)s, %(reveal_block)s, %(ready_block)s, %(lifetime)s, %(coeff)s,
    %(base)s, %(buckets)s, %(nonalpha_discount)s, %(no_vowel_discount)s, %(txid)s, %(vtxindex)s)
ON CONFLICT (namespace_id) DO UPDATE SET op = excluded.op, preorder_hash = excluded.preorder_hash,
    version = excluded.version, sender = excluded.sender, sender_pubkey = excluded.sender_pubkey,
    address = excluded.address, recipient = excluded.recipient, recipient_address = excluded.recipient_address,
    block_number = excluded.block_number, reveal_block = excluded.reveal_block, ready_block = excluded.ready_block,
    lifetime = excluded.lifetime, coeff = excluded.coeff, base = excluded.base, buckets = excluded.buckets,
    nonalpha_discount = excluded.nonalpha_discount, no_vowel_discount = excluded.no_vowel_discount,
    txid = excluded.txid, txindex = excluded.txindex;

-- name: preorders
-- The open preorders with a hash, oldest first.
SELECT * FROM preorders WHERE preorder_hash = %(preorder_hash)s AND op = %(op)s ORDER BY block_number, txindex;

-- name: add_preorder
-- Record a preorder.
INSERT INTO preorders (preorder_hash, block_number, txindex, op, sender, sender_pubkey, address, consensus_hash, op_fee,
    fee_address, txid)
VALUES (%(preorder_hash)s, %(block_number)s, %(vtxindex)s, %(op)s, %(sender)s, %(sender_pubkey)s, %(address)s,
    %(consensus_hash)s, %(op_fee)s, %(fee_address)s, %(txid)s);

-- name: drop_preorders
-- Remove a used preorder, and all others with its hash.
DELETE FROM preorders WHERE preorder_hash = %(preorder_hash)s;

-- name: keyring
-- The addresses that may import names into a namespace.
SELECT address FROM keyring WHERE namespace_id = %(namespace_id)s ORDER BY address;

-- name: add_to_keyring
-- Let some addresses import names into a namespace.
INSERT INTO keyring (namespace_id, address) SELECT %(namespace_id)s, unnest(%(addresses)s::text[]);

-- name: add_announcement
-- Record an announcement.
INSERT INTO announcements (block_id, txindex, address, message_hash, txid)
VALUES (%(block_id)s, %(vtxindex)s, %(address)s, %(message_hash)s, %(txid)s);
