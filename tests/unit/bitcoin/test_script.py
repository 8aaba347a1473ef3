"""Script types, addresses and OP_RETURN payloads; expected values come from bitcoind or its own vectors."""

import gzip
import json

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify, op_return_payload, pushes

MAIN = network("mainnet")
KEY = "02" + "11" * 32
LONG_KEY = "04" + "11" * 64


@pytest.mark.parametrize(
    ("script", "script_type", "address"),
    [
        ("", "nonstandard", None),
        ("21" + KEY + "ac", "pubkey", None),
        ("41" + LONG_KEY + "ac", "pubkey", None),
        ("4106" + "11" * 64 + "ac", "pubkey", None),
        ("4105" + "11" * 64 + "ac", "nonstandard", None),
        ("20" + KEY + "ac", "nonstandard", None),
        ("2105" + "11" * 32 + "ac", "nonstandard", None),
        ("2104" + "11" * 32 + "ac", "nonstandard", None),
        ("21" + KEY + "ad", "nonstandard", None),
        ("4c21" + KEY + "ac", "nonstandard", None),
        ("76a914" + "00" * 20 + "88ac", "pubkeyhash", "1111111111111111111114oLvT2"),
        ("76a94c14" + "00" * 20 + "88ac", "nonstandard", None),
        ("a914" + "00" * 20 + "87", "scripthash", "31h1vYVSYuKP6AhS86fbRdMw9XHieotbST"),
        ("a914" + "00" * 20 + "88", "nonstandard", None),
        ("0014751e76e8199196d454941c45d1b3a323f1433bd6", "witness_v0_keyhash",
         "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        ("0020" + "00" * 32, "witness_v0_scripthash",
         "bc1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqthqst8"),
        ("0015" + "00" * 21, "nonstandard", None),
        ("512079be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798", "witness_v1_taproot",
         "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
        ("51024e73", "anchor", "bc1pfeessrawgf"),
        ("51024e74", "witness_unknown", "bc1pfe6q5vy3qs"),
        ("6002751e", "witness_unknown", "bc1sw50qgdz25j"),
        ("5101aa", "nonstandard", None),
        ("5129" + "00" * 41, "nonstandard", None),
        ("6a", "nulldata", None),
        ("6a00", "nulldata", None),
        ("6a5d0401020304", "nulldata", None),
        ("6a50", "nulldata", None),
        ("6a04aabbccdd04aabbccdd", "nulldata", None),
        ("6a61", "nonstandard", None),
        ("6a04aabb", "nonstandard", None),
        ("006a04aabbccdd", "nonstandard", None),
    ],
)  # fmt: skip
def test_a_script_is_named_as_bitcoind_names_it(script: str, script_type: str, address: str | None) -> None:
    """Type and address are those that `decodescript` gives."""
    expected = (script_type, () if address is None else (address,))
    assert classify(bytes.fromhex(script), MAIN) == expected


def keys(number: int) -> str:
    """Give that many pushed keys."""
    return ("21" + KEY) * number


@pytest.mark.parametrize(
    "script",
    [
        "51" + keys(1) + "51ae",
        "52" + keys(3) + "53ae",
        "60" + keys(16) + "60ae",
        "0111" + keys(17) + "0111ae",
        "51" + keys(20) + "0114ae",
        "51" + "41" + LONG_KEY + "4c21" + KEY + "52ae",
    ],
)
def test_a_multisig_script_holds_up_to_twenty_valid_keys(script: str) -> None:
    """Counts above sixteen are pushed, and a key may be pushed in any form."""
    assert classify(bytes.fromhex(script), MAIN) == ("multisig", ())


@pytest.mark.parametrize(
    "script",
    [
        "ae",
        "51ae",
        "5151ae",
        "00" + keys(1) + "51ae",
        "52" + keys(1) + "51ae",
        "51" + keys(2) + "51ae",
        "51" + keys(1) + "52ae",
        "51" + keys(1) + "0101ae",
        "51" + keys(17) + "4c0111ae",
        "51" + keys(17) + "021100ae",
        "51" + keys(21) + "0115ae",
        "51" + "2105" + "11" * 32 + "51ae",
        "51" + keys(1) + "51aeae",
        "51" + keys(1) + "51",
        "51" + keys(1) + "51acae",
        "51" + keys(1) + "01ae",
        "51" + keys(1) + "ae",
        "51" + keys(2),
    ],
)
def test_what_only_resembles_a_multisig_script_is_nonstandard(script: str) -> None:
    """Counts that do not fit, are not minimal or out of range, and keys that are none."""
    assert classify(bytes.fromhex(script), MAIN) == ("nonstandard", ())


def test_addresses_are_those_of_bitcoin_cores_vectors() -> None:
    """Each address of the vectors is what its script classifies to, on its network."""
    checked = 0
    for address, script, about in json.loads(shared("addresses/key_io_valid.json").read_text()):
        if not about["isPrivkey"]:
            found = classify(bytes.fromhex(script), network(about["chain"]))[1]
            assert found in {(address,), (address.lower(),)}  # some vectors are in capitals
            checked += 1
    assert checked > 30


@pytest.mark.parametrize("block_id", [325000, 549400])
def test_scripts_of_real_blocks_are_classified_as_the_node_does(block_id: int) -> None:
    """Types and addresses of thousands of outputs agree with a node's verbose block."""
    verbose = json.loads(gzip.decompress(shared(f"getblock/{block_id}.json.gz").read_bytes()))
    scripts = [output["scriptPubKey"] for tx in verbose["tx"] for output in tx["vout"]]
    assert len(scripts) > 700
    for script in scripts:
        has_address = script["type"] not in {"pubkey", "multisig"}  # nodes of that time printed their keys'
        expected = tuple(script.get("addresses", ())) if has_address else ()
        assert classify(bytes.fromhex(script["hex"]), MAIN) == (script["type"], expected)


@pytest.mark.parametrize(
    ("script", "payload"),
    [
        ("6a0461626364", "61626364"),
        ("6a4c0461626364", "61626364"),
        ("6a4d040061626364", "61626364"),
        ("6a4e0400000061626364", "61626364"),
        ("6a0561626364", "61626364"),
        ("6a4cff61626364", "61626364"),
        ("6a4effffffff61626364", "61626364"),
        ("6a4c00", ""),
        ("6a05", ""),
        ("6a4c", ""),
        ("6a4d05", ""),
        ("6a4e0500", ""),
        ("", None),
        ("6a", None),
        ("6a00", None),
        ("6a4f", None),
        ("6a51", None),
        ("6a60", None),
        ("6aac", None),
        ("6a046162636400", None),
        ("6a04616263640161", None),
        ("0461626364", None),
        ("006a0461626364", None),
    ],
)
def test_the_payload_is_the_single_push_behind_op_return(script: str, payload: str | None) -> None:
    """Any form of push counts, cut short or not; anything else behind it does not."""
    expected = None if payload is None else bytes.fromhex(payload)
    assert op_return_payload(bytes.fromhex(script)) == expected


def test_pushes_are_walked_up_to_one_that_is_cut_short() -> None:
    """Small numbers count as what they push; opcodes that push nothing are passed over."""
    script = bytes.fromhex("00516002aabb764c01cc4d0100dd4e01000000ee05ff")
    assert [data.hex() for data in pushes(script)] == ["", "01", "10", "aabb", "cc", "dd", "ee"]
