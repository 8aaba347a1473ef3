"""Every vector that the reference implementation computed, except for its named defects."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared_data import shared
from virtualchain import consensus
from virtualchain.consensus.hashing import hash160
from virtualchain.errors import Unserializable, UsageError

SAMPLE = Path(__file__).parents[2] / "data" / "consensus"
FILES = ["chain", "merkle", "ops_hash", "paths", "serialize_op", "snapshot"]

Load = Callable[[str], dict[str, Any]]


def read(file: Path) -> dict[str, Any]:
    """Read one file of vectors."""
    vectors: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return vectors


@pytest.fixture(params=["sample", "whole"])
def load(request: pytest.FixtureRequest) -> Load:
    """Read vectors by name: from the sample in the project, then from the whole set."""
    if request.param == "sample":
        return lambda name: read(SAMPLE / f"{name}.json.gz")
    return lambda name: read(shared(f"consensus/{name}.json.gz"))


def test_serialized_ops_agree(load: Load) -> None:
    """Opcode, field order, lengths and texts are the reference's; a missing field is an error."""
    for case in load("serialize_op")["cases"]:
        fields = case["opfields"].get(case["opcode"])
        opcode = case["opcode"].encode()
        if "error" in case:
            with pytest.raises(Unserializable, match="has no"):
                consensus.serialize_op(opcode, case["opdata"], fields)
        elif fields is not None:  # the reference answers None for an opcode that the app does not have
            assert consensus.serialize_op(opcode, case["opdata"], fields).hex() == case["serialized_hex"]


def test_ops_hashes_agree(load: Load) -> None:
    """The cases are empty blocks, duplicates, odd numbers of ops and arbitrary bytes."""
    for case in load("ops_hash")["cases"]:
        assert consensus.ops_hash(map(bytes.fromhex, case["ops_hex"])) == case["ops_hash"]
        assert consensus.merkle_root(case["sorted_leaves"]) == case["ops_hash"]


def test_merkle_roots_and_paths_agree(load: Load) -> None:
    """The trees have leaves of 16 and of 32 bytes, odd rows and duplicate leaves."""
    for tree in load("merkle")["trees"]:
        assert consensus.merkle_root(tree["leaves"]) == tree["root"]
        for path in tree["paths"]:
            assert consensus.merkle_path(tree["leaves"], path["leaf"]) == path["serialized"]
            assert consensus.verify_merkle_path(tree["root"], path["serialized"], path["leaf"])


def test_merkle_path_verdicts_agree_but_for_the_m_path_defect(load: Load) -> None:
    """The reference raised for a malformed path and this is False; an `m` path needs the right root."""
    defects = 0
    for proof in load("paths")["proofs"]:
        verified = consensus.verify_merkle_path(proof["root"], proof["serialized"], proof["leaf"])
        is_defect = proof["serialized"].startswith("70:66:m-") and proof["leaf"] != proof["root"]
        if is_defect and proof["verify_result"] is True:
            defects += 1
            assert verified is False, proof["kind"]
        else:
            assert verified is (proof["verify_result"] is True), proof["kind"]
    assert defects == 2


def test_an_m_path_is_not_accepted_for_any_root(load: Load) -> None:
    """The reference has a defect: it compared an `m` path with the leaf only, so a forged one verified."""
    [forged] = [proof for proof in load("paths")["proofs"] if proof["kind"] == "forged 'm' path"]
    assert forged["verify_result"] is True
    assert not consensus.verify_merkle_path(forged["root"], forged["serialized"], forged["leaf"])
    assert consensus.verify_merkle_path(forged["leaf"], forged["serialized"], forged["leaf"])


def test_no_path_is_made_for_an_inner_node(load: Load) -> None:
    """The reference's path() also found hashes of inner rows; ours accepts leaves only."""
    for tree in load("merkle")["trees"]:
        for node in {node for row in tree["rows"][1:] for node in row} - set(tree["leaves"]):
            with pytest.raises(UsageError, match="not a leaf"):
                consensus.merkle_path(tree["leaves"], node)


def test_consensus_hashes_agree(load: Load) -> None:
    """The cases have an ops hash and its prior hashes, some of them equal."""
    vectors = load("snapshot")
    for case in vectors["from_ops_hash"]:
        priors = case["prev_consensus_hashes"]
        assert consensus.consensus_hash(case["ops_hash"], priors) == case["consensus_hash"]
    for case in vectors["make_snapshot"]:
        ops_hash = consensus.ops_hash(map(bytes.fromhex, case["ops"]))
        assert ops_hash == case["ops_hash"]
        assert consensus.consensus_hash(ops_hash, case["prev_consensus_hashes"]) == case["consensus_hash"]
    for case in vectors["calculate_consensus_hash"]:
        # A tree of one leaf is that leaf: with no prior hash the Merkle root is the ops hash.
        assert consensus.consensus_hash(case["merkle_root"], []) == case["consensus_hash"]


def test_whole_chains_agree(load: Load) -> None:
    """Ops, ops hash, prior blocks and consensus hash agree in every block from the initial snapshots on."""
    for chain in load("chain")["chains"]:
        hashes = {int(block_id): text for block_id, text in chain["initial_snapshots"].items()}
        for block in chain["blocks"]:
            ops = []
            for op in block["accepted_ops"]:
                values = dict(zip(op["opfields"], op["values"], strict=True))
                ops.append(consensus.serialize_op(op["opcode"].encode(), values, op["opfields"]))
                assert ops[-1].hex() == op["serialized_hex"]
            block_id = block["height"]
            prior = [
                (prior, hashes[prior])
                for prior in consensus.prior_block_ids(block_id, chain["first_block_id"])
            ]
            assert prior == [(prior["height"], prior["consensus_hash"]) for prior in block["prev"]]
            assert consensus.ops_hash(ops) == block["ops_hash"]
            hashes[block_id] = consensus.consensus_hash(block["ops_hash"], [text for _, text in prior])
            assert hashes[block_id] == block["consensus_hash"], (chain["label"], block_id)


def test_ops_of_whole_chains_are_proved_by_the_recorded_digests(load: Load) -> None:
    """A proof takes nothing but recorded hashes, and leads to the recorded one of the last block."""
    for chain in load("chain")["chains"]:
        hashes = {int(block_id): text for block_id, text in chain["initial_snapshots"].items()}
        hashes |= {block["height"]: block["consensus_hash"] for block in chain["blocks"]}
        ops_hashes = {block["height"]: block["ops_hash"] for block in chain["blocks"]}
        ops = {
            block["height"]: [bytes.fromhex(op["serialized_hex"]) for op in block["accepted_ops"]]
            for block in chain["blocks"]
        }
        last = max(ops)
        for block_id, accepted in ops.items():
            for index in (None, *range(len(accepted))):
                proof = consensus.make_op_proof(
                    app=chain["label"],
                    first_block_id=chain["first_block_id"],
                    trusted_block_id=last,
                    block_id=block_id,
                    index=index,
                    ops_hash_at=ops_hashes.__getitem__,
                    consensus_hash_at=hashes.__getitem__,
                    ops_at=ops.__getitem__,
                )
                proof = json.loads(json.dumps(proof))
                assert set(consensus.check_ops_proof(proof, hashes[last])) == set(accepted)
                if index is not None:
                    assert consensus.check_op_proof(proof, hashes[last]) == accepted[index]
                _check_by_the_recorded_rules(proof, hashes[last])


def _check_by_the_recorded_rules(proof: Any, trusted: str) -> None:
    """Check the hops of a proof with the recorded function alone, of which each vector above is a case."""
    expected = {proof["hops"][0]["block_id"]: trusted}
    for hop in proof["hops"]:
        leaves = sorted([hop["ops_hash"], *hop["prior"].values()])
        digest = hash160(bytes.fromhex(consensus.merkle_root(leaves)))
        assert digest[:16].hex() == expected[hop["block_id"]]
        expected = {int(block_id): text for block_id, text in hop["prior"].items()}
    assert consensus.ops_hash(map(bytes.fromhex, proof["ops"])) == proof["hops"][-1]["ops_hash"]


@pytest.mark.parametrize("name", FILES)
def test_the_sample_is_part_of_the_whole(name: str) -> None:
    """The sample in the project contains nothing that the recorded set does not contain."""
    whole = read(shared(f"consensus/{name}.json.gz"))
    for key, cases in read(SAMPLE / f"{name}.json.gz").items():
        if isinstance(cases, list):
            assert cases
            assert all(case in whole[key] for case in cases)
        else:
            assert cases == whole[key]
