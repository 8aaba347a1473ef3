"""A short run of `tests.simulation.crashes`; its docstring says how to make it a long one."""

from tests.simulation import crashes


def test_killed_syncs_and_postmasters_leave_no_difference() -> None:
    """Three syncs and two postmasters killed at random: every table as of an undisturbed run."""
    assert crashes.run(kills=3, postmasters=2, seed=3) == []
