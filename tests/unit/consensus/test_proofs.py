"""Proofs of ops: how they jump, and that no false proof passes."""

import json
from typing import Any

import pytest

from tests.support.consensus_history import History
from virtualchain import consensus
from virtualchain.errors import InvalidProof, UsageError

HISTORY = History(100, [[] if n == 30 else [b"a:2:%02d" % n, b"b:2:%02d" % n] for n in range(60)])
TRUSTED = HISTORY.hashes[159]


def proof() -> Any:
    """Make a new proof of block 128's first op, as it is read from a file."""
    return json.loads(json.dumps(HISTORY.prove(128, 0)))


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
    with pytest.raises(InvalidProof, match="an op must start with its opcode and a colon"):
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
