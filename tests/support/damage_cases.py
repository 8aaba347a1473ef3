"""Ways to damage the deployment of `tests.support.damage`, each with the fault that it must be."""

from typing import Any

import pytest


def case(name: str, statement: str, message: str, **place: Any) -> Any:
    """Describe a damage: the statement that does it, and the fault that it must be."""
    return pytest.param(statement, message, place, id=name)


CASES = [
    # rows of a projection
    case(
        "row changed",
        "UPDATE notes__1.notes SET text = 'forged' WHERE key = 'd'",
        "do not lead",
        block_id=106,
    ),
    case(
        "row deleted",
        "DELETE FROM notes__1.notes WHERE key = 'c'",
        "do not lead",
        table="notes",
        key={"key": "c"},
        block_id=104,
    ),
    case(
        "row added",
        "INSERT INTO notes__1.notes VALUES ('x', 'forged', 105)",
        "no record",
        table="notes",
        key={"key": "x"},
        block_id=105,
    ),
    case(
        "row moved to another block",
        "UPDATE notes__1.notes SET since_block = 104 WHERE key = 'd'",
        "no record",
        table="notes",
        key={"key": "d"},
        block_id=104,
    ),
    case(
        "key changed",
        "UPDATE notes__1.notes SET key = 'z' WHERE key = 'a'",
        "do not lead",
        table="notes",
        key={"key": "a"},
        block_id=103,
    ),
    case(
        "row of a later block",
        "INSERT INTO notes__1.texts VALUES ('later', 500)",
        "last block is 108",
        table="texts",
        block_id=500,
    ),
    case(
        "table emptied",
        "DELETE FROM notes__1.texts",
        "do not lead",
        table="texts",
        block_id=105,
    ),
    # history
    case(
        "history changed",
        "UPDATE notes__1.notes_history SET text = 'forged' WHERE key = 'd'",
        "do not lead",
        block_id=105,
    ),
    case(
        "history deleted",
        "DELETE FROM notes__1.notes_history WHERE key = 'b'",
        "do not lead",
        block_id=104,
    ),
    case(
        "history added",
        "INSERT INTO notes__1.notes_history VALUES ('x', 'forged', 105, 107)",
        "do not lead",
        table="notes",
        key={"key": "x"},
        block_id=107,
    ),
    case(
        "history moved",
        "UPDATE notes__1.notes_history SET until_block = 105 WHERE key = 'b'",
        "do not lead",
        block_id=105,
    ),
    case(
        "births deleted",
        "DELETE FROM notes__1.notes_births WHERE key = 'd' AND since_block = 106",
        "no record",
        table="notes",
        key={"key": "d"},
        block_id=106,
    ),
    case(
        "births of a later block",
        "INSERT INTO notes__1.notes_births VALUES (200, 'd')",
        "last block is 108",
        table="notes",
        block_id=200,
    ),
    case(
        "trigger off",
        "ALTER TABLE notes__1.texts DISABLE TRIGGER keep_history",
        "no trigger keep_history",
        table="texts",
    ),
    case(
        "trigger gone",
        "DROP TRIGGER refuse_truncate ON notes__1.notes",
        "no trigger refuse_truncate",
        table="notes",
    ),
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
    # saved states
    case(
        "file changed",
        "UPDATE vc.state_files SET content = '{}' WHERE block_id = 104",
        "state hash",
        app="ledger",
        table="state_files",
        block_id=104,
    ),
    case(
        "file deleted",
        "DELETE FROM vc.state_files WHERE block_id = 104",
        "saved last",
        app="ledger",
        block_id=104,
    ),
    case(
        "file added",
        "INSERT INTO vc.state_files VALUES ('ledger', 106, '{}', '1')",
        "state hash",
        app="ledger",
        table="state_files",
        block_id=106,
    ),
]

DEEP = [
    case(
        "old row changed",
        "UPDATE notes__1.notes SET text = 'forged' WHERE key = 'a'",
        "",
        table="notes",
        key={"key": "a"},
        block_id=103,
    ),
    case(
        "old row deleted",
        "DELETE FROM notes__1.texts WHERE text = 'two'",
        "",
        table="texts",
        key={"text": "two"},
        block_id=102,
    ),
    case(
        "old row moved",
        "UPDATE notes__1.notes SET since_block = 104 WHERE key = 'a'",
        "",
        table="notes",
        key={"key": "a"},
        block_id=104,
    ),
    case(
        "reason",
        "UPDATE vc.rejections SET reason = 'forged' WHERE step = 'check'",
        "",
        app="notes",
        table="rejections",
        block_id=102,
        txindex=4,
    ),
    case(
        "step",
        "UPDATE vc.rejections SET step = 'commit' WHERE step = 'check'",
        "",
        app="notes",
        table="rejections",
        block_id=102,
        txindex=4,
    ),
    case(
        "row and digest",
        "INSERT INTO notes__1.texts VALUES ('forged', 107)",
        "",
        app="notes",
        table="texts",
        key={"text": "forged"},
        block_id=107,
    ),
]
