"""`virtualchain verify`: check everything that the tables of a deployment say about each other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.audit.fault import MOST_FAULTS, Fault, OnProgress, ignore
from virtualchain.audit.log import HIGHEST, AuditedBuild, audited_builds, check_homes, check_log
from virtualchain.audit.tables import check_state
from virtualchain.audit.tape import chain_of, check_searches, check_tape
from virtualchain.engine.compare import RowDifference, row_differences
from virtualchain.engine.coverage import gaps
from virtualchain.engine.options import DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.versions import judged_again
from virtualchain.errors import AppHalted, BuildChanged, DamagedTables, UsageError
from virtualchain.reading.views import snapshot
from virtualchain.store.builds import Build, builds, is_by
from virtualchain.store.tape import Tape

DIFFERENT_ROWS: Final = 100
"""Rows of each table that are reported if judging again leads to others."""
_NOT_AGAIN = (
    "app {} was not judged again: another process replaced or dropped a build of it meanwhile; run it again"
)


@dataclass(slots=True)
class Stretch:
    """A stretch of blocks that a sample has checked."""

    first: int
    last: int
    judged_again: list[str] = field(default_factory=list)
    """The apps that judged it again."""


@dataclass(slots=True)
class Report:
    """What an audit found, and what it could not check."""

    builds: list[AuditedBuild] = field(default_factory=list)
    judged_again: list[str] = field(default_factory=list)
    """The apps that were derived from the tape again."""
    notes: list[str] = field(default_factory=list)
    """What was not checked, and why."""
    faults: list[Fault] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)
    """The blocks of a sample; none if everything was checked."""
    _seen: set[str] = field(default_factory=set)

    def add(self, faults: Iterator[Fault], on_fault: Callable[[Fault], None]) -> None:
        """Collect faults, each once, until there are too many."""
        for fault in faults:
            if len(self.faults) == MOST_FAULTS:
                return
            if str(fault) not in self._seen:
                self._seen.add(str(fault))
                self.faults.append(fault)
                on_fault(fault)

    def end(self) -> "Report":
        """Note if there were too many faults."""
        if len(self.faults) == MOST_FAULTS:
            self.notes.append(f"the audit ended after {MOST_FAULTS:,} faults")
        return self


def verify(
    url: str,
    contracts: Sequence[Contract] = (),
    *,
    deep: bool = False,
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
    on_fault: Callable[[Fault], None] = lambda _: None,
    on_progress: OnProgress = ignore,
) -> Report:
    """Check tape, log, projections and history of every build, as the database is at one moment.

    With the apps' code in `contracts`, more of the log can be checked. With `deep`, each live app whose code
    is among them is derived again from the tape, into a build that is dropped again, and all rows are
    compared; a writer may run meanwhile. Raises StoreError if the database fails, UsageError if `deep` is
    asked for and no code is at hand, WriterBusy if another process judges an app again.
    """
    report = Report()

    def collect(faults: Iterator[Fault]) -> None:
        report.add(faults, on_fault)

    if deep and not contracts:
        raise UsageError("to judge the apps again, their code is needed: name it with --app")
    with snapshot(url) as connection:
        report.builds = audited_builds(connection)
        known = known_contracts(connection, contracts, report)
        collect(check_tape(connection, 0, HIGHEST, on_progress))
        collect(check_homes(connection))
        of_tape = [fault for fault in report.faults if fault.table is None]
        for build in report.builds:
            collect(check_searches(connection, build))
            if chain_of(connection) is not None or Tape(connection).tip() is None:
                collect(check_log(connection, build, known.get((build.app, build.build)), on_progress))
            collect(check_state(connection, build, on_progress))
        pruned = Tape(connection).pruned_until()
        if pruned is not None:
            report.notes.append(
                f"the inputs of blocks below {pruned + 1} were pruned: ops and rejections there were not "
                "compared with them"
            )
        live = [row for row in builds(connection) if row.is_live]
        unsearched = {
            contract.name: next((first for first, _ in gaps(Tape(connection), contract)), HIGHEST)
            for contract in known.values()
        }
    for row in live if deep else ():
        contract = known.get((row.app, row.name))
        reason = _not_again(row, contract, unsearched, of_tape)
        if contract is None or reason is not None:
            report.notes.append(f"app {row.app} was not judged again: {reason}")
        else:
            collect(_judge_again(url, row, contract, options, listener, report))
    return report.end()


def _not_again(
    live: Build, contract: Contract | None, unsearched: Mapping[str, int], of_tape: Sequence[Fault]
) -> str | None:
    """Return why an app is not judged again, if it is not.

    `unsearched` has each app's first gap, `of_tape` what is wrong with what it would be derived from.
    """
    for fault in of_tape:
        if fault.block_id is None or fault.block_id <= live.block_id:
            return f"the tape is damaged: {fault}"
    if live.began_with_checkpoint:
        return (
            f"it began with a checkpoint of block {live.base_block_id}, and the tape does not hold what came "
            "before"
        )
    if contract is None:
        return "name its code with --app"
    if unsearched[live.app] <= live.block_id:
        return (
            f"other code has taken block {unsearched[live.app]}, and the tape may not have all that this "
            f"code would see from there on: `virtualchain upgrade {live.app}` derives it from blocks"
        )
    return None


def known_contracts(
    connection: psycopg.Connection, contracts: Sequence[Contract], report: Report
) -> dict[tuple[str, str], Contract]:
    """Return the code that made each build, by app and build, as far as it is at hand."""
    known, chain = {}, chain_of(connection)
    for contract in contracts:
        for row in builds(connection, contract.name):
            here = contract if chain is None else contract.on(chain.name)
            if is_by(connection, row, here):
                known[row.app, row.name] = here
            elif row.is_live:
                report.notes.append(
                    f"app {row.app} was checked without its code: the version that is named, "
                    f"{contract.version}, declares other rules than {row.version}, which made its tables"
                )
    return known


def _judge_again(
    url: str, live: Build, contract: Contract, options: Options, listener: Listener, report: Report
) -> Iterator[Fault]:
    """Derive an app from the tape, and yield the rows in which it differs."""
    try:
        with judged_again(url, contract, options, listener) as judged:
            if judged is None:
                report.notes.append(f"app {live.app} was not judged again: interrupted")
                return
            connection, now, again = judged
            if now.name != live.name:
                report.notes.append(_NOT_AGAIN.format(live.app))
                return
            for difference in row_differences(connection, now, again, DIFFERENT_ROWS):
                yield different_row(now, difference)
            report.judged_again.append(live.app)
    except BuildChanged:
        report.notes.append(_NOT_AGAIN.format(live.app))
    except DamagedTables as error:
        report.notes.append(f"app {live.app} was not judged again: {error}")
    except AppHalted as error:
        yield failed_again(live, error)


def failed_again(live: Build, error: AppHalted) -> Fault:
    """Describe an app that fails where it did not fail before."""
    place: dict[str, Any] = {name: error.record.get(name) for name in ("block_id", "txindex")}
    return Fault(f"judged again, the app fails: {error}", app=live.app, build=live.name, **place)


def different_row(build: Build, row: RowDifference) -> Fault:
    """Describe a row that only one of two builds has: `build` is the live one, and the first of the two."""
    message = (
        "the app, judged again from the tape, has no such row"
        if row.is_in_first
        else "the app, judged again from the tape, has a row that is missing here or differs"
    )
    place = {"block_id": row.block_id, "txindex": row.txindex, "vtxindex": row.vtxindex}
    return Fault(message, app=build.app, build=build.name, table=row.table, key=row.key, **place)
