"""Damage to the tape: inputs and blocks."""

from tests.support.damage_cases.case import case

TAPE = [
    # inputs
    case(
        "input deleted",
        "DELETE FROM vc.inputs WHERE block_id = 103 AND txindex = 1",
        "not among the inputs",
        app="notes",
        block_id=103,
        txindex=1,
    ),
    case(
        "input added",
        "INSERT INTO vc.inputs SELECT 107, 1, txid, raw, magics, senders, outputs, fee FROM vc.inputs "
        "WHERE block_id = 103 AND txindex = 1",
        "neither an op nor a rejection",
        app="notes",
        block_id=107,
        txindex=1,
    ),
    case(
        "input moved",
        "UPDATE vc.inputs SET txindex = 7 WHERE block_id = 103 AND txindex = 1",
        "not among the inputs",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's txid",
        "UPDATE vc.inputs SET txid = sha256('x') WHERE block_id = 103",
        "txid",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's bytes",
        "UPDATE vc.inputs SET raw = set_byte(raw, 10, 255 - get_byte(raw, 10)) WHERE block_id = 103",
        "raw transaction",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's bytes cut",
        "UPDATE vc.inputs SET raw = 'x' WHERE block_id = 103",
        "",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's fee",
        "UPDATE vc.inputs SET fee = fee + 1 WHERE block_id = 103",
        "fee",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's outputs",
        "UPDATE vc.inputs SET outputs = outputs || outputs WHERE block_id = 103",
        "outputs",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's senders",
        "UPDATE vc.inputs SET senders = jsonb_set(senders, '{0,txid}', to_jsonb(repeat('0', 64))) WHERE "
        "block_id = 103",
        "senders",
        block_id=103,
        txindex=1,
    ),
    case(
        "input's magics",
        "UPDATE vc.inputs SET magics = ARRAY['xx'::bytea] WHERE block_id = 103",
        "not among the inputs",
        app="notes",
        block_id=103,
        txindex=1,
    ),
    case(
        "input of no block",
        "INSERT INTO vc.inputs SELECT 300, 1, txid, raw, magics, senders, outputs, fee FROM vc.inputs "
        "WHERE block_id = 103 AND txindex = 1",
        "not on the tape",
        block_id=300,
    ),
    # blocks
    case(
        "block's header",
        "UPDATE vc.blocks SET header = set_byte(header, 70, 255 - get_byte(header, 70)) WHERE block_id = 104",
        "does not match its header",
        block_id=104,
    ),
    case(
        "block's hash",
        "UPDATE vc.blocks SET hash = sha256('x') WHERE block_id = 104",
        "header",
        block_id=104,
    ),
    case(
        "block's parent",
        "UPDATE vc.blocks SET prev_hash = sha256('x') WHERE block_id = 104",
        "header",
        block_id=104,
    ),
    case(
        "block's time",
        "UPDATE vc.blocks SET time = time + interval '1 ms' WHERE block_id = 104",
        "header",
        block_id=104,
    ),
    case(
        "block's time infinite",
        "UPDATE vc.blocks SET time = 'infinity' WHERE block_id = 104",
        "header",
        block_id=104,
    ),
    case(
        "block's work",
        "UPDATE vc.blocks SET chainwork = chainwork + 1 WHERE block_id = 104",
        "work",
        block_id=104,
    ),
    case(
        "block deleted",
        "DELETE FROM vc.blocks WHERE block_id = 104",
        "missing on the tape",
        block_id=104,
    ),
    case(
        "first block deleted",
        "DELETE FROM vc.blocks WHERE block_id = 102",
        "not on the tape",
        block_id=102,
    ),
    case(
        "last block deleted",
        "DELETE FROM vc.blocks WHERE block_id = 108",
        "it has digests, but is not on the tape",
        app="notes",
        block_id=108,
    ),
    case(
        "another chain",
        "UPDATE vc.deployment SET network = 'moonnet'",
        "which network",
    ),
    case(
        "pin",
        "INSERT INTO vc.pins VALUES (104, sha256('x'))",
        "pinned",
        block_id=104,
    ),
]
