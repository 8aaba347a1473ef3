"""State nodes: deployments whose source is another deployment's tape."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from copy import deepcopy
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.pooler import pooled
from tests.support.rides import RidesModel, rides_app
from virtualchain import App, State, StateEngine
from virtualchain.audit.verify import verify
from virtualchain.bitcoin.networks import network
from virtualchain.engine.options import Progress
from virtualchain.engine.prune import prune
from virtualchain.errors import NodeError, NodeUnavailable, StoreError, UpstreamLacks, UsageError
from virtualchain.store import upstream
from virtualchain.store.database import connect_migrator
from virtualchain.store.roles import grant_reader
from virtualchain.store.upstream import UpstreamSource
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


def state(url: str, app: App) -> list[Any]:
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
    """A node's chain with inputs for all apps in every twelfth block; `model` mines those of `RIDES`."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self._states = {node.height: RidesModel(7)}

    def mine(self, count: int) -> None:
        """Mine blocks."""
        model = deepcopy(self._states[max(self._states)])
        last = self.node.height + count
        while self.node.height < last:
            if self.node.height % 12 == 0 or self.node.height == last - 2:
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


LOST: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def cut(url: str) -> None:
    """End all sessions that read a database, as a restart of the server does."""
    execute(url, f"{LOST} AND application_name ~ ' reader '")


def test_state_nodes_equal_one_deployment(
    fake_node: FakeNode, clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over forks of 1 to 200 blocks and lost connections, tables, hashes and tapes are those of one node.

    The third one follows the tape of the first.
    """
    monkeypatch.setattr(upstream, "_BLOCKS", 40)
    monkeypatch.setattr(upstream, "_ALLOWED", 1_000)
    chain = Chain(fake_node)
    chain.mine(203)
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
        for depth in (0, 1, 6, 200):
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


@pytest.fixture
def small(fake_node: FakeNode, clone: Clone) -> str:
    """Make an upstream that keeps two apps' inputs: one in each of 4 blocks, two in the last one."""
    for n in range(4):
        fake_node.mine(
            [fake_node.send(b"pls%d" % n), *([fake_node.send(b"pls!", sender="bob")] if n == 3 else ())]
        )
        fake_node.mine([fake_node.send(b"ots%d" % n)])
    url = clone()
    keep(fake_node, url, PLAIN, OTHER)
    return url


def keep(node: FakeNode, url: str, *apps: App, **options: Any) -> None:
    """Bring a tape to the node's tip."""
    settings = {"confirmations": 0, "verify": "merkle", **options}
    with StateEngine(keeps=apps, database=url, source=node.url, **settings) as engine:
        engine.build()


def follow(url: str, source: str, *apps: App, **options: Any) -> int:
    """Bring a state node to the tip of its upstream."""
    with StateEngine(*apps, database=url, source=source, **options) as engine:
        return engine.build()


SWAPPED: Final = """
UPDATE vc.inputs SET txindex = txindex + 10 WHERE block_id = 108;
UPDATE vc.inputs SET txindex = 23 - txindex WHERE block_id = 108
"""
MOVED: Final = """
UPDATE vc.inputs SET block_id = 107
WHERE block_id = 108 AND txindex = (SELECT max(txindex) FROM vc.inputs WHERE block_id = 108)
"""


@pytest.mark.parametrize(
    ("lie", "level", "complaint"),
    [
        (
            "UPDATE vc.inputs SET raw = set_byte(raw, 4, get_byte(raw, 4) + 1) WHERE block_id = 108",
            "off",
            "108",
        ),
        ("UPDATE vc.inputs SET raw = raw || '\\x00' WHERE block_id = 108", "off", "block 108"),
        (
            "UPDATE vc.inputs SET raw = set_byte(raw, octet_length(raw) - 1, 1) WHERE block_id = 108",
            "merkle",
            "not shown",
        ),
        (SWAPPED, "merkle", "block 108 .* is not shown to hold transaction"),
        (MOVED, "merkle", "block 107 .* is not shown to hold transaction"),
        ("UPDATE vc.inputs SET branch = set_byte(branch, 3, 0) WHERE block_id = 108", "headers", "not shown"),
        (
            "UPDATE vc.coinbases SET coinbase = set_byte(coinbase, 3, 1) WHERE block_id = 108",
            "headers",
            "not shown",
        ),
        ("UPDATE vc.inputs SET branch = NULL WHERE block_id = 108", "merkle", "keeps no Merkle branch"),
        ("UPDATE vc.inputs SET spent = '\\x00' WHERE block_id = 108", "off", "block 108"),
        (
            "UPDATE vc.inputs SET spent = set_byte(spent, 14, get_byte(spent, 14) # 1) WHERE block_id = 108",
            "off",
            "cannot spend",
        ),
        ("UPDATE vc.blocks SET header = set_byte(header, 70, 1) WHERE block_id = 108", "headers", "108"),
    ],
)
def test_a_lying_upstream(small: str, clone: Clone, lie: str, level: str, complaint: str) -> None:
    """What a level of verify checks is refused, before anything of the block is taken."""
    execute(small, lie)
    url = clone()
    with pytest.raises(NodeError, match=complaint):
        follow(url, small, PLAIN, verify=level)
    assert rows(url, "SELECT count(*) FROM vc.inputs WHERE block_id >= 107") == [(0,)]


STRANGE: Final = {
    "inputs": {
        "raw": ["NULL", "encode(raw, 'hex')"],
        "txindex": [
            "NULL",
            "'x'",
            "txindex::numeric",
            "-1",
            "300000000",
            "2147483647",
            "1::bigint << 40",
            "3",
        ],
        "magics": ["NULL", "ARRAY[magics[1], NULL]", "magics[1]"],
        "spent": ["NULL", "'x'::text"],
        "spent_at": ["ARRAY['x']", "7", "ARRAY[NULL]::integer[]"],
        "coinbase": ["1"],
    },
    "blocks": {
        "header": ["NULL", "''::bytea", "encode(header, 'hex')"],
        "block_id": ["block_id + (1::bigint << 40)", "block_id::text", "-block_id"],
        "hash": ["NULL", "'x'", "7"],
    },
    "coverage": {"from_block": ["NULL", "'x'"], "until_block": ["'x'"]},
    "deployment": {"network": ["NULL", "'moon'", "7"], "genesis_hash": ["NULL"]},
    "writer": {"confirmations": ["'x'"]},
}
"""Expressions that stand for a column of a view of an upstream."""


@pytest.mark.parametrize(
    ("view", "column", "lie"),
    [(view, column, lie) for view, of in STRANGE.items() for column, lies in of.items() for lie in lies],
)
def test_rows_that_no_deployment_has(small: str, clone: Clone, view: str, column: str, lie: str) -> None:
    """An upstream is another's database, whose views may be anything: it is named, and nothing grows."""
    upstream_url, url = clone(small), clone()
    with psycopg.connect(upstream_url) as connection:
        names = [
            row[0]
            for row in connection.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
                [f"virtualchain.{view}"],
            )
        ]
        shown = ", ".join(f"{lie if name == column else name} AS {name}" for name in names)
        connection.execute(f"ALTER VIEW virtualchain.{view} RENAME TO honest".encode())
        connection.execute(
            f"CREATE VIEW virtualchain.{view} AS SELECT {shown} FROM virtualchain.honest".encode()
        )
    with pytest.raises(NodeError, match="upstream") as caught:
        follow(url, upstream_url, PLAIN)
    assert not isinstance(caught.value, UpstreamLacks)


def test_what_an_upstream_lacks(small: str, fake_node: FakeNode, clone: Clone) -> None:
    """Nothing is derived from blocks that were not searched; once they are, the state node goes on."""
    url = clone()
    early = noting("early", b"pl", first_block_id=101)
    with pytest.raises(
        UpstreamLacks, match=r"begins with block 102, and block 101 is needed: add the app there"
    ):
        follow(clone(), small, early)
    with pytest.raises(UpstreamLacks, match=r"block 102 was not searched for the magic 'he' by the rule"):
        follow(clone(), small, HEIGHTS)
    with pytest.raises(UpstreamLacks, match="block 102 was not searched for the magic 'ri'"):
        follow(clone(), small, RIDES)
    with pytest.raises(UsageError, match="as it tracks outputs"):
        keep(fake_node, small, RIDES)
    follow(url, small, PLAIN)
    messages: list[str] = []
    joins = noting("joins", b"jo", first_block_id=104)
    follow(url, small, PLAIN, joins, on_wait=messages.append)
    assert any("app joins waits" in text and "block 104 was not searched" in text for text in messages)
    fake_node.mine([fake_node.send(b"jos1")])
    keep(fake_node, small, PLAIN, joins, early)
    follow(url, small, PLAIN, joins, early)
    assert rows(url, "SELECT name, status, block_id FROM virtualchain.apps ORDER BY 1") == [
        (name, "running", fake_node.height) for name in ("early", "joins", "plain")
    ]
    with pytest.raises(UpstreamLacks, match=f"block {fake_node.height} was not searched for the magic 'ot'"):
        follow(clone(), small, OTHER)
    prune(small, before=105)
    with pytest.raises(UpstreamLacks, match="pruned the inputs of blocks below 105"):
        follow(clone(), small, PLAIN)
    fake_node.mine()
    keep(fake_node, small, PLAIN, joins, early)
    follow(url, small, PLAIN, joins, early)
    assert rows(url, "SELECT max(block_id) FROM vc.blocks") == [(fake_node.height,)]


def test_what_is_refused(small: str, clone: Clone) -> None:
    """Itself, other networks, earlier schemas, strangers, too few confirmations, and proofs that it lacks."""
    with pytest.raises(UsageError, match="the database of this deployment itself"):
        follow(small, small, PLAIN)
    with pytest.raises(UsageError, match="--senders proved takes"):
        follow(clone(), small, PLAIN, senders="proved")
    with pytest.raises(UsageError, match="only a node has unconfirmed transactions"):
        follow(clone(), small, PLAIN, pending=True)
    careful = noting("careful", b"pl", first_block_id=FIRST, confirmations=2)
    with pytest.raises(UsageError, match="only with 2 confirmations"):
        follow(clone(), small, careful, confirmations=1)
    execute(small, "UPDATE vc.writer SET confirmations = 1")
    assert follow(clone(), small, careful, confirmations=1) == 108
    with pytest.raises(NodeUnavailable, match="holds no deployment"):
        follow(clone(), clone(), PLAIN)
    with pytest.raises(NodeError, match=r"follows regtest .* but signet was asked for"):
        UpstreamSource(small, network("signet"))
    with closing(connect_migrator(small)) as connection, connection.transaction():
        name = f"reader_of_{connection.info.dbname}"
        reader = grant_reader(connection, name, [], login=True)
    address = urlsplit(small)
    login = address._replace(netloc=f"{name}:{reader.password}@{address.netloc.rpartition('@')[2]}").geturl()
    assert follow(clone(), login, PLAIN) == 109
    execute(small, f"REVOKE SELECT ON virtualchain.coverage FROM {name}")
    with pytest.raises(NodeError, match="db grant-reader"):
        follow(clone(), login, PLAIN)
    execute(small, "UPDATE vc.alembic_version SET version_num = '0023'")
    with pytest.raises(NodeError, match=r"schema of an earlier version \(0023\)"):
        follow(clone(), small, PLAIN)


def test_an_upstream_that_rolls_back_while_it_is_read(
    small: str, fake_node: FakeNode, clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs of a block are never those of another branch: what is not active any more is not taken."""
    monkeypatch.setattr(upstream, "_BLOCKS", 2)
    url, seen = clone(), []

    def on_block(progress: Progress) -> None:
        seen.append(progress.block.block_id)
        if len(seen) == 1:
            fake_node.reorg(6, 1, [fake_node.send(b"pls-other-branch")])
            fake_node.mine(n=6)
            keep(fake_node, small, PLAIN, OTHER)

    with StateEngine(PLAIN, database=url, source=small, on_block=on_block) as engine:
        with pytest.raises(NodeUnavailable, match=r"does not hold block 10[4-6] .* now"):
            engine.build()
        assert engine.build() == fake_node.height
    full = clone()
    with StateEngine(PLAIN, database=full, source=fake_node.url, confirmations=0, verify="headers") as engine:
        engine.build()
    assert state(url, PLAIN)[:2] == state(full, PLAIN)[:2]
    assert any("other-branch" in note for (note,) in state(url, PLAIN)[1][0])


def test_a_standby_that_lags(small: str, fake_node: FakeNode, clone: Clone) -> None:
    """One that is behind, or on the branch with less work, is waited for: nothing is undone for it."""
    lags, url = clone(small), clone()
    fake_node.reorg(3, 5, [fake_node.send(b"plsnew")])
    keep(fake_node, small, PLAIN, OTHER)
    tip = follow(url, small, PLAIN)
    assert tip == fake_node.height == 111
    with StateEngine(PLAIN, database=url, source=lags) as engine:
        assert engine.build() == tip  # it is behind, and on the branch that was left
        assert "another branch with no more work than ours" in str(engine.waits_for)
        execute(lags, "DELETE FROM vc.inputs WHERE block_id > 106")
        execute(lags, "DELETE FROM vc.coinbases WHERE block_id > 106")
        execute(lags, "DELETE FROM vc.blocks WHERE block_id > 106")
        assert engine.build() == tip  # it is behind on our branch
        assert "it is at block 106, we are at block 111" in str(engine.waits_for)
        keep(fake_node, lags, PLAIN, OTHER)
        fake_node.mine()
        keep(fake_node, lags, PLAIN, OTHER)
        assert engine.build() == 112
    assert rows(url, "SELECT count(*) FROM virtualchain.reorgs") == [(0,)]


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_an_upstream_behind_a_pooler(small: str, fake_node: FakeNode, clone: Clone, mode: str) -> None:
    """Blocks and forks are those of the node, nothing is left in shared sessions, lost ones are replaced.

    The state node's own database must be reached directly.
    """
    url, full = clone(), clone()
    with pooled(small, mode) as through:
        with StateEngine(PLAIN, database=url, source=through, verify="merkle") as engine:
            for number in range(4):
                if number == 2:
                    fake_node.reorg(4, 6)
                fake_node.mine([fake_node.send(b"plsn%d" % number)])
                keep(fake_node, small, PLAIN, OTHER)
                assert engine.build() == fake_node.height
            execute(small, LOST)
            assert engine.build() == fake_node.height
        left = "SELECT (SELECT count(*) FROM pg_prepared_statements), count(*) FROM pg_listening_channels()"
        with closing(psycopg.connect(through, autocommit=True, prepare_threshold=None)) as other:
            assert other.execute(left).fetchall() == [(0, 0)]
        with pytest.raises(UsageError, match="the database of this deployment itself"):
            follow(small, through, PLAIN)
    with pooled(url, mode) as through, pytest.raises(StoreError, match="a connection pooler"):
        follow(through, small, PLAIN)
    follow(full, fake_node.url, PLAIN, confirmations=0, verify="merkle")
    assert state(url, PLAIN) == state(full, PLAIN)


def test_waking_and_failing_over(small: str, fake_node: FakeNode, clone: Clone) -> None:
    """A notification ends the wait; a server that is away is passed over for the next one in the URL."""
    address = urlsplit(small)
    login, _, host = address.netloc.rpartition("@")
    several = address._replace(netloc=f"{login}@127.0.0.1:1,{host}").geturl()
    with closing(UpstreamSource(several)) as source:
        assert source.tip().block_id == 109
        ended = threading.Event()

        def wait() -> None:
            source.wait(60)  # its first call begins to listen, and ends once that works
            source.wait(60)
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        with psycopg.connect(small, autocommit=True) as connection:
            while not ended.wait(0.05):
                connection.execute("NOTIFY virtualchain, 'x'")
        cut(small)
        assert source.block_hash(109) == fake_node.tip
        source.cut()
        cut(small)
        with pytest.raises(NodeError, match=r"the upstream postgresql://.*:1,"):
            source.tip()
