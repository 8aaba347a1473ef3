"""Proofs of ops: how they jump, and that no false proof passes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.consensus_history import History
from virtualchain import consensus
from virtualchain.consensus.digests import EMPTY_OPS_HASH
from virtualchain.consensus.hashing import sha256d
from virtualchain.consensus.proofs import check_ops
from virtualchain.errors import InvalidProof, UsageError

HISTORY = History(100, [[] if n == 30 else [b"a:2:%02d" % n, b"b:2:%02d" % n] for n in range(60)])
TRUSTED = HISTORY.hashes[159]


def proof(index: int | None = 0, block_id: int = 128, history: History = HISTORY) -> Any:
    """Make a new proof of block 128's first op, as it is read from a file."""
    return json.loads(json.dumps(history.prove(block_id, index)))


def test_a_proof_is_valid_and_returns_the_ops_bytes() -> None:
    """One jump of 31 blocks leads from 159 to 128, so there are two hops."""
    made = HISTORY.prove(128, 1)
    assert [hop["block_id"] for hop in made["hops"]] == [159, 128]
    assert made["format"] == "virtualchain-proof-1"
    assert made["first_block_id"] == 100
    assert consensus.check_op_proof(made, TRUSTED) == HISTORY.ops[128][1]


def test_a_proof_jumps_to_the_lowest_hash_that_is_not_below_its_block() -> None:
    """From 159 to 105 it goes 31, 15, 7 and 1 blocks back."""
    made = HISTORY.prove(105, 0)
    assert [hop["block_id"] for hop in made["hops"]] == [159, 128, 113, 106, 105]
    assert consensus.check_op_proof(made, TRUSTED) == HISTORY.ops[105][0]


def test_a_proof_in_the_trusted_block_itself_has_one_hop() -> None:
    """No jump is needed, even in an app's first block, which mixes in no prior hash."""
    first = History(0, [[b"a:0:"]])
    assert consensus.check_op_proof(first.prove(0, 0), first.hashes[0]) == b"a:0:"


def test_hops_grow_with_the_logarithm_of_the_distance() -> None:
    """A distance of 2,000 blocks takes at most two jumps for each doubling."""
    long = History(0, [[b"a:1:x"], *([[]] * 2000)])
    made = long.prove(0, 0)
    assert len(made["hops"]) <= 22
    assert consensus.check_op_proof(made, long.hashes[2000]) == b"a:1:x"


@pytest.mark.parametrize(("block_id", "index"), [(99, 0), (160, 0), (130, 0), (128, 2), (128, -1)])
def test_an_op_that_does_not_exist_cannot_be_proved(block_id: int, index: int) -> None:
    """The cases are blocks outside the history, and ops that a block does not have."""
    with pytest.raises(UsageError, match="block"):
        HISTORY.prove(block_id, index)


def test_digests_that_disagree_make_no_proof() -> None:
    """The prover notices a damaged database, before anyone receives the proof."""
    damaged = History(100, [[b"a:1:%d" % n] for n in range(10)])
    damaged.ops_hashes[103] = damaged.ops_hashes[104]
    with pytest.raises(InvalidProof, match="block 103"):
        damaged.prove(103, 0)


def test_a_proof_fails_for_another_hash() -> None:
    """A proof is valid only for the consensus hash that it leads to."""
    with pytest.raises(InvalidProof, match="block 159"):
        consensus.check_op_proof(proof(), HISTORY.hashes[158])


@pytest.mark.parametrize("trusted", ["", "x" * 32, TRUSTED.upper(), TRUSTED + "00"])
def test_a_malformed_trusted_hash_is_rejected(trusted: str) -> None:
    """The message describes the form of a hash."""
    with pytest.raises(InvalidProof, match="trusted hash must be 32 lower-case hex digits"):
        consensus.check_op_proof(proof(), trusted)


@pytest.mark.parametrize("junk", [None, [], "{}", 3, {}, {"format": "virtualchain-proof-1"}])
def test_what_is_not_a_proof_at_all_is_rejected(junk: object) -> None:
    """It may be anything that JSON can represent."""
    with pytest.raises(InvalidProof, match="the proof must be an object"):
        consensus.check_op_proof(junk, TRUSTED)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "virtualchain-proof-2"),
        ("app", None),
        ("first_block_id", "100"),
        ("first_block_id", 97),
        ("first_block_id", 129),
        ("first_block_id", -1),
        ("first_block_id", True),
        ("hops", []),
        ("hops", {}),
        ("hops", [None]),
        ("ops", None),
        ("ops", []),
        ("ops", [3]),
        ("ops", ["zz"]),
        ("ops", ["613A"]),
        ("ops", ["61 3a"]),
        ("index", 2),
        ("index", -1),
        ("index", 1.0),
        ("index", False),
        ("index", 2**31),
        ("index", "0"),
        ("index", [0]),
        ("app", "\ud800"),
        ("app", ["notary"]),
        ("app", 7),
        ("format", None),
        ("format", ["virtualchain-proof-1"]),
        ("ops", {"0": "613a"}),
        ("ops", ["3a", 3]),
        ("hops", "159"),
        ("hops", [[]]),
        ("spv", None),
        ("spv", []),
        ("spv", {}),
        ("extra", 0),
    ],
)
def test_a_part_of_the_wrong_kind_is_rejected(key: str, value: object) -> None:
    """Wrong types, ranges and spellings are all noticed."""
    wrong = proof()
    wrong[key] = value
    with pytest.raises(InvalidProof):
        consensus.check_op_proof(wrong, TRUSTED)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_id", 160),
        ("block_id", 99),
        ("block_id", 2**31),
        ("ops_hash", "00" * 32),
        ("ops_hash", None),
        ("prior", {}),
        ("prior", []),
        ("extra", 1),
    ],
)
def test_a_wrong_hop_is_rejected(key: str, value: object) -> None:
    """Both the first and the last hop are checked."""
    for place in (0, -1):
        wrong = proof()
        wrong["hops"][place][key] = value
        with pytest.raises(InvalidProof):
            consensus.check_op_proof(wrong, TRUSTED)


def test_a_hop_that_nothing_leads_to_is_rejected() -> None:
    """Each hop must be among the prior hashes of the previous one."""
    wrong = proof()
    wrong["hops"] = [wrong["hops"][0], *HISTORY.prove(127, 0)["hops"][-1:]]
    with pytest.raises(InvalidProof, match="hop to block 127 does not follow"):
        consensus.check_op_proof(wrong, TRUSTED)


def test_the_empty_string_is_not_an_op_of_an_empty_block() -> None:
    """Both have the same ops hash, so the bytes of an op must look like one."""
    empty = History(5, [[]])
    forged = {
        "format": "virtualchain-proof-1",
        "app": "notary",
        "first_block_id": 5,
        "hops": [{"block_id": 5, "ops_hash": empty.ops_hashes[5], "prior": {}}],
        "ops": [""],
        "index": 0,
    }
    with pytest.raises(InvalidProof, match="an op must start with its opcode, if any, and a colon"):
        consensus.check_op_proof(forged, empty.hashes[5])


def test_ops_that_the_block_does_not_have_are_rejected() -> None:
    """One op more, one fewer, or a different op produces another ops hash."""
    genuine = proof()["ops"]
    for ops in ([*genuine, b"c:".hex()], genuine[:1], [genuine[0], b"c:".hex()]):
        with pytest.raises(InvalidProof, match="do not produce its ops hash"):
            consensus.check_op_proof({**proof(), "ops": ops}, TRUSTED)


def test_a_hop_below_the_first_block_is_rejected() -> None:
    """An app cannot have accepted anything there."""
    first = History(5, [[b"a:0:"]])
    made = first.prove(5, 0)
    made["hops"][0]["block_id"] = 4
    with pytest.raises(InvalidProof, match="block 4 is below the first block, 5"):
        consensus.check_op_proof(made, first.hashes[5])


def test_the_whole_list_of_a_block_is_proved() -> None:
    """So an op that is not in it is absent; a proof that names no op is not taken for one that does."""
    made = proof(None)
    assert made["index"] is None
    assert consensus.check_ops_proof(made, TRUSTED) == HISTORY.ops[128]
    assert consensus.check_ops_proof(proof(1), TRUSTED) == HISTORY.ops[128]
    with pytest.raises(InvalidProof, match="does not name one of them"):
        consensus.check_op_proof(made, TRUSTED)


def test_a_block_without_ops_has_an_empty_list() -> None:
    """The empty list has the hash of such a block, and of no other."""
    made = proof(None, 130)
    assert (made["ops"], made["hops"][-1]["ops_hash"]) == ([], EMPTY_OPS_HASH)
    assert consensus.check_ops_proof(made, TRUSTED) == []
    with pytest.raises(InvalidProof, match="do not produce its ops hash"):
        consensus.check_ops_proof({**proof(None), "ops": []}, TRUSTED)
    with pytest.raises(InvalidProof, match="do not produce its ops hash"):
        consensus.check_ops_proof({**made, "ops": ["613a"]}, TRUSTED)
    with pytest.raises(InvalidProof, match="has 0 ops, none at index 0"):
        consensus.check_op_proof({**made, "index": 0}, TRUSTED)


def test_what_a_checker_knows_must_agree() -> None:
    """A proof of another app, or from another block, is refused."""
    assert consensus.check_op_proof(proof(), TRUSTED, app="notary", block_id=159)
    assert consensus.check_ops_proof(proof(None), TRUSTED, app="notary", block_id=159)
    for check in (consensus.check_op_proof, consensus.check_ops_proof):
        with pytest.raises(InvalidProof, match="of the app 'other', not of 'notary'"):
            check({**proof(), "app": "other"}, TRUSTED, app="notary")
        with pytest.raises(InvalidProof, match="starts at block 159, but the trusted hash is that of 158"):
            check(proof(), TRUSTED, block_id=158)


def test_ops_of_an_app_without_opcodes_are_proved() -> None:
    """They begin with the colon."""
    history = History(0, [[consensus.serialize_op(b"", {"text": "a"}, ["text"])], [b":"]])
    assert consensus.check_op_proof(proof(0, 0, history), history.hashes[1]) == b":1:a"
    assert consensus.check_op_proof(proof(0, 1, history), history.hashes[1]) == b":"


def test_a_transaction_is_not_taken_as_checked() -> None:
    """These functions do not look at it, so a proof with one is refused; its `index` must name the op."""
    shown: dict[str, Any] = {"network": "regtest"}
    assert check_ops({**proof(), "spv": shown}, TRUSTED).spv == shown
    for check in (consensus.check_op_proof, consensus.check_ops_proof):
        with pytest.raises(InvalidProof, match="which this function does not check"):
            check({**proof(), "spv": shown}, TRUSTED)
    with pytest.raises(InvalidProof, match="spv must be an object that shows the transaction of an op"):
        check_ops({**proof(None), "spv": shown}, TRUSTED)


@pytest.mark.parametrize("ops", ["x", "axx", "abxx", "abx", "abxxx", "xxxx", "xxxxxx", "abcdxx", "aabbcc"])
@pytest.mark.parametrize("more", range(1, 8))
def test_only_the_shortest_of_the_lists_with_a_hash_is_accepted(ops: str, more: int) -> None:
    """The tree repeats the last node of an odd row, and so its hash does not say how often ops occur."""
    leaves = sorted([b"a:%s" % bytes([byte]) for byte in ops.encode()], key=sha256d)
    longer = [*leaves, *leaves[-more:]]
    if consensus.ops_hash(leaves) != consensus.ops_hash(longer):
        return
    history = History(0, [longer])
    made = proof(None, 0, history)
    assert len(made["ops"]) <= len(leaves)
    assert set(consensus.check_ops_proof(made, history.hashes[0])) == set(longer)
    with pytest.raises(InvalidProof, match="a shorter list of ops has the same ops hash"):
        consensus.check_ops_proof({**made, "ops": [op.hex() for op in longer]}, history.hashes[0])
    for index, op in enumerate(longer):
        assert consensus.check_op_proof(proof(index, 0, history), history.hashes[0]) == op


def test_thousands_of_equal_ops_take_no_longer_than_others() -> None:
    """A stranger may send the same bytes as often as a block has room."""
    history = History(0, [[b"a:"] * 20_000])
    made = history.prove(0, 19_999)
    assert len(made["ops"]) == 2**14 + 1
    assert consensus.check_op_proof(made, history.hashes[0]) == b"a:"


def test_an_inner_node_is_not_an_op() -> None:
    """A leaf is a digest with its bytes reversed: neither half the tree nor the other order passes."""
    refused = 0
    for number in range(1000):
        ops = [b"a:%d" % number, b"b:%d" % number]
        low, high = sorted(map(sha256d, ops))
        history = History(0, [ops])
        good = proof(None, 0, history)
        for node in (low[::-1] + high[::-1], high[::-1] + low[::-1], low + high, high + low):
            if b":" in node[:2]:
                refused += 1
                with pytest.raises(InvalidProof, match="do not produce its ops hash"):
                    consensus.check_ops_proof({**good, "ops": [node.hex()]}, history.hashes[0])
    assert refused


def test_a_hash_twice_among_the_prior_ones_is_rejected() -> None:
    """A repeated last hash would leave the root as it is, and make the history seem longer."""
    history = History(0, [[b"a:%d" % n] for n in range(300)])
    for block_id in range(1, 300):
        hop = proof(None, block_id, history)["hops"][-1]
        leaves = [hop["ops_hash"], *hop["prior"].values()]
        repeated = max(leaves)
        if len(leaves) % 2 == 0 or len(leaves) < 3 or repeated == hop["ops_hash"]:
            continue
        longer = 2 ** (len(leaves)) - 1  # a height with one more prior block, if the first block is 0
        ids = consensus.prior_block_ids(longer, 0)
        prior = dict(zip(map(str, ids), [*hop["prior"].values(), repeated], strict=True))
        forged = {**hop, "block_id": longer, "prior": prior}
        assert consensus.consensus_hash(hop["ops_hash"], prior.values()) == history.hashes[block_id]
        with pytest.raises(InvalidProof, match=f"prior of block {longer} has a hash twice"):
            consensus.check_ops_proof(
                {**proof(None, block_id, history), "hops": [forged]}, history.hashes[block_id]
            )
        return
    pytest.fail("no block has such hashes")


def shifted(made: Any, by: int) -> Any:
    """Move all heights of a proof."""
    made["first_block_id"] += by
    for hop in made["hops"]:
        hop["block_id"] += by
        hop["prior"] = {str(int(key) + by): value for key, value in hop["prior"].items()}
    return made


def swapped(made: Any, place: int, one: str, other: str) -> Any:
    """Swap two prior hashes of a hop."""
    prior = made["hops"][place]["prior"]
    prior[one], prior[other] = prior[other], prior[one]
    return made


def reached(made: Any) -> Any:
    """Show block 115 as block 117, which has as many prior blocks, below a hop that swaps their hashes."""
    top, hop = made["hops"]
    swapped(made, 0, "117", "115")
    hop["block_id"] = 117
    hop["prior"] = {str(int(key) + 2): value for key, value in hop["prior"].items()}
    assert top["block_id"] == 118
    return made


SHORT = History(100, [[b"a:%d" % n, b"b:%d" % n] for n in range(19)])


@pytest.mark.parametrize(
    ("change", "is_refused_at_a_known_height"),
    [
        (lambda made: {**made, "app": "other"}, False),
        (lambda made: {**made, "first_block_id": 99}, False),
        (lambda made: {**made, "ops": made["ops"][::-1]}, False),
        (lambda made: {**made, "index": 1}, False),
        (lambda made: shifted(made, 7), True),
        (lambda made: shifted(made, -100), True),
        (lambda made: swapped(made, -1, "114", "112"), False),
        (reached, False),
    ],
)
def test_what_is_the_prover_s_word_can_be_changed(
    change: Callable[[Any], Any], is_refused_at_a_known_height: bool
) -> None:
    """These are all such changes, as docs/protocol/proofs.md lists them; each leaves a true list of ops."""
    changed = change(proof(0, 115, SHORT))
    trusted = SHORT.hashes[118]
    assert sorted(consensus.check_ops_proof(changed, trusted)) == SHORT.ops[115]
    if is_refused_at_a_known_height:
        with pytest.raises(InvalidProof, match="but the trusted hash is that of 118"):
            consensus.check_ops_proof(changed, trusted, block_id=118)
    else:
        assert consensus.check_op_proof(changed, trusted, block_id=118) in SHORT.ops[115]
    if changed["app"] == "other":
        with pytest.raises(InvalidProof, match="of the app"):
            consensus.check_op_proof(changed, trusted, app="notary")
