"""Row proofs: the tree is that of the page, every key has one, and changed ones show nothing else."""

import copy
import json
import operator
import random
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.row_tables import Table, naive_path, naive_root, ordered, prove, state_of
from virtualchain.consensus.proof_file import read_proof
from virtualchain.consensus.row_proofs import OrderedRows, check_row_proof, make_row_proof, state_root
from virtualchain.consensus.row_tree import RowTree, root_of_path
from virtualchain.errors import InvalidProof, UsageError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(
    ["", "a", "ab", "abc", "b", "10", "9", "é", "\U0001f600", "\uffee", "\x1f", '"', "\\"]
)
FORMS = {
    "plain": (["id", "value"], ["id"]),
    "pairs": (["b", "value", "a"], ["a", "b"]),
}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Table]:
    """Draw one table or two, each with unique keys."""
    drawn = {}
    for name in draw(st.sets(st.sampled_from(sorted(FORMS)), min_size=1)):
        columns, key = FORMS[name]
        row = st.tuples(*(TEXTS if column in key else st.none() | TEXTS for column in columns)).map(list)
        keys = operator.itemgetter(*(columns.index(column) for column in key))
        unique = st.lists(row, max_size=9, unique_by=keys)
        drawn[name] = Table(columns, key, draw(unique))
    return drawn


def keys_of(table: Table) -> list[list[str]]:
    """Return the keys of a table's rows, in order."""
    places = [table.columns.index(column) for column in table.key]
    return [[row[place] or "" for place in places] for row in ordered(table)]


@given(st.lists(st.binary(max_size=3), max_size=70), st.data())
def test_the_tree_is_that_of_the_page(rows: list[bytes], data: st.DataObject) -> None:
    """Root and paths equal those of the recursive definition, for rows followed at any time."""
    tree, followed = RowTree(), []
    chosen = data.draw(st.sets(st.integers(0, max(len(rows) - 1, 0))))
    for index, row in enumerate(rows):
        tree.add(row)
        if index in chosen:
            tree.followed.append(tree.last())
            followed = tree.followed
        assert tree.root == naive_root(rows[: index + 1])
    assert tree.root == naive_root(rows)
    for path in followed:
        siblings = tree.siblings(path)
        assert siblings == naive_path(path.index, rows)
        assert root_of_path(rows[path.index], path.index, len(rows), siblings) == tree.root


@given(st.integers(1, 70), st.data())
def test_a_path_has_one_length_and_one_place(size: int, data: st.DataObject) -> None:
    """With a sibling more or less, in another order, or at another place, it leads elsewhere or nowhere."""
    rows = [b"%d" % number for number in range(size)]
    root = naive_root(rows)
    index = data.draw(st.integers(0, size - 1))
    path = naive_path(index, rows)
    assert root_of_path(rows[index], index, size, path) == root
    for other in range(size):
        if other != index:
            assert root_of_path(rows[index], other, size, path) != root
    longer = [path[:-1], path[1:], [*path, root], [root, *path], [*path, *path]]
    for wrong in [*longer, path[::-1]]:
        if wrong != path:
            assert root_of_path(rows[index], index, size, wrong) != root
    assert root_of_path(rows[index], size, size, path) is None
    assert root_of_path(rows[index], -1, size, path) is None


def test_known_trees() -> None:
    """The roots of RFC 6962's test data are the known ones."""
    data = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    tree = RowTree()
    assert tree.root.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for text in data:
        tree.add(bytes.fromhex(text))
    assert tree.root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@given(tables(), st.data())
def test_every_key_has_a_proof_of_what_is_so(drawn: dict[str, Table], data: st.DataObject) -> None:
    """A row's key proves the row, any other key that there is none; the root is that of the page."""
    name = data.draw(st.sampled_from(sorted(drawn)))
    table = drawn[name]
    existing = keys_of(table)
    key = data.draw(st.lists(TEXTS, min_size=len(table.key), max_size=len(table.key)))
    key = data.draw(st.sampled_from([key, *existing]))
    proof = prove(drawn, name, key)
    state = proof["state"]
    for item in state["tables"]:
        rows = [
            json.dumps([item["name"], *row], ensure_ascii=False, separators=(",", ":")).encode()
            for row in ordered(drawn[item["name"]])
        ]
        assert (item["root"], item["rows"]) == (naive_root(rows).hex(), len(rows))
    written = json.dumps(state, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    root = sha256(b"\x02" + written).hexdigest()
    assert root == state_root(state)
    claim = check_row_proof(read_proof(json.dumps(proof).encode()), root)
    assert (claim.app, claim.block_id, claim.table) == ("made-up", 700, name)
    assert claim.key == dict(zip(table.key, key, strict=True))
    expected = next((row for row in ordered(table) if keys_of(table._replace(rows=[row])) == [key]), None)
    assert claim.row == (None if expected is None else dict(zip(table.columns, expected, strict=True)))
    assert len(proof["rows"]) <= 2


@settings(max_examples=120, deadline=None)  # each example makes several proofs
@given(tables(), st.data(), st.randoms(use_true_random=False))
def test_no_changed_proof_shows_anything_else(
    drawn: dict[str, Table], data: st.DataObject, dice: random.Random
) -> None:
    """Whatever part of a proof changes, it is refused, or shows what the good one of that key shows."""
    name = data.draw(st.sampled_from(sorted(drawn)))
    keys = keys_of(drawn[name])
    key = data.draw(st.lists(TEXTS, min_size=len(drawn[name].key), max_size=len(drawn[name].key)))
    good = prove(drawn, name, data.draw(st.sampled_from([key, *keys])))
    root = state_root(good["state"])
    changed = _changed(good, drawn, dice)
    try:
        claim = check_row_proof(changed, root)
    except InvalidProof:
        return
    table = changed["table"]
    honest = check_row_proof(prove(drawn, table, list(claim.key.values())), root)
    assert claim == honest


def _changed(good: Any, drawn: dict[str, Table], dice: random.Random) -> Any:
    """Change one to three places of a proof to other values and types, or to parts of another key's proof."""
    proof = copy.deepcopy(good)
    for _ in range(dice.randint(1, 3)):
        holder, place = dice.choice(_places(proof))
        kind = dice.randrange(4)
        if kind < 2:
            holder[place] = _similar(holder[place], dice)
        elif kind == 2:
            holder[place] = dice.choice(
                [None, True, 0, 1, 1.0, "", "a", [], {}, -1, 2**60, "00" * 32, "\ud800"]
            )
        else:
            part, at = dice.choice(_places(_other(drawn, dice)))
            holder[place] = part[at]
        if dice.random() < 0.3:
            other = _other(drawn, dice)
            part = dice.choice(["table", "key", "rows", "state"])
            proof[part] = other[part]
    return proof


def _other(drawn: dict[str, Table], dice: random.Random) -> Any:
    """Make a proof of another key, of the same state."""
    name = dice.choice(sorted(drawn))
    keys = keys_of(drawn[name])
    return prove(drawn, name, dice.choice([*keys, [dice.choice("abz")] * len(drawn[name].key)]))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in nested lists and objects, as a container and an index or key."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for index, item in list(inside) for place in [(value, index), *(_places(item))]]


def _similar(value: Any, dice: random.Random) -> Any:
    """Return a value that is close to another one."""
    match value:
        case bool() | None:
            return "" if dice.random() < 0.5 else None
        case int() | float():
            return value + dice.choice([-1, 1, 1 << 20])
        case str():
            at = dice.randint(0, len(value))
            return dice.choice([value[:at] + dice.choice("0aé") + value[at + 1 :], value[:at], value.upper()])
        case list():
            return dice.choice([value[:-1], value[1:], value[::-1], value * 2, [*value, None]])
        case dict():
            return dice.choice([{**value, "more": 1}, dict(list(value.items())[1:])])
    raise AssertionError(value)


FOUR = {
    "plain": Table(["id", "value"], ["id"], [["b", "1"], ["d", None], ["f", "3"], ["h", "4"]]),
    "void": Table(["id", "value"], ["id"], []),
}
ROOT = state_root(state_of(FOUR))


def row(key: str) -> Any:
    """Return the row of a proof of a key that is there."""
    return prove(FOUR, "plain", [key])["rows"][0]


def test_good_proofs_of_the_cases() -> None:
    """What the following cases change is a good proof."""
    assert check_row_proof(prove(FOUR, "plain", ["d"]), ROOT).row == {"id": "d", "value": None}
    for absent, neighbors in {"a": ["b"], "c": ["b", "d"], "e": ["d", "f"], "i": ["h"]}.items():
        proof = prove(FOUR, "plain", [absent])
        assert [item["values"][0] for item in proof["rows"]] == neighbors
        assert check_row_proof(proof, ROOT).row is None
    assert prove(FOUR, "void", ["a"])["rows"] == []
    assert check_row_proof(prove(FOUR, "void", ["a"]), ROOT).row is None


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a row that is left out": ("d", {"rows": []}, "not the neighbors"),
    "the only neighbor of a key in the middle": ("d", {"rows": [row("b")]}, "not the neighbors"),
    "neighbors around a row": ("d", {"rows": [row("b"), row("f")]}, "not the neighbors"),
    "neighbors in the wrong order": ("e", {"rows": [row("f"), row("d")]}, "not the neighbors"),
    "a neighbor twice": ("e", {"rows": [row("d"), row("d")]}, "not the neighbors"),
    "three rows": ("e", {"rows": [row("b"), row("d"), row("f")]}, "not the neighbors"),
    "neighbors of another key": ("e", {"key": ["g"]}, "not the neighbors"),
    "the row and its neighbor": ("d", {"rows": [row("d"), row("f")]}, "not the neighbors"),
    "the last row for a key before the first": ("a", {"rows": [row("h")]}, "not the neighbors"),
    "the first row for a key after the last": ("i", {"rows": [row("b")]}, "not the neighbors"),
    "the key as a prefix": ("d", {"key": [""]}, "not the neighbors"),
    "a key with a text more": ("d", {"key": ["d", "d"]}, "must have 1 texts"),
    "a key that is a text": ("d", {"key": "d"}, "must be a list"),
    "another table": ("d", {"table": "void"}, "does not lead to the root"),
    "an empty table with the rows of another": ("i", {"table": "void", "rows": [row("h")]}, "does not lead"),
    "a table that is not there": ("d", {"table": "plains"}, "has no table"),
    "another format": ("d", {"format": "virtualchain-proof-1"}, "format"),
}


@pytest.mark.parametrize(("key", "change", "message"), CASES.values(), ids=CASES)
def test_a_false_proof_is_refused(key: str, change: dict[str, Any], message: str) -> None:
    """Each case combines true parts into something false."""
    with pytest.raises(InvalidProof, match=message):
        check_row_proof({**prove(FOUR, "plain", [key]), **change}, ROOT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 0}, "does not lead"),
        ({"index": 4}, "does not lead"),
        ({"index": -1}, "whole number"),
        ({"index": True}, "whole number"),
        ({"values": ["d", ""]}, "does not lead"),
        ({"values": ["d"]}, "1 values, not 2"),
        ({"values": [None, None]}, "does not lead"),
        ({"values": ["d", 1]}, "not text"),
        ({"path": []}, "does not lead"),
        ({"path": [*row("d")["path"], "00" * 32]}, "does not lead"),
        ({"path": [item.upper() for item in row("d")["path"]]}, "lower-case hex"),
    ],
)
def test_a_false_row_is_refused(change: dict[str, Any], message: str) -> None:
    """Place, values and path of a row are bound to the root."""
    proof = prove(FOUR, "plain", ["d"])
    proof["rows"][0].update(change)
    with pytest.raises(InvalidProof, match=message):
        check_row_proof(proof, ROOT)


def test_an_inner_node_is_not_a_row() -> None:
    """A tree of two rows does not pass for one row of which their hashes are the content."""
    proof = prove(FOUR, "plain", ["d"])
    proof["rows"][0].update(index=0, path=proof["rows"][0]["path"][1:])
    with pytest.raises(InvalidProof, match="does not lead"):
        check_row_proof(proof, ROOT)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_the_number_of_rows_is_in_the_root(number: int) -> None:
    """A last row cannot pass for one with rows after it, nor the other way around."""
    proof = prove(FOUR, "plain", ["i"])
    proof["state"]["tables"][0]["rows"] = number
    with pytest.raises(InvalidProof, match="trusted root"):
        check_row_proof(proof, ROOT)


STATES: dict[str, tuple[Any, str]] = {
    "tables in another order": (lambda state: state["tables"].reverse(), "order of their names"),
    "a table twice": (lambda state: state["tables"].append(state["tables"][-1]), "order of their names"),
    "a column twice": (lambda state: state["tables"][0].update(columns=["id", "id"]), "a column twice"),
    "a key's column twice": (lambda state: state["tables"][0].update(key=["id", "id"]), "a column twice"),
    "a key that is no column": (lambda state: state["tables"][0].update(key=["ids"]), "has not"),
    "a fraction of rows": (lambda state: state["tables"][0].update(rows=4.0), "whole number"),
    "too many rows": (lambda state: state["tables"][0].update(rows=2**53), "whole number"),
    "more than a table has": (lambda state: state["tables"][0].update(more=1), "exactly these keys"),
    "no state hash": (lambda state: state.pop("state_hash"), "exactly these keys"),
    "a state hash that is null": (lambda state: state.update(state_hash=None), "hex digits"),
    "a short consensus hash": (lambda state: state.update(consensus_hash="c0"), "hex digits"),
    "a block that is text": (lambda state: state.update(block_id="700"), "whole number"),
    "a name that is not text": (lambda state: state.update(app=7), "not text"),
    "a name that is not Unicode": (lambda state: state.update(app="\ud800"), "surrogate"),
}


@pytest.mark.parametrize(("change", "message"), STATES.values(), ids=STATES)
def test_a_malformed_state_is_refused_even_if_it_is_trusted(change: Any, message: str) -> None:
    """Its form is checked, too, so that no two checkers can read it differently."""
    proof = prove(FOUR, "plain", ["d"])
    change(proof["state"])
    written = json.dumps(proof["state"], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    root = sha256(b"\x02" + written.encode(errors="surrogatepass")).hexdigest()
    with pytest.raises(InvalidProof, match=message):
        check_row_proof(proof, root)


def test_no_row_has_a_null_in_its_key() -> None:
    """A trusted root over such a row proves nothing."""
    row_hash = naive_root([b'["plain",null]']).hex()
    summary = {"columns": ["id"], "key": ["id"], "name": "plain", "root": row_hash, "rows": 1}
    state = {**state_of(FOUR), "tables": [summary]}
    proof = {
        "format": "virtualchain-row-proof-1",
        "state": state,
        "table": "plain",
        "key": ["a"],
        "rows": [{"index": 0, "values": [None], "path": []}],
    }
    with pytest.raises(InvalidProof, match="null in its key"):
        check_row_proof(proof, state_root(state))


@pytest.mark.parametrize("rows", [["b", "a"], ["a", "a"], ["9", "10"], ["\U0001f600", "\uffee"], ["ab", "a"]])
def test_rows_out_of_order_make_no_tree(rows: list[str]) -> None:
    """A tree over them could hide a row from a proof of its absence."""
    made = OrderedRows("plain", ["id"], ["id"])
    made.add([rows[0]])
    with pytest.raises(ValueError, match="does not come after"):
        made.add([rows[1]])
    with pytest.raises(ValueError, match="null"):
        made.add([None])


def test_a_proof_that_nobody_would_read_is_not_made() -> None:
    """A row of 64 MiB does not fit into the largest file that checkers accept."""
    tables = {"plain": Table(["id", "value"], ["id"], [["a", "x" * 2**26]])}
    with pytest.raises(UsageError, match="too long for a proof"):
        prove(tables, "plain", ["a"])


def test_a_prover_that_is_wrong_notices() -> None:
    """A proof is checked when it is made."""
    with pytest.raises(InvalidProof):
        make_row_proof(state_of(FOUR), "plain", ["d"], [])
