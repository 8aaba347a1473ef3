"""What is to be sent, on which terms, and what became of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from virtualchain.engine.foreseeing import Verdict
from virtualchain.model import Json, SpentOutput
from virtualchain.writing.wallet import ANY_FEE, Fee, Outpoint

MOST_FEE: Final = 100_000
"""Satoshi: the highest fee without `most_fee`. At 200 vbytes this is 500 satoshi per vbyte."""
_WELL: Final = frozenset({"checked", "unsigned", "sent", "accepted"})
"""What ends well."""
_UNDECIDED: Final = 6
"""The exit code if a wait ends before anything is decided."""

Say = Callable[[str], None]
"""Gets what a user should know and no result shows."""


@dataclass(frozen=True, slots=True)
class Order:
    """One input to send: what it says, and what its transaction pays to whom."""

    opcode: bytes
    fields: Mapping[str, object]
    payments: tuple[SpentOutput, ...] = ()
    """The outputs after the payload's, in order."""
    sender: str | None = None
    """The address whose coin is the first input; None leaves the choice to the wallet."""
    coins: tuple[Outpoint, ...] = ()
    """The first inputs, in order; without any, the sender's coin is the first."""
    change: str | None = None
    """The address of the change; None is the sender's, or one of the wallet's own."""
    change_at: int | None = None
    """The number of the change output; None is the last."""
    replaces: str | None = None
    """The unconfirmed transaction whose coins it is to spend instead."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all inputs that are sent together."""

    fee: Fee = ANY_FEE
    most_fee: int = MOST_FEE
    """Satoshi for each transaction."""
    anyway: bool = False
    """Whether to send what the app would refuse, or what cannot be previewed."""


DEFAULT_TERMS: Final = Terms()

_OPEN: Final = frozenset({"checked", "unsigned", "unsent", "sent", "waiting"})
"""Of an input that the app has not decided about."""


def one_line(text: str) -> str:
    """Escape what would end a line or control a terminal, as an app's reason may quote anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(slots=True)
class Sent:
    """What became of an input."""

    app: str
    opcode: bytes
    payload: bytes
    txid: str
    raw: bytes = field(repr=False)
    """Without its signatures if it is unsigned."""
    status: str
    """checked, unsigned, unsent (the preview refuses it) or sent; after waiting accepted, refused, ignored,
    replaced, dropped or waiting."""
    fee: int | None
    """Satoshi; None if the node does not know what the transaction spends."""
    vsize: int
    sender: str | None
    """The address that the first input spends from, if it has one."""
    verdict: Verdict | None = None
    """The preview; None if there was none."""
    block_id: int | None = None
    """The block that it is in."""
    block_hash: str | None = None
    step: str | None = None
    reason: str | None = None
    """Why the app has refused it, at `step`; or how it was lost."""
    other_txid: str | None = None
    """The transaction that spends its coins instead."""

    @property
    def exit_code(self) -> int:
        """With what a command ends."""
        return _UNDECIDED if self.status == "waiting" else int(self.status not in _WELL)

    @property
    def fee_rate(self) -> Decimal | None:
        """Satoshi per vbyte."""
        return None if self.fee is None else (Decimal(self.fee) / self.vsize).quantize(Decimal("0.001"))

    def as_dict(self) -> Json:
        """Return a new dict, as JSON shows it.

        Until the app has decided, `verdict`, `step` and `reason` are those of the preview, if there was one.
        """
        foreseen = None if self.verdict is None else self.verdict.as_dict()
        outcome: Json = {
            "verdict": self.status if self.status in {"accepted", "refused"} else None,
            "step": self.step,
            "reason": self.reason,
        }
        if foreseen is not None and self.status in _OPEN:
            outcome = {name: foreseen[name] for name in outcome}
        return {
            "status": self.status,
            **outcome,
            "changes": [] if foreseen is None else foreseen["changes"],
            "app": self.app,
            "opcode": self.opcode.hex(),
            "payload": self.payload.hex(),
            "txid": self.txid,
            "sender": self.sender,
            "fee": self.fee,
            "vsize": self.vsize,
            "fee_rate": self.fee_rate,
            "block_id": self.block_id,
            "block_hash": self.block_hash,
            "other_txid": self.other_txid,
            "preview": foreseen,
            "raw": self.raw.hex(),
        }
