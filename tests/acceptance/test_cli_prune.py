"""The command prune, as an operator uses it."""

import json

from tests.acceptance.conftest import Inside, mine_notes, notes
from virtualchain.testing import FakeNode

APP = ("--app", "apps:notes")


def test_prune(inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]) -> None:
    """It says what it would free, frees it, and the app goes on; without a limit it asks for one."""
    mine_notes(fake_node, *"abcde")
    inside(*APP, *options, "sync")
    below = fake_node.height - 1
    would = inside(*options, "prune", "--keep", "2", "--dry-run")
    assert would.out.startswith(f"3 inputs below block {below} would be pruned, which frees ")
    for limits in ((), ("--keep", "2", "--before", str(below))):
        assert "name either --before BLOCK or --keep BLOCKS" in inside(*options, "prune", *limits, code=2).err
    done = inside(*options, "prune", "--before", str(below))
    assert done.out.startswith(f"3 inputs below block {below} pruned, which frees ")
    assert f"pruned below block {below}" in inside(*options, "status").out
    assert json.loads(inside(*options, "--json", "status").out)["inputs_pruned_below"] == below
    printed = json.loads(inside(*options, "--json", "prune", "--keep", "2").out)
    assert printed == {"before": below, "inputs": 0, "bytes": 0, "dry_run": False, "complete": True}
    mine_notes(fake_node, "f")
    inside(*APP, *options, "sync")
    assert notes(database_url) == [*"abcdef"]
    failed = inside(*APP, *options, "replay", "notes", code=2)
    assert f"inputs of blocks below {below} were pruned" in failed.err
    assert f"the inputs of blocks below {below} were pruned" in inside(*options, "verify").err
    inside(*APP, *options, "upgrade", "notes")
    inside(*APP, *options, "replay", "notes")
    assert notes(database_url) == [*"abcdef"]
