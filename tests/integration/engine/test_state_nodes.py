"""State nodes: deployments whose source is another deployment's tape."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, Final

import psycopg
import pytest

from tests.support.rides import RidesModel, rides_app
from virtualchain import App, State, StateEngine
from virtualchain.audit.verify import verify
from virtualchain.store import upstream
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Clone = Callable[..., str]
FIRST: Final = 102
DIGESTS: Final = (
    "SELECT block_id, block_hash, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots "
    "WHERE app = %s ORDER BY 1"
)
TAPE: Final = (
    "SELECT block_id, txindex, txid, raw, spent, spent_at, fee, senders::text, branch, coinbase, "
    "coinbase_branch FROM virtualchain.inputs WHERE %s::bytea = ANY (magics) OR %s = ANY (tracked_by) "
    "ORDER BY 1, 2"
)
NOTES: Final = "CREATE TABLE notes (block_id integer, vtxindex integer, note text, PRIMARY KEY (1, 2))"


def noting(name: str, magic: bytes, **options: Any) -> App:
    """Make an app that notes every text, with all that is known of its senders."""
    app = App(name, magic=magic, projections=NOTES.replace("1, 2", "block_id, vtxindex"), **options)

    def commit(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
        note = f"{op['text']} {op['virtualchain_senders']}"
        state.execute("INSERT INTO notes VALUES (%s, %s, %s)", [block_id, vtxindex, note])

    app.add(b"s", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    return app


PLAIN: Final = noting("plain", b"pl", first_block_id=FIRST)
OTHER: Final = noting("other", b"ot", first_block_id=FIRST)
HEIGHTS: Final = noting("heights", b"he", first_block_id=FIRST, needs=("height",))
RIDES: Final = rides_app("rides", first_block_id=FIRST)
MAGICS: Final = {"plain": b"pl", "other": b"ot", "heights": b"he", "rides": b"ri"}


def rows(url: str, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run a query in a session of its own."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), parameters).fetchall()


def execute(url: str, statement: str, parameters: Sequence[Any] = ()) -> None:
    """Change a database behind everybody's back."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode(), parameters)


def state(url: str, app: App) -> list[object]:
    """Read an app's digests and tables, and the inputs that the tape has for it."""
    tables = ("rides", "moves") if app is RIDES else ("notes",)
    content = [rows(url, f"SELECT t::text FROM {app.name}.{table} AS t ORDER BY 1") for table in tables]
    return [rows(url, DIGESTS, [app.name]), content, rows(url, TAPE, [MAGICS[app.name], app.name])]


@pytest.fixture
def clone(database_server: DatabaseServer) -> Iterator[Clone]:
    """Return a function that makes a database, which may be a copy of another one."""
    made: list[str] = []

    def make(of: str | None = None) -> str:
        made.append(database_server.clone() if of is None else database_server.create())
        if of is not None:
            source, copy = (url.rpartition("/")[2] for url in (of, made[-1]))
            with psycopg.connect(database_server.url, autocommit=True) as connection:
                connection.execute(f'DROP DATABASE "{copy}"'.encode())
                connection.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{source}"'.encode())
        return made[-1]

    yield make
    for url in made:
        database_server.drop(url)


class Chain:
    """A node's chain with inputs for all apps in every fifth block; `model` mines those of `RIDES`."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self._states = {node.height: RidesModel(7)}

    def mine(self, count: int) -> None:
        """Mine blocks."""
        model = deepcopy(self._states[max(self._states)])
        last = self.node.height + count
        while self.node.height < last:
            if self.node.height % 5 == 0 or self.node.height == last - 2:
                node = self.node
                node.mine(
                    [node.send(magic + b"s%d" % node.height, sender="bob") for magic in (b"pl", b"ot", b"he")]
                )
                model.block(node)
                self._states[node.height] = deepcopy(model)
            else:
                self.node.mine()

    def fork(self, depth: int) -> None:
        """Replace the last blocks by one more."""
        fork = self.node.height - depth
        self._states = {height: model for height, model in self._states.items() if height <= fork}
        self.node.reorg(depth, 1)
        self.mine(depth)


def cut(url: str) -> None:
    """End all sessions that read a database, as a restart of the server does."""
    execute(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name ~ ' reader '",
    )


def test_state_nodes_equal_one_deployment(
    fake_node: FakeNode, clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over forks of 1 to 200 blocks and lost connections, tables, hashes and tapes are those of one node.

    The third one follows the tape of the first.
    """
    monkeypatch.setattr(upstream, "_BLOCKS", 40)
    monkeypatch.setattr(upstream, "_ALLOWED", 20_000)
    chain = Chain(fake_node)
    chain.mine(215)
    first, one, two, three, full = (clone() for _ in range(5))
    options: dict[str, Any] = {"verify": "merkle", "confirmations": 0}
    with ExitStack() as stack:

        def run(*apps: App, at: str, source: str, **more: Any) -> StateEngine:
            engine = StateEngine(*apps, database=at, source=source, **options, **more)
            return stack.enter_context(engine)

        crawler = run(RIDES, at=first, source=fake_node.url, keeps=[PLAIN, OTHER, HEIGHTS])
        crawler.build()
        engines = [
            crawler,
            run(PLAIN, RIDES, at=one, source=first),
            run(OTHER, HEIGHTS, at=two, source=first),
            run(RIDES, at=three, source=one),
        ]
        for depth in (0, 1, 2, 6, 200):
            if depth:
                chain.fork(depth)
            for engine in engines:
                assert engine.build() == fake_node.height
            cut(first)
            cut(one)
    with StateEngine(PLAIN, OTHER, HEIGHTS, RIDES, database=full, source=fake_node.url, **options) as engine:
        engine.build()
    for url, app in ((one, PLAIN), (one, RIDES), (two, OTHER), (two, HEIGHTS), (three, RIDES)):
        assert state(url, app) == state(full, app)
    digests, (notes,), tape = state(full, HEIGHTS)
    assert digests
    assert notes
    assert all("'height'" in note for (note,) in notes)
    assert all(row[5] is not None and row[8] is not None for row in tape)
    assert [row[0] for row in rows(one, "SELECT max(depth) FROM virtualchain.reorgs")] == [200]
    assert rows(first, "SELECT name FROM virtualchain.apps") == [("rides",)]
    for url in (first, one, two, three):
        assert verify(url).faults == []
