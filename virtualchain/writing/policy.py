"""What a node's refusals mean to who sends, and what helps: one line each.

Reasons are those of Bitcoin Core and Knots, which differ between them and between their versions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from virtualchain.bitcoin.parameters import Network
from virtualchain.errors import NodeError, UsageError, VirtualchainError, quoted
from virtualchain.writing.amounts import write_amount

UNSIGNED: Final = "script-verify"
"""Within the reasons for a transaction that is right but for its signatures."""
_KNOWN: Final = ("txn-already-in-mempool", "txn-already-known", "txn-same-nonwitness-data-in-mempool")
_KNOWN_WITHIN: Final = ("already in utxo set", "already in block chain")


@dataclass(frozen=True, slots=True)
class Rates:
    """What a node's mempool takes, in satoshi per vbyte."""

    relay: Decimal
    """The least that it ever relays."""
    now: Decimal
    """The least that it takes now: more, if it is full."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a refusal is about."""

    node: str
    """Where the node is."""
    network: Network
    payload_script: int
    """Bytes of the script of the payload's output."""
    fee: int
    """Satoshi."""
    vsize: int
    rates: Callable[[], Rates]


class LongChain(NodeError):
    """The node takes no more transactions on top of unconfirmed ones: the next block makes room."""


_DATA: Final = (
    "{node} does not relay a payload of this size {because}: the script of its output has {payload_script} "
    "bytes, over datacarriersize in the node's bitcoin.conf; shorten the payload, or raise the setting, and "
    "note that other nodes have one, too"
)
_HIGHER: Final = "choose a higher --fee-rate"
_MEANINGS: Final[tuple[tuple[tuple[str, ...], type[VirtualchainError], str], ...]] = (
    (
        ("scriptpubkey", "datacarrier", "txn-datacarrier-exceeded", "bad-txns-vout-script-toolarge"),
        UsageError,
        _DATA,
    ),
    (("multi-op-return",), UsageError, "{node} relays one OP_RETURN output per transaction {because}"),
    (
        ("dust", "tx-dust"),
        UsageError,
        "{node} does not relay an output that pays so little {because}: pay more with --to or --burn",
    ),
    (
        ("min relay fee not met",),
        UsageError,
        "{paid}, and {node} relays nothing below {relay} {because}: " + _HIGHER,
    ),
    (
        ("mempool min fee not met",),
        UsageError,
        "{paid}, and the mempool of {node} is so full that it takes nothing below {now} {because}: "
        + _HIGHER,
    ),
    (
        ("mempool full",),
        NodeError,
        "the mempool of {node} is full {because}: " + _HIGHER + ", or try again later",
    ),
    (
        ("insufficient fee",),
        UsageError,
        "it would replace a transaction in the mempool of {node}, and does not pay enough more {because}: "
        + _HIGHER,
    ),
    (
        (
            "txn-mempool-conflict",
            "bip125-replacement-disallowed",
            "replacement-adds-unconfirmed",
            "replacement-failed",
            "too many potential replacements",
        ),
        NodeError,
        "another transaction in the mempool of {node} spends the same coins {because}",
    ),
    (
        ("missing-inputs", "bad-txns-inputs-missingorspent"),
        NodeError,
        "it spends coins that {node} does not have {because}: they are spent already, or never arrived",
    ),
    (
        ("too-long-mempool-chain", "too-large-cluster", "exceeds-ancestor", "exceeds-cluster"),
        LongChain,
        "{node} takes no more transactions on top of unconfirmed ones {because}: wait for a block",
    ),
    (
        ("non-final", "non-BIP68-final"),
        UsageError,
        "the transaction may not be in the next block yet {because}: send it later",
    ),
    (
        ("max-fee-exceeded", "Fee exceeds maximum"),
        UsageError,
        "{node} calls the fee too high {because}: {paid}",
    ),
    (
        ("mempool-script-verify", "mandatory-script-verify", "non-mandatory-script-verify"),
        UsageError,
        "the transaction's signatures do not fit what it spends {because}",
    ),
)
"""By how a reason begins, the error, and its line."""


def is_known(reason: str) -> bool:
    """Check whether a node refuses a transaction because it has it already."""
    return reason.startswith(_KNOWN) or any(part in reason.lower() for part in _KNOWN_WITHIN)


def refusal(reason: str, facts: Facts) -> VirtualchainError:
    """Return the error that explains why the node at hand refuses a transaction."""
    for beginnings, kind, line in _MEANINGS:
        if reason.startswith(beginnings):
            return kind(line.format_map(_Shown(reason, facts)))
    return NodeError(f"{facts.node} does not take the transaction: {quoted(reason)}")


class _Shown(dict[str, object]):
    """What a line may show; the node is asked only for what it does."""

    def __init__(self, reason: str, facts: Facts) -> None:
        rate = Decimal(facts.fee) / max(facts.vsize, 1)
        super().__init__(
            node=facts.node,
            because=f"({reason})",
            payload_script=facts.payload_script,
            paid=f"the fee is {write_amount(facts.fee, facts.network)}, {rate:.3f} satoshi per vbyte",
        )
        self._rates = facts.rates

    def __missing__(self, name: str) -> object:
        return f"{getattr(self._rates(), name).normalize():f}"
