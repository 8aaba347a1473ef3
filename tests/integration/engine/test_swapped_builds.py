"""A writer notices every swap: also by a build of the same name, and if its session is lost."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.integration.engine.test_build_locks import another
from tests.integration.engine.test_versions import an_app, mine
from virtualchain import App, StateEngine
from virtualchain.audit.verify import verify
from virtualchain.engine.versions import drop, swap
from virtualchain.store.builds import register
from virtualchain.testing import FakeNode

Open = Callable[..., StateEngine]


@pytest.fixture
def reasons() -> list[str]:
    """Return the list of what the engine reports."""
    return []


@pytest.fixture
def open_engine(fake_node: FakeNode, database_url: str, tmp_path: Path, reasons: list[str]) -> Open:
    """Return a function that opens an engine of some apps."""
    return partial(
        StateEngine,
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        state_folder=tmp_path,
        on_wait=reasons.append,
    )


@pytest.mark.parametrize("what", ["op", "rest", "fork"])
@pytest.mark.parametrize("history", [3, 1000])
def test_another_build_took_the_name(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
    open_engine: Open,
    reasons: list[str],
    what: str,
    history: int,
) -> None:
    """While the writer waits, its build is dropped, and one by other rules is made under the name."""
    swap_to = partial(swap, database_url, "texts", state_folder=tmp_path)
    drop_it = partial(drop, database_url, "texts", state_folder=tmp_path)
    for number in range(5):
        mine(fake_node, b"a%d" % number)
    with open_engine(an_app(), history=history) as engine:
        engine.build()
    make_build(an_app(), "x")
    swap_to("x")
    drop_it("1")
    with open_engine(an_app(), another(), history=history) as engine:
        mine(fake_node, b"b")
        engine.build()
        make_build(an_app("2"), "y")
        swap_to("y")
        drop_it("x")
        make_build(an_app("3"), "x")
        swap_to("x")
        if what == "op":
            mine(fake_node, b"c")
        elif what == "rest":
            fake_node.mine()
        else:
            fake_node.reorg(2, 3)
        engine.build()
        mine(fake_node, b"d")
        assert engine.build() == fake_node.height
        assert engine.halted() == {}
    assert "app texts shows another build now" in reasons[-1]
    assert not any("trying again" in reason for reason in reasons)
    assert query("SELECT count(*) AS n FROM texts.texts WHERE size IS NULL OR text <> upper(text)") == [
        {"n": 0}
    ]
    assert verify(database_url).faults == []
    with open_engine(an_app("3"), another()) as engine:
        assert engine.build() == fake_node.height


def test_a_swap_right_before_a_session_installs_the_app(
    fake_node: FakeNode,
    database_url: str,
    tmp_path: Path,
    make_build: Callable[..., Any],
    open_engine: Open,
    reasons: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The swap waits until the app is installed, and the next block shows it."""
    mine(fake_node, b"a")
    with open_engine(an_app(), another()) as engine:
        engine.build()
        make_build(an_app("2"), "v2")
        original, left = register, [1]

        def swapping(connection: psycopg.Connection, contract: Any) -> Any:
            if contract.name == "texts" and left:
                left.clear()
                with (
                    psycopg.connect(database_url) as other,
                    pytest.raises(psycopg.errors.LockNotAvailable),
                ):
                    other.execute("SELECT FROM vc.apps WHERE name = 'texts' FOR UPDATE NOWAIT")
            return original(connection, contract)

        monkeypatch.setattr("virtualchain.engine.roster.register", swapping)
        lose_session(database_url, engine)
        mine(fake_node, b"b")
        assert engine.build() == fake_node.height
        assert not left
        swap(database_url, "texts", "v2", state_folder=tmp_path)
        mine(fake_node, b"c")
        assert engine.build() == fake_node.height
    assert sum("texts shows another build now" in reason for reason in reasons) == 1


def test_an_app_that_has_stopped_stays_so_in_the_next_session(
    fake_node: FakeNode, database_url: str, query: Query, open_engine: Open
) -> None:
    """It goes on when the process is started again."""
    mine(fake_node, b"a")
    last = fake_node.height

    def stopping() -> App:
        app = another()
        app.proceed(lambda block_id, _: block_id != last)
        return app

    where = "SELECT max(block_id) AS last FROM vc.snapshots WHERE app = 'other'"
    with open_engine(an_app(), stopping()) as engine:
        engine.build()
        lose_session(database_url, engine)
        mine(fake_node, b"b")
        assert engine.build() == fake_node.height
        assert query(where) == [{"last": last}]
        assert query("SELECT status FROM vc.apps WHERE name = 'other'") == [{"status": "stopped"}]
    with open_engine(an_app(), stopping()) as engine:
        engine.build()
    assert query(where) == [{"last": fake_node.height}]


@pytest.mark.parametrize("texts", [[b"b"], []])
def test_an_epoch_that_comes_back(
    fake_node: FakeNode,
    database_url: str,
    query: Query,
    tmp_path: Path,
    make_build: Callable[..., Any],
    open_engine: Open,
    reasons: list[str],
    texts: list[bytes],
) -> None:
    """A logical copy has the rows of its original, and sequences that begin again."""
    mine(fake_node, b"a")
    with open_engine(an_app(), another()) as engine:
        last = engine.build()
        make_build(an_app("2"), "v2")
        [own] = query("SELECT epoch FROM vc.apps WHERE name = 'texts' AND build = '1'")
        with psycopg.connect(database_url) as connection:
            again = f"ALTER TABLE vc.apps ALTER COLUMN epoch RESTART WITH {own['epoch']}"
            connection.execute(again.encode())
        swap(database_url, "texts", "v2", state_folder=tmp_path)
        [now] = query("SELECT epoch, is_live FROM vc.apps WHERE name = 'texts' AND build = '1'")
        mine(fake_node, *texts)
        fake_node.mine(n=3)
        assert engine.build() == fake_node.height
    assert now["is_live"] is False
    assert query("SELECT max(block_id) AS last FROM vc.snapshots WHERE app = 'texts'") == [{"last": last}]
    assert sum("texts shows another build now" in reason for reason in reasons) == 1


def lose_session(url: str, engine: StateEngine) -> None:
    """End the engine's session at the server."""
    with psycopg.connect(url, autocommit=True) as connection:
        pid = engine._deployment.connection.info.backend_pid
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
