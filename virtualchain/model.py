"""The frozen values that the rooms pass to each other.

Hashes and transaction ids are lower-case hex in display order (as block explorers print them);
scripts, keys and witness items are hex unless they are bytes; amounts are satoshi; a ``block_id`` is a
block's height.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")

Json = dict[str, Any]
"""One JSON object, as callbacks get it and as the database stores it."""

Payloads = bytes | Sequence[bytes] | None
"""What a payload rule finds in a transaction: a payload, several in their order, or None."""

FindPayload = Callable[..., Payloads]
"""A payload rule: it gets outputs (as `Output.as_dict`), inputs (as `TxIn.as_dict`) and version of a
transaction, as far as its parameters have these names, and returns its payloads."""

Verification = Literal["off", "headers", "merkle"]
"""How much of the chain is checked: nothing but that it hangs together; the work, targets and times of its
headers; or the transactions of its blocks, too. See `CheckedBlock` in `bitcoin/gate.py`."""

SenderLevel = Literal["node", "bound", "proved"]
"""What senders are taken on: the source's word; what the inputs themselves show; or nothing but proof. See
`bitcoin/senders.py`."""

OnUnexpected = Literal["halt", "continue"]
"""What an app does whose digests are not those that are expected."""

OUTPOINT: Final = 36
"""Bytes of an outpoint as the engine compares it: the transaction id in display order, then the number of the
output, most significant byte first."""

DEFAULT_RULE: Final = "last_op_return"
"""The name of the payload rule of an app that does not choose one."""


@dataclass(frozen=True, slots=True)
class PayloadRule:
    """A shipped payload rule and the name under which the tape's coverage is recorded.

    It is an object, not a function: as a class attribute of an app it is called without the app.
    """

    name: str
    find: Callable[..., Payloads]
    """Finds payloads among a transaction's output scripts, or among its inputs (`TxIn`).

    What else is to be known of it are attributes of the function, as of one that an app brings.
    """

    @property
    def reads_inputs(self) -> bool:
        """Whether it looks at the inputs."""
        return bool(getattr(self.find, "reads_inputs", False))

    @property
    def patterns(self) -> tuple[bytes, ...]:
        """Byte strings of which every transaction with a payload contains one.

        Empty: an OP_RETURN that pushes the magic is searched for.
        """
        return tuple(getattr(self.find, "patterns", ()))

    @property
    def coinbase(self) -> bool:
        """Whether a coinbase can carry a payload."""
        return bool(getattr(self.find, "coinbase", False))

    @property
    def write(self) -> Callable[[bytes], bytes] | None:
        """Writes the output script in which it finds a payload; None if no output carries one."""
        write: Callable[[bytes], bytes] | None = getattr(self.find, "write", None)
        return write

    def __call__(
        self, outputs: Sequence[Mapping[str, Any]] = (), inputs: Sequence[Mapping[str, Any]] = ()
    ) -> Payloads:
        """Find the payloads of a transaction, of which callbacks get these outputs and inputs."""
        if self.reads_inputs:
            return self.find([TxIn.of(item) for item in inputs])
        return self.find([bytes.fromhex(output["script_pubkey"]) for output in outputs])


def arguments_of(find: FindPayload) -> frozenset[str] | None:
    """Return what a rule's parameters ask for: `outputs`, `inputs`, `version`; None: outputs, by position."""
    try:
        return _arguments_of(find)
    except TypeError:  # it has no hash
        return _arguments_of.__wrapped__(find)


@lru_cache(maxsize=1000)
def _arguments_of(find: FindPayload) -> frozenset[str] | None:
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(find).parameters
    except (TypeError, ValueError):
        return None
    named = {"outputs", "inputs", "version"} & {
        name for name, item in parameters.items() if item.kind is not item.POSITIONAL_ONLY
    }
    required = {
        name
        for name, item in parameters.items()
        if item.default is item.empty and item.kind not in {item.VAR_POSITIONAL, item.VAR_KEYWORD}
    }
    return frozenset(named) if named and required <= named else None


class Lazy(Sequence[T]):
    """A tuple that is made of `source` when it is first looked at; equal to the tuple."""

    __slots__ = ("_items", "_make", "_source")

    def __init__(self, make: Callable[[S], tuple[T, ...]], source: S) -> None:
        self._make: Callable[[Any], tuple[T, ...]] = make
        self._source = source
        self._items: tuple[T, ...] | None = None

    @property
    def items(self) -> tuple[T, ...]:
        """The tuple."""
        if self._items is None:
            self._items = self._make(self._source)
        return self._items

    def forget(self) -> None:
        """Free the tuple; it is made again when it is looked at again."""
        self._items = None

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...

    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __eq__(self, other: object) -> bool:
        return self.items == (other.items if isinstance(other, Lazy) else other)

    def __hash__(self) -> int:
        return hash(self.items)

    def __repr__(self) -> str:
        return repr(self.items)


class Coinbase(NamedTuple):
    """The first transaction of a block, without its witness, and its Merkle branch."""

    transaction: bytes
    branch: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a chain as its 80-byte header describes it."""

    block_id: int
    hash: str
    prev_hash: str
    merkle_root: str
    time: int
    """Unix seconds, as the miner wrote it."""
    bits: int
    """The compact target (BIP and consensus field `nBits`)."""
    header: bytes
    """80 bytes, on every chain."""
    auxpow: bytes = field(default=b"", repr=False, compare=False)
    """What follows it on a chain that is mined together with others, until it is checked; not stored."""


class TxIn(NamedTuple):
    """One input of a transaction."""

    txid: str
    vout: int
    script_sig: bytes
    sequence: int
    witness: tuple[bytes, ...]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "TxIn":
        """Make it from what `as_dict` returned."""
        witness = tuple(map(bytes.fromhex, item["witness"]))
        return cls(item["txid"], item["vout"], bytes.fromhex(item["script_sig"]), item["sequence"], witness)

    def as_dict(self) -> Json:
        """Return a new dict, as callbacks get it: scripts and witness items are hex."""
        return {
            "txid": self.txid,
            "vout": self.vout,
            "script_sig": self.script_sig.hex(),
            "sequence": self.sequence,
            "witness": [item.hex() for item in self.witness],
        }


class Output(NamedTuple):
    """One output of a transaction; `type` is the name that bitcoind gives its script."""

    n: int
    value: int
    script_pubkey: str
    type: str
    addresses: tuple[str, ...]

    def as_dict(self) -> Json:
        """Return a new dict, as callbacks get it and `virtualchain.inputs` has it."""
        return {
            "n": self.n,
            "value": self.value,
            "script_pubkey": self.script_pubkey,
            "type": self.type,
            "addresses": list(self.addresses),
        }


class SpentOutput(NamedTuple):
    """What a source knows of an output that an input spends."""

    value: int
    script_pubkey: bytes
    made_at: int | None = None
    """Twice the height of the block that made it, plus one if its coinbase did; None if that is not known."""


Evidence = Literal["undo", "transaction", "bound", "proof", "node", "export"]
"""What shows that senders are right: undo data whose checksum fits, the transactions that created the outputs
(their ids are checked), what inputs reveal (and for the others those transactions), the transactions in their
blocks, the word of a node or another source, or that of an export."""


class SpentOutputs(dict[int, Sequence[SpentOutput]]):
    """The outputs that transactions of a block spend, by txindex: one per input, in order.

    `counts` is how many outputs each of the block's transactions spends, as far as the source states it.
    `are_signed` is False for recorded transactions without signatures: then nothing can show that an input is
    able to spend its output. `made_in` are the blocks that were shown to have made them: hashes by height.
    """

    def __init__(
        self,
        outputs: Mapping[int, Sequence[SpentOutput]],
        evidence: Evidence = "node",
        counts: Sequence[int] | None = None,
        *,
        are_signed: bool = True,
        made_in: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(outputs)
        self.made_in = made_in
        self.evidence = evidence
        self.counts = counts
        self.are_signed = are_signed


class Sender(NamedTuple):
    """The output that an input spends, and what the spending reveals."""

    txid: str
    vout: int
    value: int
    script_pubkey: str
    type: str
    addresses: tuple[str, ...]
    public_keys: tuple[str, ...]
    sighash: tuple[str, ...] = ()
    """What each signature of the input covers: the name of its hash type."""
    made_at: int | None = None
    """As in `SpentOutput`."""

    def as_dict_with_height(self) -> Json:
        """Return a new dict, as the callbacks of an app get it that needs heights."""
        assert self.made_at is not None, "whoever needs heights asks the source for them"
        return {**self.as_dict(), "height": self.made_at >> 1, "coinbase": bool(self.made_at & 1)}

    def as_dict(self) -> Json:
        """Return a new dict, as callbacks get it and `virtualchain.inputs` has it."""
        return {
            "txid": self.txid,
            "vout": self.vout,
            "value": self.value,
            "script_pubkey": self.script_pubkey,
            "type": self.type,
            "addresses": list(self.addresses),
            "public_keys": list(self.public_keys),
            "sighash": list(self.sighash),
        }


@dataclass(frozen=True, slots=True)
class Input:
    """A transaction that an app is to see, as the tape keeps it.

    Its payload starts with a registered magic, or it spends outputs that an app tracks.
    """

    block_id: int
    txindex: int
    txid: str
    raw: bytes
    magics: tuple[bytes, ...]
    senders: Sequence[Sender]
    outputs: Sequence[Output]
    fee: int
    spent: bytes
    """The outputs that its inputs spend, in their order, each serialized as in a transaction."""
    unusual_keys: Mapping[int, Sequence[str]] = field(default_factory=dict, compare=False)
    """By input, the public keys of senders that are not `likely_keys` (see `bitcoin/script.py`). Only the
    database's views need them: an input that is read from the tape has none."""
    evidence: Evidence | None = None
    """What shows that `senders` are right; None: it was not recorded."""
    spent_at: Sequence[int] | None = None
    """By input, where the output that it spends was made, as in `SpentOutput`; None if that is not known."""
    tracked_by: tuple[str, ...] = ()
    """The apps that track an output which it spends, or may spend: sorted names."""
    branch: bytes | None = field(default=None, compare=False, repr=False)
    """The Merkle branch that shows that it is in its block, from the bottom up; None if that was not checked,
    and if it is read from the tape for an app."""
    coinbase: Coinbase | None = field(default=None, compare=False, repr=False)
    """With a branch: the block's coinbase, which pins the depth of the tree."""

    def forget(self) -> None:
        """Free what was made when it was looked at."""
        for items in (self.senders, self.outputs):
            if isinstance(items, Lazy):
                items.forget()


@dataclass(frozen=True, slots=True)
class RestOfBlock:
    """What apps that track outputs may ask of a block, beyond the inputs that a scan found."""

    spends: Sequence[bytes]
    """By txindex, the outpoints that a transaction spends, `OUTPOINT` bytes each; the coinbase has none."""
    txid: Callable[[int], bytes]
    """Computes a transaction's id, in display order."""
    take: Callable[[Mapping[int, bool]], "tuple[Input, ...]"]
    """Makes inputs of transactions, by txindex; the value says whether heights are needed."""


@dataclass(frozen=True, slots=True)
class ScannedBlock:
    """A block and all its inputs: what the tape takes at once."""

    block: Block
    inputs: tuple[Input, ...]
    rest: RestOfBlock | None = None
    """For apps that track outputs."""
    made_in: Mapping[int, str] = field(default_factory=dict)
    """The blocks that were shown to have made what the inputs spend: hashes by height."""


Cause = Literal["work", "invalid", "pin", "operator"]
"""Why blocks are undone: the other branch has more work, the node calls ours invalid, ours lacks a pinned
block, or an operator asked for it."""


@dataclass(frozen=True, slots=True)
class Reorg:
    """Blocks to undo: all of the tape above the fork. It goes unchanged from planner to rollback."""

    fork_block_id: int
    """The last block that stays."""
    fork_hash: str | None
    """None: the branches part below the tape's first block, so none of its blocks stays."""
    old_tip: Block
    """The tape's last block."""
    new_tip: Block | None
    """The last block of the branch to follow. None: it has no block above the fork, or no node was asked."""
    cause: Cause

    @property
    def depth(self) -> int:
        """How many blocks are undone."""
        return self.old_tip.block_id - self.fork_block_id


@dataclass(frozen=True, slots=True)
class Watch:
    """One search of the scan: payloads that start with `magic`, found by a payload rule.

    `rule` names the search beside the magic: the payload rule, and what else it asks for; the tape's coverage
    is kept by (magic, rule).
    """

    magic: bytes
    rule: str
    find_payload: FindPayload
    prefilter: bool
    """Whether a search of outputs for OP_RETURN, push and magic finds every payload that the rule finds."""
    patterns: tuple[bytes, ...] = ()
    """Otherwise, byte strings of which every transaction with a payload contains one; none: all are tried."""
    takes_coinbase: bool = False
    """Whether a coinbase is searched, too."""
    has_opcode: bool = True
    """Whether an opcode byte follows the magic."""
    needs_heights: bool = False
    """Whether the heights of the spent outputs are needed."""


@dataclass(frozen=True, slots=True)
class Digests:
    """An app's digests at a block."""

    block_id: int
    block_hash: str | None
    consensus_hash: str
    state_hash: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """The digests that an app must have at a block; one that is None is not compared."""

    block_id: int
    block_hash: str | None = None
    consensus_hash: str | None = None
    state_hash: str | None = None
    origin: str = "the app"
    """Who expects it, for messages."""
