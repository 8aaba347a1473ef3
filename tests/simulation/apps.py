"""The apps of the simulations: tables with every trouble that undoing may meet, and states of their own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virtualchain import App, Rejected, State

MAGIC = b"sm"
EARLY_MAGIC = b"sn"
FIRST = 104
"""The first block of most apps: a few blocks behind the node's first 101, so that forks go below it."""
LATE = 118
"""The first block of an app that begins behind the others."""
EARLY = 102
"""The first block of the app that may join a tape which begins behind it, with a magic of its own."""

Meet = Callable[[str, str], None]
"""Told of each callback: the app, and the step. It may raise, which halts the app."""

TABLES = """
    CREATE TABLE owners (
        name text PRIMARY KEY, rank integer NOT NULL UNIQUE, seat integer UNIQUE DEFERRABLE, note text,
        CHECK (name <> '')
    );
    CREATE UNIQUE INDEX one_note ON owners (note) WHERE note IS NOT NULL;
    CREATE TABLE marks (
        place integer, owner text NOT NULL REFERENCES owners DEFERRABLE, "100% of 'it'" numeric,
        tags text[], about jsonb, PRIMARY KEY (owner, place)
    );
    CREATE TABLE tree (id integer PRIMARY KEY, parent integer REFERENCES tree DEFERRABLE, mark integer);
    CREATE TABLE seen (raw bytea PRIMARY KEY);
    CREATE TABLE spans (span int4range PRIMARY KEY, EXCLUDE USING gist (span WITH &&));
    CREATE TABLE tally (step text PRIMARY KEY, times bigint NOT NULL);
"""

_STEPS: dict[str, tuple[Any, ...]] = {
    "add": (
        """INSERT INTO owners SELECT %(name)s, coalesce(max(rank), 0) + 1, coalesce(max(seat), 0) + 1
            FROM owners ON CONFLICT (name) DO NOTHING""",
        """INSERT INTO marks SELECT coalesce(max(place), 0) + 1, %(name)s, %(n)s / 8.0,
            ARRAY[%(name)s::text, NULL], jsonb_build_object('n', %(n)s::integer) FROM marks""",
    ),
    "note": (
        """UPDATE owners SET note = %(name)s || mod(%(n)s, 3)::text WHERE name = %(name)s
            AND NOT EXISTS (SELECT FROM owners WHERE note = %(name)s || mod(%(n)s, 3)::text)""",
    ),
    "swap": (
        "UPDATE owners SET rank = -rank",
        "UPDATE owners SET rank = (SELECT max(-o.rank) + 1 + owners.rank FROM owners AS o)",
        "UPDATE owners SET seat = (SELECT max(seat) + 1 FROM owners) - seat",
    ),
    "rename": (
        """UPDATE marks SET owner = %(name)s || '!' WHERE owner = %(name)s
            AND NOT EXISTS (SELECT FROM owners WHERE name = %(name)s || '!')""",
        """UPDATE owners SET name = name || '!' WHERE name = %(name)s
            AND NOT EXISTS (SELECT FROM owners WHERE name = %(name)s || '!')""",
    ),
    "trade": (
        """UPDATE owners SET name = '?' WHERE name = %(name)s AND name <> 'a'
            AND EXISTS (SELECT FROM owners WHERE name = 'a')""",
        "UPDATE owners SET name = %(name)s WHERE name = 'a' AND EXISTS (SELECT FROM owners WHERE name = '?')",
        "UPDATE owners SET name = 'a' WHERE name = '?'",
    ),
    "drop": ("DELETE FROM marks WHERE owner = %(name)s", "DELETE FROM owners WHERE name = %(name)s"),
    "flash": (
        "INSERT INTO owners VALUES ('flash', 1000000)",
        "UPDATE owners SET name = 'flash2' WHERE name = 'flash'",
        "DELETE FROM owners WHERE rank = 1000000",
    ),
    "shift": ("UPDATE marks SET place = place + 1000", "UPDATE marks SET place = place - 999"),
    "same": ("UPDATE owners SET note = note", "UPDATE tree SET mark = mark"),
    "plant": (
        "INSERT INTO tree SELECT %(n)s, min(id), 0 FROM tree WHERE id <> %(n)s ON CONFLICT (id) DO NOTHING",
        "UPDATE tree SET parent = %(n)s WHERE id = (SELECT min(id) FROM tree) AND id <> %(n)s",
    ),
    "regrow": ("DELETE FROM tree WHERE id = %(n)s", "INSERT INTO tree VALUES (%(n)s, NULL, %(block)s)"),
    "fell": ("UPDATE tree SET parent = NULL WHERE parent = %(n)s", "DELETE FROM tree WHERE id = %(n)s"),
    "see": ("INSERT INTO seen VALUES (decode(md5(%(name)s || %(n)s::text), 'hex')) ON CONFLICT DO NOTHING",),
    "unsee": ("DELETE FROM seen WHERE raw < decode(md5(%(name)s), 'hex')",),
    "span": (
        "DELETE FROM spans WHERE span && int4range(%(n)s::integer, %(n)s::integer + 5)",
        "INSERT INTO spans VALUES (int4range(%(n)s::integer, %(n)s::integer + 5))",
    ),
    "slide": (
        "UPDATE spans SET span = int4range(lower(span) + 1000, upper(span) + 1000)",
        "UPDATE spans SET span = int4range(lower(span) - 999, upper(span) - 999)",
    ),
    "divide": ("INSERT INTO tree VALUES (99, NULL, 0) ON CONFLICT DO NOTHING", "SELECT 1 / 0"),
    "twice": ("INSERT INTO seen VALUES ('twice') ON CONFLICT DO NOTHING",),
    "undo": ("DELETE FROM seen", "INSERT INTO tree VALUES (98, NULL, 0)"),
    "fresh": ("INSERT INTO seen VALUES (convert_to(%(name)s, 'UTF8')) ON CONFLICT DO NOTHING",),
}
VERBS = (*_STEPS, "refuse")


def table_app(name: str, meet: Meet, first: int = FIRST, magic: bytes = MAGIC) -> App:  # noqa: C901 - many small callbacks
    """Make a SQL app: swaps, key changes, deferred keys, rows that come and go, writes in every callback."""
    app = App(name, magic=magic, projections=TABLES, first_block_id=first, valid_transaction_window=8)

    def count(state: State, step: str) -> None:
        state.execute(
            "INSERT INTO tally VALUES (%s, 1) ON CONFLICT (step) DO UPDATE SET times = tally.times + 1",
            [step],
        )

    def parse(payload: bytes) -> dict[str, Any] | None:
        meet(name, "parse")
        verb, owner, number = payload.decode().split(" ", 2)
        return {"verb": verb, "name": owner, "n": int(number)}

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        meet(name, "check")
        count(state, "check")
        if op["verb"] == "fresh":
            return state.is_fresh(op["name"]) or Rejected("stale")
        return op["verb"] in _STEPS or Rejected("unknown")

    def commit(op: dict[str, Any], state: State, block_id: int) -> Any:
        meet(name, "commit")
        for statement in _STEPS[op["verb"]]:
            state.execute(statement, {"name": op["name"], "n": op["n"], "block": block_id})
        meet(name, "commit, behind its statements")
        if op["verb"] == "undo":
            return False
        return [op, {**op, "n": 0}] if op["verb"] == "twice" else None

    def scan(ops: list[dict[str, Any]], state: State) -> None:
        meet(name, "scan")
        if ops:
            count(state, "scan")

    def final(ops: list[dict[str, Any]], state: State, block_id: int) -> None:
        meet(name, "final")
        if block_id % 5 == 0:
            state.execute("UPDATE owners SET note = NULL WHERE name = (SELECT max(name) FROM owners)")

    def proceed(block_id: int, consensus_hash: str) -> None:
        meet(name, "continue")

    app.add(b"o", parse=parse, check=check, commit=commit)
    app.scan(scan)
    app.final(final)
    app.proceed(proceed)
    return app


class Tally:
    """An app that counts texts in a dict of its own, which it saves."""

    name = "tally"

    def __init__(self, meet: Meet) -> None:
        self._meet = meet

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return self.name

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return FIRST

    def get_magic_bytes(self) -> bytes:
        """Return the magic."""
        return MAGIC

    def get_opcodes(self) -> str:
        """Return the opcode."""
        return "o"

    def get_valid_transaction_window(self) -> int:
        """Use no consensus hashes."""
        return 0

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Load the saved counts."""
        self._meet(self.name, "load state")
        counts: dict[str, int] = {} if filename is None else json.loads(Path(filename).read_text())
        return counts

    def db_parse(self, *arguments: Any) -> dict[str, str]:
        """Parse a text."""
        self._meet(self.name, "parse")
        return {"verb": arguments[2].decode().split(" ")[0]}

    def db_check(self, *arguments: Any) -> bool:
        """Refuse every seventh of a kind, and what no tables take."""
        self._meet(self.name, "check")
        op, counts = arguments[2], arguments[6]
        return op["verb"] in VERBS and counts.get(op["verb"], 0) % 7 != 6

    def db_commit(self, *arguments: Any) -> dict[str, Any]:
        """Count it."""
        self._meet(self.name, "commit")
        counts, op = arguments[5], arguments[2]
        counts[op["verb"]] = counts.get(op["verb"], 0) + 1
        return {**op, "count": counts[op["verb"]]}

    def db_final(self, block_id: int, ops: Any, counts: dict[str, int]) -> None:
        """Return the refused another chance with the next block."""
        self._meet(self.name, "final")
        for verb, count in counts.items():
            counts[verb] = count + (count % 7 == 6)

    def db_save(self, _: int, filename: str, counts: dict[str, int]) -> None:
        """Save the counts."""
        self._meet(self.name, "save")
        Path(filename).write_text(json.dumps(counts, sort_keys=True))


class Forgetful(Tally):
    """Keeps the same state and cannot load it: the engine judges its blocks again."""

    name = "forgetful"

    def get_db_state(self) -> dict[str, int]:  # type: ignore[override]
        """Begin with nothing."""
        self._meet(self.name, "load state")
        return {}


APPS = ("plain", "late", "tally", "forgetful", "early")


def make_apps(meet: Meet, names: tuple[str, ...] = APPS) -> list[Any]:
    """Make the apps of these names."""
    made: dict[str, Callable[[], Any]] = {
        "plain": lambda: table_app("plain", meet),
        "late": lambda: table_app("late", meet, LATE),
        "early": lambda: table_app("early", meet, EARLY, EARLY_MAGIC),
        "tally": lambda: Tally(meet),
        "forgetful": lambda: Forgetful(meet),
    }
    return [made[name]() for name in names]
