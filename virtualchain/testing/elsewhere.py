"""A process that has an app, and performs jobs with it, each in a fork of its own that remembers nothing."""

import os
import pickle
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from virtualchain.errors import VirtualchainError
from virtualchain.testing.machines import Job, Ran, be_elsewhere, perform
from virtualchain.testing.shipping import Parcel, unpack
from virtualchain.testing.surroundings import foreign_environment, import_path

_START: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from virtualchain.testing.elsewhere import serve; serve()"
)
_READY: Final = b"ready\n"
_PATIENCE: Final = 600.0
"""Seconds after which a job is given up."""


class Elsewhere:
    """Another process with an app; `perform` returns what a job came to there.

    The process has another hash seed, and what else `foreign_environment` changes. It starts at once, and is
    not waited for before the first job.
    """

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._errors = Path(self._folder.name, "errors").open("w+b")
        self._process = subprocess.Popen(  # noqa: S603 - this Python, with a constant program
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=foreign_environment(),
        )
        self._send(import_path())
        self._send(self._parcel)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def has_app(self) -> bool:
        """Wait until the process has the app; return False if it cannot be made there."""
        return self._answer() == _READY

    def perform(self, job: Job) -> Ran:
        """Do a job; raises VirtualchainError if the process fails."""
        result = Path(self._folder.name, "result")
        self._send((job, result))
        self._answer()
        ran: Ran = pickle.loads(result.read_bytes())  # noqa: S301 - see `shipping`
        result.unlink()
        return ran

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # then there is no answer, and the process says why
            self._process.stdin.write(pickle.dumps(value))
            self._process.stdin.flush()

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._errors.seek(0)
            output = self._errors.read().decode(errors="replace")
            raise VirtualchainError(f"the app cannot be run in another process:\n{output}")
        return line


def serve() -> None:
    """Perform the jobs on standard input: the main program of the other process."""
    be_elsewhere()
    answers = os.dup(1)
    os.dup2(2, 1)  # what the app prints is no answer
    parcel: Parcel = pickle.load(sys.stdin.buffer)  # noqa: S301 - see `shipping`
    try:
        app = unpack(parcel)
    except Exception:  # noqa: BLE001 - an app's module may raise anything
        os.write(answers, b"none\n")
        return
    os.write(answers, _READY)
    while True:
        try:
            job, result = pickle.load(sys.stdin.buffer)  # noqa: S301 - see `shipping`
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            _perform_and_exit(app, job, result)
        if os.waitpid(child, 0)[1] != 0:
            return
        os.write(answers, b"done\n")


def _perform_and_exit(app: object, job: Job, result: Path) -> None:
    """Do a job, and end this process without what a program does at its end."""
    status = 1
    try:
        result.write_bytes(pickle.dumps(perform(app, job)))
        status = 0
    except BaseException:  # noqa: BLE001 - it goes to where the other process can read it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)
