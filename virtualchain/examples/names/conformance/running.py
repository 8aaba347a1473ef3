"""Take scenarios through the real engine, each in a database of its own."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from virtualchain.engine.engine import StateEngine
from virtualchain.examples.names.conformance.comparing import Log, read_log
from virtualchain.examples.names.conformance.scenario import (
    Scenario,
    places,
)
from virtualchain.examples.names.conformance.source import RecordedSource
from virtualchain.examples.names.protocol import make_app
from virtualchain.model import Block
from virtualchain.store.database import connect_reader
from virtualchain.testing.database import DatabaseServer

_APP = "names"


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
    source = RecordedSource(first, known, scenario.params.bitcoin)
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
