"""Damage to the log: ops, rejections and digests."""

from tests.support.damage_cases.case import case

LOG = [
    # ops
    case(
        "op deleted",
        "DELETE FROM vc.ops WHERE app = 'notes' AND block_id = 103",
        "ops hash",
        block_id=103,
    ),
    case(
        "op's fields",
        """UPDATE vc.ops SET fields = fields || '{"text": "forged"}' WHERE block_id = 103""",
        "fields are not those that were hashed",
        app="notes",
        block_id=103,
        vtxindex=0,
    ),
    case(
        "op's number",
        """UPDATE vc.ops SET fields = fields || '{"length": 6}' WHERE block_id = 103""",
        "fields are not those that were hashed",
        app="notes",
        block_id=103,
        vtxindex=0,
    ),
    case(
        "op's bytes",
        "UPDATE vc.ops SET canonical = ARRAY['t:1:x'::bytea] WHERE block_id = 103",
        "its ops have",
        app="notes",
        block_id=103,
    ),
    case(
        "op's payload",
        "UPDATE vc.ops SET payload = 'forged' WHERE block_id = 103",
        "payload",
        block_id=103,
        vtxindex=0,
        txindex=1,
    ),
    case(
        "op's opcode",
        "UPDATE vc.ops SET opcode = 'z' WHERE block_id = 103",
        "opcode",
        block_id=103,
        vtxindex=0,
    ),
    case(
        "op's vtxindex",
        "UPDATE vc.ops SET vtxindex = 5 WHERE app = 'notes' AND block_id = 103",
        "number 0 of the candidates",
        block_id=103,
        vtxindex=5,
    ),
    case(
        "op's transaction",
        "UPDATE vc.ops SET txindex = 9 WHERE app = 'notes' AND block_id = 103",
        "not among the inputs",
        block_id=103,
        txindex=9,
    ),
    case(
        "op added",
        "INSERT INTO vc.ops SELECT app, 105, 7, 2, opcode, payload, fields, canonical, build FROM vc.ops "
        "WHERE app = 'notes' AND block_id = 103",
        "its ops have",
        block_id=105,
    ),
    case(
        "op of no block",
        "INSERT INTO vc.ops SELECT app, 300, 0, 1, opcode, payload, fields, canonical, build FROM vc.ops "
        "WHERE app = 'notes' AND block_id = 103",
        "without digests",
        block_id=300,
    ),
    # rejections
    case(
        "rejection deleted",
        "DELETE FROM vc.rejections WHERE step = 'parse'",
        "neither an op nor a rejection",
        app="notes",
        block_id=103,
        txindex=2,
    ),
    case(
        "rejection of a check deleted",
        "DELETE FROM vc.rejections WHERE step = 'check'",
        "neither an op nor a rejection",
        app="notes",
        block_id=102,
        txindex=4,
    ),
    case(
        "rejection moved",
        "UPDATE vc.rejections SET txindex = 8 WHERE step = 'check'",
        "not among the inputs",
        block_id=102,
        txindex=8,
    ),
    case(
        "rejection's opcode",
        "UPDATE vc.rejections SET opcode = 'q' WHERE step = 'check'",
        "opcode",
        block_id=102,
        txindex=4,
    ),
    case(
        "rejection of an op",
        "INSERT INTO vc.rejections VALUES ('notes', 106, 1, 't', 'check', 'forged', '1')",
        "accepted, and there is a rejection",
        block_id=106,
        txindex=1,
    ),
    case(
        "rejection of no candidate",
        "INSERT INTO vc.rejections VALUES ('notes', 107, 1, 't', 'check', 'forged', '1')",
        "not among the inputs",
        block_id=107,
        txindex=1,
    ),
    # digests
    case(
        "ops hash",
        "UPDATE vc.snapshots SET ops_hash = sha256('x') WHERE app = 'notes' AND block_id = 104",
        "its ops have",
        app="notes",
        block_id=104,
    ),
    case(
        "consensus hash",
        "UPDATE vc.snapshots SET consensus_hash = substr(sha256('x'), 1, 16) WHERE app = 'notes' AND "
        "block_id = 104",
        "consensus hash is",
        app="notes",
        block_id=104,
    ),
    case(
        "state hash",
        "UPDATE vc.snapshots SET state_hash = sha256('x') WHERE app = 'notes' AND block_id = 104",
        "state hash is",
        app="notes",
        block_id=104,
    ),
    case(
        "state hash of a quiet block",
        "UPDATE vc.snapshots SET state_hash = sha256('x') WHERE app = 'notes' AND block_id = 107",
        "not that of the block before",
        app="notes",
        block_id=107,
    ),
    case(
        "state number",
        "UPDATE vc.snapshots SET state_number = set_byte(state_number, 9, 255 - get_byte(state_number, "
        "9)) WHERE app = 'notes' AND block_id = 104",
        "number stored with it",
        app="notes",
        block_id=104,
    ),
    case(
        "state number and hash",
        "UPDATE vc.snapshots SET state_number = n.x, state_hash = sha256(n.x) FROM (SELECT state_number "
        "AS x FROM vc.snapshots WHERE app = 'notes' AND block_id = 102) AS n WHERE app = 'notes' AND "
        "block_id = 104",
        "do not lead",
        app="notes",
        block_id=104,
    ),
    case(
        "state number of a quiet block",
        "UPDATE vc.snapshots SET state_number = n.x, state_hash = sha256(n.x) FROM (SELECT state_number "
        "AS x FROM vc.snapshots WHERE app = 'notes' AND block_id = 102) AS n WHERE app = 'notes' AND "
        "block_id = 107",
        "no row changed",
        app="notes",
        block_id=107,
    ),
    case(
        "digests deleted",
        "DELETE FROM vc.snapshots WHERE app = 'notes' AND block_id = 104",
        "digests are missing",
        app="notes",
        block_id=104,
    ),
    case(
        "last digests deleted",
        "DELETE FROM vc.snapshots WHERE app = 'notes' AND block_id > 105",
        "without digests",
        app="notes",
        block_id=106,
    ),
    case(
        "digests added",
        "INSERT INTO vc.snapshots (app, block_id, ops_hash, consensus_hash, state_hash, build) SELECT "
        "app, 109, ops_hash, consensus_hash, state_hash, build FROM vc.snapshots WHERE app = 'notes' AND "
        "block_id = 108",
        "not on the tape",
        app="notes",
        block_id=109,
    ),
]
