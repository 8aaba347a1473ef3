"""Replay scenarios through the real engine, each in its own database, on a straight or a forking chain."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from virtualchain.engine.engine import StateEngine
from virtualchain.examples.names.conformance.scenario import Scenario
from virtualchain.examples.names.conformance.source import PlacedTxs, RegistrySource
from virtualchain.examples.names.protocol import make_app
from virtualchain.model import Block
from virtualchain.store.database import connect_reader
from virtualchain.store.sql import queries
from virtualchain.testing.conformance.checking import NOTHING
from virtualchain.testing.conformance.forks import Engines, build_over_forks

_Q = queries("names_conformance")
_APP: Final = "names"


@dataclass(slots=True)
class BlockResult:
    """What the engine made of one block."""

    accepted: dict[int, str] = field(default_factory=dict)
    """Opcodes by txindex."""
    refused: dict[int, str] = field(default_factory=dict)
    """Steps and reasons by txindex."""
    canonical: list[bytes] = field(default_factory=list)
    """The serialized operations, in order."""
    ops_hash: str = NOTHING
    consensus_hash: str = NOTHING
    state_hash: str = NOTHING


Log = dict[int, BlockResult]


def replay(scenario: Scenario, database: str) -> Log:
    """Replay a scenario to its end, and return the engine's log."""
    source, chain = _make_source(scenario)
    source.activate(chain)
    with _engine(scenario, source, database) as engine:
        engine.build()
    return _read_log(database)


def replay_with_forks(scenario: Scenario, database: str, seed: int) -> Log:
    """Replay a scenario to its end over rival branches, with restarts, and return the engine's log.

    Before some of the recorded blocks, the engine builds rival blocks, which it then has to give up. The same
    seed yields the same branches.
    """
    chance = Random(f"{seed} {scenario.name}")  # noqa: S311 - it chooses tests
    source, chain = _make_source(scenario)
    contents = scenario.block_contents()
    # A rival of the last block must be outworked, too: it takes one more block after it.
    chain += source.make_branch(chain[-1], [{}])

    def rivals(position: int, depth: int) -> Iterator[PlacedTxs]:
        return _rival_contents(contents, position, depth, chance)

    with Engines(lambda: _engine(scenario, source, database)) as engines:
        for _ in build_over_forks(source, chain, rivals, engines, chance):
            pass
    return _read_log(database)


def _rival_contents(
    contents: Sequence[PlacedTxs], position: int, depth: int, chance: Random
) -> Iterator[PlacedTxs]:
    """Alter the recorded blocks from `position` on: mix in other transactions, drop some, and shuffle."""
    for recorded in contents[position : position + depth]:
        others = chance.choice(contents)
        pool = list(dict.fromkeys([*recorded.values(), *others.values()]))
        chance.shuffle(pool)
        kept = pool[: chance.randint(0, len(pool))]
        yield dict(enumerate(kept, start=1))


def _make_source(scenario: Scenario) -> tuple[RegistrySource, list[Block]]:
    """Make a source of a scenario's blocks, and its chain, which is not active yet."""
    known = {tx.txid: tx.raw for block in scenario.blocks for tx in block.txs} | dict(scenario.parents)
    source = RegistrySource(scenario.params.first_block, known, scenario.params.bitcoin)
    return source, source.make_branch(source.base, scenario.block_contents())


@contextmanager
def _engine(scenario: Scenario, source: RegistrySource, database: str) -> Iterator[StateEngine]:
    """Open an engine that runs a scenario's app."""
    app = make_app(scenario.params, _APP)
    with (
        TemporaryDirectory() as folder,
        StateEngine(
            app, database=database, source=source, confirmations=0, state_folder=Path(folder)
        ) as engine,
    ):
        yield engine


def _read_log(database: str) -> Log:
    """Read what the engine recorded of each block."""
    log: Log = {}
    parameters = {"app": _APP}
    with closing(connect_reader(database)) as connection:
        for block_id, *digests in connection.execute(_Q["digests"], parameters):
            log[block_id] = BlockResult(ops_hash=digests[0], consensus_hash=digests[1], state_hash=digests[2])
        for block_id, txindex, opcode, canonical in connection.execute(_Q["accepted"], parameters):
            log[block_id].accepted[txindex] = opcode.decode("latin-1")
            log[block_id].canonical += canonical
        for block_id, txindex, step, reason in connection.execute(_Q["refused"], parameters):
            log[block_id].refused[txindex] = f"{step}: {reason}"
    return log
