"""The Runes app on a chain of its own in memory: blocks are made from unsigned transactions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.support.runes_chain import Coin, Spent, coinbase, coins_of, transaction, txid_of
from virtualchain import StateEngine
from virtualchain.examples.runes import make_app
from virtualchain.examples.runes.conformance.scenario import Prevout, RecordedBlock
from virtualchain.examples.runes.conformance.source import RunesSource
from virtualchain.model import Block


@dataclass
class RunesChain:
    """A chain and the engine that follows it."""

    engine: StateEngine
    reader: psycopg.Connection[dict[str, Any]]
    source: RunesSource
    first: int
    chain: list[Block] = field(default_factory=list)
    _spent: dict[tuple[str, int], Prevout] = field(default_factory=dict)
    _salt: int = 0

    @property
    def height(self) -> int:
        """The height of the next block."""
        return self.first + len(self.chain)

    def tx(self, inputs: Sequence[Spent], *outputs: bytes) -> bytes:
        """Make a transaction."""
        self._salt += 1
        for item in inputs:
            place = item.coin.txid, item.coin.vout
            self._spent[place] = Prevout(1000, item.coin.script, item.coin.height)
        return transaction(inputs, outputs, self._salt)

    def mine(self, *txs: bytes, reward: Sequence[bytes] = ()) -> int:
        """Mine a block, and have the engine take it; return its height."""
        height = self.height
        self._salt += 1
        block = RecordedBlock(
            height,
            1_700_000_000 + 600 * height,
            (coinbase(height, reward or [b"\x51"], self._salt), *txs),
            dict(self._spent),
        )
        parent = self.chain[-1] if self.chain else self.source.base
        self.chain += self.source.make_branch(parent, [block])
        self.source.activate(self.chain)
        self.engine.build()
        return height

    def undo(self, blocks: int) -> None:
        """Have the engine give up the last blocks."""
        del self.chain[-blocks:]
        self.source.activate(self.chain, invalidate=True)
        self.engine.build()

    def coins(self, raw: bytes, height: int) -> list[Coin]:
        """Return a transaction's outputs."""
        return coins_of(raw, height)

    def query(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Query the database."""
        return self.reader.execute(statement.encode(), parameters).fetchall()

    def held(self, raw: bytes) -> dict[int, dict[str, int]]:
        """Return what a transaction's outputs hold, by output and rune."""
        held: dict[int, dict[str, int]] = {}
        for row in self.query("SELECT * FROM runes.outputs WHERE txid = %s", txid_of(raw)):
            held.setdefault(row["vout"], {})[row["rune"]] = int(row["amount"])
        return held

    def rune(self, rune_id: str) -> dict[str, Any]:
        """Return a rune's row."""
        return self.query("SELECT * FROM runes.runes WHERE id = %s", rune_id)[0]

    def fields(self, raw: bytes) -> dict[str, Any]:
        """Return the fields of a transaction's op."""
        rows = self.query("SELECT fields FROM virtualchain.ops WHERE txid = %s", txid_of(raw))
        return dict(rows[0]["fields"])

    def assert_balanced(self) -> None:
        """Check that nothing is lost: in each transaction, and of each rune."""
        assert self.query(_UNBALANCED_EVENTS) == []
        assert self.query(_UNBALANCED_RUNES) == []


_UNBALANCED_EVENTS = """
    SELECT txid, rune FROM runes.rune_events WHERE rune IS NOT NULL GROUP BY txid, rune
    HAVING coalesce(sum(amount) FILTER (WHERE kind IN ('spent', 'etched', 'minted')), 0)
        <> coalesce(sum(amount) FILTER (WHERE kind IN ('transferred', 'burned')), 0)
"""
_UNBALANCED_RUNES = """
    SELECT r.id FROM runes.runes AS r
    WHERE r.premine + r.mints * coalesce(r.mint_amount, 0) - r.burned
        <> (SELECT coalesce(sum(o.amount), 0) FROM runes.outputs AS o WHERE o.rune = r.id)
"""


@contextmanager
def runes_chain(url: str, first: int = 100, network: str = "regtest") -> Iterator[RunesChain]:
    """Open an empty chain."""
    source = RunesSource(first, network, {})
    with (
        TemporaryDirectory() as folder,
        StateEngine(
            make_app(first),
            database=url,
            source=source,
            confirmations=0,
            verify="headers",
            state_folder=Path(folder),
        ) as engine,
        psycopg.connect(url, row_factory=dict_row, autocommit=True) as reader,
    ):
        yield RunesChain(engine, reader, source, first)
