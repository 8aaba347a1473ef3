"""A transaction that is older than the build which a view shows gets an error, and never an empty table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel

from tests.integration.conftest import Run
from tests.integration.engine.test_versions import an_app, mine
from virtualchain import BlockEvent, StateEngine, watch
from virtualchain.app.declarations import read_contract
from virtualchain.engine.options import Options
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.engine.versions import build_beside, drop, remove, swap
from virtualchain.errors import StoreError
from virtualchain.reading import views
from virtualchain.reading.events import Session
from virtualchain.testing import FakeNode

ISOLATED = (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)


HISTORY = """SELECT * FROM virtualchain.row_history('texts', 'texts', '{"text": "a"}')"""


@contextmanager
def old_snapshot(url: str, level: IsolationLevel = ISOLATED[0]) -> Iterator[psycopg.Connection[Any]]:
    """Open a transaction that has its snapshot, but has read nothing of the app."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = level
        connection.execute("SELECT count(*) FROM virtualchain.blocks")
        yield connection


def refused(connection: psycopg.Connection[Any], statement: str = "SELECT * FROM texts.texts") -> None:
    """Check that a query fails with the state that says why, and nothing else."""
    with pytest.raises(psycopg.Error, match="another build than when this transaction began") as caught:
        connection.execute(statement.encode()).fetchall()
    assert caught.value.sqlstate == "VC007"
    assert "new one" in str(caught.value.diag.message_hint)
    connection.rollback()
    assert connection.execute(b"SELECT * FROM texts.texts").fetchall() != []


@pytest.fixture
def make_v2(database_url: str, tmp_path: Path) -> Callable[[], None]:
    """Return a function that makes version 2 beside the live build."""

    def make() -> None:
        build_beside(database_url, read_contract(an_app("2")), "v2", Options(state_folder=tmp_path))

    return make


@pytest.mark.parametrize("level", ISOLATED)
@pytest.mark.parametrize("made", ["before", "after"])
def test_a_swap_under_a_snapshot(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    make_v2: Callable[[], None],
    level: IsolationLevel,
    made: str,
) -> None:
    """Whether the rows of the other build are older than the snapshot or not, the view is refused."""
    mine(fake_node, b"a")
    run(an_app())
    if made == "before":
        make_v2()
    with old_snapshot(database_url, level) as reader:
        if made == "after":
            make_v2()
        swap(database_url, "texts", "v2")
        refused(reader)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM texts.texts",
        "SELECT * FROM texts.texts WHERE text = 'none'",
        "SELECT EXISTS (SELECT FROM texts.texts)",
        "SELECT * FROM texts.texts ORDER BY text LIMIT 1",
        "SELECT t.text FROM virtualchain.blocks AS b LEFT JOIN texts.texts AS t ON t.text = b.hash",
        HISTORY,
        "DECLARE c CURSOR FOR SELECT * FROM texts.texts; FETCH c",
    ],
)
def test_a_rebuild_under_a_snapshot(
    fake_node: FakeNode, database_url: str, tmp_path: Path, statement: str
) -> None:
    """A rollback below the history replaces the tables; no query takes the new ones for empty."""
    for number in range(40):
        mine(fake_node, b"t%d" % number)
    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url, "state_folder": tmp_path}
    with StateEngine(an_app(), confirmations=0, history=10, **settings) as engine:
        engine.build()
        with old_snapshot(database_url) as reader:
            reorg = operators_reorg(engine._deployment.tape, fake_node.height - 30)
            roll_back(engine._deployment, reorg)
            refused(reader, statement)


def test_a_snapshot_as_of_a_block(
    fake_node: FakeNode, run: Run, database_url: str, make_v2: Callable[[], None]
) -> None:
    """Time travel in an old snapshot is refused as well."""
    mine(fake_node, b"a")
    run(an_app())
    with old_snapshot(database_url) as reader:
        reader.execute("SELECT set_config('virtualchain.as_of', %s, false)", [str(fake_node.height)])
        make_v2()
        swap(database_url, "texts", "v2")
        refused(reader)


def test_changes_under_a_snapshot(
    fake_node: FakeNode, run: Run, database_url: str, make_v2: Callable[[], None]
) -> None:
    """The changes of a build that was swapped out are read as before, until it is dropped."""
    mine(fake_node, b"a")
    run(an_app())
    make_v2()
    changes = "SELECT new ->> 'text' FROM virtualchain.changes WHERE app = 'texts'"
    with old_snapshot(database_url) as reader:
        swap(database_url, "texts", "v2")
        assert reader.execute(changes.encode()).fetchall() == [("a",)]
    with old_snapshot(database_url) as reader:
        swap(database_url, "texts", "1")
        drop(database_url, "texts", "v2")
        refused(reader, changes)


def test_a_build_of_the_same_name(
    fake_node: FakeNode, run: Run, database_url: str, make_v2: Callable[[], None]
) -> None:
    """A name that is used again does not deceive: neither that of an app's first build, nor an operator's."""
    mine(fake_node, b"a")
    run(an_app())
    with old_snapshot(database_url) as reader:
        remove(database_url, "texts")
        run(an_app())
        refused(reader, HISTORY)
    with old_snapshot(database_url) as reader:
        remove(database_url, "texts")
        run(an_app())
        refused(reader)
    make_v2()
    swap(database_url, "texts", "v2")
    for statement in ("SELECT * FROM texts.texts", HISTORY):
        with old_snapshot(database_url) as reader:
            swap(database_url, "texts", "1")
            drop(database_url, "texts", "v2")
            make_v2()
            swap(database_url, "texts", "v2")
            refused(reader, statement)


def test_an_ordinary_transaction_sees_what_is_live(
    fake_node: FakeNode, run: Run, database_url: str, make_v2: Callable[[], None]
) -> None:
    """READ COMMITTED, and a snapshot that began after the swap, read the new build, prepared or not."""
    mine(fake_node, b"a")
    run(an_app())
    with psycopg.connect(database_url) as reader:
        reader.execute("PREPARE q AS SELECT text FROM texts.texts")
        assert reader.execute("EXECUTE q").fetchall() == [("a",)]
        reader.commit()
        make_v2()
        swap(database_url, "texts", "v2")
        assert reader.execute("EXECUTE q").fetchall() == [("A",)]
    with old_snapshot(database_url) as reader:
        assert reader.execute("SELECT text FROM texts.texts").fetchall() == [("A",)]


def test_a_reader_role_is_refused_in_the_same_way(
    fake_node: FakeNode, run: Run, database_url: str, make_v2: Callable[[], None]
) -> None:
    """The check needs no privilege on the log's tables."""
    mine(fake_node, b"a")
    run(an_app())
    make_v2()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE old_reader")
        owner.execute("GRANT old_reader TO CURRENT_USER")
        owner.execute("GRANT USAGE ON SCHEMA texts, virtualchain TO old_reader")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA texts, virtualchain TO old_reader")
        try:
            with old_snapshot(database_url) as reader:
                swap(database_url, "texts", "v2")
                reader.execute("SET LOCAL ROLE old_reader")
                refused(reader)
                reader.execute("SET LOCAL ROLE old_reader")
                assert reader.execute("SELECT text FROM texts.texts").fetchall() == [("A",)]
        finally:
            owner.execute("DROP OWNED BY old_reader")
            owner.execute("DROP ROLE old_reader")


def test_what_reads_for_the_command_line_says_so(
    fake_node: FakeNode, run: Run, database_url: str, make_v2: Callable[[], None]
) -> None:
    """`sql` and `export`, which read one snapshot, end with an error of the database, not with no rows."""
    mine(fake_node, b"a")
    run(an_app())
    make_v2()
    with pytest.raises(StoreError, match="another build than when this transaction began"):
        read_after(database_url, lambda: swap(database_url, "texts", "v2"), "SELECT * FROM texts.texts")
    with pytest.raises(StoreError, match="replaced or dropped meanwhile"):
        read_after(database_url, lambda: drop(database_url, "texts", "1"), "SELECT * FROM texts__1.texts")


def read_after(url: str, change: Callable[[], object], statement: str) -> None:
    """Read in a snapshot that is older than a change."""
    with views.snapshot(url) as connection:
        change()
        connection.execute(statement.encode()).fetchall()


def test_a_watch_reads_again(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    make_v2: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A build that is replaced and dropped in the middle of a look costs no event, and ends no watch."""
    mine(fake_node, b"a")
    run(an_app())
    make_v2()
    available = Session.available
    swapped: list[object] = []

    def swap_meanwhile(session: Session, apps: list[str] | None) -> Any:
        if not swapped:
            swapped.append(swap(database_url, "texts", "v2"))
            drop(database_url, "texts", "1")
        return available(session, apps)

    with watch(database_url, from_block=fake_node.height) as events:
        monkeypatch.setattr(Session, "available", swap_meanwhile)
        event = next(events)
    assert swapped
    assert isinstance(event, BlockEvent)
    assert [change.new for change in event.changes] != []
