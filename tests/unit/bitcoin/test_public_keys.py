"""The public keys that a spending reveals: only those that the spent script commits to."""

import hashlib
import json

import pytest

from tests.support.shared_data import shared
from tests.unit.bitcoin.building import push
from virtualchain.bitcoin.block import read_transaction, split_transactions
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import public_keys
from virtualchain.consensus.hashing import hash160

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


def p2sh(script: bytes) -> bytes:
    """Commit to a script by its hash."""
    return b"\xa9\x14" + hash160(script) + b"\x87"


def p2wsh(script: bytes) -> bytes:
    """Commit to a witness script by its hash."""
    return b"\x00\x20" + hashlib.sha256(script).digest()


def signed(*items: bytes) -> bytes:
    """Write a scriptSig that pushes a signature and these."""
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
def test_a_spending_reveals_the_keys_that_its_script_commits_to(
    script_pubkey: bytes, script_sig: bytes, witness: list[bytes], expected: list[bytes]
) -> None:
    """Every usual form of output, nested or not, gives its keys in the script's order."""
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
def test_bytes_that_the_spent_script_does_not_commit_to_are_no_keys(
    script_pubkey: bytes, script_sig: bytes, witness: list[bytes]
) -> None:
    """A key pushed by anyone, a wrong script behind a hash, or a form that bears no key, gives none."""
    assert public_keys(script_pubkey, script_sig, witness) == ()


def test_keys_of_real_spendings_hash_to_what_they_spend() -> None:
    """Every p2pkh and p2wpkh spending of a real block reveals the one key of its address."""
    prevouts = json.loads(shared("testnet3/1087400.prevouts.json").read_text())
    raw = shared("testnet3/1087400.blk").read_bytes()
    single = 0
    for tx in split_transactions(raw)[1:]:
        for spending in read_transaction(tx, network("test")).inputs:
            script = bytes.fromhex(prevouts[f"{spending.txid}:{spending.vout}"][1])
            witness = [bytes.fromhex(item) for item in spending.witness]
            found = public_keys(script, bytes.fromhex(spending.script_sig), witness)
            if len(script) == 25:
                assert [hash160(bytes.fromhex(key)) for key in found] == [script[3:23]]
                single += 1
    assert single > 50
