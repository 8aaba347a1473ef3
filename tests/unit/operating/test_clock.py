"""Where a writer's time goes, by a clock that the test sets; and what readiness follows from."""

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from virtualchain.clock import CAUSES, SILENT_AFTER, STUCK_AFTER, Clock
from virtualchain.engine.measures import AppState, Measures
from virtualchain.errors import DeepFork, MalformedBlock, MissingData, NodeError, NodeUnavailable
from virtualchain.metrics import Sample, unready

Pass = Callable[[float], None]


@pytest.fixture
def let_pass(monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Return what lets seconds pass."""
    now = [1000.0]

    def let_pass(seconds: float) -> None:
        now[0] += seconds

    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(f"virtualchain.clock.{name}", lambda: now[0])
    monkeypatch.setattr("virtualchain.engine.measures.time.monotonic", lambda: now[0])
    return let_pass


def test_a_stage_does_not_count_the_stages_inside_of_it(let_pass: Pass) -> None:
    """Nor those of other threads; an answer that a commit waits for is part of the commit."""
    clock = Clock()
    with clock.stage("judge"):
        let_pass(1)
        with clock.asking():
            let_pass(2)
        with clock.stage("digests"), clock.asking():
            let_pass(4)
        thread = threading.Thread(target=lambda: clock.stage("fetch").__enter__())
        thread.start()
        thread.join()
        let_pass(8)
    with clock.stage("commit"), clock.asking():
        let_pass(16)
    with suppress(ValueError), clock.stage("scan"):
        let_pass(32)
        raise ValueError
    counted = {stage: seconds for stage, seconds in clock.seconds.items() if seconds}
    assert counted == {"judge": 9, "sql": 6, "commit": 16, "scan": 32}


def test_waiting_is_counted_by_cause_while_it_lasts(let_pass: Pass) -> None:
    """An inner cause interrupts an outer one, and a silent database counts once it is silent for long."""
    clock = Clock()
    with clock.waiting("database"):
        let_pass(1)
        with clock.waiting("writer"):
            let_pass(2)
            assert (clock.waits_for, clock.waited()["writer"]) == ("writer", 2)
        let_pass(4)
        assert (clock.waits_for, clock.waited()["database"]) == ("database", 5)
    assert not clock.waits_for
    with clock.asking():
        let_pass(SILENT_AFTER)
        assert not clock.waits_for
        let_pass(1)
        assert (clock.waits_for, clock.waited()["database"]) == ("database", 5 + SILENT_AFTER + 1)
    let_pass(64)
    assert clock.waited() == dict.fromkeys(CAUSES, 0.0) | {"database": 16 + SILENT_AFTER - 10, "writer": 2}


def test_a_writer_that_does_not_move_is_stuck(let_pass: Pass) -> None:
    """Not before its loop has turned, and not while it waits for an answer of the database."""
    measures = Measures()
    let_pass(2 * STUCK_AFTER)
    assert measures.is_alive(), "it is starting"
    measures.clock.turn()
    let_pass(STUCK_AFTER - 1)
    assert measures.is_alive()
    with measures.clock.asking():
        let_pass(2 * STUCK_AFTER)
        assert measures.is_alive(), "the database does not answer"
    assert measures.is_alive(), "it did"
    let_pass(STUCK_AFTER)
    assert not measures.is_alive()
    with measures.clock.stage("fetch"):
        assert not measures.is_alive()
    assert measures.is_alive()
    with measures.clock.waiting("tip"):
        let_pass(STUCK_AFTER)
        assert not measures.is_alive(), "no wait for the tip is so long"


def test_failures_of_a_node_have_few_kinds() -> None:
    """Whatever it says, there are no more labels than these."""
    measures = Measures()
    for error in (
        NodeUnavailable("a"),
        MalformedBlock("b"),
        MissingData("c"),
        NodeError("d"),
        NodeError("e"),
    ):
        measures.fail(error)
    measures.fail(DeepFork("not a failure"))
    kinds = {
        sample.labels["kind"]: sample.value
        for sample in measures.samples()
        if sample.name == "virtualchain_node_errors_total"
    }
    assert kinds == {"unavailable": 1, "malformed": 1, "missing": 1, "other": 2}
    assert measures.deep_fork_refused


def test_the_lag_is_counted_from_the_stable_tip(let_pass: Pass) -> None:
    """Also of an empty tape, and of a node that is lower than the tape."""
    measures = Measures()
    assert Measures().lag is None
    measures.begin(6, 100)
    measures.know(105)
    assert (measures.lag, measures.lag_seconds) == (0, 0)
    measures.know(110)
    let_pass(5)
    measures.know(111)
    let_pass(5)
    assert (measures.lag, measures.lag_seconds) == (6, 10)
    measures.know(3)
    assert (measures.lag, measures.lag_seconds) == (0, 0)


def test_what_keeps_a_deployment_from_being_ready() -> None:
    """Each reason alone, and none."""
    measures = Measures()
    measures.begin(0, 0)
    measures.see({"names": AppState(1, is_halted=True, is_unexpected=True)})
    [unknown] = unready(measures.samples())
    assert "the node has not answered yet" in unknown
    measures.know(1)
    assert unready(measures.samples()) == []
    assert unready(measures.samples(), 1) == ["2 stable blocks are missing, and 1 may be"]
    for cause, count in (("node", 1), ("database", 1), ("writer", 1), ("readers", 0), ("tip", 0)):
        with measures.clock.waiting(cause):
            assert unready(measures.samples()) == [f"the {cause} is waited for"] * count
    late = Sample("virtualchain_report_age_seconds", 61.0)
    assert unready([*measures.samples(), late]) == ["the writer reported last 61 seconds ago"]
    measures.fail(DeepFork("a fork"))
    assert unready(measures.samples()) == ["a deep fork needs an operator's decision"]
    assert unready([])[0] == "no writer runs"
