"""The command verify, and what export, checkpoint create and replay say of damaged tables."""

import json
from pathlib import Path

import psycopg

from tests.acceptance.conftest import Inside, mine_notes, notes
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

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


def test_a_sample_can_be_repeated(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """It prints its seed, and finds the same fault again with it."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    done = inside(*APP, *options, "verify", "--sample", 9)
    seed = done.out.split("--seed ")[1].split(";")[0]
    assert "judged again by notes" in done.out
    printed = json.loads(inside(*APP, *options, "verify", "--sample", 9, "--seed", seed, "--json").out)
    assert printed["sample"]["seed"] == int(seed)
    assert [each["judged_again"] for each in printed["sample"]["stretches"]] == [["notes"]] * 9
    assert printed["faults"] == []
    damage(database_url, "UPDATE notes__1.notes SET text = 'forged' WHERE text = 'two'")
    # One stretch is enough, if it has the block; that follows from the seed alone.
    sample = ("verify", "--sample", 9, "--seed", 8)
    failed = inside(*APP, *options, *sample, code=1)
    assert f" to {fake_node.height}: checked" in failed.out
    assert f"block {fake_node.height}: the rows that it wrote" in failed.out
    for wrong in (("--seed", 1), ("--sample", 1, "--deep"), ("--trust", "00" * 16), ("--import", "x")):
        inside(*options, "verify", *wrong, code=2)


def test_an_export_is_tried(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """It is accepted with the right hash alone, and this deployment stays as it is."""
    mine_notes(fake_node, "one", "two")
    inside(*APP, *options, "sync")
    inside(*options, "export", "tape")
    [digests] = json.loads(inside(*options, "consensus", "--json").out)["apps"]
    trusted = digests["consensus_hash"]
    done = inside(*APP, *options, "verify", "--import", "tape", "--trust", trusted)
    assert f"notes: accepted, it leads to {trusted} at block {fake_node.height}" in done.out
    as_json = inside(*APP, *options, "verify", "--import", "tape", "--trust", f"notes={trusted}", "--json")
    assert json.loads(as_json.out)["apps"][0]["accepted"]
    failed = inside(*APP, *options, "verify", "--import", "tape", "--trust", "00" * 16, code=1)
    assert f"it leads to {trusted} at block {fake_node.height}" in failed.err
    assert "this node has the same" in failed.err
    for wrong in ("x", "other=" + trusted):
        inside(*APP, *options, "verify", "--import", "tape", "--trust", wrong, code=2)


def test_nodes_are_compared(
    inside: Inside,
    fake_node: FakeNode,
    database_url: str,
    database_server: DatabaseServer,
    options: tuple[str, ...],
) -> None:
    """The exit code says whether they differ; text and JSON say where."""
    mine_notes(fake_node, "one", "two")
    other = database_server.clone()
    try:
        for url in (database_url, other):
            inside(*APP, *options, "--database", url, "sync")
        same = inside(*options, "compare-nodes", other)
        assert f"to {fake_node.height}" in same.out
        damage(
            other,
            "UPDATE notes__1.notes SET text = 'forged' WHERE text = 'two'",
            f"UPDATE vc.snapshots SET state_hash = sha256('x') WHERE block_id = {fake_node.height}",
        )
        differs = inside(*options, "compare-nodes", other, "notes", code=1)
        assert f"the nodes differ first at block {fake_node.height}: state diverged" in differs.err
        assert "forged" in differs.out
        printed = json.loads(inside(*options, "compare-nodes", other, "--json", code=1).out)
        assert printed["apps"][0]["divergence"]["row"]["there"]["text"] == "forged"
        inside(*options, "compare-nodes", other, "nothing", code=2)
        inside(*options, "compare-nodes", "postgresql://nobody@127.0.0.1:1/none", code=3)
    finally:
        database_server.drop(other)
