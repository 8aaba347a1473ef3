"""The progress of a sync, on standard error: a bar on a terminal, a line every ten seconds elsewhere."""

import sys
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from virtualchain.cli.output import counted, duration, is_for_programs, is_heard, say
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress as Bar

    from virtualchain.cli.service import Service
    from virtualchain.engine.options import Progress, Tally
    from virtualchain.errors import AppHalted
    from virtualchain.model import Reorg
    from virtualchain.store.rollback import Undone

_REDRAW: Final = 0.1
"""Seconds between two updates of the bar."""
_REPEAT: Final = 10.0
"""Seconds between two lines if there is no terminal."""
_MEMORY: Final = 30.0
"""Seconds over which rates are averaged."""
_MANY: Final = 10
"""A follower warns if so many inputs of an app, or more, all failed alike."""
_NEAR_TIP: Final = 10
"""A follower names every block that is within this many blocks of the stable tip."""


class Meter:
    """Blocks and inputs per second over the last half minute."""

    def __init__(self) -> None:
        self.blocks = self.inputs = 0
        self.started = time.monotonic()
        self._samples = deque([(self.started, 0, 0)])

    def count(self, inputs: int) -> float:
        """Count a block and its inputs; return the time, in seconds of the monotonic clock."""
        now = time.monotonic()
        if not self.blocks:  # opening the node and the database does not count
            self._samples[0] = (now, 0, 0)
        self.blocks += 1
        self.inputs += inputs
        if now - self._samples[-1][0] >= _REDRAW:
            self._samples.append((now, self.blocks, self.inputs))
            while now - self._samples[0][0] > _MEMORY:
                self._samples.popleft()
        return now

    @property
    def seconds(self) -> float:
        """The time since the start."""
        return time.monotonic() - self.started

    def rates(self) -> tuple[float, float]:
        """Return blocks and inputs per second."""
        since, blocks, inputs = self._samples[0]
        passed = max(time.monotonic() - since, 0.001)
        return (self.blocks - blocks) / passed, (self.inputs - inputs) / passed

    def summary(self, left: int) -> str:
        """Describe the rates, and how long the remaining `left` blocks will take."""
        blocks, inputs = self.rates()
        return f"{blocks:,.0f} blocks/s, {inputs:,.0f} inputs/s, {duration(left / max(blocks, 0.001))} left"


class Ticker:
    """Prints how far long work is, every ten seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _REPEAT

    def __call__(self, line: str) -> None:
        """Print the line if it is time to."""
        if time.monotonic() >= self._next:
            say(line)
            self._next = time.monotonic() + _REPEAT


class Reporter:
    """Reports to the user what the engine does; use it as a context manager.

    `to` is the last block requested. With `follows` there is no last block, and each block near the tip gets
    a line. `service` passes on to a service manager what that should know.
    """

    def __init__(
        self, *, to: int | None = None, follows: bool = False, service: "Service | None" = None
    ) -> None:
        self._service = service
        self.meter = Meter()
        self._to = to
        self._follows = follows
        self._is_terminal = sys.stderr.isatty() and not is_for_programs() and is_heard("info")
        self._interval = _REDRAW if self._is_terminal else _REPEAT
        self._next: float | None = None
        self._bar: Bar | None = None
        self.hint: str | None = None
        """What would make the sync faster; shown once, if it takes long."""
        self._last_reason: str | None = None
        self._halted: set[str] = set()
        self._catching_up: tuple[str | None, Meter] = None, Meter()
        self.last: int | None = None
        """The last block that was processed."""
        self.tallies: dict[str, Tally] = {}
        """What became of all inputs so far, by app."""
        self._warned: set[str] = set()
        self.verbose = False
        """Whether to show the traceback of an app's error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()

    def block(self, progress: "Progress") -> None:
        """Report a processed block."""
        now = self.meter.count(progress.inputs)
        self._count(progress)
        self.last = block_id = progress.block.block_id
        if self._service is not None:
            self._service.block(block_id, progress.stable_tip)
        goal = progress.stable_tip if self._to is None else min(self._to, progress.stable_tip)
        if self._follows and block_id > goal - _NEAR_TIP:
            self._hide()
            verdicts = "; ".join(f"{app}: {tally}" for app, tally in progress.tallies.items() if tally.inputs)
            line = f"block {block_id} ({progress.block.hash}), {counted(progress.inputs, 'input')}"
            message = f"{line}: {verdicts}" if verdicts else line
            say(Notice(message, "block_taken", **_block_fields(progress)))
        else:
            self._show_periodically(now, self.meter, progress, goal)
        if self._follows:
            self._warn()

    def catching_up(self, progress: "Progress") -> None:
        """Report a block that an app took from the tape to reach the block of the others."""
        self._count(progress)
        if progress.app != self._catching_up[0]:
            self._catching_up = progress.app, Meter()
            self._hide()
            message = f"app {progress.app} is catching up from the tape to block {progress.stable_tip:,}"
            say(Notice(message, "app_catches_up", app=progress.app, goal=progress.stable_tip))
        meter = self._catching_up[1]
        self._show_periodically(meter.count(progress.inputs), meter, progress, progress.stable_tip)

    def rolled_back(self, reorg: "Reorg", undone: "Undone") -> None:
        """Report what the rollback at a deep fork undid."""
        self._hide()
        message = (
            f"deep fork: blocks above {reorg.fork_block_id} were replaced; undone: "
            f"{counted(undone.blocks, 'block')}, {counted(undone.ops, 'op')}, {counted(undone.rows, 'row')}"
        )
        fields = {"blocks_undone": undone.blocks, "ops_undone": undone.ops, "rows_undone": undone.rows}
        say(Notice(message, "rolled_back", fork_block_id=reorg.fork_block_id, **fields))

    def waiting(self, reason: str) -> None:
        """Report what the engine waits for, if the reason is a new one."""
        self._hide()
        if reason != self._last_reason:
            say(reason)
            if self._service is not None:
                self._service.waiting(reason)
        self._last_reason = reason

    def halted(self, halted: "Mapping[str, AppHalted]") -> None:
        """Report each app that halts while others continue, once."""
        for name in sorted(set(halted) - self._halted):
            error = halted[name]
            fields = {"app": name, **{key: error.record.get(key) for key in ("block_id", "callback", "txid")}}
            message = f"{error}. The other apps continue"
            say(Notice(message, "app_halted", **fields), error if self.verbose else None)
            self._halted.add(name)

    def inputs(self, app: str) -> str:
        """Write how many inputs of an app there were so far, and what became of them."""
        tally = self.tallies.get(app)
        return f"{tally.inputs:,}: {tally}" if tally is not None and tally.inputs else "none"

    def failures(self) -> dict[str, str]:
        """Return what to say of each app that accepted no input so far, because all failed alike."""
        return {
            app: f"app {app}: {tally.failure}"
            + ("; see `virtualchain ops --rejected`" if tally.rejected else "")
            for app, tally in self.tallies.items()
            if tally.failure is not None
        }

    def _count(self, progress: "Progress") -> None:
        for app, tally in progress.tallies.items():
            self.tallies[app] = self.tallies[app] + tally if app in self.tallies else tally

    def _warn(self) -> None:
        """Warn once of each app whose first inputs all failed alike."""
        for app, failure in self.failures().items():
            if app not in self._warned and self.tallies[app].inputs >= _MANY:
                self._warned.add(app)
                self._hide()
                say(Notice(failure, "inputs_failed", app=app))

    def _show_periodically(self, now: float, meter: Meter, progress: "Progress", goal: int) -> None:
        if self._next is None or now >= self._next:
            if self._next is not None:  # a first block has no rate yet
                self._hint_at_speed()
                self._show(meter, progress, goal)
            self._next = now + self._interval

    def _hint_at_speed(self) -> None:
        if self.hint is not None and self.meter.seconds > _REPEAT:
            self._hide()
            say(self.hint)
            self.hint = None

    def _show(self, meter: Meter, progress: "Progress", goal: int) -> None:
        block_id = progress.block.block_id
        left = goal - block_id
        rates = meter.summary(left)
        prefix = "" if progress.app is None else f"{progress.app}: "
        place = f"{prefix}block {block_id:,} of {goal:,}"
        if not self._is_terminal:
            blocks, inputs = meter.rates()
            fields = {
                "app": progress.app,
                "block_id": block_id,
                "goal": goal,
                "blocks_per_second": round(blocks, 1),
                "inputs_per_second": round(inputs, 1),
            }
            say(Notice(f"{place}, {rates}", "progress", **fields))
            return
        bar = self._bar or _make_bar()
        done = meter.blocks
        bar.update(bar.task_ids[0], completed=done, total=done + left, place=place, rates=rates)
        if self._bar is None:
            self._bar = bar
            bar.start()

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _block_fields(progress: "Progress") -> dict[str, object]:
    """Return what a block's event tells programs: sums over the apps, and what became of it in each."""
    tallies = progress.tallies.values()
    return {
        "block_id": progress.block.block_id,
        "block_hash": progress.block.hash,
        "inputs": progress.inputs,
        "accepted": sum(tally.accepted for tally in tallies),
        "rejected": sum(sum(tally.rejected.values()) for tally in tallies),
        "apps": {app: tally_json(tally) for app, tally in progress.tallies.items()},
    }


def tally_json(tally: "Tally") -> dict[str, object]:
    """Return what became of inputs, as JSON has it."""
    return {"inputs": tally.inputs, "accepted": tally.accepted, "rejected": dict(tally.rejected)}


def _make_bar() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.fields[place]}"), BarColumn(), TextColumn("{task.fields[rates]}"))
    bar = Bar(*columns, console=Console(stderr=True, highlight=False), transient=True)
    bar.add_task("sync", place="", rates="")
    return bar
