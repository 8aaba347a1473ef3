"""State on outputs: which transactions of a block an app sees because of what they spend.

Beside those in which its payload rule finds a payload, an app that tracks outputs sees every transaction
that spends an output of its tracked set as it is before the block, or one of a transaction of the block that
it sees. So what it sees depends on the chain and on the state before the block, and on nothing that its
callbacks then do (docs/outputs.md).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from virtualchain.bitcoin.compiled import outpoints
from virtualchain.bitcoin.transaction import split_outpoints
from virtualchain.model import Input
from virtualchain.store.tables import Tables

_TXID: Final = 32


@dataclass(frozen=True, slots=True)
class Spends:
    """What the transactions of a block spend: by txindex, in order, outpoints one after the other."""

    by_txindex: Sequence[tuple[int, bytes]]
    txid: Callable[[int], bytes]
    """Computes a transaction's id, in display order."""

    @classmethod
    def of_inputs(cls, inputs: Iterable[Input]) -> "Spends":
        """Read what inputs of the tape spend; a coinbase spends nothing."""
        ids = {item.txindex: bytes.fromhex(item.txid) for item in inputs}
        spends = [(item.txindex, outpoints(item.raw, 0) if item.txindex else b"") for item in inputs]
        return cls(spends, ids.__getitem__)

    def all(self) -> list[bytes]:
        """List all outpoints."""
        return [outpoint for _, packed in self.by_txindex for outpoint in split_outpoints(packed)]


@dataclass(slots=True)
class Tracked:
    """What an app sees of a block because of its tracked set, and what that has for it."""

    before: set[bytes] = field(default_factory=set)
    """The outputs that are tracked before the block."""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """Its rows for them, and for other outputs that the block spends and the app sees."""
    seen: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    """The transactions that the app sees, by txindex, each with the outpoints because of which it does: those
    in `before`, and those of other transactions that it sees. With a payload, there may be none."""

    def learn(self, rows: Tables) -> None:
        """Let the tables of a block that begins know these rows."""
        rows.learn_at({each for because in self.seen.values() for each in because}, self.rows)


def seen(spends: Spends, with_payload: Collection[int], before: Collection[bytes]) -> dict[int, list[bytes]]:
    """Find the transactions that an app sees, as in `Tracked.seen`.

    `with_payload` are those in which its rule finds a payload, and `before` the outputs that are tracked.
    """
    because_of: dict[int, list[bytes]] = {}
    ids: set[bytes] = set()
    for txindex, packed in spends.by_txindex:
        because = [each for each in split_outpoints(packed) if each in before or each[:_TXID] in ids]
        if because or txindex in with_payload:
            because_of[txindex] = because
            ids.add(spends.txid(txindex))
    return because_of


def described(outpoint: bytes) -> str:
    """Write an outpoint as TXID:VOUT."""
    return f"{outpoint[:_TXID].hex()}:{int.from_bytes(outpoint[_TXID:])}"
