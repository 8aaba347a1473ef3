"""The second machine for authors: `check_determinism` checks that an app's verdicts depend on values alone.

The app is run over a chain of its samples, repeated and changed, on machines that differ in all that may
differ between two nodes. Verdicts, rows and digests must be the same on all of them.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.source import BlockSource
from virtualchain.checkpoint.create import create
from virtualchain.engine.states import loads_files
from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.reading import views
from virtualchain.testing.advice import SAME_EVERYWHERE
from virtualchain.testing.cases import Carry, Case, CaseWriter, Place, in_blocks
from virtualchain.testing.database import DatabaseServer, other_version, running_server
from virtualchain.testing.differences import describe_difference, verdicts
from virtualchain.testing.machines import FOREIGN, PLANS, Job, Machine, Stretch, packed
from virtualchain.testing.surroundings import described, other_hash_seed

_MOST_CASES: Final = 240
_BLOCK_CASES: Final = 14
_STRETCHES: Final = 7
"""About how often a machine starts again."""
_BRANCH: Final = 3
"""Blocks of the branch that is undone, and blocks that are undone and taken again."""


class Undetermined(VirtualchainError, AssertionError):
    """Two machines come to different verdicts, rows or digests; the message says where."""


@dataclass(frozen=True, slots=True)
class DeterminismReport:
    """What an app that is the same on all machines was tried with."""

    blocks: int
    cases: int
    accepted: int
    refused: int
    machines: tuple[str, ...]
    """What was different on each of them; the first one is this process."""
    surroundings: tuple[str, ...]
    """What was different around other processes, if any were used."""


def check_determinism(
    app: object,
    samples: Sequence[bytes] = (),
    *,
    database_url: str | None = None,
    other_database_url: str | None = None,
    carry: Carry = op_return,
    seconds: float = 25.0,
    guard: bool = True,
) -> DeterminismReport:
    """Run an app (anything that `StateEngine` accepts) on machines that differ, and compare what they have.

    `samples`, `database_url` and `carry` are as for `check_poison`; the samples should reach every statement
    of the app. The first machine is this process, with one session. The others run in other processes, with
    another hash seed, time zone, locale, folder and stack depth, one of them with another clock (if
    libfaketime is installed), and without environment variables of the app's own. After every few blocks they
    start again, with other settings of the planner, sometimes with new statistics, and with the rows of all
    tables in another order. They undo blocks and take them again, follow another branch and return, derive
    the app again, or begin with a checkpoint. One uses another version of PostgreSQL: the server of
    `other_database_url`, or else an installation on this computer, if there is one. After `seconds` no
    further machine is started.

    The guard is on, unless `guard` is False: callbacks that read the clock, files and the like are errors
    (docs/mistakes.md).

    An app that cannot be sent to another process, for example because its callbacks refer to an open file, is
    run in this one alone; the report says so.

    Raises Undetermined, which names the first block, op, statement, table and row that differ, and both
    values. Raises UsageError if the app halts on the first machine, or if no case reaches it.
    """
    with ExitStack() as opened:
        server = (
            opened.enter_context(running_server())
            if database_url is None
            else DatabaseServer(database_url, prefix="determinism")
        )
        opened.callback(server.drop_template)
        contract = read_contract(app, "regtest")
        if guard:
            require_no_mistake(contract)
        cases = _cases(CaseWriter(contract, samples, carry), has_samples=bool(samples))
        blocks = in_blocks(cases, _BLOCK_CASES)
        course = replace(opened.enter_context(_mined(app, contract, blocks)), guard=guard)
        machines = run_everywhere(course, server, other_database_url, seconds, opened)
        return _report(course, blocks, machines)


def _cases(writer: CaseWriter, *, has_samples: bool) -> list[Case]:
    """Mix what strangers send with the samples, which are sent again and again, by a new sender each time."""
    hostile = list(writer.mutated() if has_samples else writer.hostile())
    if len(hostile) > _MOST_CASES:
        hostile = [hostile[at * len(hostile) // _MOST_CASES] for at in range(_MOST_CASES)]
    cases = list(writer.samples())
    step = max(_BLOCK_CASES, 2 * len(cases) // 3)
    for number, at in enumerate(range(0, len(hostile), step)):
        cases += [*hostile[at : at + step], *writer.samples([f"sender {number}"])]
    return cases


@dataclass(frozen=True, slots=True)
class Course:
    """The blocks that all machines of a check take, each in its own way."""

    app: object
    contract: Contract
    source: BlockSource | str
    branch: BlockSource | str
    """It has the same blocks up to `middle`, and then others up to `branch_ends`."""
    first: int
    middle: int
    last: int
    branch_ends: int
    folder: Path
    """For what machines keep outside of their databases."""
    names: Mapping[str, str]
    """Descriptions of transactions, by txid."""
    guard: bool = False
    """Whether callbacks are watched on the first machine."""

    def plain(self, server: DatabaseServer) -> Machine:
        """Make the machine that the others are compared with: this process, with one session."""
        job = replace(self._job([Stretch(self.last)]), guard=self.guard)
        return Machine("the first machine", server, job)

    def rough(self, server: DatabaseServer) -> Machine:
        """Make a machine that differs in all that may differ on one server."""
        job = replace(self._job(self._stretches(0)), replays=True, is_deep=True, shifts_clock=True)
        return Machine("with other plans, heaps and forks", server, job, other_hash_seed(1), processes=2)

    def on_another_version(
        self, server: DatabaseServer, url: str | None, opened: ExitStack
    ) -> Machine | None:
        """Make a machine with another version of PostgreSQL; None if there is none here."""
        other = (
            opened.enter_context(other_version(server))
            if url is None
            else DatabaseServer(url, prefix="determinism")
        )
        if other is None:
            return None
        opened.callback(other.drop_template)
        job = replace(self._job(self._stretches(5)), is_deep=True)
        return Machine(f"with PostgreSQL {other.version()}", other, job, other_hash_seed(2))

    def with_checkpoint(self, server: DatabaseServer, first: Machine) -> Machine | None:
        """Make a machine that begins with a checkpoint of the first one; None if the app cannot have one."""
        if self.contract.get_state is not None and not loads_files(self.contract):
            return None
        file = self.folder / "checkpoint"
        try:
            with views.snapshot(first.url) as connection:
                create(connection, self.contract.name, file, block_id=self.middle)
        except UsageError:
            return None
        job = replace(self._job(self._stretches(9, self.middle)), checkpoint=file, is_deep=True)
        return Machine(f"begun by a checkpoint of block {self.middle}", server, job, other_hash_seed(3))

    def _job(self, stretches: Sequence[Stretch]) -> Job:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return Job(self.source, self.contract.confirmations or 0, folder, stretches)

    def _stretches(self, first_plan: int, above: int = -1) -> list[Stretch]:
        """Take the blocks above one in short stretches, with the planner's settings in turn."""
        first = max(self.first, above + 1)
        step = max(1, (self.last - first) // _STRETCHES)
        stops = sorted({stop for stop in (*range(first, self.last, step), self.middle) if stop > above})
        stretches: list[Stretch] = []
        for number, stop in enumerate([*stops, self.last]):
            forks = bool(stretches) and stretches[-1].stop == self.middle
            stretches.append(
                Stretch(
                    stop,
                    settings={**FOREIGN, **PLANS[(first_plan + number) % len(PLANS)]},
                    shuffle=f"{first_plan} {number}",
                    analyzes=number % 3 == 1,
                    fork=(self.branch, self.branch_ends) if forks else None,
                    undoes=min(_BRANCH, stop - first) if number % 4 == 2 else 0,
                )
            )
        return stretches


def run_everywhere(
    course: Course, server: DatabaseServer, other_url: str | None, seconds: float, opened: ExitStack
) -> list[Machine]:
    """Run an app on all machines; return them, the first one first. `opened` drops their databases.

    Arguments and errors are those of `check_determinism`.
    """
    deadline = time.monotonic() + seconds
    parcel = packed(course.app)
    first = course.plain(server)
    opened.callback(first.drop)
    machines = [first]

    def run(make: Callable[[], Machine | None]) -> Machine | None:
        machine = make()
        if machine is not None:
            opened.callback(machine.drop)
            machine.run_elsewhere(parcel)
        return machine

    def compare(machine: Machine | None, above: int = -1) -> None:
        if machine is not None:
            machine.run_here(course.app)
            machines.append(machine)
            _require_no_difference(course, first, machine, above)

    with ThreadPoolExecutor() as pool:  # each thread waits for a process
        tried = [
            pool.submit(run, partial(course.rough, server)),
            pool.submit(run, partial(course.on_another_version, server, other_url, opened)),
        ]
        first.run_here(course.app)
        _require_no_halt(course, first)
        for future in tried:
            compare(future.result())
    if time.monotonic() < deadline:
        compare(run(partial(course.with_checkpoint, server, first)), course.middle)
    return machines


def _require_no_halt(course: Course, first: Machine) -> None:
    """Raise UsageError if the app halts on the first machine."""
    halt = first.ran.halt
    if halt is not None:
        case = course.names.get(halt["txid"] or "", "no single transaction")
        raise UsageError(
            f"app {course.contract.name} halts in block {halt['block_id']}, so that nothing after it can be "
            f"compared; check_poison finds more such transactions: {halt['callback']} fails with "
            f"{halt['error']} ({case})\n{halt['traceback']}"
        )


def _require_no_difference(course: Course, first: Machine, machine: Machine, above: int) -> None:
    """Raise Undetermined if a machine differs from the first one in a block above one."""
    lines = describe_difference(course.contract.name, first, machine, course.names, above)
    if lines:
        listed = "\n".join(f"- {line}" for line in lines)
        raise Undetermined(
            f"app {course.contract.name} does not depend on values alone:\n{listed}\n"
            f"Instead, {SAME_EVERYWHERE}."
        )


@contextmanager
def _mined(app: object, contract: Contract, blocks: Sequence[Sequence[Case]]) -> Iterator[Course]:
    """Mine blocks of cases, and a branch with some of them in another order."""
    place = Place.of(contract)
    at = len(blocks) // 2
    others = blocks[at : at + _BRANCH][::-1]
    middle = place.first + at - 1
    with (
        tempfile.TemporaryDirectory() as folder,
        place.node() as source,
        place.node() as branch,
    ):
        place.mine(source, blocks, contract.confirmations or 0)
        place.mine(branch, [*blocks[:at], *others], contract.confirmations or 0)
        yield Course(
            place.app(app),
            contract,
            source.url,
            branch.url,
            first=place.first,
            middle=middle,
            last=place.first + len(blocks) - 1,
            branch_ends=middle + len(others),
            folder=Path(folder),
            names={case.tx.txid: case.name for block in blocks for case in block},
        )


def _report(
    course: Course, blocks: Sequence[Sequence[Case]], machines: Sequence[Machine]
) -> DeterminismReport:
    rows = verdicts(machines[0])
    accepted, refused = (len({row[1] for row in rows if row[2] == kind}) for kind in ("accepted", "refused"))
    if not accepted + refused:
        raise UsageError(
            f"none of {len(course.names)} cases reaches app {course.contract.name}: pass samples, or as "
            "`carry` a function that puts a payload into an output"
        )
    return DeterminismReport(
        blocks=len(blocks),
        cases=len(course.names),
        accepted=accepted,
        refused=refused,
        machines=tuple(machine.name for machine in machines),
        surroundings=described() if any(machine.ran.is_elsewhere for machine in machines) else (),
    )
