"""What callbacks get and return, for type checkers: nothing here does anything when an app runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, NotRequired, Protocol, TypedDict

from virtualchain.app.handlers import Rejected


class Sender(TypedDict):
    """The output that an input spends, as `parse` gets it in `senders`."""

    txid: str
    vout: int
    value: int
    """In satoshi."""
    script_pubkey: str
    """In hex, as all bytes here."""
    type: str
    """The name that bitcoind gives its script, such as `witness_v0_keyhash`."""
    addresses: list[str]
    public_keys: list[str]
    sighash: list[str]
    """What its signatures cover, such as `ALL`; empty if it has none."""
    height: NotRequired[int]
    """The block that made it, for an app with `needs=("height",)`."""
    coinbase: NotRequired[bool]
    """Whether a coinbase made it, for an app with `needs=("height",)`."""


class Input(TypedDict):
    """An input of the transaction, as `parse` gets it in `inputs`."""

    txid: str
    vout: int
    script_sig: str
    sequence: int
    witness: list[str]


class Output(TypedDict):
    """An output of the transaction, as `parse` gets it in `outputs`."""

    n: int
    value: int
    """In satoshi."""
    script_pubkey: str
    type: str
    addresses: list[str]


Parsed = Mapping[str, Any] | Rejected | None
"""What `parse` returns: a dict, None to drop the input, or why it is rejected."""
Checked = bool | Rejected
"""What `check` returns."""
Committed = Mapping[str, Any] | Sequence[Mapping[str, Any]] | Rejected | bool | None
"""What `commit` returns: None, the op or ops that replace it, False, or why it is rejected."""

Parse = Callable[Concatenate[bytes, ...], Parsed]
ParseSpend = Callable[Concatenate[None, ...], Parsed]
Hook = Callable[Concatenate[Any, Any, ...], None]
Proceed = Callable[[int, str], object]


class Parses(Protocol):
    """A handler of payloads: it has `parse`."""

    @property
    def parse(self) -> Parse:
        """Turn a payload into an op."""


class HasLayout(Protocol):
    """A handler that describes payloads instead of parsing them."""

    @property
    def layout(self) -> str:
        """The parts of a payload."""


class ParsesSpends(Protocol):
    """A handler of transactions without a payload."""

    @property
    def parse(self) -> ParseSpend:
        """Make an op of what the transaction spends."""
