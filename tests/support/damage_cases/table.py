"""Damage and lies for the table of docs/audit.md: one of each kind, and lies that fit all they touch.

They are done to the deployment of `tests.support.damage`, by somebody who may write to every table, has the
engine's code, and brings the digests in line with the lie.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import psycopg

from tests.support.damage import Lie
from virtualchain.audit.tables import number_of_rows
from virtualchain.consensus import ops_hash
from virtualchain.consensus.hashing import sha256d
from virtualchain.consensus.series import Series
from virtualchain.consensus.state_hash import EMPTY, digest_number
from virtualchain.store.projections import projections


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to a deployment, by statements and then by functions, and where it must be found."""

    name: str
    statements: tuple[str, ...]
    place: Mapping[str, Any]
    lies: tuple[Lie, ...] = ()
    of: str = field(default="kept")
    """The deployment that is damaged: `pruned` keeps two blocks of history."""


def rehash(connection: psycopg.Connection) -> None:
    """Bring the hashes of app notes in line with its ops."""
    ops = connection.execute(
        "SELECT block_id, canonical FROM vc.ops WHERE app = 'notes' ORDER BY block_id, vtxindex"
    ).fetchall()
    series = Series(102)
    for (block_id,) in connection.execute(
        "SELECT block_id FROM vc.snapshots WHERE app = 'notes' ORDER BY block_id"
    ).fetchall():
        computed = ops_hash(text for at, texts in ops if at == block_id for text in texts)
        series.append(series.compute(computed))
        assert series.last is not None
        connection.execute(
            "UPDATE vc.snapshots SET ops_hash = decode(%s, 'hex'), consensus_hash = decode(%s, 'hex') "
            "WHERE app = 'notes' AND block_id = %s",
            [computed, series.last[1], block_id],
        )


def restate(connection: psycopg.Connection) -> None:
    """Bring the state hashes of both apps in line with rows and files."""
    tables = projections(connection, "notes__1")
    before = EMPTY
    for block_id in range(102, 109):
        number = number_of_rows(connection, tables, block_id)
        connection.execute(
            "UPDATE vc.snapshots SET state_hash = decode(%s, 'hex'), state_number = %s "
            "WHERE app = 'notes' AND block_id = %s",
            [digest_number(number), None if number == before else number, block_id],
        )
        before = number
        row = connection.execute(
            "SELECT content FROM vc.state_files WHERE block_id <= %s ORDER BY block_id DESC LIMIT 1",
            [block_id],
        ).fetchone()
        assert row is not None
        connection.execute(
            "UPDATE vc.snapshots SET state_hash = %s WHERE app = 'ledger' AND block_id = %s",
            [sha256(row[0]).digest(), block_id],
        )


def rechain(connection: psycopg.Connection, *, works: bool = False) -> None:
    """Replace block 106 by another one, and make those above its descendants; perhaps with their work."""
    before: bytes | None = None
    for block_id, header in connection.execute(
        "SELECT block_id, header FROM vc.blocks WHERE block_id >= 106 ORDER BY block_id"
    ).fetchall():
        link = header[4:36] if before is None else before
        root = bytes(32) if before is None else header[36:68]
        forged = header[:4] + link + root + header[68:]
        while works and sha256d(forged)[31] > 0x7E:  # regtest's target, a little lower
            forged = forged[:76] + (int.from_bytes(forged[76:], "little") + 1).to_bytes(4, "little")
        before = sha256d(forged)
        connection.execute(
            "UPDATE vc.blocks SET hash = %s, prev_hash = %s, header = %s WHERE block_id = %s",
            [before[::-1], link[::-1], forged, block_id],
        )


_FIVE = (
    "DELETE FROM vc.ops WHERE app = 'notes' AND block_id = 104 AND vtxindex = 1",
    "DELETE FROM notes__1.notes WHERE key = 'c'",
    "DELETE FROM notes__1.notes_births WHERE key = 'c'",
    "DELETE FROM notes__1.texts WHERE text = 'five'",
    "DELETE FROM notes__1.texts_births WHERE text = 'five'",
)
"""All that became of the input `add c five`, the second one of block 104."""
_OP = "WHERE app = 'notes' AND block_id = 103"
_AS_OP = "SELECT app, {}, {}, {}, opcode, payload, fields, canonical, build FROM vc.ops"
_AT = "WHERE app = 'notes' AND block_id = 104"
_INPUT = "WHERE block_id = 103"
_LESS = "UPDATE vc.inputs SET spent = set_byte(spent, 1, get_byte(spent, 1) - 1)"
_COPY_INPUT = (
    "INSERT INTO vc.inputs SELECT 107, 1, txid, raw, magics, spent, unusual_keys, fee FROM vc.inputs"
)

TABLE = [
    # the tape
    Damage(
        "a block's header",
        ("UPDATE vc.blocks SET header = set_byte(header, 70, get_byte(header, 71)) WHERE block_id = 104",),
        {"block_id": 104},
    ),
    Damage(
        "a block's hash", ("UPDATE vc.blocks SET hash = sha256('x') WHERE block_id = 104",), {"block_id": 104}
    ),
    Damage(
        "a block's parent",
        ("UPDATE vc.blocks SET prev_hash = sha256('x') WHERE block_id = 104",),
        {"block_id": 104},
    ),
    Damage(
        "a block's time",
        ("UPDATE vc.blocks SET time = time + interval '1 s' WHERE block_id = 104",),
        {"block_id": 104},
    ),
    Damage(
        "a block's work",
        ("UPDATE vc.blocks SET chainwork = chainwork + 1 WHERE block_id = 104",),
        {"block_id": 104},
    ),
    Damage("a block deleted", ("DELETE FROM vc.blocks WHERE block_id = 104",), {"block_id": 104}),
    Damage("a block and all above it forged, each on top of the other", (), {"block_id": 106}, (rechain,)),
    Damage(
        "a block and all above it forged, with all their work",
        (),
        {"block_id": 106},
        (partial(rechain, works=True),),
    ),
    Damage(
        "an input deleted",
        ("DELETE FROM vc.inputs WHERE block_id = 103 AND txindex = 1",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input added",
        (f"{_COPY_INPUT} {_INPUT} AND txindex = 1",),
        {"block_id": 107, "txindex": 1},
    ),
    Damage(
        "an input's transaction",
        ("UPDATE vc.inputs SET raw = set_byte(raw, 10, 255 - get_byte(raw, 10)) WHERE block_id = 103",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's id",
        ("UPDATE vc.inputs SET txid = sha256('x') WHERE block_id = 103",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's fee",
        ("UPDATE vc.inputs SET fee = fee + 1 WHERE block_id = 103",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's senders",
        (f"{_LESS} {_INPUT}",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's senders and its fee with them",
        (f"{_LESS}, fee = fee - 256 {_INPUT}",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's unusual keys",
        ('UPDATE vc.inputs SET unusual_keys = \'{"0": ["02"]}\' WHERE block_id = 103',),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's magics",
        ("UPDATE vc.inputs SET magics = ARRAY['xx'::bytea] WHERE block_id = 103",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input for which no app tracked anything",
        ("UPDATE vc.inputs SET tracked_by = '{ghost,ghost}' WHERE block_id = 103",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input's heights",
        ("UPDATE vc.inputs SET spent_at = '{999}' WHERE block_id = 103",),
        {"block_id": 103, "txindex": 1},
    ),
    Damage(
        "an input deleted with its op, its rows and all digests",
        ("DELETE FROM vc.inputs WHERE block_id = 104 AND txindex = 2", *_FIVE),
        {"block_id": 104, "txindex": 2},
        (rehash, restate),
    ),
    Damage(
        "an input added with an op, rows and all digests",
        (
            f"{_COPY_INPUT} {_INPUT} AND txindex = 1",
            f"INSERT INTO vc.ops {_AS_OP.format(107, 0, 1)} {_OP}",
            "INSERT INTO notes__1.notes_history VALUES ('a', 'three', 103, 107)",
            "UPDATE notes__1.notes SET since_block = 107 WHERE key = 'a'",
            "INSERT INTO notes__1.notes_births VALUES (107, 'a')",
            "INSERT INTO notes__1.texts_births VALUES (107, 'three')",
        ),
        {"block_id": 107, "txindex": 1},
        (rehash, restate),
    ),
    Damage(
        "coverage cut",
        ("UPDATE vc.coverage SET from_block = 105 WHERE magic = 'no'",),
        {"table": "coverage", "block_id": 102},
    ),
    Damage(
        "coverage of blocks that are not there",
        ("UPDATE vc.coverage SET from_block = 5 WHERE magic = 'no'",),
        {"table": "coverage"},
    ),
    Damage("the network", ("UPDATE vc.deployment SET network = 'moonnet'",), {}),
    Damage(
        "the genesis block", ("UPDATE vc.deployment SET genesis_hash = sha256('x')",), {"table": "deployment"}
    ),
    Damage(
        "a pin that the tape does not keep",
        ("INSERT INTO vc.pins VALUES (104, sha256('x'))",),
        {"block_id": 104},
    ),
    # the log
    Damage("an op deleted", (f"DELETE FROM vc.ops {_OP}",), {"app": "notes", "block_id": 103}),
    Damage(
        "an op added",
        (f"INSERT INTO vc.ops {_AS_OP.format(105, 7, 2)} {_OP}",),
        {"app": "notes", "block_id": 105},
    ),
    Damage(
        "an op's fields",
        (f"""UPDATE vc.ops SET fields = fields || '{{"text": "fraud"}}' {_OP}""",),
        {"app": "notes", "block_id": 103, "vtxindex": 0},
    ),
    Damage(
        "an op's canonical bytes",
        (f"UPDATE vc.ops SET canonical = ARRAY['t:1:x'::bytea] {_OP}",),
        {"app": "notes", "block_id": 103},
    ),
    Damage("an op's payload", (f"UPDATE vc.ops SET payload = 'x' {_OP}",), {"block_id": 103, "vtxindex": 0}),
    Damage("an op's opcode", (f"UPDATE vc.ops SET opcode = 'z' {_OP}",), {"block_id": 103, "vtxindex": 0}),
    Damage("an op's vtxindex", (f"UPDATE vc.ops SET vtxindex = 5 {_OP}",), {"block_id": 103, "vtxindex": 5}),
    Damage("an op's transaction", (f"UPDATE vc.ops SET txindex = 9 {_OP}",), {"block_id": 103, "txindex": 9}),
    Damage(
        "an op's number of a payload",
        (f"UPDATE vc.ops SET payload_index = 3 {_OP}",),
        {"block_id": 103, "vtxindex": 0},
    ),
    Damage(
        "an op's fields with its canonical bytes and all digests",
        (
            f"""UPDATE vc.ops SET fields = fields || '{{"text": "fraud"}}',
                canonical = ARRAY[overlay(canonical[1] PLACING 'fraud'
                    FROM position('three' IN canonical[1]))] {_OP}""",
            "UPDATE notes__1.notes SET text = 'fraud' WHERE key = 'a'",
            "UPDATE notes__1.texts SET text = 'fraud' WHERE text = 'three'",
            "UPDATE notes__1.texts_births SET text = 'fraud' WHERE text = 'three'",
        ),
        {"app": "notes", "block_id": 103},
        (rehash, restate),
    ),
    Damage(
        "an op turned into a rejection, with its rows and all digests",
        (*_FIVE, "INSERT INTO vc.rejections VALUES ('notes', 104, 2, 't', 'check', 'forged', '1')"),
        {"app": "notes", "block_id": 104},
        (rehash, restate),
    ),
    Damage(
        "a rejection deleted",
        ("DELETE FROM vc.rejections WHERE step = 'check'",),
        {"app": "notes", "block_id": 102, "txindex": 4},
    ),
    Damage(
        "a rejection added",
        ("INSERT INTO vc.rejections VALUES ('notes', 107, 1, 't', 'check', 'forged', '1')",),
        {"app": "notes", "block_id": 107, "txindex": 1},
    ),
    Damage(
        "a rejection's reason",
        ("UPDATE vc.rejections SET reason = 'x' WHERE step = 'check'",),
        {"app": "notes", "block_id": 102, "txindex": 4},
    ),
    Damage(
        "a rejection's step",
        ("UPDATE vc.rejections SET step = 'commit' WHERE step = 'check'",),
        {"app": "notes", "block_id": 102, "txindex": 4},
    ),
    Damage(
        "an ops hash",
        ("UPDATE vc.snapshots SET ops_hash = sha256('x') WHERE app = 'notes' AND block_id = 104",),
        {"app": "notes", "block_id": 104},
    ),
    Damage(
        "a consensus hash",
        (f"UPDATE vc.snapshots SET consensus_hash = substr(sha256('x'), 1, 16) {_AT}",),
        {"app": "notes", "block_id": 104},
    ),
    Damage(
        "a state hash",
        ("UPDATE vc.snapshots SET state_hash = sha256('x') WHERE app = 'notes' AND block_id = 104",),
        {"app": "notes", "block_id": 104},
    ),
    Damage(
        "the number under a state hash",
        (f"UPDATE vc.snapshots SET state_number = set_byte(state_number, 9, 7) {_AT}",),
        {"app": "notes", "block_id": 104},
    ),
    Damage(
        "a block's digests deleted",
        ("DELETE FROM vc.snapshots WHERE app = 'notes' AND block_id = 104",),
        {"app": "notes", "block_id": 104},
    ),
    Damage(
        "the last digests deleted",
        ("DELETE FROM vc.snapshots WHERE app = 'notes' AND block_id > 105",),
        {"app": "notes", "block_id": 106},
    ),
    # rows and history
    Damage(
        "a row changed",
        ("UPDATE notes__1.notes SET text = 'x' WHERE key = 'd'",),
        {"app": "notes", "block_id": 106},
    ),
    Damage(
        "a row deleted",
        ("DELETE FROM notes__1.notes WHERE key = 'c'",),
        {"table": "notes", "key": {"key": "c"}, "block_id": 104},
    ),
    Damage(
        "a row added",
        ("INSERT INTO notes__1.notes VALUES ('x', 'x', 105)",),
        {"table": "notes", "key": {"key": "x"}, "block_id": 105},
    ),
    Damage(
        "a row said to be of another block",
        ("UPDATE notes__1.notes SET since_block = 104 WHERE key = 'd'",),
        {"table": "notes", "key": {"key": "d"}, "block_id": 104},
    ),
    Damage(
        "a row older than history",
        ("UPDATE notes__1.notes SET text = 'x' WHERE key = 'a'",),
        {"table": "notes", "key": {"key": "a"}, "block_id": 103},
        of="pruned",
    ),
    Damage(
        "a row changed with all state hashes",
        ("UPDATE notes__1.notes SET text = 'x' WHERE key = 'd'",),
        {"app": "notes", "block_id": 106},
        (restate,),
    ),
    Damage(
        "a row added with a record of its block and all state hashes",
        (
            "INSERT INTO notes__1.notes VALUES ('x', 'x', 105)",
            "INSERT INTO notes__1.notes_births VALUES (105, 'x')",
        ),
        {"app": "notes", "block_id": 105},
        (restate,),
    ),
    Damage(
        "a row of history changed",
        ("UPDATE notes__1.notes_history SET text = 'x' WHERE key = 'd'",),
        {"app": "notes", "block_id": 105},
    ),
    Damage(
        "a row of history deleted",
        ("DELETE FROM notes__1.notes_history WHERE key = 'b'",),
        {"app": "notes", "block_id": 104},
    ),
    Damage(
        "a row of history added",
        ("INSERT INTO notes__1.notes_history VALUES ('x', 'x', 105, 107)",),
        {"table": "notes", "key": {"key": "x"}, "block_id": 107},
    ),
    Damage(
        "a row of history changed with all state hashes",
        ("UPDATE notes__1.notes_history SET text = 'x' WHERE key = 'd'",),
        {"app": "notes", "block_id": 105},
        (restate,),
    ),
    Damage(
        "the record that a block wrote a row deleted",
        ("DELETE FROM notes__1.notes_births WHERE key = 'd' AND since_block = 106",),
        {"table": "notes", "key": {"key": "d"}, "block_id": 106},
    ),
    Damage(
        "the record that a block wrote a row added",
        ("INSERT INTO notes__1.notes_births VALUES (105, 'x')",),
        {"app": "notes", "block_id": 105},
    ),
    Damage(
        "a trigger that keeps history switched off",
        ("ALTER TABLE notes__1.texts DISABLE TRIGGER keep_history",),
        {"table": "texts"},
    ),
    Damage(
        "a saved file",
        ("UPDATE vc.state_files SET content = '{}' WHERE block_id = 104",),
        {"app": "ledger", "block_id": 104},
    ),
    Damage(
        "a saved file deleted",
        ("DELETE FROM vc.state_files WHERE block_id = 104",),
        {"app": "ledger", "block_id": 104},
    ),
    Damage(
        "a saved file with all state hashes",
        ("UPDATE vc.state_files SET content = '{}' WHERE block_id = 104",),
        {"app": "ledger", "block_id": 104},
        (restate,),
    ),
    # apps and builds
    Damage(
        "an app's magics",
        ("UPDATE vc.apps SET magics = ARRAY['xx'::bytea] WHERE name = 'notes'",),
        {"app": "notes", "table": "apps"},
    ),
    Damage(
        "an app's version",
        ("UPDATE vc.apps SET version = '2' WHERE name = 'notes'",),
        {"app": "notes", "table": "apps"},
    ),
    Damage(
        "an app's window",
        ("UPDATE vc.apps SET valid_window = 7 WHERE name = 'notes'",),
        {"app": "notes", "table": "apps"},
    ),
    Damage(
        "an app's first block",
        ("UPDATE vc.apps SET first_block_id = 100 WHERE name = 'notes'",),
        {"app": "notes"},
    ),
    Damage(
        "how far back an app's history reaches",
        ("UPDATE vc.apps SET history_from = 101 WHERE name = 'notes'",),
        {"app": "notes"},
        of="pruned",
    ),
    Damage(
        "what an app tracks",
        ("UPDATE vc.apps SET tracking = sha256('x') WHERE name = 'notes'",),
        {"app": "notes"},
    ),
    Damage(
        "the checkpoint that an app is said to have begun with",
        (
            """INSERT INTO vc.checkpoints SELECT 'notes', '1', 104, 'regtest', sha256('x'),
                substr(sha256('x'), 1, 16), sha256('x'), false, '{}', now(), true""",
        ),
        {"app": "notes", "block_id": 104},
    ),
]
