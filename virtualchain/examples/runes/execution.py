"""Execute a transaction: mint, etch, hand out, burn, in this order."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from virtualchain.examples.runes.edicts import Allocation, Balance
from virtualchain.examples.runes.entry import Entry
from virtualchain.examples.runes.etching import entry_of, etched_name, is_etching, name_problem
from virtualchain.examples.runes.mint import mint_problem
from virtualchain.examples.runes.rune_id import RuneId
from virtualchain.examples.runes.runestone import Cenotaph, Runestone


class Runes(Protocol):
    """What the rules ask of the state."""

    def entry(self, rune_id: RuneId) -> Entry | None:
        """Return a rune that was etched."""

    def has_name(self, number: int) -> bool:
        """Return whether a name is taken."""

    def count(self) -> int:
        """Return how many runes there are."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as the rules see it."""

    id: RuneId
    """Its block and its position there: the id of the rune that it etches."""
    txid: str
    timestamp: int
    """The time in its block's header, in Unix seconds."""
    artifact: Runestone | Cenotaph | None
    burning: Sequence[bool]
    """Of each output, whether it is an OP_RETURN."""
    is_committed: bool
    """Whether an input commits to the name that it etches."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a transaction does to the state, beyond spending its inputs."""

    minted: Entry | None
    """The rune that it mints, as it was before."""
    mint_problem: str | None
    """Why it does not mint what it wants to."""
    etched: Entry | None
    etching_problem: str | None
    """Why it does not etch what it wants to."""
    received: tuple[tuple[int, RuneId, int], ...]
    """Outputs, runes and amounts, in order; none of the outputs is an OP_RETURN."""
    burned: tuple[tuple[int | None, RuneId, int], ...]
    """The same for what is burned: by OP_RETURN outputs, or, with None, by the transaction."""

    @property
    def minted_amount(self) -> int:
        """What the mint yields."""
        return 0 if self.minted is None or self.minted.terms is None else self.minted.terms.amount or 0

    def burned_by_rune(self) -> Mapping[RuneId, int]:
        """Sum up what is burned."""
        totals: defaultdict[RuneId, int] = defaultdict(int)
        for _, rune_id, amount in self.burned:
            totals[rune_id] += amount
        return totals


def execute(tx: Transaction, spent: Balance, runes: Runes, first_block: int) -> Outcome:
    """Execute a transaction that spends outputs with these runes.

    `first_block` is the height at which the protocol begins on this network.
    """
    available = defaultdict(int, spent)
    artifact = tx.artifact
    minted, why_not_minted = _mint(tx, runes)
    if minted is not None and minted.terms is not None:
        available[minted.id] += minted.terms.amount or 0
    etched, why_not_etched = _etch(tx, runes, first_block)
    if etched is not None:
        available[etched.id] += etched.premine
    allocation = Allocation(available, tx.burning)
    if isinstance(artifact, Runestone):
        allocation.apply(artifact.edicts, None if etched is None else etched.id)
    if not isinstance(artifact, Cenotaph):
        allocation.give_rest(None if artifact is None else artifact.pointer)
    allotted = list(allocation.received())
    return Outcome(
        minted,
        why_not_minted,
        etched,
        why_not_etched,
        received=tuple(item for item in allotted if not tx.burning[item[0]]),
        burned=(
            *(item for item in allotted if tx.burning[item[0]]),
            *((None, rune_id, amount) for rune_id, amount in sorted(allocation.left.items())),
        ),
    )


def _mint(tx: Transaction, runes: Runes) -> tuple[Entry | None, str | None]:
    """Return the rune that is minted, or why none is."""
    if tx.artifact is None or tx.artifact.mint is None:
        return None, None
    entry = runes.entry(tx.artifact.mint)
    problem = mint_problem(entry, tx.id.block)
    return (entry, None) if problem is None else (None, problem)


def _etch(tx: Transaction, runes: Runes, first_block: int) -> tuple[Entry | None, str | None]:
    """Return the rune that is etched, or why none is."""
    if tx.artifact is None or not is_etching(tx.artifact):
        return None, None
    name = etched_name(tx.artifact)
    if name is not None:
        problem = name_problem(name, tx.id.block, first_block)
        if problem is None and not tx.is_committed:
            problem = "no input commits to the name"
        if problem is None and runes.has_name(name):
            problem = "the name is taken"
        if problem is not None:
            return None, problem
    return entry_of(tx.artifact, tx.id, tx.txid, runes.count(), tx.timestamp), None
