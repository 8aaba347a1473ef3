"""A few short simulations and crashes; `tests.simulation` and `tests.simulation.crashes` run many."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.simulation import crashes
from tests.simulation.faults import FAULTS, missing, possible, report
from tests.simulation.jobs import short_waits
from tests.simulation.steps import NAMES, watch_steps
from tests.simulation.story import simulate
from tests.simulation.world import Differs, Setup, World
from virtualchain.testing.database import DatabaseServer

SEEDS = st.integers(0, 2**16)
DEPTHS = st.sampled_from([1, 2, 3, 8, 20, 40])
NTH = st.sampled_from([1, 2, 4, 9])
STRIKES = [
    (fault, step)
    for fault in FAULTS
    for step in NAMES
    if fault not in {"kill", "restart", "crash", "hang"} and possible(fault, step)
]
"""Faults and steps; the tests' server is shared, so it is not restarted."""


class WorldMachine(RuleBasedStateMachine):
    """A world whose actions are the rules."""

    server: ClassVar[DatabaseServer]

    def __init__(self) -> None:
        super().__init__()
        self._contexts = [short_waits(), watch_steps()]
        for context in self._contexts:
            context.__enter__()
        self.folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
        self._world: World | None = None

    @initialize(
        history=st.sampled_from([10, 1000, None]),
        confirmations=st.sampled_from([0, 0, 2]),
        rest=st.booleans(),
        seed=SEEDS,
    )
    def begin(self, history: int | None, confirmations: int, rest: bool, seed: int) -> None:
        """Start with some blocks."""
        apps = ("plain", "tally", "forgetful", "early")
        setup = Setup(history=history, confirmations=confirmations, rest=rest, apps=apps)
        self._world = World(self.server, self.folder, setup)
        self.world.mine(12, seed)

    @rule(blocks=st.integers(1, 4), seed=SEEDS)
    def mine(self, blocks: int, seed: int) -> None:
        """Mine blocks."""
        self.world.mine(blocks, seed)

    @rule(depth=DEPTHS, more=st.sampled_from([1, 1, 2, 0, -1]), seed=SEEDS, run=st.booleans())
    def fork(self, depth: int, more: int, seed: int, run: bool) -> None:
        """Switch to another branch."""
        self.world.fork(depth, max(1, depth + more), seed)
        if run:
            self.world.run()

    @rule(depth=DEPTHS, seed=SEEDS)
    def heavy_fork(self, depth: int, seed: int) -> None:
        """Switch to a shorter branch with more work."""
        self.world.fork(depth, max(1, depth // 4), seed, heavy=True)
        self.world.run()

    @rule(index=st.integers(0, 3), seed=SEEDS)
    def return_to_branch(self, index: int, seed: int) -> None:
        """Return to a branch that the node left."""
        self.world.return_to_branch(index, seed)
        self.world.run()

    @rule(depth=DEPTHS)
    def invalidate(self, depth: int) -> None:
        """Mark blocks as invalid."""
        self.world.invalidate(min(depth, 8))
        self.world.run()

    @rule(depth=DEPTHS)
    def lag(self, depth: int) -> None:
        """Fall behind, and catch up."""
        self.world.lag(depth)
        self.world.run()
        self.world.catch_up()

    @rule(strike=st.sampled_from(STRIKES), nth=NTH, seed=SEEDS)
    def fault(self, strike: tuple[str, str], nth: int, seed: int) -> None:
        """Let a fault strike at a step."""
        self.world.mine(1, seed)
        self.world.run(fault=strike[0], step=strike[1], nth=nth, seed=seed)

    @rule(strike=st.sampled_from(STRIKES), nth=NTH, depth=DEPTHS, seed=SEEDS)
    def fault_in_a_fork(self, strike: tuple[str, str], nth: int, depth: int, seed: int) -> None:
        """Let a fault strike at a step of a rollback."""
        self.world.run()
        self.world.fork(depth, depth + 1, seed)
        self.world.run(fault=strike[0], step=strike[1], nth=nth, seed=seed)

    @rule(step=st.sampled_from(NAMES), nth=NTH, depth=DEPTHS, seed=SEEDS)
    def kill(self, step: str, nth: int, depth: int, seed: int) -> None:
        """Kill an engine."""
        self.world.fork(depth, depth + 1, seed)
        self.world.kill(step, nth)

    @rule(job=st.sampled_from([("undo", 3), ("undo", 20), ("replay", "plain"), ("replay", "tally")]))
    def by_hand(self, job: tuple[str, Any]) -> None:
        """Run an operator's job."""
        self.world.run(job)

    @rule()
    def resume(self) -> None:
        """Resume halted apps, in another engine."""
        self.world.resume()

    @precondition(lambda self: self._world is not None)
    @rule()
    def finish(self) -> None:
        """Compare in the middle of a run."""
        self.world.finish()

    def teardown(self) -> None:
        """Compare at the end."""
        try:
            if self._world is not None:
                try:
                    self._world.finish()
                finally:
                    self._world.close()
        finally:
            for context in reversed(self._contexts):
                context.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    @property
    def world(self) -> World:
        """The world, once it has started."""
        assert self._world is not None
        return self._world


def test_after_any_faults_the_result_equals_a_fresh_index(database_server: DatabaseServer) -> None:
    """Forks, faults, kills and operators' jobs leave no difference; their order is the same in every run."""
    WorldMachine.server = database_server
    run_state_machine_as_test(
        WorldMachine,
        settings=settings(
            derandomize=True,
            max_examples=2,
            stateful_step_count=6,
            deadline=None,
            phases=[Phase.generate],  # shrinking takes minutes, and the steps are printed anyway
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder for saved states."""
    path = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    yield path
    shutil.rmtree(path)


def test_a_seed_repeats_a_simulation(database_server: DatabaseServer, folder: Path) -> None:
    """The seed that a run prints is enough to repeat it."""
    logs: list[list[str]] = [[], []]
    for log in logs:
        simulate(10, database_server, folder, log.append, steps=2)
    actions = [[line for line in log if line.startswith("  ") and line[2] != " "] for log in logs]
    assert actions[0] == actions[1]
    assert len(actions[0]) > 2


def test_a_difference_is_found(database_server: DatabaseServer, folder: Path) -> None:
    """A row that a fresh index does not have is reported with its table."""
    with short_waits(), watch_steps():
        world = World(database_server, folder, Setup(apps=("plain",)))
        world.mine(3, 1)
        world.run()
        world.connection().execute(
            "BEGIN; SET LOCAL virtualchain.block_id = 'undo'; "
            "INSERT INTO plain__1.seen VALUES ('\\x00', 104); COMMIT"
        )
        with pytest.raises(Differs, match=r"plain\.seen: .*\n  extra: \(.*x00"):
            world.finish()
        world.close()


def test_the_report_lists_pairs_that_never_occurred() -> None:
    """A fault that struck at one step is listed with all others at which it could have struck."""
    struck = Counter({("unanswered", "answer of the commit (rebuild)"): 2, ("halt", "parse"): 1})
    steps = missing(struck)
    assert "unanswered" not in steps
    assert "parse" not in steps["halt"]
    assert "check" in steps["halt"]
    assert "fetch" not in steps["halt"]
    assert "answer of the commit (rebuild)" in report(struck)


def test_killed_syncs_and_postmasters_leave_no_difference() -> None:
    """After two syncs and a postmaster killed at random, every table is that of an undisturbed run."""
    assert crashes.run(kills=2, postmasters=1, seed=3) == []
