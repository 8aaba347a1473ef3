"""An app with a table for each type of key, which random ops fill, and an independent reading of its rows."""

import json
import random
from hashlib import sha256
from typing import Any

import psycopg

from tests.support.row_tables import naive_root
from tests.support.unguarded import run_step
from virtualchain import App, State
from virtualchain.testing import FakeNode

KINDS: dict[str, tuple[str, list[str]]] = {
    "amounts": (
        "numeric",
        ["0", "1", "1.50", "-2.000", "10", "9", "9.0e2", "123456789012345678901234567890"],
    ),
    "bits": ("bit(3)", ["000", "101", "111"]),
    "codes": ('char(4) COLLATE "C"', ["a", "ab", "abcd", "", "é"]),
    "days": ("date", ["2020-01-31", "infinity", "0044-03-15 BC", "12020-01-01"]),
    "flags": ("boolean", ["t", "f"]),
    "ids": ("uuid", ["00000000-0000-0000-0000-000000000000", "A0EEBC999C0B4EF8BB6D6BB9BD380A11"]),
    "lists": ("integer[]", ["{}", "{1,2}", "{1,10}", "{NULL}", "{-1}"]),
    "moments": (
        "timestamptz",
        ["2020-01-01 00:00:00.5+02", "-infinity", "1999-12-31 23:00-01", "2020-01-01"],
    ),
    "moods": ("mood", ["fine", "so-so", "bad"]),
    "prices": ("numeric(10,2)", ["0", "1", "1.5", "-2", "10", "9.99"]),
    "ranks": ("rank", ["1", "2.50", "10"]),
    "raws": ("bytea", [r"\x", r"\x00", r"\x0001", r"\xff", r"\x7f", "text"]),
    "shorts": ('varchar(3) COLLATE "C"', ["", "a", "ab", "abc", "ab "]),
    "smalls": ("smallint", ["0", "-5", "9", "10", "100", "-10", "32767"]),
    "spans": ("interval", ["1 mon", "24:00:00", "1 year -1 day", "0"]),
    "texts": (
        'text COLLATE "C"',
        [
            "",
            "a",
            "ab",
            "abc",
            "b",
            "A",
            "é",
            "\uffee",
            "\U0001f600",
            "10",
            "9",
            " ",
            "\t\n",
            "\\",
            '"',
            "\x1f",
        ],
    ),
}
TABLES = "\n".join(
    [
        "CREATE TYPE mood AS ENUM ('fine', 'so-so', 'bad');",
        "CREATE DOMAIN rank AS numeric(6,1) CHECK (VALUE > 0);",
        *(
            f'CREATE TABLE {name} (key {kind} PRIMARY KEY, note text COLLATE "C");'
            for name, (kind, _) in KINDS.items()
        ),
        """CREATE TABLE pairs (note text COLLATE "C", a text COLLATE "C", b integer, PRIMARY KEY (b, a));
            CREATE TABLE nothing (key text COLLATE "C" PRIMARY KEY);""",
    ]
)


def app(name: str = "kinds", **options: Any) -> App:
    """Make the app: an op's number says which random rows it writes and deletes."""
    made = App(name, magic=b"ki", projections=TABLES, **options)

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        dice = random.Random(op["seed"])
        for _ in range(12):
            name = dice.choice(sorted(KINDS))
            key, note = dice.choice(KINDS[name][1]), dice.choice([None, f"block {block_id}"])
            _write(state, name, ["key"], [key], note, is_delete=dice.random() < 0.3)
            pair = [dice.choice(["a", "ab", "é", "b"]), dice.choice([1, 2, 10, -1])]
            _write(state, "pairs", ["a", "b"], pair, note, is_delete=dice.random() < 0.3)

    made.add(b"o", parse=lambda payload: {"seed": int(payload)}, commit=commit)
    return made


def _write(state: State, table: str, names: list[str], key: list[Any], note: Any, *, is_delete: bool) -> None:
    columns, places = ", ".join(names), ", ".join(["%s"] * len(key))
    if is_delete:
        condition = " AND ".join(f"{name} = %s" for name in names)
        run_step(state, f"DELETE FROM {table} WHERE {condition}", key)
        return
    statement = f"""INSERT INTO {table} ({columns}, note) VALUES ({places}, %s)
        ON CONFLICT ({columns}) DO UPDATE SET note = EXCLUDED.note"""
    run_step(state, statement, [*key, note])


def feed(node: FakeNode, seed: int, blocks: int) -> None:
    """Mine blocks of up to four ops each."""
    dice = random.Random(seed)
    for _ in range(blocks):
        node.mine([node.send(b"kio%d" % dice.randrange(10**6)) for _ in range(dice.randrange(5))])


def naive_state_root(connection: psycopg.Connection, block_id: int, app: str = "kinds") -> str:
    """Compute the state root as the protocol's page defines it, from the views as of a block.

    `connection` is a snapshot of views. Rows are sorted here, and their tree is the recursive one.
    """
    connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block_id)])
    tables = []
    for name in sorted([*KINDS, "pairs", "nothing"]):
        columns = {"pairs": ["note", "a", "b"], "nothing": ["key"]}.get(name, ["key", "note"])
        key = ["b", "a"] if name == "pairs" else ["key"]
        texts = ", ".join(
            f"CASE WHEN {column} IS NOT NULL THEN format('%s', {column}) END" for column in columns
        )
        rows = connection.execute(f"SELECT {texts} FROM {app}.{name}".encode()).fetchall()
        rows.sort(key=lambda row: [row[columns.index(column)].encode() for column in key])
        written = [
            json.dumps([name, *row], ensure_ascii=False, separators=(",", ":")).encode() for row in rows
        ]
        tables.append(
            {
                "columns": columns,
                "key": key,
                "name": name,
                "root": naive_root(written).hex(),
                "rows": len(rows),
            }
        )
    digests = connection.execute(
        """SELECT block_hash, consensus_hash, state_hash, genesis_hash
            FROM virtualchain.snapshots, virtualchain.deployment WHERE app = %s AND block_id = %s""",
        [app, block_id],
    ).fetchone()
    assert digests is not None
    names = ("block_hash", "consensus_hash", "state_hash", "genesis_hash")
    state = {"app": app, "block_id": block_id, "tables": tables, **dict(zip(names, digests, strict=True))}
    written_state = json.dumps(state, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return sha256(b"\x02" + written_state.encode()).hexdigest()
