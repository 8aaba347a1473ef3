"""Script types, addresses, OP_RETURN payloads and public keys.

The expected types and addresses come from bitcoind or its own vectors.
"""

import gzip
import hashlib
import json

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import push
from virtualchain.bitcoin.block import read_transaction, split_transactions
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify, op_return_payload, public_keys, pushes
from virtualchain.consensus.hashing import hash160

MAIN = network("mainnet")
HEX_KEY = "02" + "11" * 32
HEX_LONG_KEY = "04" + "11" * 64

SIGNATURE = b"\x30" + bytes(70)
KEYS = [bytes([2 + n % 2]) + bytes([n]) * 32 for n in range(1, 4)]
KEY = KEYS[0]
OTHER = KEYS[1]
LONG_KEY = b"\x04" + b"\x09" * 64

P2PK = push(KEY) + b"\xac"
P2PKH = b"\x76\xa9\x14" + hash160(KEY) + b"\x88\xac"
P2WPKH = b"\x00\x14" + hash160(KEY)
MULTISIG = b"\x52" + b"".join(push(key) for key in KEYS) + b"\x53\xae"
P2TR = b"\x51\x20" + b"\x07" * 32


@pytest.mark.parametrize(
    ("script", "script_type", "address"),
    [
        ("", "nonstandard", None),
        ("21" + HEX_KEY + "ac", "pubkey", None),
        ("41" + HEX_LONG_KEY + "ac", "pubkey", None),
        ("4106" + "11" * 64 + "ac", "pubkey", None),
        ("4105" + "11" * 64 + "ac", "nonstandard", None),
        ("20" + HEX_KEY + "ac", "nonstandard", None),
        ("2105" + "11" * 32 + "ac", "nonstandard", None),
        ("2104" + "11" * 32 + "ac", "nonstandard", None),
        ("21" + HEX_KEY + "ad", "nonstandard", None),
        ("4c21" + HEX_KEY + "ac", "nonstandard", None),
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
    """Type and address are those that `decodescript` returns."""
    expected = (script_type, () if address is None else (address,))
    assert classify(bytes.fromhex(script), MAIN) == expected


def pushed_keys(number: int) -> str:
    """Write this many pushes of a key."""
    return ("21" + HEX_KEY) * number


@pytest.mark.parametrize(
    "script",
    [
        "51" + pushed_keys(1) + "51ae",
        "52" + pushed_keys(3) + "53ae",
        "60" + pushed_keys(16) + "60ae",
        "0111" + pushed_keys(17) + "0111ae",
        "51" + pushed_keys(20) + "0114ae",
        "51" + "41" + HEX_LONG_KEY + "4c21" + HEX_KEY + "52ae",
    ],
)
def test_a_multisig_script_has_up_to_twenty_valid_keys(script: str) -> None:
    """Numbers above sixteen are pushed, and a key may be pushed in any form."""
    assert classify(bytes.fromhex(script), MAIN) == ("multisig", ())


@pytest.mark.parametrize(
    "script",
    [
        "ae",
        "51ae",
        "5151ae",
        "00" + pushed_keys(1) + "51ae",
        "52" + pushed_keys(1) + "51ae",
        "51" + pushed_keys(2) + "51ae",
        "51" + pushed_keys(1) + "52ae",
        "51" + pushed_keys(1) + "0101ae",
        "51" + pushed_keys(17) + "4c0111ae",
        "51" + pushed_keys(17) + "021100ae",
        "51" + pushed_keys(21) + "0115ae",
        "51" + "2105" + "11" * 32 + "51ae",
        "51" + pushed_keys(1) + "51aeae",
        "51" + pushed_keys(1) + "51",
        "51" + pushed_keys(1) + "51acae",
        "51" + pushed_keys(1) + "01ae",
        "51" + pushed_keys(1) + "ae",
        "51" + pushed_keys(2),
    ],
)
def test_what_only_resembles_a_multisig_script_is_nonstandard(script: str) -> None:
    """Its numbers do not fit, are not minimal or are out of range, or its keys are invalid."""
    assert classify(bytes.fromhex(script), MAIN) == ("nonstandard", ())


def test_addresses_are_those_of_bitcoin_cores_vectors() -> None:
    """Each address in the vectors is that of its script, on its network."""
    checked = 0
    for address, script, about in json.loads(shared("addresses/key_io_valid.json").read_text()):
        if not about["isPrivkey"]:
            addresses = classify(bytes.fromhex(script), network(about["chain"]))[1]
            assert addresses in {(address,), (address.lower(),)}  # some vectors are in capitals
            checked += 1
    assert checked > 30


@pytest.mark.parametrize("block_id", [325000, 549400])
def test_scripts_of_real_blocks_are_classified_as_the_node_does(block_id: int) -> None:
    """The types and addresses of thousands of outputs agree with a node's verbose block."""
    verbose = json.loads(gzip.decompress(shared(f"getblock/{block_id}.json.gz").read_bytes()))
    scripts = [output["scriptPubKey"] for tx in verbose["tx"] for output in tx["vout"]]
    assert len(scripts) > 700
    for script in scripts:
        has_address = script["type"] not in {"pubkey", "multisig"}  # older nodes printed those of the keys
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
def test_the_payload_is_the_single_push_after_op_return(script: str, payload: str | None) -> None:
    """A push in any form counts, even if truncated; anything after it makes the script something else."""
    expected = None if payload is None else bytes.fromhex(payload)
    assert op_return_payload(bytes.fromhex(script)) == expected


def test_pushes_are_listed_up_to_one_that_is_truncated() -> None:
    """Small numbers count as the byte that they push; opcodes that push nothing are skipped."""
    script = bytes.fromhex("00516002aabb764c01cc4d0100dd4e01000000ee05ff")
    assert [data.hex() for data in pushes(script)] == ["", "01", "10", "aabb", "cc", "dd", "ee"]


# The public keys that an input reveals


def p2sh(script: bytes) -> bytes:
    """Commit to a script by its hash."""
    return b"\xa9\x14" + hash160(script) + b"\x87"


def p2wsh(script: bytes) -> bytes:
    """Commit to a witness script by its hash."""
    return b"\x00\x20" + hashlib.sha256(script).digest()


def signed(*items: bytes) -> bytes:
    """Write a scriptSig that pushes a signature and these items."""
    return b"".join(push(item) for item in (SIGNATURE, *items))


@pytest.mark.parametrize(
    ("script_pubkey", "script_sig", "witness", "expected"),
    [
        (P2PK, signed(), [], [KEY]),
        (push(LONG_KEY) + b"\xac", signed(), [], [LONG_KEY]),
        (P2PKH, signed(KEY), [], [KEY]),
        (P2WPKH, b"", [SIGNATURE, KEY], [KEY]),
        (MULTISIG, b"\0" + signed(SIGNATURE), [], KEYS),
        (p2sh(P2WPKH), push(P2WPKH), [SIGNATURE, KEY], [KEY]),
        (p2sh(MULTISIG), b"\0" + signed(SIGNATURE, MULTISIG), [], KEYS),
        (p2sh(P2PK), signed(P2PK), [], [KEY]),
        (p2sh(P2PKH), signed(KEY, P2PKH), [], [KEY]),
        (p2wsh(MULTISIG), b"", [b"", SIGNATURE, SIGNATURE, MULTISIG], KEYS),
        (p2wsh(P2PKH), b"", [SIGNATURE, KEY, P2PKH], [KEY]),
        (p2sh(p2wsh(MULTISIG)), push(p2wsh(MULTISIG)), [b"", SIGNATURE, SIGNATURE, MULTISIG], KEYS),
        (P2TR, b"", [SIGNATURE], [b"\x07" * 32]),
        (P2TR, b"", [b"a", b"script", b"\xc0" + bytes(32)], [b"\x07" * 32]),
    ],
)
def test_an_input_reveals_the_keys_that_its_script_commits_to(
    script_pubkey: bytes, script_sig: bytes, witness: list[bytes], expected: list[bytes]
) -> None:
    """Every usual form of output, nested or not, has its keys in the script's order."""
    assert public_keys(script_pubkey, script_sig, witness) == tuple(key.hex() for key in expected)


@pytest.mark.parametrize(
    ("script_pubkey", "script_sig", "witness"),
    [
        (P2PKH, signed(OTHER), []),
        (P2PKH, b"", []),
        (P2PKH, b"\x4c\xff", []),
        (P2WPKH, b"", [SIGNATURE, OTHER]),
        (P2WPKH, signed(KEY), []),
        (p2sh(P2WPKH), push(P2WPKH), [SIGNATURE, OTHER]),
        (p2sh(P2WPKH), b"\0" + push(P2WPKH)[:-1], [SIGNATURE, KEY]),
        (p2sh(MULTISIG), signed(P2PK), []),
        (p2sh(MULTISIG), b"", []),
        (p2wsh(MULTISIG), b"", [P2PK]),
        (p2wsh(MULTISIG), b"", []),
        (p2wsh(P2WPKH), b"", [SIGNATURE, KEY, P2WPKH]),
        (p2sh(P2TR), push(P2TR), [SIGNATURE]),
        (b"\x52" + P2WPKH[1:], b"", [SIGNATURE, KEY]),
        (b"\x52" + p2wsh(MULTISIG)[1:], b"", [b"", SIGNATURE, SIGNATURE, MULTISIG]),
        (b"\x51\x02\x4e\x73", b"", [KEY]),
        (b"\x51", b"", []),
        (b"", signed(KEY), [KEY]),
    ],
)
def test_bytes_that_the_spent_script_does_not_commit_to_are_not_keys(
    script_pubkey: bytes, script_sig: bytes, witness: list[bytes]
) -> None:
    """Neither a foreign key, nor a script with the wrong hash, nor a form without keys reveals any."""
    assert public_keys(script_pubkey, script_sig, witness) == ()


def test_keys_of_real_inputs_hash_to_what_they_spend() -> None:
    """Every p2pkh and p2wpkh input of a real block reveals the one key of its address."""
    prevouts = json.loads(shared("testnet3/1087400.prevouts.json").read_text())
    raw = shared("testnet3/1087400.blk").read_bytes()
    single = 0
    for tx in split_transactions(raw)[1:]:
        for spending in read_transaction(tx, network("test")).inputs:
            script = bytes.fromhex(prevouts[f"{spending.txid}:{spending.vout}"][1])
            keys = public_keys(script, spending.script_sig, spending.witness)
            if len(script) == 25:
                assert [hash160(bytes.fromhex(key)) for key in keys] == [script[3:23]]
                single += 1
    assert single > 50
