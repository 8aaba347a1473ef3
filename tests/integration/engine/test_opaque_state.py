"""Apps with an opaque state: it is saved, loaded or re-evaluated, and never ahead of the database."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from virtualchain import Rejected, StateEngine, consensus
from virtualchain.app.declarations import read_contract
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import QUIET, Options
from virtualchain.engine.rebuild import replay
from virtualchain.engine.versions import build_beside, drop, remove, swap
from virtualchain.errors import AppHalted, StoreError
from virtualchain.store.state_files import default_folder
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer


class Ledger:
    """Counts how often each text was sent, in a dict that it saves as JSON."""

    bomb = ""
    loads: list[str | None]

    def __init__(self) -> None:
        self.loads = []

    def get_virtual_chain_name(self) -> str:
        """Return the name."""
        return "ledger"

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "1"

    def get_first_block_id(self) -> int:
        """Return the first block."""
        return 102

    def get_magic_bytes(self) -> str:
        """Return the magic."""
        return "lg"

    def get_opcodes(self) -> bytes:
        """Return the opcode."""
        return b"+"

    def get_db_state(self, filename: str | None = None) -> dict[str, int]:
        """Create a state, or load the saved one."""
        self.loads.append(filename)
        loaded: dict[str, int] = {} if filename is None else json.loads(Path(filename).read_text())
        return loaded

    def db_parse(self, *arguments: Any) -> dict[str, Any]:
        """Parse a text."""
        return {"text": arguments[2].decode(), "count": 0}

    def db_check(self, *arguments: Any) -> bool | Rejected:
        """Reject a text that was counted three times."""
        op, state = arguments[2], arguments[6]
        return state.get(op["text"], 0) < 3 or Rejected("often enough")

    def db_commit(self, *arguments: Any) -> dict[str, Any] | bool:
        """Count the text."""
        op, state = arguments[2], arguments[5]
        if op["text"] == self.bomb:
            state["half"] = 1
            raise RuntimeError("boom")
        if op["text"] == "no":
            return False
        state[op["text"]] = state.get(op["text"], 0) + 1
        return {**op, "count": state[op["text"]]}

    def db_save(self, block_id: int, filename: str, db_state: dict[str, int]) -> None:
        """Save the state."""
        Path(filename).write_text(json.dumps(db_state, sort_keys=True))


class Forgetful(Ledger):
    """Has the same state but cannot load it, so the engine re-evaluates its blocks."""

    def get_db_state(self) -> dict[str, int]:  # type: ignore[override]
        """Create a state."""
        self.loads.append(None)
        return {}


class ForgetfulSecond(Forgetful):
    """A new version of that."""

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "2"


def mine(node: FakeNode, *texts: str) -> None:
    """Mine a block with an op for each text."""
    node.mine([node.send(b"lg+" + text.encode()) for text in texts])


def test_the_saved_file_is_loaded_again(fake_node: FakeNode, run: Run, query: Query, tmp_path: Path) -> None:
    """After a restart, the app receives the file that it saved last, whose hash is the state hash."""
    app = Ledger()
    mine(fake_node, "a", "b", "a")
    run(app)
    mine(fake_node, "a", "a", "no")
    run(app)
    file = tmp_path / "ledger.state"
    assert app.loads == [None, str(file)]
    assert json.loads(file.read_text()) == {"a": 3, "b": 1}
    (snapshot,) = query("SELECT state_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1")
    assert snapshot["state_hash"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert query("SELECT reason FROM virtualchain.rejections ORDER BY txindex") == [
        {"reason": "often enough"},
        {"reason": "refused"},
    ]


def test_the_copy_in_the_database_is_authoritative(fake_node: FakeNode, run: Run, tmp_path: Path) -> None:
    """A file that was lost or changed by hand is restored before the app reads it."""
    app = Ledger()
    mine(fake_node, "a")
    run(app)
    (tmp_path / "ledger.state").write_text('{"a": 99}')
    mine(fake_node, "a")
    run(app)
    assert json.loads((tmp_path / "ledger.state").read_text()) == {"a": 2}


def test_a_failed_block_leaves_no_trace_in_the_state(
    fake_node: FakeNode, run: Run, query: Query, tmp_path: Path
) -> None:
    """An app that halted within a block, and was fixed, resumes from the state before that block."""
    app = Ledger()
    mine(fake_node, "a")
    app.bomb = "x"
    mine(fake_node, "b", "x")
    with pytest.raises(AppHalted, match="boom"):
        run(app)
    assert json.loads((tmp_path / "ledger.state").read_text()) == {"a": 1}
    query("UPDATE vc.apps SET status = 'running', error = NULL RETURNING name")
    app.bomb = ""
    run(app)
    assert json.loads((tmp_path / "ledger.state").read_text()) == {"a": 1, "b": 1, "x": 1}


def test_a_state_that_cannot_be_loaded_is_re_evaluated(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The app's blocks are re-evaluated from the tape, without a new row, to the same hashes."""
    mine(fake_node, "a", "a")
    app = Forgetful()
    run(app)
    before = query("SELECT * FROM vc.snapshots ORDER BY block_id")
    mine(fake_node, "a", "a")
    run(app)
    assert query("SELECT * FROM vc.snapshots ORDER BY block_id")[: len(before)] == before
    assert query("SELECT fields ->> 'count' AS n FROM vc.ops ORDER BY block_id, vtxindex") == [
        {"n": "1"},
        {"n": "2"},
        {"n": "3"},
    ]
    assert app.loads == [None, None]


def test_a_re_evaluated_state_is_not_stored_twice(fake_node: FakeNode, run: Run, query: Query) -> None:
    """After a restart, a block that changes nothing adds no row, even if the app cannot load its file."""
    mine(fake_node, "a")
    run(Forgetful())
    fake_node.mine(n=2)
    run(Forgetful())
    assert query("SELECT block_id FROM vc.state_files") == [{"block_id": fake_node.height - 2}]


def test_a_build_of_a_state_that_cannot_be_loaded_goes_on(
    fake_node: FakeNode, run: Run, query: Query, make_build: Callable[..., Any]
) -> None:
    """Made by two calls, with blocks and a rollback in between, it is as if it had been made by one."""
    mine(fake_node, "a", "b")
    mine(fake_node, "a")
    run(Forgetful())
    make_build(ForgetfulSecond(), "v2")
    fake_node.reorg(1)
    mine(fake_node, "b", "b")
    assert run(Forgetful()) == make_build(ForgetfulSecond(), "v2").block_id
    make_build(ForgetfulSecond(), "v3")
    digests = "SELECT block_id, consensus_hash, state_hash FROM vc.snapshots WHERE build = %s ORDER BY 1"
    assert query(digests, ["v2"]) == query(digests, ["v3"]) == query(digests, ["1"])


def test_changed_rules_are_noticed_when_re_evaluated(fake_node: FakeNode, run: Run) -> None:
    """If re-evaluation accepts other ops, the app halts rather than continue from a state nobody else has."""
    mine(fake_node, "a")
    run(Forgetful())
    changed = Forgetful()
    changed.db_check = lambda *arguments: False  # type: ignore[method-assign]
    with pytest.raises(AppHalted, match="judged again, the block has different ops"):
        run(changed)


def test_a_passing_fault_while_a_state_is_loaded_halts_nothing(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """If an app's own storage fails while its state is loaded, the run ends, and the next may succeed."""
    mine(fake_node, "a")
    app = Ledger()

    def get_db_state(filename: str | None = None) -> dict[str, int]:
        raise psycopg.errors.DiskFull("no space left")

    app.get_db_state = get_db_state  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="no space left"):
        run(app)
    assert query("SELECT status FROM virtualchain.apps") == [{"status": "running"}]
    run(Ledger())
    assert query("SELECT status FROM virtualchain.apps") == [{"status": "running"}]


def test_a_failed_save_halts_and_stores_nothing(fake_node: FakeNode, run: Run, query: Query) -> None:
    """If an app does not write its file, it halts, and the block is undone for it."""
    mine(fake_node, "a")
    app = Ledger()
    app.db_save = lambda *arguments: None  # type: ignore[method-assign]
    with pytest.raises(AppHalted, match="db_save failed with FileNotFoundError"):
        run(app)
    assert query("SELECT * FROM vc.snapshots") == query("SELECT * FROM vc.ops") == []


def test_only_changed_states_are_stored(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Each block that changed the file has a row; of those below the history, only the last stays."""
    mine(fake_node, "a")
    fake_node.mine(n=5)
    mine(fake_node, "b")
    fake_node.mine(n=1105)
    mine(fake_node, "c")
    last = run(Ledger())
    kept = query("SELECT block_id, content FROM vc.state_files ORDER BY block_id")
    assert [row["block_id"] for row in kept] == [last - 1106, last]
    assert consensus.ops_hash([]) in {
        row["ops_hash"] for row in query("SELECT * FROM virtualchain.snapshots")
    }


class Second(Ledger):
    """A new version of the ledger."""

    def get_virtual_chain_version(self) -> str:
        """Return the version."""
        return "2"


@pytest.fixture
def own_folder(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which a deployment saves files by itself, below one of the test's."""
    monkeypatch.setenv("VIRTUALCHAIN_HOME", str(tmp_path))
    return default_folder(database_url)


@pytest.mark.parametrize("is_custom", [False, True])
def test_saved_files_go_with_their_build_and_app(
    fake_node: FakeNode, database_url: str, tmp_path: Path, own_folder: Path, is_custom: bool
) -> None:
    """Swap, drop and remove leave no file of what they removed, and none but those."""
    folder = tmp_path / "chosen" if is_custom else own_folder
    chosen = folder if is_custom else None
    mine(fake_node, "a")
    with StateEngine(
        Ledger(), database=database_url, source=fake_node.url, confirmations=0, state_folder=chosen
    ) as engine:
        engine.build()
    (folder / "ledgers.state").write_text("another app's")

    def files() -> set[str]:
        return {file.name for file in folder.iterdir()}

    assert files() == {"ledger.state", "ledgers.state"}
    options = Options(state_folder=chosen)
    for name in ("v2", "v3"):
        build_beside(database_url, read_contract(Second()), name, options)
    assert files() == {"ledger.state", "ledger.v2.state", "ledger.v3.state", "ledgers.state"}
    swap(database_url, "ledger", "v2", state_folder=chosen)
    assert files() == {"ledger.state", "ledger.v3.state", "ledgers.state"}
    (folder / "ledger.v3.new").write_text("a draft")
    drop(database_url, "ledger", "v3", state_folder=chosen)
    assert files() == {"ledger.state", "ledgers.state"}
    remove(database_url, "ledger", state_folder=chosen)
    assert files() == {"ledgers.state"}


def test_files_that_a_crash_left_are_swept(fake_node: FakeNode, database_url: str, own_folder: Path) -> None:
    """The next start removes files of builds that are no more; a folder that the user chose is left alone."""
    own_folder.mkdir(parents=True)
    for name in ("ledger.7.state", "ledger.old.new", "ledgers.state"):
        (own_folder / name).write_text("left")
    settings: dict[str, Any] = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    mine(fake_node, "a")
    with StateEngine(Ledger(), **settings) as engine:
        engine.build()
    assert {file.name for file in own_folder.iterdir()} == {"ledger.state", "ledgers.state"}
    chosen = own_folder.parent / "here" / "chosen"
    chosen.mkdir(parents=True)
    (chosen / "ledger.backup.state").write_text("the user's")
    StateEngine(Ledger(), **settings, state_folder=chosen).close()
    assert {file.name for file in chosen.iterdir()} == {"ledger.state", "ledger.backup.state"}


def test_an_apps_last_file_takes_its_folder_along(
    fake_node: FakeNode, database_url: str, own_folder: Path
) -> None:
    """Nothing is left of a deployment whose apps were removed."""
    mine(fake_node, "a")
    with StateEngine(Ledger(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    assert own_folder.is_dir()
    remove(database_url, "ledger")
    assert not own_folder.exists()


def test_saved_files_go_with_a_tests_database(
    fake_node: FakeNode, database_server: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database that a fixture provided leaves no file in the user's data folder."""
    monkeypatch.setenv("VIRTUALCHAIN_HOME", str(tmp_path))
    url = database_server.clone()
    mine(fake_node, "a")
    with StateEngine(Ledger(), database=url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    assert list(tmp_path.rglob("*.state")) != []
    database_server.drop(url)
    assert list(tmp_path.rglob("*.state")) == []


@pytest.mark.parametrize("loads", [True, False])
def test_a_replay_repairs_a_saved_state(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, tmp_path: Path, loads: bool
) -> None:
    """The damaged copy is reported and replaced, the file is that of the new build, and the app continues."""
    ledger = Ledger() if loads else Unloadable()
    for text in (b"lg+a", b"lg+b"):
        fake_node.mine([fake_node.send(text)])
    run(ledger)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE vc.state_files SET content = 'forged' WHERE block_id = 103")
    deployed = Deployment(
        database_url, [read_contract(ledger)], None, Options(state_folder=tmp_path), repairs="ledger"
    )
    try:
        done = replay(deployed, "ledger", QUIET)
    finally:
        deployed.close()
    assert done is not None
    assert {(item.table, item.block_id) for item in done.differences} == {("state_files", 103)}
    assert query("SELECT build, status FROM vc.apps") == [{"build": "2", "status": "running"}]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "ledger.state": '{"a": 1, "b": 1}'
    }
    fake_node.mine([fake_node.send(b"lg+a")])
    assert run(ledger) == fake_node.height
    assert (tmp_path / "ledger.state").read_text() == '{"a": 2, "b": 1}'


class Unloadable(Ledger):
    """Cannot load what it saved."""

    def get_db_state(self) -> dict[str, int]:  # type: ignore[override]
        """Create a state."""
        return {}
