"""The engine against whatever happens, in a few short simulations; `tests.simulation` runs many."""

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

from tests.simulation.coverage import never, report
from tests.simulation.faults import FAULTS, possible
from tests.simulation.options import Options
from tests.simulation.probe import NAMES, watch
from tests.simulation.story import simulate
from tests.simulation.world import Differs, World, hurried
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
"""The tests' server is shared: it is not restarted here."""


class Machine(RuleBasedStateMachine):
    """A world whose verbs are the rules."""

    server: ClassVar[DatabaseServer]

    def __init__(self) -> None:
        super().__init__()
        self._watching = [hurried(), watch()]
        for each in self._watching:
            each.__enter__()
        self.folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
        self.world: World | None = None

    @initialize(
        history=st.sampled_from([10, 1000, None]),
        confirmations=st.sampled_from([0, 0, 2]),
        rest=st.booleans(),
        seed=SEEDS,
    )
    def begin(self, history: int | None, confirmations: int, rest: bool, seed: int) -> None:
        """Begin with some blocks."""
        apps = ("plain", "tally", "forgetful", "early")
        options = Options(history=history, confirmations=confirmations, rest=rest, apps=apps)
        self.world = World(self.server, self.folder, options)
        self.world.mine(12, seed)

    @rule(blocks=st.integers(1, 4), seed=SEEDS)
    def mine(self, blocks: int, seed: int) -> None:
        """Mine blocks."""
        self.there.mine(blocks, seed)

    @rule(depth=DEPTHS, more=st.sampled_from([1, 1, 2, 0, -1]), seed=SEEDS, run=st.booleans())
    def fork(self, depth: int, more: int, seed: int, run: bool) -> None:
        """Go to another branch."""
        self.there.fork(depth, max(1, depth + more), seed)
        if run:
            self.there.run()

    @rule(depth=DEPTHS, seed=SEEDS)
    def heavy_fork(self, depth: int, seed: int) -> None:
        """Go to a shorter branch with more work."""
        self.there.fork(depth, max(1, depth // 4), seed, heavy=True)
        self.there.run()

    @rule(place=st.integers(0, 3), seed=SEEDS)
    def back(self, place: int, seed: int) -> None:
        """Go back to a branch that was left."""
        self.there.back(place, seed)
        self.there.run()

    @rule(depth=DEPTHS)
    def invalidate(self, depth: int) -> None:
        """Call blocks invalid."""
        self.there.invalidate(min(depth, 8))
        self.there.run()

    @rule(depth=DEPTHS)
    def lag(self, depth: int) -> None:
        """Fall behind, and catch up."""
        self.there.lag(depth)
        self.there.run()
        self.there.catch_up()

    @rule(strike=st.sampled_from(STRIKES), nth=NTH, seed=SEEDS)
    def fault(self, strike: tuple[str, str], nth: int, seed: int) -> None:
        """Have a fault meet a step."""
        self.there.mine(1, seed)
        self.there.run(fault=strike[0], step=strike[1], nth=nth, seed=seed)

    @rule(strike=st.sampled_from(STRIKES), nth=NTH, depth=DEPTHS, seed=SEEDS)
    def fault_in_a_fork(self, strike: tuple[str, str], nth: int, depth: int, seed: int) -> None:
        """Have a fault meet a step of a rollback."""
        self.there.run()
        self.there.fork(depth, depth + 1, seed)
        self.there.run(fault=strike[0], step=strike[1], nth=nth, seed=seed)

    @rule(step=st.sampled_from(NAMES), nth=NTH, depth=DEPTHS, seed=SEEDS)
    def kill(self, step: str, nth: int, depth: int, seed: int) -> None:
        """Kill an engine."""
        self.there.fork(depth, depth + 1, seed)
        self.there.kill(step, nth)

    @rule(job=st.sampled_from([("undo", 3), ("undo", 20), ("replay", "plain"), ("replay", "tally")]))
    def by_hand(self, job: tuple[str, Any]) -> None:
        """Do what an operator does."""
        self.there.run(job)

    @rule()
    def resume(self) -> None:
        """Let halted apps go on, in another engine."""
        self.there.resume()

    @precondition(lambda self: self.world is not None)
    @rule()
    def finish(self) -> None:
        """Compare in the middle of it."""
        self.there.finish()

    def teardown(self) -> None:
        """Compare at the end."""
        try:
            if self.world is not None:
                try:
                    self.world.finish()
                finally:
                    self.world.close()
        finally:
            for each in reversed(self._watching):
                each.__exit__(None, None, None)
            shutil.rmtree(self.folder)

    @property
    def there(self) -> World:
        """The world, which has begun."""
        assert self.world is not None
        return self.world


def test_whatever_happens_the_end_is_that_of_a_fresh_index(database_server: DatabaseServer) -> None:
    """Forks, faults, kills and operators in an order that is the same in every run of the suite."""
    Machine.server = database_server
    run_state_machine_as_test(
        Machine,
        settings=settings(
            derandomize=True,
            max_examples=4,
            stateful_step_count=8,
            deadline=None,
            phases=[Phase.generate],  # to shrink takes minutes, and the steps are told anyway
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder for saved states."""
    made = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
    yield made
    shutil.rmtree(made)


def test_a_seed_tells_the_same_story_twice(database_server: DatabaseServer, folder: Path) -> None:
    """What a long run prints is enough to run it again."""
    told: list[list[str]] = [[], []]
    for steps in told:
        simulate(10, database_server, folder, steps.append, steps=3)
    verbs = [[text for text in steps if text.startswith("  ") and text[2] != " "] for steps in told]
    assert verbs[0] == verbs[1]
    assert len(verbs[0]) > 3


def test_a_difference_is_found(database_server: DatabaseServer, folder: Path) -> None:
    """A row that a fresh index does not have, in the tables of an app, is named with its table."""
    with hurried(), watch():
        world = World(database_server, folder, Options(apps=("plain",)))
        world.mine(3, 1)
        world.run()
        world.connection().execute(
            "BEGIN; SET LOCAL virtualchain.block_id = 'undo'; "
            "INSERT INTO plain__1.seen VALUES ('\\x00', 104); COMMIT"
        )
        with pytest.raises(Differs, match=r"plain\.seen: .*\n  too many: \(.*x00"):
            world.finish()
        world.close()


def test_pairs_that_never_met_are_told() -> None:
    """A fault that met one step is listed with all others that it could have met."""
    met = Counter({("unanswered", "answer of the commit (rebuild)"): 2, ("halt", "parse"): 1})
    missing = never(met)
    assert "unanswered" not in missing
    assert "parse" not in missing["halt"]
    assert "check" in missing["halt"]
    assert "fetch" not in missing["halt"]
    assert "answer of the commit (rebuild)" in report(met)
