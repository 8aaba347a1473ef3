"""Ten apps on one deployment over a generated chain: each ends as it does alone.

They are the notary, the name registry and eight made-up apps, some of which share a magic. One app halts on
purpose and is resumed, one joins when half of the chain is processed, and one is swapped to a new build.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.generated import GeneratedChain
from tests.support.tables import deployment
from virtualchain import App, State, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.engine.compare import compare
from virtualchain.engine.options import Options
from virtualchain.engine.versions import build_beside, drop, swap
from virtualchain.examples import names, notary
from virtualchain.reading import views
from virtualchain.testing.database import DatabaseServer

FIRST = 101
HALF = 131
"""The inputs are in blocks 130 to 136."""
MAGICS: tuple[Any, ...] = (b"id", b"id", b"i", b"id", (b"id:", b"id;"), b"id", b"id+", b"id?")


class Counting:
    """A source that counts how often each block is fetched."""

    def __init__(self, file: Path) -> None:
        self._source = open_blocks(file)
        self.fetched: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block, and count it."""
        self.fetched[block_hash] += 1
        return self._source.raw_block(block_hash)


def made_up(number: int, *, broken_at: int | None = None) -> App:
    """Create one of eight apps, which differ in their opcodes and tables."""
    app = App(
        f"app{number}",
        magic=MAGICS[number],
        first_block_id=FIRST + 4 * number,
        projections=f"""
            CREATE TABLE owners (
                owner text COLLATE "C" PRIMARY KEY, n integer NOT NULL, last{number} integer
            );
            CREATE TABLE seen (opcode integer PRIMARY KEY, size bigint NOT NULL, CHECK (size >= 0));
        """,
    )

    def parse(payload: bytes, opcode: bytes, senders: list[dict[str, Any]]) -> dict[str, Any] | None:
        if len(payload) % 8 == number % 7 + 1:
            return None
        return {"owner": senders[0]["script_pubkey"], "code": opcode[0], "size": len(payload)}

    def check(op: dict[str, Any], state: State, block_id: int) -> bool:
        if broken_at is not None and block_id >= broken_at:
            raise RuntimeError("on purpose")
        row = state.one("SELECT n FROM owners WHERE owner = %s", [op["owner"]])
        return row is None or row["n"] < 2 + number

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        state.execute(
            "INSERT INTO owners VALUES (%(owner)s, 1, %(block)s) ON CONFLICT (owner) "
            "DO UPDATE SET n = owners.n + 1, last" + str(number) + " = %(block)s",
            {**op, "block": block_id},
        )
        state.execute(
            "INSERT INTO seen VALUES (%(code)s, %(size)s) ON CONFLICT (opcode) "
            "DO UPDATE SET size = seen.size + EXCLUDED.size",
            op,
        )
        state.execute("DELETE FROM seen WHERE size > 1000")

    for code in range(256) if number in {2, 4, 6, 7} else range(number % 2, 256, 2):
        app.add(bytes([code]), parse=parse, check=check, commit=commit)
    return app


def ten(*, broken: bool = False) -> list[Any]:
    """Create all ten; with `broken`, app 3 fails from the middle of the chain on."""
    registry = names.make_app(names.regtest(first_block=FIRST, initial_snapshots={}))
    made = [made_up(number, broken_at=HALF if broken and number == 3 else None) for number in range(8)]
    return [notary.app, registry, *made]


@pytest.fixture
def outcome(database_server: DatabaseServer, generated: GeneratedChain) -> Iterator[Callable[..., Any]]:
    """Return a function that reads an app's results, from a database or from a run of the app alone."""
    urls: list[str] = []

    def read(app: Any, url: str | None = None) -> dict[str, list[str]]:
        if url is None:
            urls.append(database_server.clone())
            url = urls[-1]
            with StateEngine(
                app, database=url, source=open_blocks(generated.file), confirmations=1
            ) as engine:
                engine.build()
        contract = read_contract(app)
        everything = deployment(url)
        kept = {name: rows for name, rows in everything.items() if name.startswith(f"{contract.schema}.")}
        with psycopg.connect(url) as connection:
            for view in ("ops", "rejections", "snapshots"):
                statement = f"SELECT format('%%s', v) FROM virtualchain.{view} AS v WHERE app = %s ORDER BY 1"
                kept[view] = [row[0] for row in connection.execute(statement.encode(), [contract.name])]
        return kept

    yield read
    for url in urls:
        database_server.drop(url)


def test_ten_apps_on_one_log(
    generated: GeneratedChain, database_url: str, outcome: Callable[..., Any], tmp_path: Path
) -> None:
    """Each app has the tables, history and hashes of its own run, and no block is fetched twice."""
    source = Counting(generated.file)
    settings: dict[str, Any] = {"database": database_url, "source": source, "confirmations": 1}
    late = made_up(7)
    early = [app for app in ten(broken=True) if app.name != late.name]
    with StateEngine(*early, **settings) as engine:
        engine.build(HALF + 1)
        assert list(engine.halted()) == ["app3"]
    once = source.fetched.copy()
    assert max(once.values()) <= 2  # the first block is also fetched for its header

    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.apps SET status = 'running', error = NULL WHERE name = 'app3'")
    with StateEngine(*ten(), **settings) as engine:
        assert engine.build() == generated.tip - 1
        assert not engine.halted()
    again = source.fetched - once
    joined = {generated.hash(block_id) for block_id in range(FIRST + 28, HALF + 2)}
    assert sum(again[block] for block in joined) == len(joined)  # the blocks that app 7 missed, once each

    build_beside(database_url, read_contract(made_up(5)), "second", Options(state_folder=tmp_path))
    with views.snapshot(database_url) as connection:
        comparison = compare(connection, "app5", "second")
    assert (comparison.difference, comparison.row) == (None, None)
    swap(database_url, "app5", "second")
    drop(database_url, "app5", "1")

    with psycopg.connect(database_url) as connection:
        counted = connection.execute("SELECT app, count(*) FROM virtualchain.ops GROUP BY 1").fetchall()
    assert len(counted) >= 7, f"the chain should have ops for most of them: {counted}"
    for app in ten():
        assert outcome(app, database_url) == outcome(app), app.name
