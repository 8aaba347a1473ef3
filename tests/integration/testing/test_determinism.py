"""`check_determinism`: what it finds in apps whose verdicts depend on more than values."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.engine_app import Questions
from virtualchain import App, State
from virtualchain.errors import UsageError
from virtualchain.testing import check_determinism, determinism
from virtualchain.testing.database import DatabaseServer, other_version
from virtualchain.testing.determinism import Undetermined

SAMPLES = [b"apohello", b"apoworld 17"]
WORDS = "CREATE TABLE words (id bigint PRIMARY KEY, word text NOT NULL)"


@pytest.fixture(scope="module")
def other_url(database_server: DatabaseServer) -> Iterator[str | None]:
    """Run a server of another version for all tests of this file, if there is one."""
    with other_version(database_server) as other:
        yield None if other is None else other.url


@pytest.fixture(autouse=True)
def _fewer_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a quarter of the hostile inputs, in fewer sessions: which ones there are is tested elsewhere."""
    monkeypatch.setattr(determinism, "_MOST_CASES", 60)
    monkeypatch.setattr(determinism, "_STRETCHES", 4)


@pytest.fixture
def _one_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the machine with another version, where the rough one shows the difference."""
    monkeypatch.setattr(determinism.Course, "on_another_version", lambda *_: None)


def an_app(
    parse: Callable[[bytes], dict[str, Any]] | None = None,
    commit: Callable[..., None] | None = None,
    check: Callable[..., bool] | None = None,
) -> App:
    """Make an app that keeps words, with callbacks in place of its own."""

    def keep(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
        state.execute("INSERT INTO words VALUES (%s, %s)", [block_id * 1000 + vtxindex, op["word"]])
        if commit is not None:
            commit(op, state)

    app = App("words", magic=b"ap", projections=WORDS)
    app.add(b"o", parse=parse or (lambda payload: {"word": payload.decode()}), commit=keep, check=check)
    return app


def test_an_app_that_is_the_same_everywhere(database_url: str, other_url: str | None) -> None:
    """It is tried in other processes, on another version, and from a checkpoint."""
    report = check_determinism(
        an_app(), SAMPLES, database_url=database_url, other_database_url=other_url, seconds=300
    )
    first, *others = report.machines
    assert first == "the first machine"
    assert all(name.startswith("another process ") for name in others)
    assert len(others) == (2 if other_url is None else 3)
    assert report.accepted > 40
    assert report.refused > 10
    assert report.cases == report.accepted + report.refused
    assert report.blocks > 5


def hash_order(payload: bytes) -> dict[str, Any]:
    """Let the hash seed order letters."""
    return {"word": "".join(set(payload.decode()))}


def local_hour(payload: bytes) -> dict[str, Any]:
    """Let the time zone decide."""
    return {"word": f"{payload.decode()} {time.localtime(0).tm_hour}"}


def stack(payload: bytes) -> dict[str, Any]:
    """Let the depth of the call decide."""

    def dig(depth: int) -> int:
        return depth and dig(depth - 1)

    return {"word": payload.decode() * (1 + dig(650))}


def memory() -> Callable[[bytes], dict[str, Any]]:
    """Let a restart decide."""
    seen: list[bytes] = []

    def parse(payload: bytes) -> dict[str, Any]:
        seen.append(payload)
        return {"word": f"{payload.decode()} {len(seen)}"}

    return parse


@pytest.mark.usefixtures("_one_other_machine")
@pytest.mark.parametrize("parse", [hash_order, local_hour, stack, memory()])
def test_what_a_machine_decides_in_parse(
    database_url: str,
    other_url: str | None,
    database_server: DatabaseServer,
    parse: Callable[[bytes], dict[str, Any]],
) -> None:
    """Block, op, row and both values are named; the first op that differs is the one. No database is left."""
    with pytest.raises(Undetermined, match="app words does not depend on values alone") as raised:
        check_determinism(
            an_app(parse), SAMPLES, database_url=database_url, other_database_url=other_url, guard=False
        )
    message = str(raised.value)
    assert (
        "the first machine and another process with other plans, heaps and forks differ first in block"
        in message
    )
    assert " <> " in message
    if parse in {local_hour, stack}:  # by chance, a hash seed may order some words as another does
        assert "differ first in block 21, in sample b'apohello' by alice (" in message
        assert "- verdict: " in message
        assert '- table words, row (21000): {"id": 21000, ' in message
    with psycopg.connect(database_server.url) as connection:
        names = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'determinism%'")
        assert names.fetchall() == []


def heap_order(op: dict[str, Any], state: State) -> bool:
    """Let the order of rows on disk decide."""
    row = state.one("SELECT word FROM words")
    op["first"] = None if row is None else row["word"]
    return True


@pytest.mark.usefixtures("_one_other_machine")
def test_the_statement_is_named(database_url: str, other_url: str | None) -> None:
    """A query without ORDER BY, with its result on both machines."""
    with pytest.raises(Undetermined) as raised:
        check_determinism(
            an_app(check=heap_order), SAMPLES, database_url=database_url, other_database_url=other_url
        )
    assert "- statement: SELECT word FROM words (in check): {'word': " in str(raised.value)
    assert "add ORDER BY to a query that returns several rows" in str(raised.value)


@pytest.mark.usefixtures("_one_other_machine")
def test_a_silent_difference_in_rows_is_traced_to_its_statement(
    database_url: str, other_url: str | None
) -> None:
    """Verdicts and results are the same, and one row is not."""

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute("UPDATE words SET word = %s WHERE id = 21001", [f"{time.time_ns()}"])

    with pytest.raises(Undetermined) as raised:
        check_determinism(
            an_app(commit=commit),
            SAMPLES,
            database_url=database_url,
            other_database_url=other_url,
            guard=False,
        )
    message = str(raised.value)
    assert "- statement: " in message
    assert "UPDATE words SET word = %s WHERE id = 21001 with ['" in message
    assert "- table words, row (21001): " in message


@pytest.mark.usefixtures("_one_other_machine")
def test_rows_that_a_replay_would_repair_are_found(database_url: str, other_url: str | None) -> None:
    """What is derived again does not replace what a machine had: here, by the folder that it worked in."""

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute("UPDATE words SET word = %s WHERE id = 21001", [str(Path.cwd())])

    with pytest.raises(Undetermined) as raised:
        check_determinism(
            an_app(commit=commit),
            SAMPLES,
            database_url=database_url,
            other_database_url=other_url,
            guard=False,
        )
    message = str(raised.value)
    assert "the first machine and another process with other plans, heaps and forks differ first" in message
    assert "- table words, row (21001): " in message


@pytest.mark.usefixtures("_one_other_machine")
def test_an_app_that_halts_on_one_machine(database_url: str, other_url: str | None) -> None:
    """The halt is reported with its callback and the op."""

    def parse(payload: bytes) -> dict[str, Any]:
        if time.localtime(0).tm_hour:
            raise KeyError("hour")
        return {"word": payload.decode()}

    with pytest.raises(
        Undetermined, match=r"the app halts in db_parse: KeyError: 'hour' \(on another process"
    ):
        check_determinism(
            an_app(parse), SAMPLES, database_url=database_url, other_database_url=other_url, guard=False
        )


@pytest.mark.usefixtures("_one_other_machine")
def test_an_app_that_halts_everywhere_cannot_be_compared(database_url: str, other_url: str | None) -> None:
    """The error points to `check_poison`."""

    def parse(payload: bytes) -> dict[str, Any]:
        return {"word": payload.decode()[3]}

    with pytest.raises(UsageError, match=r"(?s)halts in block 21.*check_poison finds more.*IndexError"):
        check_determinism(an_app(parse), SAMPLES, database_url=database_url, other_database_url=other_url)
    nothing = App("nothing", magic=b"no", payload_rule=lambda outputs: None)
    nothing.add(b"o", parse=lambda payload: {})
    with pytest.raises(UsageError, match=r"none of \d+ cases reaches app nothing"):
        check_determinism(
            nothing, [b"noo"], database_url=database_url, other_database_url=other_url, seconds=0
        )


def test_an_app_that_cannot_be_sent_is_run_here(
    database_url: str, other_url: str | None, tmp_path: Path
) -> None:
    """Its callbacks refer to an open file; the report says that no other process was tried."""
    with (tmp_path / "log").open("w") as log:

        def parse(payload: bytes) -> dict[str, Any]:
            log.write("parsed\n")
            return {"word": payload.decode()}

        report = check_determinism(
            an_app(parse), SAMPLES[:1], database_url=database_url, other_database_url=other_url, seconds=0
        )
    assert all(name.startswith("the same process ") for name in report.machines[1:])
    assert len(report.machines) > 1


def test_the_engines_subclass(database_url: str, other_url: str | None) -> None:
    """A class whose callbacks look up consensus hashes has the same answers on all machines."""
    report = check_determinism(
        Questions, [b"qu?-1", b"qu?0", b"qu?-3 zz"], database_url=database_url, other_database_url=other_url
    )
    assert report.accepted > 20
    assert report.machines[1].startswith("another process ")


def test_a_program_without_a_guard_does_not_start_itself_again(
    database_url: str, other_url: str | None, tmp_path: Path
) -> None:
    """Other processes import the app's module: if that runs the check, they leave it, and it is run here."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from virtualchain import App\n"
        "from virtualchain.testing import check_determinism\n"
        "def parse(payload): return {'size': len(payload)}\n"
        "app = App('sizes', magic=b'ap')\n"
        "app.add(b'o', parse=parse)\n"
        "other = sys.argv[2:]\n"
        "report = check_determinism(app, [b'apox'], database_url=sys.argv[1],"
        " other_database_url=other[0] if other else None, seconds=0)\n"
        "print(report.machines[1])\n"
    )
    command = [sys.executable, str(program), database_url, *([other_url] if other_url else [])]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=200)
    assert done.stdout == "the same process with other plans, heaps and forks\n", done.stderr
