"""Versions of an app at the command line: replay --into, compare, swap, drop, remove."""

import json

import psycopg

from tests.acceptance.conftest import Inside
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


def test_a_new_version_from_build_to_drop(inside: Inside, fake_node: FakeNode, database_url: str) -> None:
    """Each command says what comes next, and the exit code of compare is that of a check."""
    (inside.folder / "newer.py").write_text(NEW)
    options = ("--bitcoin", fake_node.url, "--database", database_url, "--confirmations", "0")
    for text in (b"one", b"two"):
        fake_node.mine([fake_node.send(b"sto" + text)])
    inside(*OLD, *options, "sync")
    failed = inside(*NEWER, *options, "sync", code=2)
    assert "`virtualchain replay notes --into NAME`" in failed.err
    made = inside(*NEWER, *options, "replay", "notes", "--into", "v2")
    assert f"version 2, stands at block {fake_node.height}; next:" in made.out
    told = inside(*options, "compare", "notes", "v2", code=1)
    assert f"differ, first after block {fake_node.height - 1}" in told.err
    assert "(102,0,ONE)" in told.out
    found = json.loads(inside(*options, "--json", "compare", "notes", "v2", code=1).out)
    assert found["rows"] == {"notes": [2, 2]}
    assert "the views of notes show build v2" in inside(*options, "swap", "notes", "v2").out
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT text FROM notes.notes ORDER BY block_id").fetchall()
    assert rows == [("ONE",), ("TWO",)]
    inside(*NEWER, *options, "sync")
    assert [row["build"] for row in json.loads(inside(*options, "--json", "status").out)["builds"]] == [
        "1",
        "v2",
    ]
    assert "swap in another one first" in inside(*options, "drop", "notes", "v2", code=2).err
    assert json.loads(inside(*options, "--json", "drop", "notes", "1").out) == {"name": "notes", "build": "1"}
    assert "has no build 1; its builds are: v2" in inside(*options, "swap", "notes", "1", code=2).err
    assert inside(*options, "remove", "notes").out == "app notes is gone\n"
    assert json.loads(inside(*options, "--json", "status").out)["apps"] == []
    assert "there is no app notes" in inside(*options, "remove", "notes", code=2).err
