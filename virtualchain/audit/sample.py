"""`virtualchain verify --sample`: random stretches of blocks, checked while the writer runs.

The work depends on how many stretches are asked for and on the size of the apps' states, not on the chain.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.audit.fault import Fault, OnProgress, ignore
from virtualchain.audit.log import audited_builds, check_log
from virtualchain.audit.tables import check_changes
from virtualchain.audit.tape import chain_of, check_searches, check_tape
from virtualchain.audit.verify import (
    DIFFERENT_ROWS,
    Report,
    Stretch,
    different_row,
    failed_again,
    known_contracts,
)
from virtualchain.engine.compare import row_differences
from virtualchain.engine.options import DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.stretch import judged_stretch
from virtualchain.errors import (
    AppHalted,
    DatabaseUnavailable,
    DeepFork,
    NotPrimary,
    StoreError,
    UsageError,
    WriterBusy,
)
from virtualchain.reading.views import snapshot
from virtualchain.store.builds import Build, builds
from virtualchain.store.tape import Tape

_DAMAGED: Final = "blocks {} to {} were not judged again: the tape is damaged at block {}"
LENGTH: Final = 100
"""The most blocks of a stretch."""


def verify_sample(
    url: str,
    number: int,
    seed: int,
    contracts: Sequence[Contract] = (),
    *,
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
    on_fault: Callable[[Fault], None] = lambda _: None,
    on_progress: OnProgress = ignore,
) -> Report:
    """Check `number` stretches of blocks, which `seed` chooses: tape, log, history and state.

    Each live app whose code is in `contracts` judges a stretch again from its own state before it, if its
    history reaches there, and all rows are compared; every second stretch is chosen where one can. The same
    seed chooses the same blocks as long as the tape is the same. Raises what `verify` raises.
    """
    report, damaged = Report(), set[int]()
    with snapshot(url) as connection:
        known = known_contracts(connection, contracts, report)
        live = [row for row in builds(connection) if row.is_live]
        able = [row.history_from + 1 for row in live if (row.app, row.name) in known]
        bottom, tip = Tape(connection).bottom(), Tape(connection).tip()
        if bottom is not None and tip is not None:
            oldest = min(able, default=bottom.block_id)
            report.stretches = choose(number, seed, bottom.block_id, tip.block_id, oldest)
        report.builds = audited_builds(connection, 0, 0)
        for build in report.builds:
            report.add(check_searches(connection, build), on_fault)
        for stretch in report.stretches:
            for fault in _check(connection, stretch, known, on_progress):
                if fault.app is None and fault.block_id is not None:
                    damaged.add(fault.block_id)
                report.add(iter([fault]), on_fault)
    for stretch in report.stretches:
        wrong = min((at for at in damaged if stretch.first <= at <= stretch.last), default=None)
        if wrong is not None:
            report.notes.append(_DAMAGED.format(stretch.first, stretch.last, wrong))
            continue
        for row in live:
            if (contract := known.get((row.app, row.name))) is not None:
                _judge_again(url, row, contract, stretch, options, listener, report, on_fault)
    return report.end()


def _check(
    connection: psycopg.Connection,
    stretch: Stretch,
    known: Mapping[tuple[str, str], Contract],
    on_progress: OnProgress,
) -> Iterator[Fault]:
    """Yield what is wrong with the tape in a stretch, and with log and state of every build there."""
    first, last = stretch.first, stretch.last
    yield from check_tape(connection, first, last, on_progress)
    for build in audited_builds(connection, first, last):
        if chain_of(connection) is not None:
            contract = known.get((build.app, build.build))
            yield from check_log(connection, build, contract, on_progress, first, last)
        yield from check_changes(connection, build, first, last, on_progress)


def choose(number: int, seed: int, bottom: int, tip: int, oldest: int) -> list[Stretch]:
    """Choose stretches between two blocks; every second one at or above `oldest`, if there is room.

    Each block is as likely as any other to be in one: at both ends stretches are cut short.
    """
    random, stretches = Random(seed), []  # noqa: S311 - chosen to be repeated, not to be secret
    for turn in range(number):
        lowest = max(bottom, oldest) if turn % 2 == 0 and oldest <= tip else bottom
        first = random.randint(lowest - LENGTH + 1, tip)
        stretches.append(Stretch(max(first, lowest), min(first + LENGTH - 1, tip)))
    return stretches


def _judge_again(
    url: str,
    live: Build,
    contract: Contract,
    stretch: Stretch,
    options: Options,
    listener: Listener,
    report: Report,
    on_fault: Callable[[Fault], None],
) -> None:
    """Have an app judge what it has taken of a stretch again, and collect the rows in which it differs."""
    first, last = max(stretch.first, live.base_block_id + 1), min(stretch.last, live.block_id)
    if first > last:
        return
    name = f"blocks {first} to {last} were not judged again by {live.app}"
    try:
        with judged_stretch(url, contract, first, last, options, listener) as judged:
            if judged is None:
                report.notes.append(f"{name}: interrupted")
                return
            connection, now, again = judged
            rows = row_differences(connection, now, again, DIFFERENT_ROWS, log_from=first)
            report.add((different_row(now, row) for row in rows), on_fault)
            stretch.judged_again.append(live.app)
    except NotPrimary as error:
        report.notes.append(f"{name}: {error}")
    except (DatabaseUnavailable, WriterBusy):
        raise
    except (StoreError, UsageError, DeepFork) as error:
        report.notes.append(f"{name}: {error}")
    except AppHalted as error:
        report.add(iter([failed_again(live, error)]), on_fault)
