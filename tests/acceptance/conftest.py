"""What the tests of the command line share: the real command, as a process of its own."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import virtualchain
from virtualchain.cli import main

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
"""`apps.py`: one app takes everything, the other keeps notes, and fails while there is a file `broken`."""


@dataclass(frozen=True)
class Done:
    """What a command that ended left behind."""

    code: int
    out: str
    err: str


class Running:
    """A command under way; what it writes goes to files, so that it never waits for a reader."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._files = [folder / f"{stream}-{time.monotonic_ns()}" for stream in ("out", "err")]
        out, err = (file.open("w") for file in self._files)
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err, text=True
        )
        out.close()
        err.close()

    @property
    def err(self) -> str:
        """What it said so far on standard error."""
        return self._files[1].read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds while the command goes on."""
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            assert self._process.poll() is None, f"it ended with {self._process.returncode}: {self.err}"
            assert time.monotonic() < deadline, f"it did not happen in time: {self.err}"
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        """Wait until standard error has a text."""
        self.until(lambda: text in self.err)

    def signal(self, number: int = signal.SIGTERM) -> Done:
        """Send a signal, and wait for the end."""
        self._process.send_signal(number)
        return self.end()

    def end(self, given: str | None = None) -> Done:
        """Give it its standard input, and wait for the end."""
        self._process.communicate(given, timeout=_PATIENCE)
        return Done(self._process.returncode, self._files[0].read_text(), self.err)

    def kill(self) -> None:
        """End what a failed test left running."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


class Commands:
    """Runs `virtualchain` in a folder of its own, where `apps.py` lies and nothing of the user's is found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "apps.py").write_text(APPS)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VIRTUALCHAIN_")}
        self.environment = {**kept, "HOME": str(folder), "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
        self.started: list[Running] = []

    def __call__(self, *arguments: object, code: int = 0, given: str | None = None) -> Done:
        """Run a command to its end; its exit code must be `code`."""
        done = self.start(*arguments).end(given)
        assert done.code == code, f"exit code {done.code}:\n{done.out}\n{done.err}"
        return done

    def start(self, *arguments: object) -> Running:
        """Start a command."""
        command = [sys.executable, "-m", "virtualchain", *map(str, arguments)]
        self.started.append(Running(command, self.folder, self.environment))
        return self.started[-1]


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    """Give the command line: call it with arguments, or `start` a command that goes on."""
    commands = Commands(tmp_path)
    yield commands
    for command in commands.started:
        command.kill()


class Inside:
    """Runs `virtualchain` in this very process, as quickly as many small cases want it."""

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

    def __call__(self, *arguments: object, code: int = 0, given: str = "") -> Done:
        """Run a command to its end; its exit code must be `code`."""
        self._monkeypatch.setattr("sys.argv", ["virtualchain", *map(str, arguments)])
        self._monkeypatch.setattr("sys.stdin", io.StringIO(given))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        assert ended.value.code == code, f"exit code {ended.value.code}:\n{out}\n{err}"
        return Done(code, out, err)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """Give the command line without a process of its own."""
    return Inside(tmp_path, monkeypatch, capsys)
