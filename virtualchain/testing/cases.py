"""The transactions that `check_poison` and `check_determinism` send to an app, and how blocks hold them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import instance_of, read_contract
from virtualchain.bitcoin.payload import runestone
from virtualchain.bitcoin.script import op_return
from virtualchain.errors import UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.hostile import (
    hostile_bodies,
    hostile_outputs,
    hostile_senders,
    mutations,
    spend,
    spend_from,
    unsigned_transaction,
)
from virtualchain.testing.transactions import Tx, key
from virtualchain.testing.wire import outpoint, read_transaction

_CHANGE: Final = key("change").script_pubkey
_FULLY_TESTED_OPCODES: Final = 12
"""The number of opcodes that are tried with every payload; others only with the first few."""
_FEW_PAYLOADS: Final = 8
_SHORT: Final = 40
"""Payloads of so many bytes are also sent by somebody new: an app may take only one input of a sender."""
_SPENT_SAMPLES: Final = 16
"""How often each sample is sent for its outputs to be spent: every way is tried early and late."""
_BLOCK_BYTES: Final = 700_000
MAX_START: Final = 300
"""Empty blocks are mined up to an app's first block if it is at most this; otherwise the app starts lower."""
_PREMINE: Final = 20
"""Blocks before the first case, which may look for consensus hashes there."""
_SENDERS: Final = ("alice", "alice", "bob")
"""Who sends each sample: one of them twice."""

Carry = Callable[[bytes], bytes]
"""Builds the output script of a payload."""


@dataclass(frozen=True, slots=True)
class Case:
    """A transaction, described, and the magic and the opcode that its payload starts with."""

    name: str
    start: bytes
    tx: Tx


class CaseWriter:
    """Builds the cases of one app; each transaction differs from every other."""

    def __init__(self, contract: Contract, samples: Sequence[bytes], carry: Carry) -> None:
        """Raise UsageError for a sample that is no payload of the app's."""
        self._contract = contract
        takes_runestones = contract.find_payload is runestone and carry is op_return
        self._carry = runestone.write or carry if takes_runestones else carry
        self._numbers = count()
        self._good = [_split(contract, sample) for sample in samples]

    def hostile(self) -> Iterator[Case]:
        """Yield the samples, and then everything that strangers may send."""
        magic, opcodes = self._contract.magics[0], sorted(self._contract.opcodes)
        yield from self.samples()
        for start, body in self._good or [(magic + code, b"") for code in opcodes[:_FULLY_TESTED_OPCODES]]:
            carrier = self._carry(start + body)
            for name, spendings in hostile_senders().items():
                tx = unsigned_transaction(next(self._numbers), spendings, [(0, carrier)])
                yield Case(f"{start + body!r} {name}", start, tx)
            for name, outputs in hostile_outputs(carrier, start + body):
                tx = unsigned_transaction(next(self._numbers), [spend_from("alice", 10**6)], outputs)
                yield Case(f"{start + body!r} {name}", start, tx)
        yield from self.mutated()
        for number, opcode in enumerate(opcodes):
            bodies = islice(hostile_bodies(), None if number < _FULLY_TESTED_OPCODES else _FEW_PAYLOADS)
            for place, (name, body) in enumerate(bodies):
                yield self._case(f"{name} after opcode {opcode!r}", magic + opcode, body)
                if len(body) <= _SHORT:
                    stranger = f"stranger {place}"
                    yield self._case(
                        f"{name} after opcode {opcode!r} by {stranger}", magic + opcode, body, stranger
                    )
        for other in self._contract.magics[1:]:
            yield self._case(f"magic {other!r}", other + next(iter(opcodes), b""), b"")
        for start, body in self._good:
            yield self._case(f"sample {start + body!r} at the end", start, body)
        yield from self.spends()

    def spends(self) -> Iterator[Case]:
        """Yield samples, and what may become of their outputs, if the app tracks outputs.

        They are spent in the same block and later, with and without a payload, together, and into nothing.
        """
        if self._contract.tracks is None:
            return
        before: list[tuple[bytes, SpentOutput]] = []
        for start, body in self._good:
            for number in range(_SPENT_SAMPLES):
                sample = self._case(f"sample {start + body!r} to be spent {number}", start, body)
                yield sample
                coins = _coins(sample.tx)
                name = f"outputs of sample {start + body!r}"
                carried = [(0, self._carry(start + body))]
                paid = _halves(coins)
                burned = [(0, op_return(b"nobody's"))]
                ways = {
                    "without a payload": (coins, paid),
                    "with a payload": (coins, [*carried, *paid]),
                    "with a long payload": (coins, [(0, self._carry(start + b"\xff" * 70)), *paid]),
                    "with a payload cut off": (coins, [(0, self._carry((start + body)[:-1])), *paid]),
                    "with the payload of another app": (coins, [*burned, *paid]),
                    "into an OP_RETURN": (coins, burned),
                    "with those before": ([*coins, *before], paid),
                    "into 300 outputs": (coins, [(1, _CHANGE)] * 300),
                }
                way = list(ways)[number % len(ways)]
                tx = spend(next(self._numbers), *ways[way])
                yield Case(f"{name}, spent {way}", start if "payload" in way else b"", tx)
                moved = _coins(tx)
                if number % 2 and moved:
                    tx = spend(next(self._numbers), moved, _halves(moved))
                    yield Case(f"{name}, spent {way}, and spent again", b"", tx)
                before = (before + _coins(tx))[-40:]
                if way == "with those before":
                    before = _coins(tx)

    def samples(self, senders: Sequence[str] = _SENDERS) -> Iterator[Case]:
        """Yield every sample by each sender."""
        for sender in senders:
            for start, body in self._good:
                yield self._case(f"sample {start + body!r} by {sender}", start, body, sender)

    def mutated(self) -> Iterator[Case]:
        """Yield the samples cut off and changed."""
        for start, body in self._good:
            for name, changed in mutations(body) if body else ():
                yield self._case(f"{start + body!r} {name}", start, changed)

    def _case(self, name: str, start: bytes, body: bytes, sender: str = "alice") -> Case:
        outputs = [(0, self._carry(start + body)), (500, _CHANGE)]
        tx = unsigned_transaction(next(self._numbers), [spend_from(sender)], outputs)
        return Case(name, start, tx)


def _split(contract: Contract, sample: bytes) -> tuple[bytes, bytes]:
    """Split a sample after its magic and opcode; UsageError if they are not the app's."""
    for magic in contract.magics:
        end = len(magic) + contract.has_opcodes
        if sample.startswith(magic) and sample[len(magic) : end] in contract.opcodes:
            return sample[:end], sample[end:]
    raise UsageError(f"sample {sample!r} does not start with a magic and an opcode of app {contract.name}")


def _coins(tx: Tx) -> list[tuple[bytes, SpentOutput]]:
    """List the outputs of a transaction that can be spent, as `spend` takes them."""
    outputs = enumerate(read_transaction(tx.raw).outputs)
    return [(outpoint(tx.txid, n), SpentOutput(value, script)) for n, (value, script) in outputs if value > 0]


def _halves(coins: Sequence[tuple[bytes, SpentOutput]]) -> list[tuple[int, bytes]]:
    """Pay what coins are worth to two outputs, or nearly."""
    return [(sum(coin.value for _, coin in coins) // 2, _CHANGE)] * 2


def in_blocks(cases: Sequence[Case], most: int) -> list[list[Case]]:
    """Distribute cases over blocks of at most `most`, which are small enough."""
    blocks: list[list[Case]] = [[]]
    for case in cases:
        size = sum(len(other.tx.raw) for other in blocks[-1])
        if len(blocks[-1]) == most or size + len(case.tx.raw) > _BLOCK_BYTES:
            blocks.append([])
        blocks[-1].append(case)
    return blocks


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a short chain an app's cases begin, and whether the app must start lower for that."""

    first: int
    """The height of the first block of cases."""
    is_lowered: bool
    takes_any_hash: bool
    """Whether the app must be run without its rule on fresh hashes."""

    @classmethod
    def of(cls, contract: Contract) -> "Place":
        """Find the place for an app."""
        is_lowered = contract.start > MAX_START
        first = _PREMINE + 1 if is_lowered else max(contract.start, _PREMINE + 1)
        return cls(first, is_lowered, bool(contract.fresh_fields))

    def app(self, app: object) -> object:
        """Return the app as it is run."""
        lowered = Lowered(app) if self.is_lowered else app
        return TakingAnyHash(lowered) if self.takes_any_hash else lowered

    def node(self) -> FakeNode:
        """Start a node for `mine`; the cases' transactions need none of its coins."""
        return FakeNode(premine=_PREMINE)

    def mine(self, node: FakeNode, blocks: Sequence[Sequence[Case]], confirmations: int) -> None:
        """Mine blocks of cases at this place, and as many blocks on top as the app asks for."""
        if self.first > node.height + 1:
            node.mine(n=self.first - node.height - 1)
        for block in blocks:
            node.mine(case.tx for case in block)
        node.mine(n=confirmations + 1)


class _Changed:
    """An app, unchanged except for what a subclass has."""

    def __init__(self, app: object) -> None:
        self._app = instance_of(app)

    def __reduce__(self) -> tuple[type["_Changed"], tuple[object]]:
        return type(self), (self._app,)  # pickle would ask `__getattr__` before there is an app

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever attribute the app has
        return getattr(self._app, name)

    def get_projections(self) -> str:
        """Return the app's tables as text: a file of them is beside the app's code, not beside this."""
        return read_contract(self._app).projections


class TakingAnyHash(_Changed):
    """An app whose inputs may have any consensus hash, as no sample can have one that will be fresh."""

    def get_requires_fresh_hash(self) -> bool:
        """Return False."""
        return False


class AtOnce(_Changed):
    """An app that takes blocks with fewer confirmations than it asks for."""

    def get_confirmations(self) -> None:
        """Return None: any number will do."""


class Lowered(_Changed):
    """An app that starts with the chain, as a test cannot mine half a million blocks."""

    def get_first_block_id(self) -> int:
        """Return the genesis block's height."""
        return 0

    def get_initial_snapshots(self) -> dict[int, str]:
        """Return no snapshots."""
        return {}
