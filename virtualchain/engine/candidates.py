"""The candidates of a block: which inputs an app judges, and what callbacks see of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.payload import last_op_return, payloads, split_payload, takes_coinbase
from virtualchain.engine.arithmetic import pinned_arithmetic
from virtualchain.engine.halting import contained, halt
from virtualchain.engine.shown_op import ShownOp, fields_of, is_as_made
from virtualchain.model import Block, Input, Json, Lazy, Output, Sender
from virtualchain.store.failures import is_transient

NO_FIELDS: Final[Json] = {}
"""The op of a candidate that is not parsed, or that nobody looks at any more; nobody gets it."""


@dataclass(frozen=True, slots=True)
class Showing:
    """What the ops of an app show of their transactions."""

    with_heights: bool
    """Whether the app needs the heights of what its inputs spend."""
    tracks: bool
    """Whether the app tracks outputs."""


@dataclass(slots=True)
class Candidate:
    """An input with one of the app's opcodes, on its way through the steps."""

    source: Input
    opcode: bytes
    payload: bytes | None
    """None: it is a candidate only because of what it spends."""
    payload_index: int = 0
    """Which of the transaction's payloads it is."""
    vtxindex: int = -1
    op: Json = field(default_factory=lambda: NO_FIELDS)

    is_whole: bool = False
    """Whether `op` has the engine's keys."""
    showing: "Showing | Described | None" = None
    """What its op shows of the transaction, or what the ops of several candidates do."""

    @property
    def code(self) -> bytes | None:
        """What its handler and its fields are declared under: its opcode, or None without a payload."""
        return None if self.payload is None else self.opcode

    @property
    def shown(self) -> "Described":
        """What ops show of the transaction, once the judge has prepared it."""
        showing = self.showing
        assert showing is not None, "`_Judge.judge` begins with it"
        return Described(self.source, showing) if isinstance(showing, Showing) else showing

    def complete(self) -> None:
        """Add what callbacks see of an op beside its fields, unless it is there."""
        if not self.is_whole:
            self.op = self._completed(self.op)
            self.is_whole = True

    def shed(self) -> None:
        """Free what `complete` would make again: all that it has made, if the app has left it as it was."""
        fields = fields_of(self.op)
        if isinstance(self.op, ShownOp) and is_as_made(self.op, self._completed(fields)):
            self.op, self.is_whole = fields, False
        self.source.forget()

    def begin(self, op: Json) -> None:
        """Begin with an op that has its fields alone."""
        self.op, self.is_whole = op, False

    def _completed(self, fields: Json) -> ShownOp:
        item, shown = self.source, self.shown
        has_place = "virtualchain_senders" in fields or "virtualchain_fee" in fields  # the app has set them
        completed = {
            **fields,
            "virtualchain_txid": item.txid,
            "virtualchain_txindex": item.txindex,
            "virtualchain_opcode": self.opcode,
        }
        if has_place:
            completed["virtualchain_senders"] = shown.senders()
        completed["virtualchain_fee"] = item.fee
        if shown.showing.tracks:
            completed["virtualchain_outputs"] = shown.outputs()
            completed["virtualchain_is_spend"] = self.payload is None
        return ShownOp(completed, None if has_place else shown.senders)


@dataclass(slots=True)
class Described:
    """What the ops of one transaction show of it; it is made once if there are several, perhaps thousands."""

    source: Input
    showing: Showing
    is_shared: bool = False
    _senders: list[Json] | None = None
    _outputs: Lazy[Json] | None = None

    def senders(self) -> list[Json]:
        """Return the senders as callbacks get them."""
        if self._senders is not None:
            return self._senders
        describe = Sender.as_dict_with_height if self.showing.with_heights else Sender.as_dict
        senders = [describe(sender) for sender in self.source.senders]
        if self.is_shared:
            self._senders = senders
        return senders

    def outputs(self) -> Lazy[Json]:
        """Return the outputs as ops show them."""
        if self._outputs is not None:
            return self._outputs
        outputs = Lazy(_as_dicts, self.source.outputs)
        if self.is_shared:
            self._outputs = outputs
        return outputs


def _as_dicts(outputs: Sequence[Output]) -> tuple[Json, ...]:
    return tuple(output.as_dict() for output in outputs)


@pinned_arithmetic()
def candidates_of(contract: Contract, block: Block, inputs: Iterable[Input]) -> tuple[list[Candidate], int]:
    """Pick the inputs with one of the app's magics and opcodes, by the app's own payload rule.

    `inputs` are the block's inputs in order, other apps' included. With the candidates comes how many inputs
    have one of the magics. Raises AppHalted if the rule fails.
    """
    count = 0
    rule = contract.find_payload or last_op_return
    looks_at_coinbase = takes_coinbase(rule)
    magics = set(contract.magics)
    containing = contained()
    candidates: list[Candidate] = []
    for item in inputs:
        if magics.isdisjoint(item.magics) or not (item.txindex or looks_at_coinbase):
            continue
        try:
            with containing:
                contents = payloads(rule, item.raw, item.outputs)
        except Exception as error:
            if is_transient(error):  # of a database that it asked for consensus hashes
                raise
            raise halt(contract, block.block_id, "find_payload", item, error) from error
        has_magic = False
        for n, payload in enumerate(contents):
            if payload.startswith(contract.magics):
                has_magic = True
                split = split_payload(payload, contract.magics, contract.opcodes)
                if split is not None:
                    candidates.append(Candidate(item, *split, n))
        count += has_magic
    return candidates, count


def with_spends(
    candidates: Sequence[Candidate], inputs: Iterable[Input], seen: Mapping[int, Sequence[bytes]]
) -> list[Candidate]:
    """Add the inputs that an app sees although it finds no payload in them, in the order of the block."""
    with_payload = {candidate.source.txindex for candidate in candidates}
    spends = [
        Candidate(item, b"", None)
        for item in inputs
        if item.txindex in seen and item.txindex not in with_payload
    ]
    return sorted([*candidates, *spends], key=lambda each: (each.source.txindex, each.payload_index))
