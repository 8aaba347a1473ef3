"""The apps of the simulations, with tables that are hard to undo or an opaque state, and their ops."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.support.unguarded import run_step
from virtualchain import App, Rejected, State

MAGIC = b"sm"
EARLY_MAGIC = b"sn"
FIRST = 104
"""The first block of most apps, a few blocks after the node's first 101, so that forks can go below it."""
LATE = 118
"""The first block of an app that starts later."""
EARLY = 102
"""The first block of an app with a magic of its own, which may join a tape that starts after it."""

OnStep = Callable[[str], None]
"""Called by each callback with its step; an error that it raises halts the app."""

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


def table_app(name: str, on_step: OnStep, first: int = FIRST, magic: bytes = MAGIC) -> App:  # noqa: C901 - many small callbacks
    """Make a SQL app with swaps, key changes, deferred keys, brief rows and writes in every callback."""
    app = App(name, magic=magic, projections=TABLES, first_block_id=first, valid_transaction_window=8)

    def count(state: State, step: str) -> None:
        state.execute(
            "INSERT INTO tally VALUES (%s, 1) ON CONFLICT (step) DO UPDATE SET times = tally.times + 1",
            [step],
        )

    def parse(payload: bytes) -> dict[str, Any] | None:
        on_step("parse")
        verb, owner, number = payload.decode().split(" ", 2)
        return {"verb": verb, "name": owner, "n": int(number)}

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        on_step("check")
        count(state, "check")
        if op["verb"] == "fresh":
            return state.is_fresh(op["name"]) or Rejected("stale")
        return op["verb"] in _STEPS or Rejected("unknown")

    def commit(op: dict[str, Any], state: State, block_id: int) -> Any:
        on_step("commit")
        for statement in _STEPS[op["verb"]]:
            run_step(state, statement, {"name": op["name"], "n": op["n"], "block": block_id})
        on_step("commit, after its statements")
        if op["verb"] == "undo":
            return False
        return [op, {**op, "n": 0}] if op["verb"] == "twice" else None

    def scan(ops: list[dict[str, Any]], state: State) -> None:
        on_step("scan")
        if ops:
            count(state, "scan")

    def final(ops: list[dict[str, Any]], state: State, block_id: int) -> None:
        on_step("final")
        if block_id % 5 == 0:
            run_step(state, "UPDATE owners SET note = NULL WHERE name = (SELECT max(name) FROM owners)", None)

    def proceed(block_id: int, consensus_hash: str) -> None:
        on_step("continue")

    app.add(b"o", parse=parse, check=check, commit=commit)
    app.add(b"f", parse=parse, check=check, commit=commit, requires_fresh_hash="name")
    app.scan(scan)
    app.final(final)
    app.proceed(proceed)
    return app


def riding_app(on_step: OnStep) -> App:
    """Make an app whose numbers ride on outputs: on the first that is not an OP_RETURN, or nowhere."""
    app = App(
        "riding",
        magic=MAGIC,
        projections="""
            CREATE TABLE rides (txid text, vout integer, number bigint NOT NULL, PRIMARY KEY (txid, vout));
            CREATE TABLE heights (height bigint PRIMARY KEY, spent bigint NOT NULL);
        """,
        first_block_id=FIRST,
        tracks="rides",
        needs=("height",),
    )

    class Spend:
        def parse(self, payload: bytes | None, outputs: list[dict[str, Any]]) -> dict[str, Any]:
            on_step("parse")
            place = (output["n"] for output in outputs if not output["script_pubkey"].startswith("6a"))
            return {"number": len(payload or b""), "to": next(place, None)}

        def commit(self, op: dict[str, Any], state: State, txid: str) -> None:
            on_step("commit")
            number, rides = op["number"], state.table("rides")
            for n in op["virtualchain_spends"]:
                sender = op["virtualchain_senders"][n]
                state.table("heights").add(sender["height"], spent=1)
                for row in state.tracked(sender["txid"], sender["vout"]):
                    number += row["number"]
                    if number % 3:
                        rides.delete((row["txid"], row["vout"]))
                    else:
                        state.execute("DELETE FROM rides WHERE txid = %(txid)s AND vout = %(vout)s", row)
            if op["to"] is not None:
                rides.put({"txid": txid, "vout": op["to"], "number": number})
            on_step("commit, after its statements")

    app.opcode(b"o")(Spend)
    app.spend(Spend)
    return app


class Tally:
    """An app that counts ops by verb, in a dict that it saves."""

    name = "tally"

    def __init__(self, on_step: OnStep) -> None:
        self._on_step = on_step

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
        """Return S; the app uses no consensus hashes."""
        return 0

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Load the saved counts."""
        self._on_step("load state")
        counts: dict[str, int] = {} if filename is None else json.loads(Path(filename).read_text())
        return counts

    def db_parse(self, *arguments: Any) -> dict[str, str]:
        """Parse the verb."""
        self._on_step("parse")
        return {"verb": arguments[2].decode().split(" ")[0]}

    def db_check(self, *arguments: Any) -> bool:
        """Reject unknown verbs, and every seventh op of a verb."""
        self._on_step("check")
        op, counts = arguments[2], arguments[6]
        return op["verb"] in VERBS and counts.get(op["verb"], 0) % 7 != 6

    def db_commit(self, *arguments: Any) -> dict[str, Any]:
        """Count the op."""
        self._on_step("commit")
        counts, op = arguments[5], arguments[2]
        counts[op["verb"]] = counts.get(op["verb"], 0) + 1
        return {**op, "count": counts[op["verb"]]}

    def db_final(self, block_id: int, ops: Any, counts: dict[str, int]) -> None:
        """Accept rejected verbs again from the next block on."""
        self._on_step("final")
        for verb, count in counts.items():
            counts[verb] = count + (count % 7 == 6)

    def db_save(self, _: int, filename: str, counts: dict[str, int]) -> None:
        """Save the counts."""
        self._on_step("save")
        Path(filename).write_text(json.dumps(counts, sort_keys=True))


class Forgetful(Tally):
    """Has the same state but cannot load it, so the engine re-evaluates its blocks."""

    name = "forgetful"

    def get_db_state(self) -> dict[str, int]:  # type: ignore[override]
        """Create an empty state."""
        self._on_step("load state")
        return {}


APPS = ("plain", "late", "tally", "forgetful", "early", "riding")


def make_apps(on_step: OnStep, names: tuple[str, ...] = APPS) -> list[Any]:
    """Make the apps with these names."""
    factories: dict[str, Callable[[], Any]] = {
        "plain": lambda: table_app("plain", on_step),
        "late": lambda: table_app("late", on_step, LATE),
        "early": lambda: table_app("early", on_step, EARLY, EARLY_MAGIC),
        "riding": lambda: riding_app(on_step),
        "tally": lambda: Tally(on_step),
        "forgetful": lambda: Forgetful(on_step),
    }
    return [factories[name]() for name in names]


_HOSTILE = (
    b"\x00",
    b"\xff\xfe \x00 \x00",
    b"add \xed\xa0\x80 1",
    b"add a\x00 1",
    b"add a " + b"9" * 300,
    b"add a 99999999999",
    b"note a -1",
    b"swap",
    b"plant  ",
    b"span ' 2147483647",
    b"refuse '); DROP TABLE owners; -- 1",
    "add \U0001f468\u200d\U0001f469 3".encode(),
    b"add %s 4",
)


def random_payloads(dice: Random, block_id: int, most: int = 4, fresh: str | None = None) -> list[bytes]:
    """Return the payloads of one block: ops that touch few rows, and now and then a hostile one.

    Below `FIRST` they are for the early app only. `fresh` is a consensus hash that ops may embed.
    """
    magics = (EARLY_MAGIC,) if block_id < FIRST else (MAGIC, MAGIC, EARLY_MAGIC)
    return [
        dice.choice(magics) + _with_opcode(_random_op(dice, fresh))
        for _ in range(dice.choice((0, 1, 1, 2, 3, most)))
    ]


def _with_opcode(op: bytes) -> bytes:
    """Have the engine look at some of the hashes that must be fresh, and the app at the others."""
    is_engine_s = op.startswith(b"fresh ") and op[-1] % 2
    return (b"f" if is_engine_s else b"o") + op


def _random_op(dice: Random, fresh: str | None) -> bytes:
    if dice.random() < 0.1:
        return dice.choice(_HOSTILE)
    verb = dice.choice(VERBS)
    name = fresh if verb == "fresh" and fresh is not None else dice.choice("abcdef")
    return f"{verb} {name} {dice.randrange(40)}".encode()
