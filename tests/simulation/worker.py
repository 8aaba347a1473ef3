"""A worker process of the command: it runs simulations on a database server of its own."""

# It is part of a program that prints:
# ruff: noqa: T201

import shutil
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.story import simulate, sweep
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing.database import DatabaseServer

if TYPE_CHECKING:
    from multiprocessing.queues import Queue


@dataclass(frozen=True)
class Result:
    """The outcome of one run."""

    seed: int | str
    """The seed, or the step of a sweep."""
    log: list[str]
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each fault struck at each step."""
    missed: int = 0
    """Faults whose step was not reached."""
    error: str = ""
    """The traceback of a run that failed."""


class OwnServer:
    """A database server in a folder, which simulations may restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._embedded = EmbeddedServer(folder / "postgresql", durable=False)
        self.server = DatabaseServer(self._embedded.start())

    def restart(self, mode: str) -> None:
        """Stop the server in a mode of `pg_ctl stop`, and start it again."""
        embedded = self._embedded
        embedded._pg_ctl(find_binaries(None, embedded._account), "stop", "-m", mode)
        embedded.start()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self._embedded.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


_SERVERS: list[OwnServer] = []
"""This process's server."""


def start_server(folders: "Queue[Path]") -> None:
    """Start this process's server in the next of the folders."""
    _SERVERS.append(OwnServer(folders.get()))


def run(seed: int | str, steps: int | None, verbose: bool) -> Result:
    """Run the simulation of a seed, or the sweep of a step, on this process's server.

    With `verbose`, each line of the log is printed at once.
    """
    [own] = _SERVERS
    lines: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="state-", dir=own.folder))

    def log(line: str) -> None:
        lines.append(line)
        if verbose:
            print(line, flush=True)

    try:
        if isinstance(seed, str):
            world = sweep(seed, own.server, folder, log, own.restart)
        else:
            world = simulate(seed, own.server, folder, log, own.restart, steps)
    except Exception:  # noqa: BLE001 - whatever it is, the run is reported with its steps
        return Result(seed, lines, error=traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Result(seed, lines, world.struck, world.missed)
