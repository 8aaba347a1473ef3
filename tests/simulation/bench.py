"""Where the simulations of one process run: on a database server that is theirs alone."""

# It is a part of a program, and prints:
# ruff: noqa: T201

import shutil
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.story import simulate, sweep
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing.database import DatabaseServer

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

Result = tuple[int | str, list[str], Counter[tuple[str, str]], int, str]
"""Seed or step, what was done, which fault met which step, traps that were not met, and what went wrong."""


class Bench:
    """A database server in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._embedded = EmbeddedServer(folder / "postgresql", durable=False)
        self.server = DatabaseServer(self._embedded.start())

    def restart(self, mode: str) -> None:
        """Stop the server so, and start it again."""
        embedded = self._embedded
        embedded._pg_ctl(find_binaries(None, embedded._account), "stop", "-m", mode)
        embedded.start()

    def close(self) -> None:
        """End the server; its folder goes, too."""
        self._embedded.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


_BENCH: list[Bench] = []


def take(folders: "Queue[Path]") -> None:
    """Take a bench for this process."""
    _BENCH.append(Bench(folders.get()))


def run(seed: int | str, steps: int | None, verbose: bool) -> Result:
    """Run the simulation of a seed, or the sweep of a step, on this process's bench.

    With `verbose` each step is told at once.
    """
    [bench] = _BENCH
    told: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="state-", dir=bench.folder))

    def note(text: str) -> None:
        told.append(text)
        if verbose:
            print(text, flush=True)

    try:
        if isinstance(seed, str):
            world = sweep(seed, bench.server, folder, note, bench.restart)
        else:
            world = simulate(seed, bench.server, folder, note, bench.restart, steps)
    except Exception:  # noqa: BLE001 - whatever it is, the run and its steps are told
        return seed, told, Counter(), 0, traceback.format_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return seed, told, world.met, world.unmet, ""
