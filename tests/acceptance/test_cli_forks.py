"""Forks: the commands rollback, pin and unpin, the policies, and what sync and status report."""

import json

from tests.acceptance.conftest import Inside, mine_notes, notes
from virtualchain.testing import FakeNode

APP = ("--app", "apps:notes")


def test_a_deep_fork_is_undone_and_reported(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Status announces the rollback, the sync reports what it undid, and status shows it afterwards."""
    mine_notes(fake_node, "one", "two", "three")
    inside(*APP, *options, "sync")
    fake_node.reorg(2)
    before = json.loads(inside(*options, "--json", "status").out)
    assert "deep fork above block" in before["waits_for"]
    assert "the next sync or run undoes them" in before["waits_for"]
    done = inside(*APP, *options, "sync")
    assert (
        f"deep fork: blocks above {fake_node.height - 3} were replaced; undone: 2 blocks, 2 ops" in done.err
    )
    assert notes(database_url) == ["one"]
    after = json.loads(inside(*options, "--json", "status").out)
    assert after["last_reorg"]["depth"] == 2
    assert after["waits_for"].startswith("waiting for block")
    assert after["writer"] is None
    assert "2 blocks above block" in inside(*options, "status").out


def test_rollback_by_hand(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Blocks are undone as at a fork, and the next sync processes them again."""
    mine_notes(fake_node, "one", "two", "three")
    inside(*APP, *options, "sync")
    done = inside(*options, "rollback", fake_node.height - 2)
    assert done.out.startswith(f"back at block {fake_node.height - 2}; undone: 2 blocks, 2 ops, 2 rows")
    assert notes(database_url) == ["one"]
    printed = json.loads(inside(*options, "--json", "rollback", fake_node.height - 3).out)
    assert printed == {"block_id": fake_node.height - 3, "blocks": 1, "ops": 1, "rows": 1}
    inside(*APP, *options, "sync", "--to", fake_node.height - 2)
    failed = inside(*options, "rollback", fake_node.height, code=2)
    assert f"the tape ends with block {fake_node.height - 2}" in failed.err
    inside(*APP, *options, "sync")
    assert notes(database_url) == ["one", "two", "three"]


def test_rollback_below_the_history_needs_the_app(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Without the app's code, one line asks for it; with it, the app is rebuilt."""
    mine_notes(fake_node, "one", *"abcdefgh")
    inside(*APP, *options, "--history", "2", "sync")
    block = fake_node.height - 8
    failed = inside(*options, "rollback", block, code=2)
    assert "name it with --app" in failed.err
    inside(*APP, *options, "rollback", block)
    assert notes(database_url) == ["one"]


def test_a_missing_app_is_warned_of_and_stops_a_fork_below_its_history(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """It is an operator's decision, with exit code 4 and the reason in status; the code undoes it."""
    mine_notes(fake_node, *"abcdefgh")
    both = (*APP, "--app", "apps:plain", *options, "--history", "2")
    inside(*both, "sync")
    floor = fake_node.height - 2
    only = ("--app", "apps:plain", *options)
    assert json.loads(inside(*both, "--json", "sync").out)["warnings"] == []
    missing = "app notes is installed here, but its code is not named: it is not advanced"
    expected = f"{missing}, and a fork below block {floor} would stop all apps"
    assert expected in inside(*only, "sync").err
    [warning] = json.loads(inside(*only, "--json", "sync").out)["warnings"]
    assert warning.startswith(expected)
    assert "`virtualchain remove notes`" in warning
    assert json.loads(inside(*options, "--json", "status").out)["warnings"] == [warning]
    assert warning in inside(*options, "status").err
    fork = fake_node.height - 5
    fake_node.reorg(5)
    for command in ("sync", "run"):
        failed = inside(*only, command, code=4)
        assert f"deep fork above block {fork}" in failed.err
        assert f"the history of app notes begins at block {floor}" in failed.err
    for shown in (
        inside(*options, "status").out,
        json.loads(inside(*options, "--json", "status").out)["waits_for"],
    ):
        assert "Nothing was changed, because the history of app notes begins" in shown
        assert "name it with --app" in shown
        assert "the next sync or run undoes them" not in shown
    (inside.folder / "virtualchain.toml").write_text(
        '[[apps]]\nuse = "apps:notes"\n[[apps]]\nuse = "apps:plain"\n'
    )
    printed = json.loads(inside(*options, "--json", "status").out)
    assert (printed["warnings"], "the next sync or run undoes them" in printed["waits_for"]) == ([], True)
    inside(*options, "sync")
    assert notes(database_url) == ["a", "b", "c"]


def test_an_app_that_is_not_run_stops_no_other_fork(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """With its history complete, it is rolled back without its code, so nothing warns of it."""
    mine_notes(fake_node, *"abcd")
    inside(*APP, "--app", "apps:plain", *options, "sync")
    only = ("--app", "apps:plain", *options)
    assert json.loads(inside(*only, "--json", "sync").out)["warnings"] == []
    assert json.loads(inside(*options, "--json", "status").out)["warnings"] == []
    fake_node.reorg(3)
    inside(*only, "sync")
    assert notes(database_url) == ["a"]


def test_pin_and_unpin(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """With a pin, the deployment stays on its branch, and status shows what it waits for."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    inside(*options, "pin", fake_node.height, fake_node.tip)
    block = fake_node.height
    fake_node.reorg(1)
    assert f"its chain does not hold the pinned block {block}" in inside(*APP, *options, "sync").out
    assert f"pinned block {block}" in inside(*options, "status").out
    assert notes(database_url) == ["one", "two"]
    assert "block 5 is not pinned; pinned blocks: " in inside(*options, "unpin", 5, code=2).err
    assert "64 hex digits" in inside(*options, "pin", 5, "xyz", code=2).err
    assert json.loads(inside(*options, "--json", "unpin", block).out) == {"block_id": block, "pins": []}
    inside(*APP, *options, "sync")
    assert notes(database_url) == ["one"]


def test_a_fork_deeper_than_allowed_stops_the_deployment(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Exit code 4, and status says why without the node; `rollback`, as the message says, lets it go on."""
    (inside.folder / "virtualchain.toml").write_text(
        '[virtualchain]\ndeepest_rollback = 2\n[[apps]]\nuse = "apps:notes"\n'
    )
    mine_notes(fake_node, *"abcde")
    inside(*options, "sync")
    fake_node.reorg(3)
    fork = fake_node.height - 4
    failed = inside(*options, "sync", code=4)
    assert f"--deepest-rollback is 2: `virtualchain rollback {fork}` undoes them" in failed.err
    assert "--deepest-rollback is 2" in json.loads(inside(*options, "--json", "status").out)["waits_for"]
    down = ("--bitcoin", "http://u:p@127.0.0.1:9", *options[2:])
    assert "--deepest-rollback is 2" in inside(*down, "status").out
    assert notes(database_url) == [*"abcde"]
    inside(*options, "rollback", fork)
    inside(*options, "sync")
    assert notes(database_url) == [*"ab"]


def test_a_policy_in_the_settings_file_stops_the_deployment(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """The sync ends with exit code 4 and says what to do; after a manual rollback, it continues."""
    (inside.folder / "virtualchain.toml").write_text('[[apps]]\nuse = "apps:notes"\non_deep_fork = "halt"\n')
    mine_notes(fake_node, "one", "two", "three")
    inside(*options, "sync")
    fork = fake_node.height - 2
    fake_node.reorg(2)
    failed = inside(*options, "sync", code=4)
    assert f"deep fork above block {fork}" in failed.err
    assert f"`virtualchain rollback {fork}` undoes them" in failed.err
    assert notes(database_url) == ["one", "two", "three"]
    assert "on_deep_fork of notes is halt" in inside(*options, "status").out
    inside(*options, "rollback", fork)
    inside(*options, "sync")
    assert notes(database_url) == ["one"]
