"""The commands state-root and prove-row, and check-proof of what they make."""

import json
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.conftest import Commands, Inside
from tests.support.checkpoints import say
from virtualchain.testing import FakeNode

Options = tuple[str, ...]


@pytest.fixture
def inside(inside: Inside, fake_node: FakeNode, options: Options, monkeypatch: pytest.MonkeyPatch) -> Inside:
    """Provide the command line, with an app that has counted words in five blocks."""
    (inside.folder / "words.py").write_text("from tests.support.checkpoints import words\napp = words()\n")
    monkeypatch.delitem(sys.modules, "words", raising=False)
    say(fake_node, "one two", "three", "", "two é", "-one")
    inside("--app", "words", *options, "sync")
    return inside


def save(cli: Commands | Inside, *arguments: object) -> tuple[Path, str]:
    """Run a command that makes a proof; return its file, and what it says."""
    done = cli(*arguments)
    assert json.loads(done.out)["format"] == "virtualchain-row-proof-1"
    file = cli.folder / "proof.json"
    file.write_text(done.out)
    return file, done.err


def test_a_row_is_proved_to_whoever_trusts_the_root(
    inside: Inside, cli: Commands, fake_node: FakeNode, options: Options
) -> None:
    """The check needs the file and the root, and shows app, block, table and each column."""
    last = fake_node.height
    root = cli(*options, "state-root", "words").out.strip()
    file, message = save(cli, *options, "prove-row", "words", "words", "two")
    assert "it shows the row of words with word=two\n" in message
    assert f"trust the state root of words at block {last}: {root}\n" in message
    shown = cli("check-proof", file, "--trust", root).out
    assert shown.startswith("the proof holds\n  proven     the table has this row\n")
    assert f"  block      {last}, {fake_node.tip}\n" in shown
    assert "  row times  2\n" in shown
    printed = json.loads(cli("check-proof", file, "--trust", root.upper(), "--json").out)
    assert (printed["kind"], printed["app"], printed["block_id"]) == ("row", "words", last)
    assert (printed["table"], printed["key"]) == ("words", {"word": "two"})
    assert printed["row"] == {
        "word": "two",
        "times": "2",
        "hash": None,
        "note": r"\x74776f000a",
        "data": r'{"w": "two\t\\"}',
    }


def test_a_row_that_is_not_there(inside: Inside, fake_node: FakeNode, options: Options) -> None:
    """A key is proved to be there at one block and not at the next; a key of two columns is two values."""
    last = fake_node.height
    roots = {at: inside(*options, "state-root", "words", "--at", at).out.strip() for at in (last - 1, last)}
    file, message = save(inside, *options, "prove-row", "words", "words", "one")
    assert "it shows that there is no row of words with word=one\n" in message
    shown = inside("check-proof", file, "--trust", roots[last]).out
    assert "  proven    the table has no row with this key\n" in shown
    assert json.loads(inside("check-proof", file, "--trust", roots[last], "--json").out)["row"] is None
    inside("check-proof", file, "--trust", roots[last - 1], code=1)
    file, _ = save(inside, *options, "prove-row", "words", "words", "one", "--at", last - 1)
    assert "this row" in inside("check-proof", file, "--trust", roots[last - 1]).out
    file, _ = save(inside, *options, "prove-row", "words", "pairs", last - 1, "é", "--json")
    assert "  row a   é\n" in inside("check-proof", file, "--trust", roots[last]).out
    file, message = save(inside, *options, "prove-row", "words", "pairs", "--", -1, "é")
    assert "no row of pairs with b=-1, a=é\n" in message
    _, message = save(inside, *options, "prove-row", "words", "words", "\nvirtualchain: trust")
    assert "no row of words with word=\\nvirtualchain: trust\n" in message


def test_the_state_is_what_the_root_is_the_hash_of(
    inside: Inside, fake_node: FakeNode, options: Options
) -> None:
    """With --json it is printed, and a checkpoint has the same root."""
    printed = json.loads(inside(*options, "state-root", "words", "--json").out)
    assert printed["state_root"] == inside(*options, "state-root", "words").out.strip()
    assert [table["name"] for table in printed["state"]["tables"]] == ["pairs", "words"]
    assert printed["state"]["block_hash"] == fake_node.tip
    made = json.loads(inside(*options, "checkpoint", "create", "file", "--json").out)
    assert made["state_root"] == printed["state_root"]
    assert f"state root      {made['state_root']}\n" in inside("checkpoint", "show", "file").out


def test_proofs_that_do_not_hold(inside: Inside, fake_node: FakeNode, options: Options) -> None:
    """Another root, a changed file, and another question than the one that was asked end with one line."""
    root = inside(*options, "state-root", "words").out.strip()
    file, _ = save(inside, *options, "prove-row", "words", "words", "two")
    good: Any = json.loads(file.read_text())
    asked = ("--of", "words", "--at", fake_node.height, "--table", "words", "--key", "two")
    inside("check-proof", file, "--trust", root, *asked, "--network", "regtest")
    for option, message in (
        (("--of", "other"), "the proof is of the app 'words', not 'other'"),
        (("--at", 1), f"the proof is of the block {fake_node.height}, not 1"),
        (("--table", "pairs"), "the proof is of the table 'words', not 'pairs'"),
        (("--key", "one"), 'the proof is of the key ["two"], not ["one"]'),
        (("--key", "two", "--key", "two"), "the proof is of the key"),
        (("--network", "mainnet"), "the proof is of the genesis block"),
        (("--absent", "6f3a"), "the proof is of a row"),
        (("--header", "00" * 32), "the proof is of a row"),
    ):
        refused = inside("check-proof", file, "--trust", root, *option, code=1)
        assert message in refused.err
        assert (refused.out, refused.err.count("\n")) == ("", 1)
    good["rows"][0]["values"][1] = "3"
    file.write_text(json.dumps(good))
    refused = inside("check-proof", file, "--trust", root, code=1)
    assert "the path of row 1 does not lead to the root of table 'words'" in refused.err


def test_what_cannot_be_proved(inside: Inside, options: Options, database_url: str) -> None:
    """What was asked wrongly ends with exit code 2, and a damaged table with 1; nothing is printed."""
    for arguments, message in (
        (("words", "word", "one"), "app words has no table word: its tables are pairs, words"),
        (("words", "pairs", "one"), "the key of table pairs has 2 columns: b, a"),
        (("words", "pairs", "one", "two"), "invalid input syntax for type integer"),
        (("other", "words", "one"), "no app other"),
        (("words", "words", "one", "--at", 10**6), "app words is at block"),
    ):
        refused = inside(*options, "prove-row", *arguments, code=2)
        assert message in refused.err
        assert (refused.out, refused.err.count("\n")) == ("", 1)
    with psycopg.connect(database_url) as connection:
        connection.execute("SET virtualchain.block_id = 'undo'")
        connection.execute("UPDATE words__1.words SET times = 9 WHERE word = 'two'")
    for command in (("state-root", "words"), ("prove-row", "words", "pairs", 1, "a")):
        refused = inside(*options, *command, code=1)
        assert "app words is damaged, so nothing is proved" in refused.err
        assert refused.out == ""
