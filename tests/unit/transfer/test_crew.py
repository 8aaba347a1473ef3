"""Processes that work for this one: order, errors, and what becomes of a job whose process ends."""

import os
from collections.abc import Iterator

import pytest

from virtualchain.crew import Crew, Lost


def test_results_come_in_order_and_errors_in_their_turn() -> None:
    """What a process raises, and what the jobs themselves raise, comes after the results before it."""
    seen: list[int] = []
    with Crew(int, 2) as crew:
        with pytest.raises(ValueError, match="'x'"):
            seen.extend(crew.in_order(["1", "2", "3", "x", "4"]))
        assert seen == [1, 2, 3]

        def broken() -> Iterator[str]:
            yield from ("5", "6")
            raise LookupError("no more")

        with pytest.raises(LookupError, match="no more"):
            seen.extend(crew.in_order(broken()))
    assert seen == [1, 2, 3, 5, 6]


def test_a_single_job_takes_no_process() -> None:
    """Starting one would take longer than most single jobs."""
    with Crew(_own_process, 2) as crew:
        assert list(crew.in_order([1])) == [os.getpid()]
        assert list(crew.in_order([])) == []


def test_a_short_job_takes_no_process() -> None:
    """It is done by whoever asks, and its error comes in its turn, after the results before it."""
    seen: list[int] = []
    with Crew(_own_process, 2, is_short=lambda job: job < 3) as crew, pytest.raises(ZeroDivisionError):
        seen.extend(crew.in_order([1, 2, 5, 2, 0, 1]))
    assert [each == os.getpid() for each in seen] == [True, True, False, True]


def _own_process(job: int) -> int:
    return os.getpid() * job // job


def test_a_process_that_ends_is_reported() -> None:
    """Results in order need each of them; otherwise a job is given up once it has cost three processes."""
    losses: list[str] = []
    with Crew(os._exit, 2) as crew, pytest.raises(Lost, match="ended with exit code 3"):
        list(crew.in_order([3, 3]))
    with Crew(os._exit, 1) as crew, pytest.raises(Lost, match="ended with exit code 4") as lost:
        list(crew.as_done([4], lambda job, how: losses.append(f"{job} {how}")))
    assert lost.value.job == 4
    assert losses == ["4 with exit code 4"] * 2
