"""Transactions that nobody has signed yet, with signatures that are made up.

They have the form and the size of real ones, and stand for signatures of the whole transaction. So an app can
judge a transaction before its owner signs it, and a node's policy can be asked about it.
"""

from collections.abc import Collection
from typing import Final

from virtualchain.bitcoin.script import (
    is_public_key_hash,
    is_script_hash,
    multisig_keys,
    public_key,
    push,
    pushes,
    witness_program,
)
from virtualchain.consensus.hashing import hash160

_ECDSA: Final = b"\x30\x44\x02\x20" + b"\x11" * 32 + b"\x02\x20" + b"\x11" * 32 + b"\x01"
"""The form of an ECDSA signature (BIP 66) with the hash type ALL."""
_SCHNORR: Final = b"\x11" * 64
"""The form of a Schnorr signature with the hash type DEFAULT (BIP 341)."""
_ANY_KEY: Final = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
"""That of the private key 1."""


def unlock(
    script: bytes,
    keys: Collection[bytes] = (),
    redeem_script: bytes = b"",
    witness_script: bytes = b"",
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return the input script and the witness with which an output with this script would be spent.

    `keys` are public keys of its owner, `redeem_script` and `witness_script` what p2sh and p2wsh outputs
    commit to. Without them, a key that anyone can know stands for the owner's, and a p2sh output is taken for
    one of p2wpkh. A script of no usual form stays without a signature: both are empty.
    """
    if is_script_hash(script):
        inner = redeem_script or b"\x00\x14" + hash160(_ANY_KEY)
        program = witness_program(inner)
        if program is None:
            stack = _stack(inner, keys)
            return b"".join(map(_push, stack)) + push(inner), ()
        return push(inner), _witness(program, keys, witness_script)
    program = witness_program(script)
    if program is not None:
        return b"", _witness(program, keys, witness_script)
    return b"".join(map(_push, _stack(script, keys))), ()


def _push(item: bytes) -> bytes:
    return push(item) if item else b"\0"


def _witness(program: tuple[int, bytes], keys: Collection[bytes], witness_script: bytes) -> tuple[bytes, ...]:
    version, data = program
    if version == 1 and len(data) == 32:
        return (_SCHNORR,)
    if version == 0 and len(data) == 20:
        return (_ECDSA, _key(data, keys))
    if version == 0 and witness_script:
        return (*_stack(witness_script, keys), witness_script)
    return ()


def _stack(script: bytes, keys: Collection[bytes]) -> list[bytes]:
    """Return what a script that is neither p2sh nor segwit takes."""
    if is_public_key_hash(script):
        return [_ECDSA, _key(script[3:23], keys)]
    if public_key(script) is not None:
        return [_ECDSA]
    if multisig_keys(script):
        required = pushes(script)[0][0]
        return [b"", *[_ECDSA] * required]
    return []


def _key(key_hash: bytes, keys: Collection[bytes]) -> bytes:
    """Return the key with a hash, or one that anyone can know."""
    return next((key for key in keys if hash160(key) == key_hash), _ANY_KEY)
