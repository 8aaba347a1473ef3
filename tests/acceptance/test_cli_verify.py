"""The command verify, and what export, checkpoint create and replay say of damaged tables."""

import json
from pathlib import Path

import psycopg

from tests.acceptance.conftest import Inside, mine_notes, notes
from virtualchain.testing import FakeNode

APP = ("--app", "apps:notes")


def damage(url: str, *statements: str) -> None:
    """Change rows past the triggers."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('virtualchain.block_id', 'undo', true)")
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount == 1


def test_verify_names_what_does_not_fit(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Every fault is a line, or an object of JSON, and the exit code is 1; whole tables pass with 0."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    whole = inside(*options, "verify")
    assert "all tables fit each other and the digests" in whole.out
    assert f"notes, build 1: checked to block {fake_node.height}" in whole.out
    deep = inside(*APP, *options, "verify", "--deep", "--json")
    assert json.loads(deep.out) == {
        "faults": [],
        "builds": [
            {
                "app": "notes",
                "build": "1",
                "is_live": True,
                "block_id": fake_node.height,
                "judged_again": True,
            }
        ],
    }
    assert "name it with --app" in inside(*options, "verify", "--deep", code=2).err
    damage(database_url, "UPDATE notes__1.notes SET text = 'forged' WHERE text = 'two'")
    inside(*APP, *options, "sync")  # the start check looks at the last digests only
    failed = inside(*options, "verify", code=1)
    place = f"table notes, key (block_id={fake_node.height}, vtxindex=0), block {fake_node.height}"
    assert f"app notes, build 1, {place}: the rows that it wrote" in failed.out
    assert "1 fault found" in failed.err
    [fault] = json.loads(inside(*options, "verify", "--json", code=1).out)["faults"]
    assert fault["key"] == {"block_id": str(fake_node.height), "vtxindex": "0"}
    assert (fault["app"], fault["table"], fault["block_id"]) == ("notes", "notes", fake_node.height)


def test_nothing_damaged_is_written_to_a_file(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Export and checkpoint create end with exit code 1, name the place, and leave no file."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    damage(database_url, "UPDATE notes__1.notes SET text = 'forged' WHERE text = 'two'")
    inside(*options, "export", "tape")
    failed = inside(*options, "export", "rows", "--what", "notes.notes", code=1)
    assert "nothing was exported: app notes, build 1: its rows have the state hash" in failed.err
    failed = inside(*options, "checkpoint", "create", "file", code=1)
    assert "app notes is damaged, so no checkpoint was created" in failed.err
    damage(
        database_url,
        "UPDATE notes__1.notes SET text = 'two' WHERE text = 'forged'",
        f"UPDATE vc.inputs SET fee = fee + 1 WHERE block_id = {fake_node.height}",
        f"UPDATE vc.ops SET payload = 'forged' WHERE block_id = {fake_node.height}",
    )
    failed = inside(*options, "export", "other", "--what", "tape", code=1)
    assert f"block {fake_node.height}, transaction 1: column fee does not match" in failed.err
    failed = inside(*options, "export", "other", "--what", "ops", code=1)
    assert "its payload is not that of its transaction" in failed.err
    assert not any(Path(inside.folder, name).exists() for name in ("rows", "file", "other"))


def test_replay_says_what_it_repaired(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """It counts rows that differed, even if the recorded hash was right all along."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    damage(
        database_url,
        "UPDATE notes__1.notes SET text = 'forged' WHERE text = 'two'",
        "DELETE FROM notes__1.notes WHERE text = 'one'",
        f"UPDATE vc.ops SET payload = 'forged' WHERE block_id = {fake_node.height}",
    )
    printed = inside(*APP, *options, "replay", "notes").out
    assert "the same hash" in printed
    assert "notes: 2 rows, ops: 1 row" in printed
    assert notes(database_url) == ["one", "two"]
    inside(*APP, *options, "verify", "--deep")
    printed = inside(*APP, *options, "replay", "notes").out
    assert "the same\n" in printed
    assert "nothing: all rows were as the tape leads to them" in printed
    assert json.loads(inside(*APP, *options, "replay", "notes", "--json").out)["repaired"] == {}
