"""The builds of an app: the commands replay, compare, swap, drop and remove."""

import json

import psycopg

from tests.acceptance.conftest import Inside, mine_notes, notes
from tests.support.servers import value
from virtualchain.testing import FakeNode

NEW = """
from apps import notes as old
from virtualchain import App

app = App("notes", magic=b"st", version="2", projections=old.projections)

def commit(op, state, block_id, vtxindex):
    state.execute("INSERT INTO notes VALUES (%s, %s, upper(%s))", [block_id, vtxindex, op["text"]])

app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
"""
OLD, NEWER = ("--app", "apps:notes"), ("--app", "newer")


def test_replay_repairs_damaged_tables(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """A sync refuses tables that do not match their digests; replay rebuilds them from the tape."""
    mine_notes(fake_node, "one", "two")
    inside(*OLD, *options, "sync")
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT set_config('virtualchain.block_id', '999', true)")
        connection.execute("UPDATE notes__1.notes SET text = 'forged'")
    failed = inside(*OLD, *options, "sync", code=3)
    assert "its tables are those of block 999" in failed.err
    assert "`virtualchain replay notes`" in failed.err
    assert "was rebuilt up to block" in inside(*OLD, *options, "replay", "notes").out
    assert notes(database_url) == ["one", "two"]
    printed = json.loads(inside(*OLD, *options, "--json", "replay", "notes").out)
    assert printed["state_hash"] == printed["state_hash_before"]
    mine_notes(fake_node, "three")
    inside(*OLD, *options, "sync")
    assert notes(database_url) == ["one", "two", "three"]
    failed = inside(*options, "replay", "notes", code=2)
    assert "name it with --app" in failed.err


def test_a_new_version_is_built_compared_and_swapped_in(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """Each command suggests the next one, and compare ends with exit code 1 if the builds differ."""
    (inside.folder / "newer.py").write_text(NEW)
    mine_notes(fake_node, "one", "two")
    inside(*OLD, *options, "sync")
    failed = inside(*NEWER, *options, "sync", code=2)
    assert "`virtualchain replay notes --into NAME`" in failed.err
    made = inside(*NEWER, *options, "replay", "notes", "--into", "v2")
    assert f"version 2, is at block {fake_node.height}; next:" in made.out
    difference = inside(*options, "compare", "notes", "v2", code=1)
    place = value(
        database_url,
        "SELECT block_id || ' (' || block_hash || '), in what it wrote: transaction ' || txid "
        "FROM virtualchain.ops ORDER BY block_id LIMIT 1",
    )
    assert f"differ, first after block {place}\n" in difference.err
    assert "(102,0,ONE)" in difference.out
    comparison = json.loads(inside(*options, "--json", "compare", "notes", "v2", code=1).out)
    assert comparison["rows"] == {"notes": [2, 2]}
    assert "the views of notes show build v2" in inside(*options, "swap", "notes", "v2").out
    assert notes(database_url) == ["ONE", "TWO"]
    inside(*NEWER, *options, "sync")
    assert [row["build"] for row in json.loads(inside(*options, "--json", "status").out)["builds"]] == [
        "1",
        "v2",
    ]
    assert "  other builds    1: `virtualchain drop` removes one\n" in inside(*options, "status").out
    assert "swap in another one first" in inside(*options, "drop", "notes", "v2", code=2).err
    assert json.loads(inside(*options, "--json", "drop", "notes", "1").out) == {"name": "notes", "build": "1"}
    assert "other builds" not in inside(*options, "status").out
    assert "has no build 1; its builds are: v2" in inside(*options, "swap", "notes", "1", code=2).err
    assert inside(*options, "remove", "notes").out == "app notes was removed\n"
    assert json.loads(inside(*options, "--json", "status").out)["apps"] == []
    assert "there is no app notes" in inside(*options, "remove", "notes", code=2).err


def test_compare_names_block_and_transaction(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """The last line has both, and so has the text above it, with both verdicts."""
    new = NEW.replace("commit=commit", "check=lambda op, state: op['text'] != 'two', commit=commit")
    (inside.folder / "newer.py").write_text(new.replace("upper(%s)", "%s"))
    (inside.folder / "later.py").write_text(
        NEW.replace('"2"', '"2", first_block_id=103').replace("upper(%s)", "%s")
    )
    mine_notes(fake_node, "one", "two")
    inside(*OLD, *options, "sync")
    for app, build in (("newer", "v2"), ("later", "v3")):
        inside("--app", app, *options, "replay", "notes", "--into", build)
    txid = value(database_url, "SELECT txid FROM virtualchain.ops WHERE fields ->> 'text' = 'two'")
    done = inside(*options, "compare", "notes", "v2", code=1)
    assert f"first after block {fake_node.height} ({fake_node.tip}), in transaction {txid}\n" in done.err
    assert f"first transaction judged differently: {txid}\n" in done.out
    assert f"  block     {fake_node.height}, as transaction 1\n" in done.out
    assert '  build v2  {"reason": "refused", "refused": "check"}\n' in done.out
    printed = json.loads(inside(*options, "--json", "compare", "notes", "v2", code=1).out)
    assert (printed["verdict"]["txid"], printed["transactions"]) == (txid, [])
    failed = inside(*options, "compare", "notes", "v3", code=1)
    assert "because they begin with different blocks\n" in failed.err


def test_changed_rules_and_code_are_put_in_place_by_one_command(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """The message of sync has the command; it searches the node's blocks if it must, and says what it did."""
    source = NEW.replace('b"st"', 'b"MAGIC"')
    (inside.folder / "newer.py").write_text(source.replace("MAGIC", "su").replace('version="2", ', ""))
    fake_node.mine([fake_node.send(b"suo" + text) for text in (b"three", b"four")])
    mine_notes(fake_node, "one", "two")
    inside(*OLD, *options, "sync")
    failed = inside(*NEWER, *options, "sync", code=2)
    assert "(magic 'st' became 'su'): `virtualchain upgrade notes`" in failed.err
    checks = ("--verify", "merkle", "--senders", "proved")
    done = inside(*NEWER, *options, *checks, "upgrade", "notes")
    shown = "SELECT count(*) FROM vc.inputs WHERE evidence = 'proof' AND branch IS NOT NULL"
    assert value(database_url, shown) == 2
    assert "notes runs version 1, as build v2\n" in done.out
    assert f"  block    {fake_node.height}\n" in done.out
    assert f"  code     {inside.folder / 'newer.py'}\n" in done.out
    assert "  before   version 1, build 1, which was removed\n" in done.out
    assert "  digests  differ first after block 102\n" in done.out
    assert "  inputs   2: 2 accepted\n" in done.out
    assert "blocks 0 to 99 were searched for its inputs" in done.err
    assert notes(database_url) == ["THREE", "FOUR"]
    assert inside(*NEWER, *options, "sync").err == ""

    (inside.folder / "newest.py").write_text(source.replace("MAGIC", "su").replace("upper", "lower"))
    newest = ("--app", "newest", *options)
    printed = json.loads(inside(*newest, "--json", "upgrade", "notes").out)
    place = {"name": "notes", "build": "v3", "version": "2", "block_id": fake_node.height}
    assert printed == {**place, "before": "v2", "differs": 102}
    assert notes(database_url) == ["three", "four"]
    assert "digests  as before" in inside(*newest, "upgrade", "notes").out
    assert "name the code of app other with --app" in inside(*newest, "upgrade", "other", code=2).err


def test_changed_code_is_reported(
    inside: Inside, fake_node: FakeNode, database_url: str, options: tuple[str, ...]
) -> None:
    """The commands sync, advance and status warn of it, in JSON as well; a replay with that code ends it."""
    (inside.folder / "fresh.py").write_text(FRESH.replace("WORD", "upper"))
    (inside.folder / "other.py").write_text(FRESH.replace("WORD", "lower"))
    mine_notes(fake_node, "one", "two")
    warned = "the code of app fresh changed, but its version 1 did not"
    first, second = ("--app", "fresh", *options), ("--app", "other", *options)
    assert json.loads(inside(*first, "--json", "sync").out)["warnings"] == []
    assert warned not in inside(*first, "status").err
    for command in ("sync", "advance", "status"):
        done = inside(*second, "--json", command)
        assert [warned in text for text in json.loads(done.out)["warnings"]] == [True], command
    assert warned in inside(*second, "sync").err
    assert warned in inside(*options, "status").err
    assert inside(*options, "status").err.count(warned) == 1
    inside(*second, "replay", "fresh")
    assert json.loads(inside(*second, "--json", "sync").out)["warnings"] == []
    assert json.loads(inside(*options, "--json", "status").out)["warnings"] == []


FRESH = """
from virtualchain import App

app = App("fresh", magic=b"st", projections="CREATE TABLE t (text text COLLATE \\"C\\" PRIMARY KEY)")

def commit(op, state):
    state.execute("INSERT INTO t VALUES (%s)", [op["text"].WORD()])

app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
"""
