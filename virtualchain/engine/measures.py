"""What a writer counts of its own work, as samples of metrics.

Plain numbers in memory: one thread counts, others may read at any time. Nothing is derived from them. They
begin with the process; the report to the database has their last values.
"""

import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from virtualchain.clock import CAUSES, Clock
from virtualchain.errors import DeepFork, MalformedBlock, MissingData, NodeError, NodeUnavailable
from virtualchain.metrics import Sample
from virtualchain.model import Block
from virtualchain.store.revision import head

STEPS: Final = ("parse", "check", "commit")
"""Where an input may be rejected."""
DEPTHS: Final = (1, 2, 3, 6, 10, 100, 1000)
"""The upper bounds of the histogram of depths, in blocks."""
_KINDS: Final = {"unavailable": NodeUnavailable, "malformed": MalformedBlock, "missing": MissingData}
_OTHER: Final = "other"
_PREFIX: Final = "virtualchain_"


@dataclass(slots=True)
class AppState:
    """How an app is."""

    height: int
    """The last block that it has taken, or the one before its first."""
    is_halted: bool
    is_unexpected: bool
    """Whether its digests are others than expected."""


class Measures:
    """What one writer has done since it began, through all of its sessions, and how it is."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.started = time.time()
        self.blocks = self.inputs = 0
        self.ops: dict[str, int] = {}
        """Accepted inputs by app."""
        self.refusals: dict[tuple[str, str], int] = {}
        """Rejected inputs by app and step."""
        self.tip: Block | None = None
        """The last block of the tape."""
        self.node_place: int | None = None
        self.nodes_disagree = False
        self.node_height: int | None = None
        self.node_seen: float | None = None
        """When the node last answered what its tip is, by the monotonic clock."""
        self.apps: dict[str, AppState] = {}
        """By name."""
        self.halted = 0
        """How many of them are halted."""
        self.deep_fork_refused = False
        self._confirmations = 0
        self._first = 0
        self._due_since: float | None = None
        self._depths = dict.fromkeys(DEPTHS, 0)
        self._rollbacks = self._undone = 0
        self._rollback_seconds = 0.0
        self._node_errors = dict.fromkeys((*_KINDS, _OTHER), 0)
        self._reconnects = {"node": 0, "database": 0}

    def begin(self, confirmations: int, first: int) -> None:
        """Take note of K, and of the block that an empty tape starts with."""
        self._confirmations, self._first = confirmations, first

    def see(self, apps: Mapping[str, AppState]) -> None:
        """Take note of all apps, by name."""
        for app in apps:
            if app not in self.ops:
                self.ops[app] = 0
                self.refusals.update(dict.fromkeys(((app, step) for step in STEPS), 0))
        self.apps = dict(apps)
        self.halted = sum(state.is_halted for state in apps.values())

    def be_at(self, tip: Block | None) -> None:
        """Take note of the last block of the tape; None: it is empty."""
        self.tip = tip
        self._note_lag()

    def know(self, block_id: int, place: int = 1, *, is_disputed: bool = False) -> None:
        """Take note of the height of the node's last block, and how it stands among several nodes.

        `place` says which it is, from 1; `is_disputed`, whether another one disagrees with it.
        """
        self.node_place, self.nodes_disagree = place, is_disputed
        self.node_height, self.node_seen = block_id, time.monotonic()
        self._note_lag()

    def take(self, block: Block, inputs: int) -> None:
        """Count a block that is new to the tape, and its inputs."""
        self.blocks += 1
        self.inputs += inputs
        self.be_at(block)

    def judge(self, app: str, block_id: int, accepted: int, rejected: Mapping[str, int]) -> None:
        """Count what became of an app's inputs in a block."""
        self.apps[app].height = block_id
        if accepted:
            self.ops[app] += accepted
        for step, count in rejected.items():
            self.refusals[app, step] += count

    def undo(self, depth: int, seconds: float) -> None:
        """Count a rollback."""
        self._rollbacks += 1
        self._undone += depth
        self._rollback_seconds += seconds
        for bound in DEPTHS:
            if depth <= bound:
                self._depths[bound] += 1

    def fail(self, error: NodeError | DeepFork) -> None:
        """Count a failure of the node, or take note that its chain needs an operator's decision."""
        if isinstance(error, DeepFork):
            self.deep_fork_refused = True
            return
        kinds = (kind for kind, family in _KINDS.items() if isinstance(error, family))
        self._node_errors[next(kinds, _OTHER)] += 1

    def reconnect(self, to: Literal["node", "database"]) -> None:
        """Count that the node or the database answers again."""
        self._reconnects[to] += 1

    @property
    def lag(self) -> int | None:
        """How many stable blocks the tape lacks; None while that is unknown."""
        if self.node_height is None:
            return None
        last = self._first - 1 if self.tip is None else self.tip.block_id
        return max(self.node_height - self._confirmations - last, 0)

    @property
    def lag_seconds(self) -> float:
        """For how many seconds a stable block has been due."""
        since = self._due_since
        return 0.0 if since is None else max(time.monotonic() - since, 0.0)

    def is_alive(self) -> bool:
        """Return whether the writer moves, as `Clock.is_moving` defines it."""
        return self.clock.is_moving()

    def samples(self) -> list[Sample]:
        """Return the values of all metrics but those of the database's size and of the report's age."""
        return [Sample(_PREFIX + name, float(value), labels) for name, value, labels in self._values()]

    def _note_lag(self) -> None:
        if not self.lag:
            self._due_since = None
        elif self._due_since is None:
            self._due_since = time.monotonic()

    def _values(self) -> Iterator[tuple[str, float, dict[str, str]]]:
        yield "up", 1, {}
        yield "build_info", 1, build_info()
        yield "started_timestamp_seconds", self.started, {}
        tip, lag = self.tip, self.lag
        for name, value in (
            ("height", None if tip is None else tip.block_id),
            ("node_height", self.node_height),
            ("node_in_use", self.node_place),
            ("lag_blocks", lag),
            ("lag_seconds", None if lag is None else self.lag_seconds),
            ("last_block_timestamp_seconds", None if tip is None else tip.time),
        ):
            if value is not None:
                yield name, value, {}
        yield "blocks_total", self.blocks, {}
        yield "inputs_total", self.inputs, {}
        yield from self._app_values()
        for stage, seconds in self.clock.seconds.items():
            yield "stage_seconds_total", seconds, {"stage": stage}
        yield from self._rollback_values()
        for kind, count in self._node_errors.items():
            yield "node_errors_total", count, {"kind": kind}
        for what, count in self._reconnects.items():
            yield "reconnects_total", count, {"of": what}
        waits_for = self.clock.waits_for
        for cause, seconds in self.clock.waited().items():
            yield "waiting_seconds_total", seconds, {"for": cause}
        for cause in CAUSES:
            yield "waiting", cause == waits_for, {"for": cause}
        yield "nodes_disagree", self.nodes_disagree, {}
        yield "deep_fork_refused", self.deep_fork_refused, {}

    def _app_values(self) -> Iterator[tuple[str, float, dict[str, str]]]:
        for app, count in self.ops.copy().items():
            yield "ops_total", count, {"app": app}
        for (app, step), count in self.refusals.copy().items():
            yield "refusals_total", count, {"app": app, "step": step}
        for app, state in self.apps.items():  # which is replaced, and never gets another app
            yield "app_height", state.height, {"app": app}
            yield "app_halted", state.is_halted, {"app": app}
            yield "app_unexpected", state.is_unexpected, {"app": app}

    def _rollback_values(self) -> Iterator[tuple[str, float, dict[str, str]]]:
        rollbacks, undone = self._rollbacks, self._undone
        yield "reorganizations_total", rollbacks, {}
        for bound, count in self._depths.items():
            yield "reorganization_depth_blocks_bucket", count, {"le": f"{float(bound)}"}
        yield "reorganization_depth_blocks_bucket", rollbacks, {"le": "+Inf"}
        yield "reorganization_depth_blocks_count", rollbacks, {}
        yield "reorganization_depth_blocks_sum", undone, {}
        yield "rollback_seconds_total", self._rollback_seconds, {}


@cache
def build_info() -> dict[str, str]:
    """Return the labels of `virtualchain_build_info`."""
    return {
        "version": installed_version() or "",
        "revision": head(),
        "python": platform.python_version(),
    }


@cache
def installed_version() -> str | None:
    """Return the version of this package; None if it is not installed."""
    try:
        return version("virtualchain")
    except PackageNotFoundError:
        return None
