"""The whole engine against a model in plain Python, with accepted, rejected and failing commands."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import psycopg
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.recorded_source import RecordedSource
from virtualchain import App, Rejected, State, StateEngine, consensus
from virtualchain.testing.database import DatabaseServer

FIRST = 7
LARGEST = 2**31 - 1
TABLES = """
    CREATE TABLE counters (name text PRIMARY KEY, value integer NOT NULL);
    CREATE TABLE marks (name text PRIMARY KEY, times integer NOT NULL);
"""

Command = tuple[str, str, int]
"""An action, the counter that it changes, and the amount."""

COMMANDS = st.tuples(
    st.sampled_from(["add", "drop", "undo", "fail", "mark", "twice", "unparsed"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from([1, -1, 2**30, LARGEST, 2**40]),
)
BLOCKS = st.lists(st.lists(COMMANDS, max_size=6), min_size=1, max_size=5)


def counter_app(name: str) -> App:
    """Make an app of counters and marks."""
    app = App(name, magic=b"pr", projections=TABLES, first_block_id=FIRST)

    def add(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO counters VALUES (%s, %s::numeric) "
            "ON CONFLICT (name) DO UPDATE SET value = counters.value + EXCLUDED.value",
            [op["name"], op["by"]],
        )

    def check(op: dict[str, Any], state: State) -> bool | Rejected:
        if op["do"] == "mark":
            state.execute(
                "INSERT INTO marks VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET times = marks.times + 1",
                [op["name"]],
            )
            return Rejected("marked")  # which undoes the mark
        known = state.one("SELECT value FROM counters WHERE name = %s", [op["name"]])
        return op["do"] != "drop" or known is not None

    def commit(op: dict[str, Any], state: State) -> Any:
        if op["do"] == "drop":
            state.execute("DELETE FROM counters WHERE name = %s", [op["name"]])
            return None
        add(op, state)
        if op["do"] == "undo":
            return False
        if op["do"] == "fail":
            state.execute("UPDATE counters SET value = value / 0")
        return [op, {**op, "by": 0}] if op["do"] == "twice" else None

    def parse(payload: bytes) -> dict[str, Any] | None:
        do, key, by = json.loads(payload)
        return None if do == "unparsed" else {"do": do, "name": key, "by": by}

    app.add(b"o", parse=parse, check=check, commit=commit, fields=["do", "name", "by"])
    return app


class Model:
    """What the app should do, implemented without a database."""

    def __init__(self, blocks: Sequence[Sequence[Command]]) -> None:
        self.counters: dict[str, int] = {}
        self.marks: dict[str, int] = {}  # what a rejecting check writes is undone
        self.rejections: list[tuple[int, int, str]] = []
        self.snapshots: list[tuple[int, str, str, str]] = []
        hashes: dict[int, str] = {}
        for block_id, commands in enumerate(blocks, start=FIRST):
            ops = [
                op for place, command in enumerate(commands) for op in self.apply(block_id, place, command)
            ]
            ops_hash = consensus.ops_hash(ops)
            prior = [hashes[item] for item in consensus.prior_block_ids(block_id, FIRST)]
            hashes[block_id] = consensus.consensus_hash(ops_hash, prior)
            self.snapshots.append((block_id, ops_hash, hashes[block_id], self.state_hash()))

    def apply(self, block_id: int, place: int, command: Command) -> list[bytes]:
        """Apply one command and return its serialized ops."""
        do, name, by = command
        step = {"unparsed": "parse", "mark": "check", "undo": "commit", "fail": "commit"}.get(do)
        if do == "drop":
            step = None if name in self.counters else "check"
            self.counters.pop(name, None)
        elif do in {"add", "twice"}:
            value = self.counters.get(name, 0) + by
            if by > LARGEST or not -LARGEST - 1 <= value <= LARGEST:
                step = "commit"
            else:
                self.counters[name] = value
        if step is not None:
            self.rejections.append((block_id, place + 1, step))
            return []
        texts = [str(amount) for amount in ([by, 0] if do == "twice" else [by])]
        return [f"o:{len(do)}:{do},1:{name},{len(text)}:{text}".encode() for text in texts]

    def state_hash(self) -> str:
        """Multiply the elements of all rows (docs/protocol/digests.md)."""
        modulus, product = 2**3072 - 1103717, 1
        rows = [["counters", name, str(value)] for name, value in self.counters.items()]
        rows += [["marks", name, str(times)] for name, times in self.marks.items()]
        for row in rows:
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            product *= int.from_bytes(hashlib.shake_256(text.encode()).digest(384), "little") % modulus
        return hashlib.sha256((product % modulus).to_bytes(384, "little")).hexdigest()


def source_of(blocks: Sequence[Sequence[Command]]) -> RecordedSource:
    """Return a source whose blocks hold a transaction for each command."""
    return RecordedSource(
        [
            {
                "height": block_id,
                "txs": [
                    {"txindex": place, "txid": f"{place:064x}", "nulldata": (b"pro" + text).hex()}
                    for place, text in enumerate((json.dumps(item).encode() for item in commands), start=1)
                ],
            }
            for block_id, commands in enumerate(blocks, start=FIRST)
        ]
    )


def read_app(url: str, app: str) -> tuple[list[Any], list[Any], dict[str, int], dict[str, int]]:
    """Read an app's snapshots, rejections and tables."""
    with psycopg.connect(url) as connection:
        snapshots = connection.execute(
            "SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots "
            "WHERE app = %s ORDER BY block_id",
            [app],
        ).fetchall()
        rejections = connection.execute(
            "SELECT block_id, txindex, step FROM virtualchain.rejections "
            "WHERE app = %s ORDER BY block_id, txindex",
            [app],
        ).fetchall()
        connection.execute("SELECT set_config('search_path', %s, false)", [app])
        counters: dict[str, int] = dict(connection.execute("SELECT name, value FROM counters").fetchall())
        marks: dict[str, int] = dict(connection.execute("SELECT name, times FROM marks").fetchall())
    return snapshots, rejections, counters, marks


@settings(deadline=None, max_examples=5)
@given(blocks=BLOCKS, restart=st.integers(0, 4))
@example(
    blocks=[[("add", "a", 1), ("undo", "a", 1), ("fail", "b", 1), ("mark", "a", 1), ("add", "a", LARGEST)]],
    restart=0,
)
@example(
    blocks=[[("add", "a", 1)], [("drop", "a", 1), ("twice", "a", -1)], [], [("drop", "b", 1)]], restart=1
)
@example(blocks=[[("add", "a", 1), ("drop", "a", 1), ("add", "a", 2)], [("add", "a", 1)]], restart=0)
def test_tables_and_hashes_are_those_of_a_model(
    database_server: DatabaseServer, blocks: list[list[Command]], restart: int
) -> None:
    """An app that resumes after a restart and one that joins at the end both match the model."""
    model = Model(blocks)
    expected = (model.snapshots, model.rejections, model.counters, model.marks)
    source, url = source_of(blocks), database_server.clone()
    try:
        with StateEngine(counter_app("one"), database=url, source=source, confirmations=0) as engine:
            engine.build(FIRST + restart)
        apps = [counter_app("one"), counter_app("two")]
        with StateEngine(*apps, database=url, source=source, confirmations=0) as engine:
            engine.build()
            assert not engine.halted()
        assert read_app(url, "one") == expected
        assert read_app(url, "two") == expected
    finally:
        database_server.drop(url)
