"""An app whose random blocks insert, update and delete rows, change keys, and swap unique values."""

import random
from typing import Any

from tests.support.unguarded import run_step
from virtualchain import App, Rejected, State
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE owners (name text PRIMARY KEY, rank integer NOT NULL UNIQUE);
    CREATE TABLE marks (
        place integer PRIMARY KEY, name text NOT NULL REFERENCES owners DEFERRABLE, note text, raw bytea
    );
"""

_STEPS: dict[str, tuple[Any, ...]] = {
    "add": (
        """INSERT INTO owners SELECT %(name)s, coalesce(max(rank), 0) + 1 FROM owners
            ON CONFLICT (name) DO NOTHING""",
        """INSERT INTO marks
            SELECT coalesce(max(place), 0) + 1, %(name)s, 'block ' || %(block)s::int, '\\x00ff' FROM marks""",
    ),
    "note": ("UPDATE marks SET note = coalesce(note, '') || '+' WHERE name = %(name)s",),
    "swap": (
        "UPDATE owners SET rank = -rank",
        "UPDATE owners SET rank = (SELECT max(-o.rank) + 1 + owners.rank FROM owners AS o)",
    ),
    "rename": (
        """UPDATE marks SET name = %(name)s || '!' WHERE name = %(name)s
            AND NOT EXISTS (SELECT FROM owners WHERE name = %(name)s || '!')""",
        """UPDATE owners SET name = name || '!' WHERE name = %(name)s
            AND NOT EXISTS (SELECT FROM owners WHERE name = %(name)s || '!')""",
    ),
    "drop": ("DELETE FROM marks WHERE name = %(name)s", "DELETE FROM owners WHERE name = %(name)s"),
    "flash": (
        "INSERT INTO owners VALUES ('flash', 1000000)",
        "UPDATE owners SET name = 'flash2' WHERE name = 'flash'",
        "DELETE FROM owners WHERE rank = 1000000",
    ),
    "same": ("UPDATE marks SET note = note", "DELETE FROM owners WHERE name = 'nobody'"),
    "again": (
        "DELETE FROM marks WHERE place = 1",
        "INSERT INTO marks SELECT 1, min(name), 'again', NULL FROM owners HAVING count(*) > 0",
    ),
}


def an_app(name: str = "plain", **options: Any) -> App:
    """Make the app; `options` are those of `App`."""
    app = App(name, magic=b"mv", projections=TABLES, **options)

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        for statement in _STEPS[op["do"]]:
            run_step(state, statement, {"name": op["name"], "block": block_id})

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        return op["do"] in _STEPS or Rejected("unknown")

    def parse(payload: bytes) -> dict[str, str]:
        do, _, key = payload.decode().partition(" ")
        return {"do": do, "name": key}

    app.add(b"o", parse=parse, check=check, commit=commit)
    return app


def story(node: FakeNode, seed: int, blocks: int) -> None:
    """Mine blocks of up to five random ops each, some of which the app rejects."""
    chance = random.Random(seed)
    verbs = [*_STEPS, "add", "add", "note", "mumble"]
    for _ in range(blocks):
        texts = [f"{chance.choice(verbs)} {chance.choice('abcde')}" for _ in range(chance.randrange(6))]
        node.mine([node.send(b"mvo" + text.encode()) for text in texts])
