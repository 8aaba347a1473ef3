"""Replay scenarios through the real engine, on straight and forking chains, and compare the state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import psycopg
from psycopg.rows import dict_row

from virtualchain.bitcoin.transaction import read_outputs
from virtualchain.engine.engine import StateEngine
from virtualchain.examples.runes.conformance.records import entry_record, plain
from virtualchain.examples.runes.conformance.scenario import (
    RecordedBlock,
    Scenario,
    Snapshot,
    sorted_by_id,
)
from virtualchain.examples.runes.conformance.source import RunesSource, empty_block, rival_of
from virtualchain.examples.runes.params import first_block_of
from virtualchain.examples.runes.protocol import make_app
from virtualchain.examples.runes.registry import read_entry
from virtualchain.model import Block
from virtualchain.store.database import connect_reader
from virtualchain.store.sql import queries
from virtualchain.testing.conformance.checking import NOTHING, Difference
from virtualchain.testing.conformance.forks import Engines, build_over_forks

_Q = queries("runes_conformance")
_KEPT: Final = 0.6
"""The share of the transactions that a rival block takes."""


class Replay:
    """One scenario on its way through the engine, in a database of its own."""

    def __init__(self, scenario: Scenario, database: str) -> None:
        self._scenario = scenario
        self._database = database
        chains = (scenario.blocks, *scenario.branches)
        known = {
            outpoint: output
            for chain in chains
            for block in chain
            for outpoint, output in block.prevouts.items()
        }
        self._source = RunesSource(scenario.first_block, scenario.network, known)
        self._main = self._source.make_branch(self._source.base, scenario.blocks)
        self._start = max(scenario.first_block, first_block_of(scenario.network))

    def differences(self) -> Iterator[Difference]:
        """Take every block and every branch, one block at a time; yield how the state differs after each."""
        states = self._scenario.expected(self._scenario.blocks)
        with self._opened() as engines:
            for position in range(1, len(self._main) + 1):
                self._source.activate(self._main[:position])
                yield from self._built(engines, self._main[position - 1], states[position])
            for branch in self._scenario.branches:
                yield from self._give_up_branch(engines, states[-1])
                chain, branch_states = self._chain_with(branch)
                for position in range(len(self._main) + 1, len(chain) + 1):
                    self._source.activate(chain[:position])
                    yield from self._built(engines, chain[position - 1], branch_states[position])

    def differences_over_forks(self, seed: int) -> Iterator[Difference]:
        """Take the same chains over rival branches, with restarts; the same seed yields the same ones."""
        chance = Random(f"{seed} {self._scenario.name}")  # noqa: S311 - it chooses tests
        below = self._scenario.expected(self._scenario.blocks)[-1]
        with self._opened() as engines:
            yield from self._over_forks(engines, (), chance, 0)
            for branch in self._scenario.branches:
                yield from self._give_up_branch(engines, below)
                yield from self._over_forks(engines, branch, chance, len(self._main))

    def _over_forks(
        self, engines: Engines, branch: Sequence[RecordedBlock], chance: Random, position: int
    ) -> Iterator[Difference]:
        """Take the recorded blocks with a branch on top, from `position` on."""
        blocks = (*self._scenario.blocks, *branch)
        if len(blocks) == position:
            return
        chain, states = self._chain_with(branch)
        # A rival of the last block must be outworked, too: it takes one more block after it.
        last = empty_block(blocks[-1].height + 1, blocks[-1].time)
        chain = [*chain, *self._source.make_branch(chain[-1], [last])]
        states = [*states, states[-1]]

        def rivals(position: int, depth: int) -> Iterator[RecordedBlock]:
            return _rivals(blocks, position, depth, chance)

        for built in build_over_forks(self._source, chain, rivals, engines, chance, position):
            yield from self._compare(chain[built - 1], states[built])

    def _chain_with(self, branch: Sequence[RecordedBlock]) -> tuple[list[Block], list[Snapshot | None]]:
        """Return the blocks with a branch on top, and the state before them and after each."""
        parent = self._main[-1] if self._main else self._source.base
        chain = [*self._main, *self._source.make_branch(parent, branch)]
        return chain, self._scenario.expected((*self._scenario.blocks, *branch))

    def _give_up_branch(self, engines: Engines, expected: Snapshot | None) -> Iterator[Difference]:
        """Return to the last block below the branches."""
        self._source.activate(self._main, invalidate=True)
        yield from self._built(engines, self._main[-1] if self._main else self._source.base, expected)

    def _built(self, engines: Engines, block: Block, expected: Snapshot | None) -> Iterator[Difference]:
        engines.build()
        yield from self._compare(block, expected)

    def _compare(self, block: Block, expected: Snapshot | None) -> Iterator[Difference]:
        if expected is not None and block.block_id >= self._start:
            actual = read_state(self._reader)
            yield from _differences(block.block_id, "rune", expected.entries, actual.entries)
            yield from _differences(block.block_id, "output", expected.balances, actual.balances)

    @contextmanager
    def _opened(self) -> Iterator[Engines]:
        with closing(connect_reader(self._database)) as self._reader, Engines(self._engine) as engines:
            yield engines

    @contextmanager
    def _engine(self) -> Iterator[StateEngine]:
        app = make_app(self._start, self._scenario.initial)
        with (
            TemporaryDirectory() as folder,
            StateEngine(
                app,
                database=self._database,
                source=self._source,
                confirmations=0,
                verify="off",  # times are made up, and coinbases do not commit to witnesses
                state_folder=Path(folder),
            ) as engine,
        ):
            yield engine


def read_state(reader: psycopg.Connection) -> Snapshot:
    """Read all runes and balances."""
    balances: dict[str, list[list[object]]] = {}
    rows = reader.cursor(row_factory=dict_row).execute(_Q["runes"]).fetchall()
    for txid, vout, rune, amount in reader.execute(_Q["outputs"]):
        balances.setdefault(f"{txid}:{vout}", []).append([rune, int(amount)])
    return Snapshot(
        {row["id"]: plain(entry_record(read_entry(row))) for row in rows},
        {outpoint: plain(sorted_by_id(amounts)) for outpoint, amounts in balances.items()},
    )


def _differences(
    block_id: int, kind: str, recorded: Mapping[str, object], actual: Mapping[str, object]
) -> Iterator[Difference]:
    """Compare records by their names: entries field by field, as far as they were recorded."""
    for name in sorted(recorded.keys() | actual.keys()):
        before, after = recorded.get(name), actual.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            for field in sorted(before):
                if before[field] != after.get(field):
                    yield Difference(
                        block_id, f"{kind} {name}", field, _shown(before[field]), _shown(after.get(field))
                    )
        else:
            yield Difference(block_id, f"{kind} {name}", "content", _shown(before), _shown(after))


def _shown(value: object) -> str:
    return NOTHING if value is None else str(value)


def _rivals(
    blocks: Sequence[RecordedBlock], position: int, depth: int, chance: Random
) -> Iterator[RecordedBlock]:
    """Alter the recorded blocks from `position` on: drop some transactions, and mix in others.

    No transaction occurs twice in the chain, and those of a block keep their order.
    """
    used = {_txid(tx) for block in blocks[:position] for tx in block.txs}
    for recorded in blocks[position : position + depth]:
        pool = [*recorded.txs[1:], *chance.choice(blocks).txs[1:]]
        chosen = []
        for tx in pool:
            if _txid(tx) not in used and chance.random() < _KEPT:
                used.add(_txid(tx))
                chosen.append(tx)
        yield rival_of(recorded, chosen)


def _txid(raw: bytes) -> str:
    return read_outputs(raw)[0]
