"""Forks at the command line: rollback, replay, pin, unpin, policies, and what status says."""

import json

import psycopg
import pytest

from tests.acceptance.conftest import Inside
from virtualchain.testing import FakeNode

APP = ("--app", "apps:notes")


@pytest.fixture
def options(fake_node: FakeNode, database_url: str) -> tuple[str, ...]:
    """Give what every command here is told."""
    return ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", "0")


def mine(node: FakeNode, *texts: str) -> None:
    """Mine a block for each text, which the app notes."""
    for text in texts:
        node.mine([node.send(b"sto" + text.encode())])


def notes(url: str) -> list[str]:
    """Read the app's table."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT text FROM notes.notes ORDER BY block_id").fetchall()
    return [text for (text,) in rows]


def test_a_deep_fork_is_undone_and_told(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """The sync says what went; status shows the last rollback, and before it what is about to happen."""
    mine(fake_node, "one", "two", "three")
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
    """Undone as at a fork, and taken again by the next sync; above the tip there is nothing to undo."""
    mine(fake_node, "one", "two", "three")
    inside(*APP, *options, "sync")
    said = inside(*options, "rollback", fake_node.height - 2).out
    assert said.startswith(f"back at block {fake_node.height - 2}; undone: 2 blocks, 2 ops, 2 rows")
    assert notes(database_url) == ["one"]
    told = json.loads(inside(*options, "--json", "rollback", fake_node.height - 3).out)
    assert told == {"block_id": fake_node.height - 3, "blocks": 1, "ops": 1, "rows": 1}
    inside(*APP, *options, "sync", "--to", fake_node.height - 2)
    failed = inside(*options, "rollback", fake_node.height, code=2)
    assert f"the tape ends with block {fake_node.height - 2}" in failed.err
    inside(*APP, *options, "sync")
    assert notes(database_url) == ["one", "two", "three"]


def test_rollback_below_the_history_needs_the_app(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Without its code one clear line; with it the app is derived anew."""
    mine(fake_node, "one", *"abcdefgh")
    inside(*APP, *options, "--history", "2", "sync")
    block = fake_node.height - 8
    failed = inside(*options, "rollback", block, code=2)
    assert "it must be derived anew by its own code: name it with --app" in failed.err
    inside(*APP, *options, "rollback", block)
    assert notes(database_url) == ["one"]


def test_replay_mends_damaged_tables(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """A start refuses tables that do not fit their digests; replay derives them anew from the tape."""
    mine(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('virtualchain.block_id', '999', true)")
        connection.execute("UPDATE notes__1.notes SET text = 'forged'")
    failed = inside(*APP, *options, "sync", code=3)
    assert "its tables are those of block 999" in failed.err
    assert "`virtualchain replay notes`" in failed.err
    assert "derived anew up to block" in inside(*APP, *options, "replay", "notes").out
    assert notes(database_url) == ["one", "two"]
    told = json.loads(inside(*APP, *options, "--json", "replay", "notes").out)
    assert told["state_hash"] == told["state_hash_before"]
    mine(fake_node, "three")
    inside(*APP, *options, "sync")
    assert notes(database_url) == ["one", "two", "three"]
    failed = inside(*options, "replay", "notes", code=2)
    assert "name it with --app" in failed.err


def test_pin_and_unpin(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Pinned, the deployment stays on its branch, and status says what it waits for."""
    mine(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    inside(*options, "pin", fake_node.height, fake_node.tip)
    block = fake_node.height
    fake_node.reorg(1)
    assert f"its chain does not hold the pinned block {block}" in inside(*APP, *options, "sync").out
    assert f"pinned block {block}" in inside(*options, "status").out
    assert notes(database_url) == ["one", "two"]
    assert "block 5 is not pinned; pinned are" in inside(*options, "unpin", 5, code=2).err
    assert "64 hex digits" in inside(*options, "pin", 5, "xyz", code=2).err
    assert json.loads(inside(*options, "--json", "unpin", block).out) == {"block_id": block, "pins": []}
    inside(*APP, *options, "sync")
    assert notes(database_url) == ["one"]


def test_the_policy_of_the_file_stops_the_deployment(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Exit code 4, what can be done, and what status says; rolled back by hand, it goes on."""
    (inside.folder / "virtualchain.toml").write_text('[[apps]]\nuse = "apps:notes"\non_deep_fork = "halt"\n')
    mine(fake_node, "one", "two", "three")
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
