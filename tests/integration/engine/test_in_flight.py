"""Blocks far from the tip are not waited for: what fails in flight fails once more, alone, and is named."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Query, Run
from tests.support.tables import deployment
from virtualchain import App, State, StateEngine
from virtualchain.engine import engine as indexer
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.engine import NEAR_TIP
from virtualchain.engine.judge import judge
from virtualchain.engine.options import Progress
from virtualchain.errors import NodeError, StoreError
from virtualchain.model import Block
from virtualchain.store import block_transaction
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.patience import Session
from virtualchain.store.pipeline import EarlierFailed, pipeline_of
from virtualchain.store.sql import queries
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

BLOCKS = 40
FAULT = """
    CREATE SEQUENCE public.tries;
    CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.block_id = {block_id} AND NEW.app = '{app}' AND nextval('public.tries') <= {times} THEN
            RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}';
        END IF;
        RETURN NEW;
    END;
    $$;
    CREATE TRIGGER fail BEFORE INSERT ON vc.{table} FOR EACH ROW EXECUTE FUNCTION public.fail();
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between attempts."""
    monkeypatch.setattr(indexer, "PAUSES", (0.02, 0.05))


def counting(name: str = "one", magic: bytes = b"fl") -> App:
    """Make an app that counts its ops by block, and reads that before it writes."""
    app = App(name, magic=magic, projections="CREATE TABLE t (k integer PRIMARY KEY, n integer NOT NULL)")

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        op["before"] = [row["n"] for row in state.query("SELECT n FROM t WHERE k = %s", [block_id % 7])]
        state.execute(
            "INSERT INTO t VALUES (%s, 1) ON CONFLICT (k) DO UPDATE SET n = t.n + 1", [block_id % 7]
        )

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    return app


def by_row(
    name: str = "one", magic: bytes = b"fl", check: str = "", rows: int = 7, *, asks: bool = False
) -> App:
    """Make the same app without statements, so that its writes are not waited for either, or with a query."""
    ddl = f"CREATE TABLE t (k integer PRIMARY KEY, n integer NOT NULL {check})"
    app = App(name, magic=magic, projections=ddl)

    def keys(op: dict[str, Any], block_id: int) -> dict[str, list[int]]:
        return {"t": [block_id % rows]}

    def commit(op: dict[str, Any], state: State, block_id: int) -> None:
        row = state.table("t").get(block_id % rows)
        if asks:
            op["asked"] = state.one("SELECT 1 AS one")
        op["before"] = [] if row is None else [row["n"]]
        state.table("t").put({"k": block_id % rows, "n": 1 + sum(op["before"])})

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, keys=keys, commit=commit)
    return app


def mine(node: FakeNode, blocks: int = BLOCKS) -> None:
    """Mine blocks with ops of both apps, of one, and of none."""
    for number in range(blocks):
        both = [b"flo%d" % number, b"gko%d" % number]
        node.mine([node.send(payload) for payload in both[: number % 3]])


def break_at(url: str, **fault: object) -> None:
    """Have the database refuse a row of one app at one block, some times."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FAULT.format(**fault).encode())


@pytest.mark.parametrize("make", [counting, by_row])
@pytest.mark.parametrize(
    ("table", "offset", "code"),
    [
        ("snapshots", 9, "40001"),
        ("snapshots", 9, "57014"),
        ("snapshots", 9, "23505"),
        ("snapshots", 10, "P0001"),
        ("ops", 11, "22003"),
    ],
)
def test_a_block_that_fails_in_flight_is_taken_again(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    fresh_index: Callable[..., str],
    code: str,
    table: str,
    offset: int,
    make: Callable[..., App],
) -> None:
    """Whatever made it fail: once it passes, everything is as if it had not been."""
    apps = (make(), make("two", b"gk"))
    mine(fake_node)
    start = fake_node.height - BLOCKS
    run(*apps, to=start + 2)
    break_at(database_url, app="one", block_id=start + offset, times=1, code=code, table=table)
    reasons: list[str] = []
    assert run(*apps, on_wait=reasons.append) == fake_node.height
    assert len([reason for reason in reasons if "on purpose" in reason]) == 1
    assert deployment(database_url) == deployment(fresh_index(*apps))


def test_a_block_that_fails_each_time_is_named(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """The second attempt is waited for, so that the error is that block's own, as it is near the tip."""
    mine(fake_node)
    start = fake_node.height - BLOCKS
    run(counting(), to=start + 2)
    break_at(database_url, app="one", block_id=start + 9, times=99, code="P0001", table="snapshots")
    with pytest.raises(StoreError, match=r"^(?!.*earlier).*on purpose"):
        run(counting())
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT max(block_id) FROM vc.blocks").fetchone() == (start + 8,)


@pytest.mark.parametrize("times", [1, 99])
def test_an_input_that_the_tape_refuses_is_no_apps_fault(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    fresh_index: Callable[..., str],
    times: int,
) -> None:
    """The tape's rows are sent while an app waits for rows; it is not halted for what becomes of them."""
    mine(fake_node)
    start = fake_node.height - BLOCKS
    app = by_row(rows=10**6, asks=True)
    run(app, to=start + 2)
    fault = FAULT.replace("NEW.app = '{app}'", "true")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            fault.format(block_id=start + 9, times=times, code="22003", table="inputs").encode()
        )
    if times == 1:
        run(app)
        assert deployment(database_url) == deployment(fresh_index(app))
    else:
        with pytest.raises(StoreError, match=r"^(?!.*earlier).*on purpose"):
            run(app)
    assert query("SELECT status FROM virtualchain.apps") == [{"status": "running"}]


def test_a_value_that_the_log_refuses_halts_its_app(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """The app is halted at the block whose row is refused, and the others go on."""
    mine(fake_node)
    start = fake_node.height - BLOCKS
    apps = (counting(), counting("two", b"gk"))
    run(*apps, to=start + 2)
    break_at(database_url, app="two", block_id=start + 12, times=99, code="54000", table="ops")
    run(*apps)
    assert query("SELECT name, status, block_id FROM virtualchain.apps ORDER BY name") == [
        {"name": "one", "status": "running", "block_id": fake_node.height},
        {"name": "two", "status": "halted", "block_id": start + 11},
    ]


TABLES = "SELECT oid::regclass::text AS name FROM pg_class WHERE relname = 't' AND relkind = 'r' ORDER BY 1"
OUTCOME = (
    "SELECT * FROM one.t ORDER BY 1",
    "SELECT name, status, block_id, error ->> 'error' AS error FROM virtualchain.apps ORDER BY 1",
    "SELECT app, block_id, consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY 1, 2",
)


@pytest.mark.parametrize(("is_declared", "is_alone"), [(True, False), (False, False), (False, True)])
def test_a_row_that_its_table_refuses(
    fake_node: FakeNode,
    run: Run,
    database_server: DatabaseServer,
    monkeypatch: pytest.MonkeyPatch,
    is_declared: bool,
    is_alone: bool,
) -> None:
    """The app is halted as if all blocks were waited for; if it declares the constraint, in the same session.

    Otherwise a database administrator has added it. The other app is not to blame: neither if it is judged
    in the same block, nor if it rests, and is the first to wait, because it prunes its history.
    """
    start = fake_node.height
    for number in range(BLOCKS):
        payloads = [b"flo%d" % number, b"gko%d" % number]
        fake_node.mine([fake_node.send(payload) for payload in payloads[: 2 - is_alone]])
    check = "CHECK (n < 3)"
    outcomes, failures = [], []
    take = Deployment.take

    def take_with_waits(deployment: Deployment, scanned: Any, **options: Any) -> Any:
        deployment._waits = True
        return take(deployment, scanned, **options)

    for near_tip, taken in ((NEAR_TIP, take), (10**9, take), (NEAR_TIP, take_with_waits)):
        monkeypatch.setattr(indexer, "NEAR_TIP", near_tip)
        monkeypatch.setattr(Deployment, "take", taken)
        reasons: list[str] = []
        apps = (by_row(check=check if is_declared else ""), by_row("two", b"gk"))
        url = database_server.clone()
        with psycopg.connect(url, row_factory=dict_row, autocommit=True) as connection:

            def add_it(progress: Progress, connection: psycopg.Connection[Any] = connection) -> None:
                if progress.block.block_id == start + 4 and not is_declared:
                    table = connection.execute(TABLES).fetchall()[0]["name"]
                    connection.execute(f"ALTER TABLE {table} ADD {check}".encode())

            run(*apps, database=url, history=10, on_block=add_it, on_wait=reasons.append)
            outcomes.append([connection.execute(statement).fetchall() for statement in OUTCOME])
        failures.append([reason for reason in reasons if "trying again" in reason])
        database_server.drop(url)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert [row["status"] for row in outcomes[0][1]] == ["halted", "running"]
    assert [len(each) for each in failures] == [0 if is_declared else 1] * 2 + [0]
    assert all("violates check constraint" in reason for each in failures for reason in each)


@pytest.mark.parametrize("batch", [1, 8_000_000])
@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_only_the_app_whose_rows_are_refused_is_halted(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    batch: int,
) -> None:
    """Whichever of several apps it is, whether its rows are sent in its turn or at the block's end."""
    monkeypatch.setattr(block_transaction, "_BATCH", batch)
    mine(fake_node)
    start = fake_node.height - BLOCKS
    apps = (counting(), counting("two", b"gk"), counting("three", b"lo"))
    fake_node.mine([fake_node.send(payload) for payload in (b"floa", b"gkoa", b"looa")])
    mine(fake_node)
    run(*apps, to=start + 2)
    break_at(database_url, app=name, block_id=start + BLOCKS + 1, times=99, code="54000", table="ops")
    run(*apps)
    halted = query("SELECT name, block_id FROM virtualchain.apps WHERE status = 'halted'")
    assert halted == [{"name": name, "block_id": start + BLOCKS}]


@pytest.mark.parametrize(("times", "code"), [(1, "40001"), (99, "40001"), (99, "P0001")])
@pytest.mark.parametrize("offset", [9, BLOCKS - 3])
def test_a_block_of_one_statement_that_cannot_be_committed(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, times: int, code: str, offset: int
) -> None:
    """It counts as taken once it is, far from the tip and near it."""
    first = fake_node.height + 1
    fake_node.mine(n=BLOCKS)
    run(by_row(), to=first)
    break_at(database_url, table="snapshots", app="one", block_id=first + offset, code=code, times=times)
    with psycopg.connect(database_url) as connection:
        connection.execute("DROP TRIGGER fail ON vc.snapshots")
        connection.execute(
            "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON vc.snapshots DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION public.fail()"
        )
    reported: list[int] = []

    def on_block(progress: Progress) -> None:
        [row] = query("SELECT max(block_id) AS last FROM vc.blocks")
        assert progress.block.block_id <= row["last"]
        reported.append(progress.block.block_id)

    if times == 1:
        assert run(by_row(), on_block=on_block) == fake_node.height
    else:
        with pytest.raises(StoreError, match="on purpose"):
            run(by_row(), on_block=on_block)
        assert query("SELECT max(block_id) AS last FROM vc.blocks") == [{"last": first + offset - 1}]
    assert len(reported) == len(set(reported))


@pytest.mark.parametrize("every", [1, 2])
def test_the_tape_s_rows_are_not_written_by_an_apps_role(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    every: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An app that names its keys runs statements in every block, or in some: nothing is taken twice."""

    def app() -> App:
        made = App(
            "one", magic=b"fl", projections="CREATE TABLE t (k integer PRIMARY KEY, n integer NOT NULL)"
        )

        def commit(op: dict[str, Any], state: State) -> None:
            if op["k"] % every == 0:
                assert state.one("SELECT 1 AS one") == {"one": 1}
            state.table("t").put({"k": op["k"], "n": 1})

        made.add(
            b"o",
            parse=lambda payload: {"k": int(payload)},
            keys=lambda op: {"t": [op["k"]]},
            commit=commit,
        )
        return made

    for number in range(BLOCKS):
        fake_node.mine([fake_node.send(b"flo%d" % number)])
    judged: list[int] = []

    def counted(contract: Any, state: Any, block: Block, *others: Any) -> Any:
        judged.append(block.block_id)
        return judge(contract, state, block, *others)

    monkeypatch.setattr("virtualchain.engine.machine.judge", counted)
    waits: list[str] = []
    run(app(), on_wait=waits.append)
    assert waits == []
    assert len(judged) == len(set(judged)) == BLOCKS
    assert query("SELECT own_role, (SELECT count(*) FROM one.t) AS rows FROM vc.apps") == [
        {"own_role": True, "rows": BLOCKS}
    ]


def test_a_block_is_reported_when_others_see_it(fake_node: FakeNode, run: Run, query: Query) -> None:
    """However far from the tip, `on_block` finds the block in the database, and each is reported once."""
    mine(fake_node)
    seen: list[int] = []

    def look(progress: Progress) -> None:
        [row] = query("SELECT max(block_id) AS last FROM vc.blocks")
        assert row["last"] >= progress.block.block_id
        seen.append(progress.block.block_id)

    run(counting(), on_block=look)
    assert seen == list(range(seen[0], fake_node.height + 1))


def test_blocks_are_in_flight(fake_node: FakeNode, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from the tip blocks are not waited for, except those of an app that is asked whether to go on."""
    waited: list[BlockTransaction] = []
    commit = BlockTransaction.commit

    def counted(transaction: BlockTransaction) -> Any:
        waited.append(transaction)
        return commit(transaction)

    monkeypatch.setattr(BlockTransaction, "commit", counted)
    mine(fake_node)
    run(counting())
    assert len(waited) == NEAR_TIP + 1  # the last ones, and the first
    waited.clear()
    asked = counting("asked", b"gk")
    asked.proceed(lambda block_id, consensus_hash: True)
    run(asked)
    assert len(waited) >= BLOCKS


def test_a_row_is_waited_for_once(
    fake_node: FakeNode, fresh_index: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block waits for the rows that it reads ahead, unless blocks before it have left them."""
    mine(fake_node)
    waits: list[object] = []
    exchange = Session.exchange

    def counted(session: Session, *arguments: Any) -> Any:
        waits.append(session)
        return exchange(session, *arguments)

    monkeypatch.setattr(Session, "exchange", counted)

    def waited(rows: int) -> int:
        waits.clear()
        fresh_index(by_row(rows=rows))
        return len(waits)

    with_ops = sum(1 for number in range(BLOCKS) if number % 3)
    assert waited(10**6) - waited(7) == with_ops - 7


@pytest.mark.parametrize("ending", ["stop", "node", "database"])
def test_an_end_among_blocks_in_flight(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    fresh_index: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
) -> None:
    """Wherever it ends, what was reported is in the database, and the next run goes on from there."""
    mine(fake_node)
    start = fake_node.height - BLOCKS
    reported: list[int] = []
    take = Deployment.take

    def ends(deployment: Deployment, scanned: Any, **options: Any) -> Any:
        if scanned.block.block_id == start + 20 and ending == "node":
            raise NodeError("on purpose")
        if scanned.block.block_id == start + 20 and ending == "database":
            deployment.connection.pgconn.finish()
        return take(deployment, scanned, **options)

    def note(progress: Progress) -> None:
        reported.append(progress.block.block_id)
        if progress.block.block_id == start + 20 and ending == "stop":
            engine.stop()

    monkeypatch.setattr(Deployment, "take", ends)
    engine = StateEngine(
        counting(), database=database_url, source=fake_node.url, confirmations=0, on_block=note
    )
    with engine, suppress(NodeError, StoreError):
        engine.build()
    monkeypatch.setattr(Deployment, "take", take)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT max(block_id) FROM vc.blocks").fetchone()
    assert row is not None
    assert start + 15 < row[0] < fake_node.height or ending == "database"
    assert reported == list(range(reported[0], row[0] + 1)) or ending == "database"
    assert run(counting()) == fake_node.height
    assert deployment(database_url) == deployment(fresh_index(counting()))


def test_nothing_is_sent_after_a_failure_in_flight(database_url: str, fake_node: FakeNode, run: Run) -> None:
    """A session whose earlier block failed raises that for everything, until it is closed."""
    mine(fake_node)
    start = fake_node.height - BLOCKS
    run(counting(), to=start + 2)
    break_at(database_url, app="one", block_id=start + 5, times=99, code="P0001", table="snapshots")
    raised: list[BaseException] = []
    take = Deployment.take

    def noted(deployment: Deployment, scanned: Any, **options: Any) -> Any:
        try:
            return take(deployment, scanned, **options)
        except EarlierFailed as error:
            raised.append(error)
            with pytest.raises(EarlierFailed):
                deployment.tape.tip()
            raise

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Deployment, "take", noted)
        with pytest.raises(StoreError, match="on purpose"):
            run(counting())
    assert len(raised) == 1


@pytest.mark.parametrize("place", ["pipeline_sync", "send_query_prepared", "get_result"])
def test_ctrl_c_between_sending_and_noting(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str], place: str
) -> None:
    """It ends the run as Ctrl-C, neither late nor as an error of the database, and nothing is lost."""
    mine(fake_node)
    start = fake_node.height - BLOCKS
    run(counting(), to=start + 2)
    for after in (5, 23, 40):
        engine = StateEngine(counting(), database=database_url, source=fake_node.url, confirmations=0)
        with engine:
            pipeline: Any = pipeline_of(engine._deployment.connection)
            pipeline._pgconn = Interrupting(pipeline._pgconn, place, after)
            with pytest.raises(KeyboardInterrupt):
                engine.build()
    assert run(counting()) == fake_node.height
    assert deployment(database_url) == deployment(fresh_index(counting()))


class Interrupting:
    """A connection of libpq; after one of the calls of a method somebody presses Ctrl-C."""

    def __init__(self, pgconn: Any, place: str, after: int) -> None:
        self._pgconn = pgconn
        self._place = place
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._pgconn, name)
        return self._interrupted(method) if name == self._place else method

    def _interrupted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = method(*arguments)
            self._after -= 1
            if self._after == 0:
                raise KeyboardInterrupt
            return result

        return call


@pytest.mark.parametrize(
    ("key", "index", "may_refuse"),
    [
        ('k text COLLATE "C" PRIMARY KEY', "btree (n)", False),
        ("k integer PRIMARY KEY", "hash (n)", False),
        ("k integer PRIMARY KEY", "brin (n)", True),
        ("k integer PRIMARY KEY", "spgist (n)", True),
        ("k integer PRIMARY KEY DEFERRABLE", "btree (n)", True),
    ],
)
def test_what_may_refuse_rows(
    fake_node: FakeNode, run: Run, query: Query, key: str, index: str, may_refuse: bool
) -> None:
    """Rows are waited for in tables with constraints, and with indexes that have limits of their own."""
    ddl = f'CREATE TABLE t ({key}, n text COLLATE "C"); CREATE INDEX ON t USING {index};'
    app = App("one", magic=b"fl", projections=ddl)
    app.add(b"o", parse=lambda payload: {}, commit=lambda op, state: None)
    run(app)
    [place] = query("SELECT concat_ws('__', schema, build) AS tables FROM vc.apps")
    assert bool(query(queries("log")["refusing"], place)) == may_refuse
