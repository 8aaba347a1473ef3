"""A deployment of two small apps, one with tables and one with a state of its own, that tests can damage."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from virtualchain import App, Rejected, State
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

Lie = Callable[[psycopg.Connection], None]
"""A damage that is computed from what the database holds."""
FIRST = 102
"""The block of the first inputs: a new fake node is one block below it."""


def notes() -> App:
    """Make an app that keeps texts by key, and rejects at each step."""
    app = App(
        "notes",
        magic=b"no",
        first_block_id=FIRST,
        projections="""CREATE TABLE notes (key text PRIMARY KEY, text text NOT NULL);
            CREATE TABLE texts (text text PRIMARY KEY);""",
    )

    def parse(payload: bytes) -> dict[str, Any]:
        verb, key, text = payload.decode().split(" ")
        return {"verb": verb, "key": key, "text": text, "length": len(text)}

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        return op["text"] != "no" or Rejected("we do not take no")

    def commit(op: dict[str, Any], state: State) -> bool | None:
        values = [op["key"], op["text"]]
        if op["verb"] == "add":
            state.execute("INSERT INTO notes VALUES (%s, %s)", values)
        elif op["verb"] == "set":
            state.execute("UPDATE notes SET text = %s WHERE key = %s", values[::-1])
        else:
            state.execute("DELETE FROM notes WHERE key = %s", values[:1])
        state.execute("INSERT INTO texts VALUES (%s) ON CONFLICT (text) DO NOTHING", values[1:])
        return False if op["text"] == "bad" else None

    app.add(b"t", parse=parse, check=check, commit=commit, fields=["verb", "key", "text", "length"])
    return app


class Ledger:
    """An app that counts its inputs in a file of its own."""

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "ledger"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return FIRST

    def get_magic_bytes(self) -> str:
        """Return the magic."""
        return "le"

    def get_opcodes(self) -> bytes:
        """Return the opcode."""
        return b"c"

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Make or load the counts."""
        return {} if filename is None else json.loads(Path(filename).read_text())

    def db_parse(self, *arguments: Any) -> dict[str, Any]:
        """Parse a name."""
        return {"name": arguments[2].decode()}

    def db_check(self, *arguments: Any) -> bool:
        """Accept everything."""
        return True

    def db_commit(self, *arguments: Any) -> None:
        """Count a name."""
        op, counts = arguments[2], arguments[5]
        counts[op["name"]] = counts.get(op["name"], 0) + 1

    def db_save(self, block_id: int, filename: str, db_state: dict[str, int]) -> None:
        """Write the counts."""
        Path(filename).write_text(json.dumps(db_state, sort_keys=True))


def feed(node: FakeNode) -> None:
    """Mine inputs of both apps, in blocks 102 to 106, and two blocks without any."""
    for texts in (
        (b"not" + b"add a one", b"not" + b"add b two", b"not" + b"add c no", b"lec" + b"ann"),
        (b"not" + b"set a three", b"not" + b"broken \xff"),
        (b"not" + b"del b gone", b"not" + b"add c five", b"lec" + b"bob"),
        (b"not" + b"add d six", b"not" + b"set d bad"),
        (b"not" + b"set d seven", b"noz" + b"another opcode"),
    ):
        node.mine([node.send(text) for text in texts])
    node.mine(n=2)


def damage(server: EmbeddedServer, database: str, *statements: str, lies: Sequence[Lie] = ()) -> None:
    """Run statements, then functions, as a superuser for whom no trigger and no foreign key is checked."""
    with server.connect_superuser(database) as connection, connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            changed = connection.execute(statement.encode())
            assert changed.rowcount != 0, f"nothing was damaged by {statement}"
        for lie in lies:
            lie(connection)
