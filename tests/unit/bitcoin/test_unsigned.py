"""Signatures that are made up have the form of real ones, and stand for the whole transaction."""

import hashlib

import pytest

from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import public_keys, push
from virtualchain.bitcoin.spending import binds, mismatch, sighash
from virtualchain.bitcoin.transaction import read_transaction, without_witness, write_transaction
from virtualchain.bitcoin.unsigned import unlock
from virtualchain.consensus.hashing import hash160
from virtualchain.model import SpentOutput, TxIn

KEYS = [bytes([2]) + bytes([number]) * 32 for number in (1, 2, 3)]
KEY = KEYS[1]
MULTISIG = b"\x52" + b"".join(map(push, KEYS)) + b"\x53\xae"
P2WPKH = b"\x00\x14" + hash160(KEY)


def p2sh(redeem: bytes) -> bytes:
    """Return the output script that commits to a script."""
    return b"\xa9\x14" + hash160(redeem) + b"\x87"


def p2wsh(script: bytes) -> bytes:
    """Return the witness program that commits to a script."""
    return b"\x00\x20" + hashlib.sha256(script).digest()


CASES = {
    "p2pkh": (b"\x76\xa9\x14" + hash160(KEY) + b"\x88\xac", b"", b"", [KEY], ["ALL"]),
    "p2pk": (push(KEY) + b"\xac", b"", b"", [KEY], ["ALL"]),
    "p2wpkh": (P2WPKH, b"", b"", [KEY], ["ALL"]),
    "p2sh-p2wpkh": (p2sh(P2WPKH), P2WPKH, b"", [KEY], ["ALL"]),
    "p2tr": (b"\x51\x20" + b"\x07" * 32, b"", b"", [b"\x07" * 32], ["DEFAULT"]),
    "p2wsh": (p2wsh(MULTISIG), b"", MULTISIG, KEYS, ["ALL", "ALL"]),
    "p2sh-p2wsh": (p2sh(p2wsh(MULTISIG)), p2wsh(MULTISIG), MULTISIG, KEYS, ["ALL", "ALL"]),
    "p2sh": (p2sh(MULTISIG), MULTISIG, b"", KEYS, ["ALL", "ALL"]),
    "multisig": (MULTISIG, b"", b"", KEYS, ["ALL", "ALL"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_of_output(kind: str) -> None:
    """An input looks as if the output's owner had signed everything, and shows the owner's keys."""
    script, redeem, witness_script, keys, types = CASES[kind]
    script_sig, witness = unlock(script, KEYS, redeem, witness_script)
    spending = TxIn("11" * 32, 0, script_sig, 0xFFFFFFFD, witness)
    assert mismatch(script, spending) is None
    assert sighash(script, spending) == tuple(types)
    assert public_keys(script, script_sig, witness) == tuple(key.hex() for key in keys)
    if kind in {"p2pkh", "p2wpkh", "p2sh-p2wpkh", "p2wsh"}:
        assert binds(script, spending)


def test_owners_that_are_not_known() -> None:
    """A key that anyone can know stands for theirs; a script of no usual form stays without a signature."""
    for script in (P2WPKH, CASES["p2pkh"][0], p2sh(P2WPKH)):
        spending = TxIn("11" * 32, 0, *unlock(script)[:1], 0, unlock(script)[1])
        assert sighash(script, spending) == ("ALL",)
    assert unlock(b"\x51") == (b"", ())
    assert unlock(p2wsh(MULTISIG)) == (b"", ())
    assert unlock(b"\x52\x02\x4e\x73") == (b"", ())


@pytest.mark.parametrize("has_witness", [False, True])
def test_transactions_are_written_as_they_are_read(has_witness: bool) -> None:
    """Inputs with and without witness, and many outputs."""
    inputs = (
        TxIn("ab" * 32, 3, b"\x51" * 300, 0xFFFFFFFD, ()),
        TxIn("cd" * 32, 2**32 - 1, b"", 7, (b"", b"x" * 300) if has_witness else ()),
    )
    outputs = [SpentOutput(number, b"\x6a" * number) for number in range(300)]
    raw = write_transaction(inputs, outputs)
    tx = read_transaction(raw, network("regtest"))
    assert (tx.inputs, tx.paid) == (inputs, tuple(outputs))
    assert (without_witness(raw) == raw) is not has_witness
