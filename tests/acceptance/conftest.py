"""Shared by the tests of the command line: the real command, in its own process or in this one."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

import virtualchain
from tests.support.developing import APP as GUESTBOOK
from tests.support.developing import SQL, Dev
from virtualchain.cli import main
from virtualchain.testing import FakeNode
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind
from virtualchain.testing.database import DatabaseServer

_PATIENCE = 30.0
"""Seconds after which a test gives up on a command."""
ROOT = Path(virtualchain.__file__).parents[1]
APPS = """
import time
from pathlib import Path
from virtualchain import App, Rejected

plain = App("plain", magic=b"st")
plain.add(b"o", parse=lambda payload: {"text": payload.decode()})

def check(op, state):
    if Path("broken").exists():
        raise RuntimeError("out of\\npaper")
    if op["text"] == "slow":
        Path("busy").touch()
        time.sleep(1)
    return op["text"] != "no" or Rejected("we do not take no")

def commit(op, state, block_id, vtxindex):
    state.execute("INSERT INTO notes VALUES (%s, %s, %s)", [block_id, vtxindex, op["text"]])

notes = App(
    "notes",
    magic=b"st",
    projections="CREATE TABLE notes ("
    "block_id integer, vtxindex integer, text text, PRIMARY KEY (block_id, vtxindex))",
)
notes.add(b"o", parse=lambda payload: {"text": payload.decode()}, check=check, commit=commit)
app = notes
"""
"""`apps.py`: `plain` accepts everything; `notes` keeps notes, and fails while a file `broken` exists."""


@dataclass(frozen=True)
class Done:
    """The exit code and the output of a command that has ended."""

    code: int
    out: str
    err: str


class Running:
    """A running command; its output goes to files, so that it never waits for a reader."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._files = [folder / f"{stream}-{time.monotonic_ns()}" for stream in ("out", "err")]
        out, err = (file.open("w") for file in self._files)
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err, text=True
        )
        out.close()
        err.close()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def out(self) -> str:
        """What it has written to standard output so far."""
        return self._files[0].read_text()

    @property
    def err(self) -> str:
        """What it has written to standard error so far."""
        return self._files[1].read_text()

    def write(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds, while the command runs."""
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.err}"
            assert time.monotonic() < deadline, f"it did not happen in time: {self.err}"
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        """Wait until standard error contains a text."""
        self.until(lambda: text in self.err)

    def signal(self, number: int = signal.SIGTERM) -> Done:
        """Send a signal, and wait until the command ends."""
        self._process.send_signal(number)
        return self.end()

    def end(self, stdin: str | None = None) -> Done:
        """Write its standard input, and wait until it ends."""
        self._process.communicate(stdin, timeout=_PATIENCE)
        return Done(self._process.returncode, self._files[0].read_text(), self.err)

    def kill(self) -> None:
        """Kill the command if a failed test left it running."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Commands:
    """Runs `virtualchain` in its own folder, which holds `apps.py`, without any of the user's settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "apps.py").write_text(APPS)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VIRTUALCHAIN_")}
        self.environment = {**kept, "HOME": str(folder), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        self.started: list[Running] = []

    def __call__(self, *arguments: object, code: int = 0, stdin: str | None = None) -> Done:
        """Run a command until it ends; its exit code must be `code`."""
        done = self.start(*arguments).end(stdin)
        assert done.code == code, f"exit code {done.code}:\n{done.out}\n{done.err}"
        return done

    def start(self, *arguments: object, before: Sequence[str] = ()) -> Running:
        """Start a command; `before` is the program that starts it, if it is not started directly."""
        command = [*before, sys.executable, "-m", "virtualchain", *map(str, arguments)]
        self.started.append(Running(command, self.folder, self.environment))
        return self.started[-1]


def check_one_line(done: Done, complaint: str) -> None:
    """Check that a command printed one line on standard error, which contains a text, and nothing else."""
    assert complaint in done.err
    assert (done.out, done.err.count("\n"), done.err.count("virtualchain: ")) == ("", 1, 1), done.err


def mine_notes(node: FakeNode, *texts: str) -> None:
    """Mine a block for each text, which the app notes keeps."""
    for text in texts:
        node.mine([node.send(b"sto" + text.encode())])


def notes(url: str) -> list[str]:
    """Read the table of the app notes."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT text FROM notes.notes ORDER BY block_id").fetchall()
    return [text for (text,) in rows]


@pytest.fixture
def options(fake_node: FakeNode, database_url: str) -> tuple[str, ...]:
    """Return the options for the fake node and the test's database, without confirmations."""
    return ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", "0")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    """Provide the command line: call it with arguments, or `start` a command that keeps running."""
    commands = Commands(tmp_path)
    yield commands
    for command in commands.started:
        command.kill()


@pytest.fixture
def start(cli: Commands, database_server: DatabaseServer) -> Iterator[Callable[..., Dev]]:
    """Provide what starts dev on the app above, in databases of the test's server."""
    url = f"{database_server.url.rpartition('/')[0]}/story_dev"
    (cli.folder / "guestbook.py").write_text(GUESTBOOK)
    (cli.folder / "guestbook.sql").write_text(SQL)
    (cli.folder / "virtualchain.toml").write_text('[[apps]]\nuse = "guestbook"\n')

    def run(*options: str) -> Dev:
        return Dev(cli.start("dev", "--json", "--port", 0, "--database", url, *options))

    yield run
    for command in cli.started:
        command.kill()
    for number in range(3):
        database_server.drop(f"{url}_{number}")


class Inside:
    """Runs `virtualchain` in this process, which is faster, for many small cases."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        (folder / "apps.py").write_text(APPS)
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, "apps", raising=False)
        for name in os.environ:
            if name.startswith("VIRTUALCHAIN_"):
                monkeypatch.delenv(name)
        self.set(HOME=str(folder), COLUMNS="100")

    def set(self, **variables: str) -> None:
        """Set environment variables."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def __call__(self, *arguments: object, code: int | None = 0, stdin: str = "") -> Done:
        """Run a command until it ends; its exit code must be `code`, or may be any if that is None."""
        self._monkeypatch.setattr("sys.argv", ["virtualchain", *map(str, arguments)])
        self._monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        ended_with = int(ended.value.code or 0)
        assert code in {None, ended_with}, f"exit code {ended_with}:\n{out}\n{err}"
        return Done(ended_with, out, err)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """Provide the command line without its own process."""
    return Inside(tmp_path, monkeypatch, capsys)


@dataclass
class Place:
    """A node with a wallet, and the options that name it and the database."""

    node: Bitcoind
    options: tuple[str, ...]

    def mine(self, n: int = 1) -> None:
        """Mine blocks with what is in the mempool."""
        self.node.rpc("generatetoaddress", n, self.address())

    def address(self) -> str:
        """Return a new address of the wallet."""
        return str(self.node.rpc("getnewaddress", "", "bech32"))


@pytest.fixture
def place(database_url: str) -> Iterator[Place]:
    """Provide a node whose only wallet has coins."""
    program = find_bitcoind()
    if program is None:
        pytest.skip("no bitcoind: name one in the environment variable BITCOIND, or put it on PATH")
    node = Bitcoind(program)
    options = ("--bitcoin", node.url, "--database", database_url, "--confirmations", "0")
    place = Place(node, options)
    node.rpc("createwallet", "mine")
    place.mine(103)
    yield place
    node.stop()
