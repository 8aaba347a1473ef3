"""Send an app everything that strangers may send: `check_poison` checks whether one transaction can halt it.

Every case is a transaction of its own. A fake node mines them, and the engine runs the app over them twice,
in new databases, the second time in other processes and with a restart. No case may halt the app, and both
runs must produce the same ops, rejections, rows and hashes.
"""

import linecache
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Self

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.bitcoin.script import op_return
from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.model import Json
from virtualchain.testing.advice import SAME_EVERYWHERE, advice_for
from virtualchain.testing.cases import Carry, Case, CaseWriter, Place, in_blocks
from virtualchain.testing.database import DatabaseServer, running_server
from virtualchain.testing.differences import Verdicts, describe_difference, verdicts
from virtualchain.testing.machines import FOREIGN, Job, Machine, Stretch, packed
from virtualchain.testing.surroundings import other_hash_seed

_BLOCK_CASES: Final = 60
_MAX_HALTS: Final = 8
"""How often the cases are run again without the one that halted the app."""


class Poisoned(VirtualchainError, AssertionError):
    """A transaction halts an app, or two runs differ; the message lists the cases."""


@dataclass(frozen=True, slots=True)
class PoisonReport:
    """The outcome of the cases for an app that survived all of them."""

    cases: int
    accepted: int
    refused: int
    ignored: int
    """Cases in which the app's payload rule, magic and opcodes find no input."""


def check_poison(
    app: object,
    samples: Sequence[bytes] = (),
    *,
    database_url: str | None = None,
    carry: Carry = op_return,
    guard: bool = True,
) -> PoisonReport:
    """Run an app (anything that `StateEngine` accepts) over a list of hostile transactions.

    `samples` are good payloads, with magic and opcode, at least one per opcode. They are sent first, then
    cut off, changed and repeated, so that they also reach the app's checks and reducers. The databases are
    created on the server of `database_url`, whose role must have the right to do so, or on a server started
    for this call. `carry` builds the output script of a payload, for an app whose payload rule does not
    read OP_RETURNs. The second run is in other processes, with other surroundings, unless the app cannot be
    sent there; see `check_determinism` for a search that goes further.

    The guard is on, unless `guard` is False: callbacks that read the clock, files and the like are errors
    (docs/mistakes.md).

    Warns of a sample that is never accepted, because the app's reducer was not tried with it.

    Raises Poisoned, which reports the cases that halt the app or differ between two runs. Raises UsageError
    if no case reaches the app, or if a sample is not one of its payloads.
    """
    with ExitStack() as opened:
        server = (
            opened.enter_context(running_server())
            if database_url is None
            else DatabaseServer(database_url, prefix="poison")
        )
        opened.callback(server.drop_template)
        contract = read_contract(app, "regtest")
        if guard:
            require_no_mistake(contract)
        runs = opened.enter_context(_Runs(app, contract, server, guard=guard))
        cases = list(CaseWriter(contract, samples, carry).hostile())
        complaints, blocks, first = _halts(runs, in_blocks(cases, _BLOCK_CASES))
        names = {case.tx.txid: case.name for block in blocks for case in block}
        if not complaints:
            lines = describe_difference(contract.name, first, runs(blocks, elsewhere=True), names)
            if lines:
                listed = "\n  ".join(lines)
                complaints = [f"two runs differ: {listed}\n  Instead, {SAME_EVERYWHERE}."]
        outcomes = verdicts(first)
    if complaints:
        listed = "\n".join(f"- {complaint}" for complaint in complaints)
        raise Poisoned(f"app {contract.name} does not survive hostile input:\n{listed}")
    _warn_of_refused(contract.name, samples, outcomes, names)
    accepted, refused = (
        len({row[1] for row in outcomes if row[2] == verdict}) for verdict in ("accepted", "refused")
    )
    if not accepted + refused:
        raise UsageError(
            f"none of {len(names)} cases reaches app {contract.name}: pass samples, or as `carry` a "
            "function that puts a payload into an output"
        )
    return PoisonReport(len(names), accepted, refused, len(names) - accepted - refused)


def _warn_of_refused(
    app: str, samples: Sequence[bytes], outcomes: Verdicts, names: Mapping[str, str]
) -> None:
    """Warn of samples that were refused each time, because their commit was not tried then."""
    refused = []
    for sample in samples:
        own = [row for row in outcomes if names.get(row[1] or "", "").startswith(f"sample {sample!r} ")]
        if own and all(verdict == "refused" for _, _, verdict, _ in own):
            block_id, _, _, reason = own[0]
            refused.append(f"{sample!r} (in block {block_id} {reason})")
    if refused:
        warnings.warn(
            f"check_poison: app {app} never accepts the samples {', '.join(refused)}, so their commit was "
            "not tried: pass samples in an order in which they are accepted, one after the other",
            stacklevel=3,
        )


def _halts(runs: "_Runs", blocks: list[list[Case]]) -> tuple[list[str], list[list[Case]], Machine]:
    """Run until nothing halts, each time without the case that did.

    If a halt names no case, as in a hook that sees the whole block, the block's cases get a block each.
    Returns complaints about the halts, the cases that are left, and the machine of the last run.
    """
    halts: dict[str, str] = {}
    unnamed: str | None = None
    for number in count():
        machine = runs(blocks)
        halt = machine.ran.halt
        if halt is None or number == _MAX_HALTS:
            break
        place = halt["block_id"] - runs.place.first
        cases = blocks[place] if place >= 0 else []
        named = [case for case in cases if case.tx.txid == halt["txid"]]
        failure = f"{halt['callback']} fails with {halt['error']}"
        if len(cases) == 1 or named:
            culprit, unnamed = (named or cases)[0], None
            location = _location(halt)
            # Many cases trigger the same bug: the second time, all cases with this opcode are dropped.
            dropped = culprit.start if location in halts else b""
            advice = advice_for(halt["error"])
            halts.setdefault(
                location,
                f"{culprit.name}: {failure}\n{location}" + (f"\n  Instead, {advice}." if advice else ""),
            )
            blocks = [
                [case for case in block if case is not culprit and not (dropped and case.start == dropped)]
                for block in blocks
            ]
        elif unnamed is None and cases:
            unnamed = f"{cases[0].name}, and {len(cases) - 1} more in one block: {failure}"
            blocks = [*blocks[:place], *([case] for case in cases), *blocks[place + 1 :]]
        else:
            raise Poisoned(f"app {runs.name} halts without any input: {failure}\n{halt['traceback']}")
    return [*halts.values(), *([unnamed] if unnamed else [])], blocks, machine


def _location(halt: Json) -> str:
    """Return the line of the app's code that failed, with its source; nothing if the record names none."""
    if halt["file"] is None:
        return ""
    code = linecache.getline(halt["file"], halt["line"]).strip()
    return f"  {halt['file']}:{halt['line']}, in {halt['function']}: {code}"


class _Runs:
    """Runs an app over blocks of cases, each time with a new node and a new database."""

    def __init__(self, app: object, contract: Contract, server: DatabaseServer, *, guard: bool) -> None:
        self.name = contract.name
        self.place = Place.of(contract)
        self._app = self.place.app(app)
        self._parcel = packed(self._app)
        self._confirmations = contract.confirmations or 0
        self._server = server
        self._guard = guard

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            self._opened = opened.pop_all()
        self._numbers = count()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __call__(self, blocks: Sequence[Sequence[Case]], *, elsewhere: bool = False) -> Machine:
        """Run up to the last block: at once, or `elsewhere`, with a restart and in other processes."""
        last = self.place.first + len(blocks) - 1
        stretches = [Stretch(last)]
        if elsewhere:
            stretches = [Stretch(last - len(blocks) // 2, FOREIGN), Stretch(last, FOREIGN)]
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        with self.place.node() as node:
            self.place.mine(node, blocks, self._confirmations)
            guard = self._guard and not elsewhere
            job = Job(node.url, self._confirmations, folder, stretches, is_deep=elsewhere, guard=guard)
            name, seed = ("with a restart", other_hash_seed()) if elsewhere else ("the first run", None)
            machine = Machine(name, self._server, job, seed, processes=2)
            self._opened.callback(machine.drop)
            machine.run_elsewhere(self._parcel)
            machine.run_here(self._app)
        return machine
