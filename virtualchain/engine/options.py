"""How apps are run: the options, who is notified, and what is checked before the first block.

`Options` and `Listener` are carried whole from the engine to whatever needs a part of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self, get_args

from virtualchain.app.contract import Contract
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.engine.measures import STEPS
from virtualchain.errors import UsageError, quoted
from virtualchain.model import Block, Expected, OnUnexpected, Reorg, SenderLevel, Verification
from virtualchain.settings import HISTORY, Policy, alternatives
from virtualchain.store.rollback import Undone
from virtualchain.store.state_files import default_folder

CHUNK = 100
"""Blocks that are searched, or fetched for an app that lags, at once."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of an app's inputs, in one block or in several."""

    inputs: int = 0
    """Those whose payload begins with a magic of the app: only candidates are accepted or rejected."""
    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    """How many were rejected, by step."""
    reason: str | None = None
    """Why the last of those was rejected."""

    def __add__(self, later: "Tally") -> "Tally":
        """Add what became of the inputs of later blocks."""
        steps = sorted({*self.rejected, *later.rejected}, key=STEPS.index)
        return Tally(
            self.inputs + later.inputs,
            self.accepted + later.accepted,
            {step: self.rejected.get(step, 0) + later.rejected.get(step, 0) for step in steps},
            self.reason if later.reason is None else later.reason,
        )

    def __str__(self) -> str:
        """Write the counts that are not 0, such as `2 accepted, 1 rejected at check`."""
        ignored = self.inputs - self.accepted - sum(self.rejected.values())
        parts = [
            f"{self.accepted:,} accepted" if self.accepted else "",
            *(f"{count:,} rejected at {step}" for step, count in self.rejected.items()),
            f"{ignored:,} without an opcode of the app" if ignored else "",
        ]
        return ", ".join(filter(None, parts)) or "none"

    @property
    def failure(self) -> str | None:
        """What happened to all inputs, if none was accepted and all failed alike; None if not."""
        which = "the only input" if self.inputs == 1 else f"all {self.inputs:,} inputs"
        if self.accepted or not self.inputs or len(self.rejected) > 1:
            return None
        if not self.rejected:
            return f"{which} had no opcode of the app after the magic"
        if sum(self.rejected.values()) < self.inputs:
            return None
        last = "" if self.inputs == 1 else ", the last one because of"
        return f"{which} failed at {next(iter(self.rejected))}{last}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Progress:
    """Reported after each block: which it was, how many inputs it held, and where the tip is.

    For an app that catches up along the tape, `app` is its name, `inputs` counts its inputs alone, and the
    tip is the tape's instead of the stable one.
    """

    block: Block
    inputs: int
    stable_tip: int
    app: str | None = None
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    """What became of the block's inputs, by the app that took it."""


def ignore(*_: object) -> None:
    """Notify nobody."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is notified of the engine's work; each function is called after the transaction that it reports."""

    on_block: Callable[[Progress], None] = ignore
    """A block was taken onto the tape."""
    on_catch_up: Callable[[Progress], None] = ignore
    """An app took a block from the tape, alone: it lags, or is derived again."""
    on_wait: Callable[[str], None] = ignore
    """Something is waited for, or an operator should know something."""
    on_rollback: Callable[[Reorg, Undone], None] = ignore
    """Blocks were undone."""
    may_continue: Callable[[], bool] = lambda: True
    """Asked between two blocks; False ends the work there."""


QUIET: Final = Listener()
"""Notifies nobody, and never ends the work early."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a deployment is run; the same for all of its apps."""

    confirmations: int = 6
    """K: how many blocks must be on top of a block before it is taken."""
    verify: Verification = "merkle"
    """How much of every block is checked before it is taken, as `CheckedBlock` describes."""
    senders: SenderLevel = "node"
    """What the outputs that transactions spend are taken on, as `SenderCheck` describes."""
    history: int | None = HISTORY
    """For how many blocks apps can be rolled back by their history; None: all."""
    on_deep_fork: Mapping[str, Policy] = field(default_factory=dict)
    """What happens when taken blocks are replaced, by app; an app that is not named keeps its policy."""
    deepest_rollback: int | None = None
    """How many blocks are undone without an operator; None: any number."""
    expected: Mapping[str, Sequence[Expected]] | None = None
    """The digests that others say apps have, by app; each app's own declarations come on top. None: nothing
    is compared here, and what the last writer found stays on record."""
    on_unexpected: OnUnexpected = "halt"
    """What an app does whose digests are others than expected."""
    state_folder: Path | None = None
    """Where apps with a state of their own have it saved; None: in the user's data folder."""
    wait_for_writer: bool = False
    """Whether to wait while another process writes."""
    guard: bool = False
    """Whether callbacks are watched, so that mistakes such as reading the clock halt the app."""

    def for_database(self, url: str) -> Self:
        """Return these options with the folder for saved states of the database at `url`."""
        return replace(self, state_folder=self.state_folder or default_folder(url))

    def check_confirmations(self, contracts: Sequence[Contract]) -> None:
        """Raise UsageError if an app cannot be run with so many confirmations."""
        for contract in contracts:
            if contract.confirmations is not None and self.confirmations < contract.confirmations:
                raise UsageError(
                    f"app {contract.name} takes a block only with {contract.confirmations} confirmations: "
                    f"raise --confirmations from {self.confirmations}"
                )
            if 0 < contract.window <= self.confirmations:
                raise UsageError(
                    f"app {contract.name} accepts consensus hashes of the last {contract.window} blocks, but "
                    f"with {self.confirmations} confirmations authors can know none of these: lower "
                    "--confirmations, or widen the app's window (0 if it uses no consensus hashes)"
                )


DEFAULTS: Final = Options()


def policies_by_app(
    contracts: Sequence[Contract], on_deep_fork: Policy | Mapping[str, Policy] | None
) -> dict[str, Policy]:
    """Return the policy of each app for which one was chosen, by the app's name.

    Raises UsageError for a policy or an app that does not exist.
    """
    names = [contract.name for contract in contracts]
    if on_deep_fork is None:
        return {}
    policies = dict.fromkeys(names, on_deep_fork) if isinstance(on_deep_fork, str) else dict(on_deep_fork)
    for name, policy in policies.items():
        if name not in names:
            raise UsageError(f"on_deep_fork names {name}: there is no such app among {', '.join(names)}")
        if policy not in get_args(Policy):
            raise UsageError(f"on_deep_fork={quoted(policy)}: choose {', '.join(get_args(Policy))}")
    return policies


def check_runnable(contracts: Sequence[Contract], options: Options, kept: Sequence[Contract] = ()) -> None:
    """Raise UsageError if apps share a name, or one cannot be run, or kept on the tape, so."""
    _refuse_tracking(kept)
    if options.guard:
        for contract in contracts:
            require_no_mistake(contract)
    names = [contract.name for contract in (*contracts, *kept)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise UsageError(f"two apps have the name {', '.join(duplicates)}")
    for name, value, levels in (
        ("verify", options.verify, get_args(Verification)),
        ("senders", options.senders, get_args(SenderLevel)),
        ("on_unexpected", options.on_unexpected, get_args(OnUnexpected)),
    ):
        if value not in levels:
            raise UsageError(f"{name}={quoted(value)}: choose {alternatives(levels)}")
    if options.deepest_rollback is not None and options.deepest_rollback < 0:
        raise UsageError(f"deepest_rollback={options.deepest_rollback}: name a number of blocks, 0 or more")


def _refuse_tracking(kept: Sequence[Contract]) -> None:
    for contract in kept:
        if contract.tracks is not None:
            raise UsageError(
                f"what app {contract.name} sees depends on its state, as it tracks outputs, so nobody can "
                "find its inputs without applying it: apply it (no --no-apply, and no apply = false)"
            )
