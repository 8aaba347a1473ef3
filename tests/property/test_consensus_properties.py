"""Properties of the digests and their proofs that hold for any input."""

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.consensus_history import History
from virtualchain import consensus
from virtualchain.consensus.proofs import check_ops
from virtualchain.errors import InvalidProof

HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex) | st.binary(min_size=16, max_size=16).map(
    bytes.hex
)
OPS = st.lists(st.binary(max_size=8).map(b"a:".__add__), max_size=5)
TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.none() | st.booleans() | st.integers() | TEXTS | st.lists(st.integers())
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LONG = History(10, [[b"a:%d" % n, b"b:%d" % n] for n in range(41)])


@given(st.lists(HASHES, min_size=1, max_size=40))
def test_every_leafs_path_verifies(hashes: list[str]) -> None:
    """It does for any number of leaves of any length."""
    root = consensus.merkle_root(hashes)
    for leaf in hashes:
        assert consensus.verify_merkle_path(root, consensus.merkle_path(hashes, leaf), leaf)


@given(st.lists(HASHES, min_size=1, max_size=20, unique=True), st.data())
def test_a_path_with_one_character_changed_fails(hashes: list[str], data: st.DataObject) -> None:
    """The one exception is the side of a repeated last node, where left and right are the same."""
    leaf = data.draw(st.sampled_from(hashes))
    path = consensus.merkle_path(hashes, leaf)
    position = data.draw(st.integers(0, len(path) - 1))
    character = data.draw(st.sampled_from("0123456789abcdeflmrx:,-").filter(lambda c: c != path[position]))
    changed = path[:position] + character + path[position + 1 :]
    verified = consensus.verify_merkle_path(consensus.merkle_root(hashes), changed, leaf)
    if {path[position], character} != {"l", "r"}:
        assert not verified
    other = ("0" if leaf[0] != "0" else "1") + leaf[1:]
    assert not consensus.verify_merkle_path(consensus.merkle_root(hashes), path, other)


@given(st.lists(st.binary(), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_ops_does_not_matter(ops: list[bytes], rng: random.Random) -> None:
    """The order of transactions counts only if a field states it."""
    shuffled = rng.sample(ops, len(ops))
    assert consensus.ops_hash(shuffled) == consensus.ops_hash(ops)


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_prior_blocks_are_powers_of_two_less_one_away(block_id: int, first: int) -> None:
    """They are all of these that are not below the first block."""
    distances = [block_id - prior for prior in consensus.prior_block_ids(block_id, first)]
    assert distances == [2**i - 1 for i in range(1, 33) if block_id - (2**i - 1) >= first]


@given(st.dictionaries(st.sampled_from("abcdef"), VALUES, min_size=1))
def test_an_op_reads_back_field_by_field(op: dict[str, object]) -> None:
    """Lengths count bytes, so no field can run into the next one."""
    fields = sorted(op)
    rest = consensus.serialize_op(b"x", op, fields)
    assert rest.startswith(b"x:")
    rest = rest[2:]
    for field in fields:
        length, _, rest = rest.partition(b":")
        assert rest[: int(length)] == consensus.text_of(op[field])
        rest = rest[int(length) :].removeprefix(b",")
    assert rest == b""


@given(NUMBERS)
def test_a_floats_text_is_a_float_to_twelve_digits(number: float) -> None:
    """Its text cannot be that of an int, and is the number rounded as C rounds it."""
    text = consensus.text_of(number).decode()
    assert float(text) == float(f"{number:.12g}")
    assert set(text) & set(".e")


@given(st.integers(0, 3), st.lists(OPS, min_size=1, max_size=24).filter(any), st.data())
def test_every_op_can_be_proved_from_every_later_block(
    first: int, blocks: list[list[bytes]], data: st.DataObject
) -> None:
    """The proof is valid after a round trip through JSON."""
    history = History(first, blocks)
    block_id = data.draw(st.sampled_from([block_id for block_id, ops in history.ops.items() if ops]))
    index = data.draw(st.integers(0, len(history.ops[block_id]) - 1))
    trusted = data.draw(st.integers(block_id, history.tip))
    proof = json.loads(json.dumps(history.prove(block_id, index, trusted)))
    assert consensus.check_op_proof(proof, history.hashes[trusted]) == history.ops[block_id][index]


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the paths to every value inside a JSON value, including containers."""
    inner = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    return [path, *(inner_path for key, item in inner for inner_path in paths_in(item, (*path, key)))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 30) | st.floats() | st.text(max_size=3) | HASHES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(st.lists(OPS, min_size=1, max_size=12), st.booleans(), st.data())
def test_a_proof_with_one_change_fails_or_shows_true_ops(
    blocks: list[list[bytes]], is_known: bool, data: st.DataObject
) -> None:
    """After a change to any part, a proof that still passes shows the ops that the same block has."""
    history = History(2, blocks)
    block_id = data.draw(st.sampled_from(sorted(history.ops)))
    index = data.draw(st.sampled_from([None, *range(len(history.ops[block_id]))]))
    proof = json.loads(json.dumps(history.prove(block_id, index)))
    *path, key = data.draw(st.sampled_from(paths_in(proof)[1:]))
    parent = proof
    for step in path:
        parent = parent[step]
    match data.draw(st.sampled_from(["replace", "drop", "repeat", "rename", "nudge"])):
        case "drop":
            del parent[key]
        case "repeat" if isinstance(parent, list):
            parent.insert(key, parent[key])
        case "rename" if isinstance(parent, dict):
            parent[data.draw(st.text(max_size=3))] = parent.pop(key)
        case "nudge" if isinstance(parent[key], str) and parent[key]:
            at = data.draw(st.integers(0, len(parent[key]) - 1))
            parent[key] = parent[key][:at] + data.draw(st.sampled_from("0aAz")) + parent[key][at + 1 :]
        case "nudge" if isinstance(parent[key], int):
            parent[key] += data.draw(st.sampled_from([-1, 1]))
        case _:
            parent[key] = data.draw(JSON)
    known: dict[str, Any] = {"app": "notary", "block_id": history.tip} if is_known else {}
    try:
        shown = check_ops(proof, history.hashes[history.tip], **known)
    except InvalidProof:
        return
    assert set(shown.ops) == set(history.ops[block_id])
    assert shown.index is None or 0 <= shown.index < len(shown.ops)
    if is_known:
        assert (shown.app, shown.trusted_block_id) == ("notary", history.tip)
    # What the format calls the prover's word: a change of anything else is refused, or changes nothing.
    changed = path[0] if path else key
    assert changed in {"app", "first_block_id", "index", "ops", "hops"}
    if changed == "hops":
        assert block_id != history.tip or shown.block_id == block_id or not is_known


@given(st.integers(0, 40), st.integers(0, 40), st.integers(-50, 50), st.data())
def test_a_proof_whose_heights_lie_shows_a_block_of_the_history_all_the_same(
    trusted: int, below: int, by: int, data: st.DataObject
) -> None:
    """Whatever heights the hops claim, the ops are those of a block; at a known height only some can."""
    history = LONG
    block_id = max(trusted - below, 0) + 10
    proof = json.loads(json.dumps(history.prove(block_id, None, trusted + 10)))
    proof["first_block_id"] += by
    for hop in proof["hops"]:
        hop["block_id"] += by
        values = data.draw(st.permutations(list(hop["prior"].values())))
        ids = consensus.prior_block_ids(hop["block_id"], proof["first_block_id"])
        hop["prior"] = dict(zip(map(str, ids), values, strict=True))
    for known in (None, trusted + 10):
        try:
            shown = check_ops(proof, history.hashes[trusted + 10], block_id=known)
        except InvalidProof:
            continue
        assert list(shown.ops) in history.ops.values()
        assert known is None or by == 0
        if known is not None and shown.hops == 1:
            assert (shown.block_id, list(shown.ops)) == (block_id, history.ops[block_id])


PROOF_TEXTS = st.recursive(
    st.sampled_from(["0", "1.0", "-1", "01", "1e3", "1E3", "NaN", "true", '""', '"\\ud800"', "9" * 17])
    | st.integers(0, 2**53 - 1).map(str),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)


@given(PROOF_TEXTS)
def test_a_file_that_is_read_can_be_written_back_only_in_the_same_way(text: str) -> None:
    """No number, key or string is lost or changed by reading: what could be is refused."""
    try:
        read = consensus.read_proof(text.encode())
    except InvalidProof:
        return
    assert json.dumps(read, separators=(",", ":")) == text
