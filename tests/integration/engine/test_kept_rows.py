"""Rows that blocks have left are known to the next ones, and nothing but the number of reads shows it."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.tables import deployment
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.audit.verify import verify
from virtualchain.engine.options import Progress
from virtualchain.engine.versions import swap
from virtualchain.store import rows, tables
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.kept import KeptRows
from virtualchain.testing import FakeNode

TABLES = """
    CREATE TABLE balances (owner text PRIMARY KEY, amount numeric NOT NULL, seen bigint);
    CREATE TABLE notes (owner text, n integer, text text, PRIMARY KEY (owner, n));
"""
OWNERS = ("ann", "bob", "zo\u00eb", "", "\uffff")
KINDS = ("earn", "earn", "spend", "note", "pop", "drop", "look", "query", "statement", "late")


def mixed(name: str = "mixed", magic: bytes = b"mx") -> App:
    """Make an app that handles rows in every way, and refuses some of its ops after they have written."""
    app = App(name, magic=magic, projections=TABLES)
    app.add(b"o", parse=parse, keys=keys, commit=commit)
    return app


def parse(payload: bytes) -> dict[str, Any]:
    """Read what an op does, whose it is, and a number."""
    kind, who, amount = payload.decode().split("/")
    return {"kind": KINDS[int(kind)], "who": OWNERS[int(who)], "amount": int(amount)}


def keys(op: dict[str, Any]) -> dict[str, list[Any]]:
    """Name the rows that an op needs."""
    return {"balances": [op["who"]], "notes": [(op["who"],)] if op["kind"] == "look" else []}


def commit(op: dict[str, Any], state: State) -> Rejected | None:
    """Do what an op says."""
    balances, notes = state.table("balances"), state.table("notes")
    who, amount = op["who"], op["amount"]
    match op["kind"]:
        case "earn":
            op["now"] = str(balances.add(who, amount=amount, seen=1)["amount"])
        case "spend":
            balances.spend(who, amount=amount)
        case "note":
            op["n"] = notes.append({"owner": who, "text": str(amount)})
        case "pop":
            op["popped"] = (notes.pop(who) or {"text": None})["text"]
        case "drop":
            op["dropped"] = balances.delete(who)
        case "look":
            op["notes"] = [note["text"] for note in notes.find(who)]
        case "query":
            row = state.one("SELECT sum(amount) AS all FROM balances")
            op["all"] = None if row is None or row["all"] is None else str(row["all"])
        case "statement":
            state.execute("UPDATE balances SET amount = amount + 1 WHERE owner = %s", [who])
        case "late":
            balances.add(who, amount=amount)
            return Rejected("odd") if amount % 2 else None
    return None


def payload(chance: random.Random, statements: bool) -> bytes:
    """Make an op's payload at random."""
    kinds = range(len(KINDS)) if statements else [n for n, kind in enumerate(KINDS) if kind != "statement"]
    numbers = (chance.choice(kinds), chance.randrange(len(OWNERS)), chance.randrange(9))
    return chance.choice((b"mxo", b"mxo", b"oto")) + "/".join(map(str, numbers)).encode()


def mine(node: FakeNode, chance: random.Random, blocks: int, statements: bool) -> None:
    """Mine blocks of up to four ops."""
    for _ in range(blocks):
        node.mine([node.send(payload(chance, statements)) for _ in range(chance.randrange(5))])


@pytest.fixture
def keeping() -> Iterator[Callable[[str], None]]:
    """Return a function that has all, few or no rows kept."""
    monkeypatch = pytest.MonkeyPatch()

    def keep(how: str) -> None:
        monkeypatch.undo()
        if how == "few":
            monkeypatch.setattr(tables, "MOST_KEPT", 6_000)
        if how == "none":
            monkeypatch.setattr(KeptRows, "keep", lambda *_: None)
            monkeypatch.setattr(BlockTransaction, "_send_inputs", lambda _: None)

    yield keep
    monkeypatch.undo()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_depends_on_what_is_kept(
    fake_node: FakeNode, fresh_index: Callable[..., str], keeping: Callable[[str], None], seed: int
) -> None:
    """Rows, verdicts and hashes of two apps are the same, and right, if all rows are kept, few, or none."""
    mine(fake_node, random.Random(seed), 60, statements=seed % 2 == 0)
    indexed = []
    for how in ("all", "few", "none"):
        keeping(how)
        indexed.append(fresh_index(mixed(), mixed("other", b"ot")))
        assert verify(indexed[-1]).faults == []
    first, *others = map(deployment, indexed)
    assert all(other == first for other in others)


@pytest.mark.parametrize("seed", range(2))
def test_a_rollback_forgets_what_was_kept(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    fresh_index: Callable[..., str],
    keeping: Callable[[str], None],
    seed: int,
) -> None:
    """While an engine runs, forks of any depth leave what a fresh node finds on the branch."""
    chance = random.Random(seed)
    mine(fake_node, chance, 10, statements=False)
    turns = 0

    def turn(progress: Progress) -> None:
        nonlocal turns
        if progress.block.block_id == fake_node.height and turns < 5:
            turns += 1
            fake_node.reorg(chance.randrange(1, 6))
            mine(fake_node, chance, 2, statements=False)

    run(mixed(), on_block=turn)
    assert turns == 5
    assert run(mixed()) == fake_node.height
    keeping("none")
    assert deployment(database_url) == deployment(fresh_index(mixed()))
    assert verify(database_url).faults == []


def test_what_is_undone_of_one_app_is_nothing_of_another(
    fake_node: FakeNode, fresh_index: Callable[..., str]
) -> None:
    """An app reads rows and has its part undone, after another one that reads none has taken the block."""
    first = App("a", magic=b"aa")
    first.add(b"o", parse=lambda payload: {"text": payload.decode()})
    for number in range(40):
        fake_node.mine([fake_node.send(b"aao%d" % number), fake_node.send(b"mxo9/%d/1" % (number % 5))])
    url = fresh_index(first, mixed())
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM vc.ops WHERE app = 'a'").fetchone() == (40,)
    assert verify(url).faults == []


@pytest.mark.parametrize("others", [[], [mixed("other", b"ot")]])
def test_a_build_that_is_swapped_while_blocks_are_in_flight(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Any,
    make_build: Callable[..., Any],
    others: list[App],
) -> None:
    """Its tables get no row of a block that it does not take, although nobody waits for an answer."""
    chance = random.Random(1)
    mine(fake_node, chance, 10, statements=False)
    start = fake_node.height
    for _ in range(60):
        fake_node.mine([fake_node.send(b"mxo0/0/1")])

    newer = mixed()
    newer.version = "2"

    def act(progress: Progress) -> None:
        if progress.block.block_id == start + 10:
            make_build(newer, "v2")
            swap(database_url, "mixed", "v2")

    reasons: list[str] = []
    with StateEngine(
        mixed(),
        *others,
        database=database_url,
        source=fake_node.url,
        state_folder=tmp_path,
        on_block=act,
        on_wait=reasons.append,
    ) as engine:
        engine.build()
        assert engine.halted() == {}
    assert sum("mixed shows another build now" in reason for reason in reasons) == 1
    assert not any("trying again" in reason or "connected again" in reason for reason in reasons)
    [old] = query(
        "SELECT (SELECT max(block_id) FROM vc.snapshots WHERE app = 'mixed' AND build = '1') AS last, "
        "(SELECT max(since_block) FROM mixed__1.balances) AS written"
    )
    assert start + 10 <= old["last"] < start + 60
    assert old["written"] == old["last"]
    assert verify(database_url).faults == []


def test_a_swapped_build_is_left_alone_by_every_session_that_follows(
    fake_node: FakeNode, database_url: str, tmp_path: Any, make_build: Callable[..., Any]
) -> None:
    """Also if the next session is lost before the engine has noted that the build was swapped."""
    fake_node.mine([fake_node.send(b"mxo0/0/1")])
    start = fake_node.height
    for _ in range(30):
        fake_node.mine([fake_node.send(b"mxo0/0/1")])
    newer = mixed()
    newer.version = "2"
    reasons: list[str] = []

    def lose_session() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            pid = engine._deployment.connection.info.backend_pid
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    def act(progress: Progress) -> None:
        if progress.block.block_id == start + 10:
            make_build(newer, "v2")
            swap(database_url, "mixed", "v2")
            lose_session()

    def wait(reason: str) -> None:
        reasons.append(reason)
        if "connected again" in reason and len(reasons) < 4:
            lose_session()

    with StateEngine(
        mixed(),
        mixed("other", b"ot"),
        database=database_url,
        source=fake_node.url,
        state_folder=tmp_path,
        confirmations=0,
        on_block=act,
        on_wait=wait,
    ) as engine:
        assert engine.build() == fake_node.height
        assert engine.halted() == {}
    assert sum("connected again" in reason for reason in reasons) >= 2
    assert sum("mixed shows another build now" in reason for reason in reasons) == 1
    assert verify(database_url).faults == []


@pytest.mark.parametrize("is_first", [True, False])
def test_a_build_is_swapped_and_the_app_hides_that_its_read_fails(
    fake_node: FakeNode, database_url: str, tmp_path: Any, make_build: Callable[..., Any], is_first: bool
) -> None:
    """Its read is the first to notice that the build is not live; the app alone is left alone."""

    def careless(name: str, magic: bytes, version: str = "1") -> App:
        app = App(name, magic=magic, version=version, projections="CREATE TABLE t (k integer PRIMARY KEY)")

        def commit(op: dict[str, Any], state: State, block_id: int) -> None:
            with suppress(Exception):
                state.table("t").get(block_id)

        app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
        return app

    for _ in range(6):
        fake_node.mine([fake_node.send(b"mxo"), fake_node.send(b"oto")])

    def act(progress: Progress) -> None:
        if progress.block.block_id == fake_node.height - 3:
            make_build(careless("mixed", b"mx", "2"), "v2")
            swap(database_url, "mixed", "v2")

    apps = [careless("mixed", b"mx"), careless("other", b"ot")]
    reasons: list[str] = []
    with StateEngine(
        *(apps if is_first else reversed(apps)),
        database=database_url,
        source=fake_node.url,
        state_folder=tmp_path,
        confirmations=0,
        on_block=act,
        on_wait=reasons.append,
    ) as engine:
        assert engine.build() == fake_node.height
        assert engine.halted() == {}
    assert ["mixed shows another build now" in reason for reason in reasons] == [True]
    assert verify(database_url).faults == []


def texts_app(name: str, magic: bytes, ddl: str, commit: Callable[[str, State], Any]) -> App:
    """Make an app whose ops are texts."""
    app = App(name, magic=magic, projections=ddl)
    app.add(
        b"o",
        parse=lambda payload: {"text": payload.decode()},
        commit=lambda op, state: commit(op["text"], state),
    )
    return app


def test_numbers_with_more_digits_than_a_parameter_may_have(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """Statements can make them; `state.table` writes such a row back as it found it, then or later."""
    ddl = "CREATE TABLE t (k integer PRIMARY KEY, n integer NOT NULL DEFAULT 0, free numeric DEFAULT 1)"

    def commit(text: str, state: State) -> None:
        if text == "make":
            state.execute("INSERT INTO t (k) VALUES (1), (2)")
            for _ in range(6):
                state.execute("UPDATE t SET free = free * 1.0000000001 * 0.3 WHERE k = 1")
                state.execute("UPDATE t SET free = (free + 12345) * (free + 54321) WHERE k = 2")
                state.execute("UPDATE t SET free = free * free")
        else:
            for k in (1, 2):
                state.table("t").add(k, n=1)

    for payloads in ([b"mxomake", b"mxoadd"], [b"mxoadd"], [b"mxoadd", b"yyoother"]):
        fake_node.mine([fake_node.send(each) for each in payloads])
    before = "SELECT length(free::text) > 1000 AS long, n FROM one.t"
    other = texts_app("other", b"yy", "CREATE TABLE u (k integer PRIMARY KEY)", lambda text, state: None)
    assert run(texts_app("one", b"mx", ddl, commit), other) == fake_node.height
    assert query(before) == [{"long": True, "n": 3}] * 2


def test_a_constraint_that_divides_is_no_fault_of_the_next_statement(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """A row that its table refuses rejects the input that wrote it: the next op is no worse for it."""
    ddl = "CREATE TABLE t (k integer PRIMARY KEY, n integer NOT NULL, CHECK (10 / n < 100))"

    def commit(text: str, state: State) -> None:
        k, n, asks = map(int, text.split(","))
        if asks:
            assert state.one("SELECT k FROM t WHERE k = 5") is None
        state.table("t").put({"k": k, "n": n})

    app = texts_app("one", b"mx", ddl, commit)
    fake_node.mine([fake_node.send(each) for each in (b"mxo1,1,0", b"mxo2,3,1")])
    assert run(app) == fake_node.height
    fake_node.mine([fake_node.send(each) for each in (b"mxo1,0,0", b"mxo2,3,1", b"mxo1,4,0")])
    assert run(app) == fake_node.height
    assert query("SELECT txindex, step FROM virtualchain.rejections") == [{"txindex": 1, "step": "commit"}]
    assert query("SELECT * FROM one.t ORDER BY k") == [{"k": 1, "n": 4}, {"k": 2, "n": 3}]


def test_large_rows_are_written_in_parts(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server takes a gigabyte in one statement."""
    monkeypatch.setattr(rows, "_MOST_BYTES", 50_000)
    written: list[int] = []
    write = rows._Statements.write

    def counted(self: Any, block_id: int, values: Any) -> None:
        written.append(len(values))
        write(self, block_id, values)

    monkeypatch.setattr(rows._Statements, "write", counted)
    ddl = "CREATE TABLE t (k integer PRIMARY KEY, text text NOT NULL)"

    def commit(text: str, state: State) -> None:
        state.table("t").put({"k": int(text), "text": text * 10_000})

    fake_node.mine([fake_node.send(b"mxo%d" % number) for number in range(20)])
    assert run(texts_app("one", b"mx", ddl, commit)) == fake_node.height
    assert sum(written) == 20
    assert 1 < max(written) < 6
    assert query("SELECT count(*), sum(length(text)) AS size FROM one.t") == [{"count": 20, "size": 300_000}]


def test_an_error_at_the_end_of_a_block_halts_one_app(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: the others take the block."""
    ddl = "CREATE TABLE t (k integer PRIMARY KEY)"
    end_calls = State.end_calls

    def fail(self: State) -> None:
        if self.table("t").get(7) is not None:
            raise ValueError("on purpose")
        end_calls(self)

    monkeypatch.setattr(State, "end_calls", fail)
    apps = [
        texts_app(name, magic, ddl, lambda text, state: state.table("t").put({"k": int(text)}))
        for name, magic in (("one", b"mx"), ("other", b"yy"))
    ]
    fake_node.mine([fake_node.send(payload) for payload in (b"mxo7", b"yyo8")])
    assert run(*apps) == fake_node.height
    assert query("SELECT name, status, error ->> 'callback' AS at FROM vc.apps ORDER BY name") == [
        {"name": "one", "status": "halted", "at": "the end of the block"},
        {"name": "other", "status": "running", "at": None},
    ]
    assert query("SELECT k FROM other.t") == [{"k": 8}]
