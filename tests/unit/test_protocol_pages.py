"""The pages of docs/protocol, compared with the code that they describe."""

import inspect
import re
from pathlib import Path

import click

import virtualchain
from virtualchain import consensus, testing
from virtualchain.cli import program
from virtualchain.consensus.hashing import sha256d
from virtualchain.consensus.state_hash import EMPTY, digest_number, row_element, update_number
from virtualchain.examples.names import MAINNET
from virtualchain.examples.names.operation import NAMEREC
from virtualchain.examples.names.protocol import OPERATIONS
from virtualchain.settings import _KINDS
from virtualchain.store.sql import sql_root

PAGES = Path(__file__).parents[2] / "docs" / "protocol"


def page(name: str) -> str:
    """Read a page."""
    return (PAGES / name).read_text(encoding="utf-8")


def rows(text: str) -> dict[str, str]:
    """Read the rows of all tables of a text: what follows the first cell, by that cell without backticks."""
    lines = (re.match(r"\| (.+?) \| (.*) \|$", line) for line in text.splitlines())
    return {line[1].replace("`", ""): line[2] for line in lines if line}


def test_the_examples_of_consensus_hashes_are_right() -> None:
    """The page's serialized ops, Merkle path, ops hashes and consensus hashes are those of the code."""
    text, fields = page("consensus.md"), ["author", "message"]
    ops = [
        consensus.serialize_op(b"s", {"author": "alice", "message": "grüß dich"}, fields),
        consensus.serialize_op(b"s", {"author": "bob", "message": None}, fields),
        consensus.serialize_op(
            b"~", {"a": True, "b": [6, 5, 4], "c": 6400000.0, "d": 1e12, "e": -7}, [*"abcde"]
        ),
    ]
    assert [op.decode() in text for op in ops] == [True, True, True]
    leaves = sorted(sha256d(op).hex() for op in ops)
    assert leaves[0] in text
    assert leaves[1] in text
    assert consensus.merkle_path(leaves, leaves[1]) in text
    assert all(consensus.ops_hash(some) in text for some in ([], ops[:1], ops[:2], ops))
    hashes: list[str] = []
    for block_id in range(8):
        prior = consensus.prior_block_ids(block_id, 0)
        ops_hash = consensus.ops_hash(ops[:1] if block_id == 3 else [])
        hashes.append(consensus.consensus_hash(ops_hash, [hashes[item] for item in prior]))
        shown = ", ".join(map(str, prior)) or "none"
        assert f"| {block_id} | {shown} | `{hashes[block_id]}` |" in text


def test_every_argument_of_an_app_is_described() -> None:
    """The page for authors has a row for each, with its default, in the order of the signature."""
    text = (PAGES.parent / "apps.md").read_text(encoding="utf-8")
    section = text.partition("## What an app declares\n")[2].partition("\n## ")[0]
    parameters = inspect.signature(virtualchain.App).parameters
    described = {name: row.partition(" | ")[0].strip("`") for name, row in rows(section).items()}
    described.pop("argument")
    assert list(described) == list(parameters)
    written = {"version": '"1"', "initial_snapshots": "{}", "expected_snapshots": "{}"}
    for name, parameter in parameters.items():
        if parameter.default is not parameter.empty:
            assert described[name] == written.get(name, str(parameter.default)), name


def test_the_examples_of_state_hashes_are_right() -> None:
    """The page states the hashes of no row, one row and two rows."""
    text = page("digests.md")
    elements = [row_element("entries", ["1", "Hello", None]), row_element("entries", ["2", "Hi", "7"])]
    for count in range(3):
        assert f"`{digest_number(update_number(EMPTY, elements[:count], []))}`" in text


def test_the_views_are_listed_with_their_columns() -> None:
    """The page lists each view of schema virtualchain with exactly the columns that it has."""
    listed = rows(page("interfaces.md").partition("### Settings")[0])
    schema = (sql_root() / "schema" / "30_views.sql").read_text(encoding="utf-8")
    columns: dict[str, set[str]] = {}
    for view, column in re.findall(
        r'^COMMENT ON COLUMN virtualchain\.(\w+)\."?(\w+)"? IS', schema, re.MULTILINE
    ):
        columns.setdefault(view, set()).add(column)
    assert len(columns) == 17
    assert {view: set(re.findall(r"`(\w+)`", listed[view])) for view in columns} == columns


def test_names_settings_and_commands_are_listed() -> None:
    """The page lists every exported name, every setting and every command."""
    text = page("interfaces.md")
    words = set(re.findall(r"`([\w-]+)", text))
    settings = {*_KINDS, "app", "config"}
    assert {*virtualchain.__all__, *testing.__all__} - words == set()
    assert {f"VIRTUALCHAIN_{key.upper()}" for key in settings} - words == set()
    assert set(_names(program)) - words == set()


def _names(group: click.Group) -> list[str]:
    inner = [item for item in group.commands.values() if isinstance(item, click.Group)]
    return [*group.commands, *(name for item in inner for name in _names(item))]


def test_the_names_hashed_fields_and_numbers_are_those_of_the_code() -> None:
    """The page states the code's NAMEREC, the hashed fields of operations, and the parameters of mainnet."""
    text = page("names.md")
    hashed = text[text.index("## 9.") : text.index("## 10.")]
    assert ", ".join(f"`{field}`" for field in NAMEREC) in " ".join(hashed.split())
    listed = rows(hashed)
    for operation in OPERATIONS:
        opcode = operation.opcode.decode()
        if opcode in "?*&":
            assert tuple(re.findall(r"`(\w+)`", listed[opcode])) == operation.fields
        elif opcode != "#":
            assert operation.fields[: len(NAMEREC)] == NAMEREC or opcode == "!"
    numbers = rows(text[text.index("## 8.") : text.index("## 9.")])
    assert numbers["first block F"].split(" | ")[0] == str(MAINNET.first_block)
    assert numbers["E1"].split(" | ")[0] == str(MAINNET.epochs[0].last_block)
    assert numbers["REVEAL_EXPIRE"].split(" | ")[0] == str(MAINNET.reveal_expire)
    assert set(MAINNET.initial_snapshots.values()) <= set(re.findall(r"`([0-9a-f]{32})`", text))
    assert [str(epoch.last_block) in text for epoch in MAINNET.epochs[:-1]] == [True] * 4
