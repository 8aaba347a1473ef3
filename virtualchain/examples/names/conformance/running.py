"""Take scenarios through the real engine, each in a database of its own."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from virtualchain.errors import VirtualchainError
from virtualchain.examples.names.conformance.comparing import Difference, Log, first_difference, read_log
from virtualchain.examples.names.conformance.scenario import (
    MalformedScenario,
    Scenario,
    name_of,
    places,
    read_scenario,
)
from virtualchain.examples.names.conformance.source import RecordedSource
from virtualchain.examples.names.protocol import make_app
from virtualchain.indexer import StateEngine
from virtualchain.model import Block, Json
from virtualchain.store.database import connect_reader
from virtualchain.testing.database import DatabaseServer

_APP = "names"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scenario, or of a file that has none: neither field where it passed."""

    file: str
    scenario: str | None
    difference: Difference | None = None
    error: str | None = None

    @property
    def has_passed(self) -> bool:
        """Whether all was as recorded."""
        return self.difference is None and self.error is None

    def as_dict(self) -> Json:
        """Give it for JSON."""
        return {
            "file": self.file,
            "scenario": self.scenario,
            "passed": self.has_passed,
            "difference": None if self.difference is None else asdict(self.difference),
            "error": self.error,
        }

    def __str__(self) -> str:
        where = self.file if self.scenario is None else f"{self.file}: {self.scenario}"
        return f"pass {where}" if self.has_passed else f"FAIL {where}: {self.difference or self.error}"


def run(found: object, place: int, file: str, server: DatabaseServer) -> Result:
    """Replay what a file holds at a place among its scenarios."""
    name = name_of(found, place)
    try:
        scenario = read_scenario(found, name)
        with clone(server) as database:
            return Result(file, name, first_difference(scenario, replay(scenario, database)))
    except MalformedScenario as error:
        return Result(file, name, error=f"malformed: {error}")
    except VirtualchainError as error:
        return Result(file, name, error=str(error))


def replay(scenario: Scenario, database: str) -> Log:
    """Run a scenario to its end; give the engine's log."""
    source, chain = make_source(scenario)
    source.show(chain)
    with engine(scenario, source, database) as running:
        running.build()
    return log_of(database)


def make_source(scenario: Scenario) -> tuple[RecordedSource, list[Block]]:
    """Give a source of a scenario's blocks, and its chain, which is not shown yet."""
    known = {tx.txid: tx.raw for block in scenario.blocks for tx in block.txs} | dict(scenario.parents)
    first = scenario.params.first_block
    source = RecordedSource(first, known)
    contents = [{tx.txindex: tx.raw for tx in txs} for _, txs in places(scenario.blocks, first)]
    return source, source.make_branch(source.base, contents)


@contextmanager
def engine(scenario: Scenario, source: RecordedSource, database: str) -> Iterator[StateEngine]:
    """Open the engine on a scenario's app."""
    app = make_app(scenario.params, _APP)
    with (
        TemporaryDirectory() as folder,
        StateEngine(
            app, database=database, source=source, confirmations=0, state_folder=Path(folder)
        ) as opened,
    ):
        yield opened


def log_of(database: str) -> Log:
    """Read what the engine left."""
    with closing(connect_reader(database)) as connection:
        return read_log(connection, _APP)


@contextmanager
def clone(server: DatabaseServer) -> Iterator[str]:
    """Give a database of its own for a while."""
    database = server.clone()
    try:
        yield database
    finally:
        server.drop(database)
