"""How an input spends an output: whether it fits the script that it is said to spend, and what it signs.

A source says which output an input spends; the input itself shows part of that. It reveals the key or the
script that a hash in the spent script commits to, so a source that names another script is found out.
Signatures are not verified: an output that is spent by a signature alone (p2pk, bare multisig, p2tr by its
key) is taken on the source's word.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from virtualchain.bitcoin.curve import tagged_hash, tweak
from virtualchain.bitcoin.script import (
    OP_16,
    is_key,
    is_public_key_hash,
    is_script_hash,
    likely_keys,
    multisig_keys,
    operations,
    public_key,
    public_keys,
    pushes,
    witness_program,
)
from virtualchain.bitcoin.transaction import write_count
from virtualchain.consensus.hashing import hash160
from virtualchain.model import SpentOutput, TxIn

LARGEST_KEPT: Final = 5_000
"""Bytes: a longer spent script, which would be 10,000 bytes in hex, is replaced by its substitute."""
MOST_KEPT: Final = 1_000_000
"""Bytes of one transaction's spent scripts, after which only scripts of up to `SMALL` bytes are kept."""
SMALL: Final = 100
"""Bytes: longer than every script with an address; of longer ones, only bare multisig has a type."""

UNCHECKED_BLOCKS: Final = frozenset(
    {
        "00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22",  # mainnet, BIP 16
        "0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad",  # mainnet, BIP 341
        "00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105",  # testnet3, BIP 16
    }
)
"""The only blocks with a spending that breaks today's rules: all others fit them, also those that are older
than p2sh, segwit and taproot (`script_flag_exceptions` in Bitcoin Core's chain parameters)."""

_CERTAIN: Final = frozenset({b"\x00\x14", b"\x51\x20"})
"""How p2wpkh and p2tr scripts begin."""
_ANNEX: Final = 0x50
_FIRST_LEAF_VERSION: Final = 0xC0
"""The only leaf version with a meaning, and the least byte that control blocks in use begin with."""
_CONTROL_BASE: Final = 33
_TAPROOT_HASH_TYPES: Final = frozenset({1, 2, 3, 0x81, 0x82, 0x83})
_DER_SIZES: Final = range(9, 74)
"""Bytes of an ECDSA signature with its hash type (BIP 66)."""
_SUBSTITUTE: Final = b"\x6a\x04"
_SUBSTITUTE_SIZE: Final = 39


def substitute(size: int, sha256: bytes) -> bytes:
    """Return what stands for a script: OP_RETURN, its size (4 bytes, little-endian) and its SHA-256.

    No spent script can look like it: an output that starts with OP_RETURN cannot be spent.
    """
    return _SUBSTITUTE + size.to_bytes(4, "little") + b"\x20" + sha256


def is_substitute(script: bytes) -> bool:
    """Check whether a spent script is the substitute of another."""
    return len(script) == _SUBSTITUTE_SIZE and script.startswith(_SUBSTITUTE) and script[6] == 0x20


def stands_for(kept: bytes, script: bytes) -> bool:
    """Check whether what was kept of a spent script is this script, or its substitute."""
    return kept == script or kept == substitute(len(script), hashlib.sha256(script).digest())


class Capped:
    """Caps the spent scripts of one transaction, which may have 24,390 inputs with 10,000 bytes each.

    A script is replaced by its substitute if it is longer than `LARGEST_KEPT`; or if it is longer than
    `SMALL`, not a bare multisig, and the scripts in front of it make up `MOST_KEPT`. Capping twice changes
    nothing.
    """

    def __init__(self) -> None:
        self._kept = 0

    def cap(self, script: bytes) -> bytes:
        """Return the next script, or its substitute."""
        is_full = self._kept >= MOST_KEPT
        if len(script) > LARGEST_KEPT or (is_full and len(script) > SMALL and not multisig_keys(script)):
            script = substitute(len(script), hashlib.sha256(script).digest())
        self._kept += len(script)
        return script


def capped(outputs: Iterable[SpentOutput]) -> tuple[SpentOutput, ...]:
    """Cap the scripts of the outputs that one transaction spends, in the order of its inputs."""
    outputs = tuple(outputs)
    sizes = [len(output.script_pubkey) for output in outputs]
    if max(sizes, default=0) <= LARGEST_KEPT and sum(sizes) < MOST_KEPT:
        return outputs
    cap = Capped().cap
    return tuple(output._replace(script_pubkey=cap(output.script_pubkey)) for output in outputs)


def mismatch(script: bytes, spending: TxIn) -> str | None:
    """Explain why an input cannot spend an output with this script; None if it can, as far as one sees."""
    script_sig = spending.script_sig
    if is_public_key_hash(script):
        # Old input scripts are not only pushes: the key may be pushed anywhere in them.
        reveals_key = script[3:23] in map(hash160, pushes(script_sig))
        return None if reveals_key else "it reveals no public key with the hash in that p2pkh script"
    if is_script_hash(script):
        revealed = _redeem_script(script_sig)
        if revealed is None or hash160(revealed) != script[2:22]:
            return "it reveals no script with the hash in that p2sh script"
    program = _program(script, script_sig)
    if program is None or program[0] > 1:
        return None
    if script_sig and not is_script_hash(script):
        return "it has an input script, which a segwit script does not allow"
    check = _mismatch_taproot if program[0] else _mismatch_v0
    return check(program[1], spending.witness)


def binds(script: bytes, spending: TxIn) -> bool:
    """Check whether an input that can spend this script shows that it spends no other one.

    It does if it reveals the key or the script that a hash in the script commits to, in a form that outputs
    of other kinds are not spent in: what spends a p2pkh script could else be taken for the script of a p2sh
    output. It never does for p2pk, bare multisig, p2tr spent by its key, and scripts of no standard form.
    Of scripts inside p2sh, only p2wpkh, p2wsh, multisig, p2pk and p2pkh have such a form. No script is run:
    whoever makes an input may have it reveal a key or script that its output does not ask for, as what is
    spent without rules does (an output that anyone can spend, a witness version of the future).
    """
    if mismatch(script, spending) is not None:
        return False
    script_sig, witness = spending.script_sig, spending.witness
    if is_public_key_hash(script):
        items = pushes(script_sig)
        is_usual = not witness and _has_only_pushes(script_sig) and _is_signature_and_key(items)
        return is_usual and hash160(items[1]) == script[3:23]
    if not is_script_hash(script):
        return _binds_program(_program(script, script_sig), witness)
    if witness:
        return _program(script, script_sig) is not None and len(pushes(script_sig)) == 1
    revealed = _redeem_script(script_sig) or b""
    return public_key(revealed) is not None or is_public_key_hash(revealed) or bool(multisig_keys(revealed))


def unusual_keys(script: bytes, spending: TxIn, *, fits: bool = True) -> tuple[str, ...] | None:
    """Return the public keys of an input if they are not `likely_keys`, else None.

    `fits`: `mismatch` has found nothing, so that a p2wpkh or p2tr script needs no second look.
    """
    if fits and script[:2] in _CERTAIN and witness_program(script) is not None:
        return None
    likely = likely_keys(script, spending.script_sig, spending.witness)
    keys = public_keys(script, spending.script_sig, spending.witness) if likely else likely
    return None if keys == likely else keys


def sighash(script: bytes, spending: TxIn) -> tuple[str, ...]:
    """Name the hash type of each signature with which an input spends this script, as bitcoind does.

    DEFAULT, ALL: everything in the transaction is signed; NONE: no output; SINGLE: only the output at the
    input's own position; each but DEFAULT with |ANYONECANPAY: no other input. Other numbers count as what
    the network takes them for. Data without a byte is not a signature.
    """
    script_sig, witness = spending.script_sig, spending.witness
    stack: Sequence[bytes]
    program = _program(script, script_sig)
    if program is None:
        stack = pushes(script_sig)
        if is_script_hash(script):
            *stack, script = stack or [b""]
        signatures = _ecdsa_signatures(script, stack, has_only_pushes=_has_only_pushes(script_sig))
    elif program[0] == 1:
        return tuple(_taproot_types(witness))
    elif program[0] == 0 and witness:
        if len(program[1]) == 20:
            script, stack = b"\x76\xa9\x14" + program[1] + b"\x88\xac", witness
        else:
            *stack, script = witness
        signatures = _ecdsa_signatures(script, stack, has_only_pushes=True)
    else:
        return ()
    return tuple(_name(signature[-1]) for signature in signatures if signature)


def _binds_program(program: tuple[int, bytes] | None, witness: Sequence[bytes]) -> bool:
    """Check whether a witness shows that it spends this witness program, and no other one."""
    if program is None or program[0] > 1:
        return False
    if program[0] == 1:
        stack = _without_annex(witness)
        return len(stack) > 1 and stack[-1][0] >= _FIRST_LEAF_VERSION
    return _is_signature_and_key(witness) if len(program[1]) == 20 else _is_witness_script(witness)


def _is_signature_and_key(items: Sequence[bytes]) -> bool:
    """Check whether these are what p2pkh and p2wpkh take: a signature, and a public key."""
    return len(items) == 2 and _is_der(items[0]) and is_key(items[1])


def _is_witness_script(witness: Sequence[bytes]) -> bool:
    """Check whether the last item can be a script, and not what spends p2tr or p2wpkh: key or control block.

    A script that begins with such a control block, or with an annex (BIP 341), would fail at its first byte.
    """
    script = witness[-1]
    is_taproot_signature = len(witness) == 1 and len(script) in {64, 65}
    is_whole = all(data is not None for _, data in operations(script))
    begins_as_no_script = script[:1] == bytes([_ANNEX]) or script[:1] >= bytes([_FIRST_LEAF_VERSION])
    return bool(script) and is_whole and not (is_taproot_signature or is_key(script) or begins_as_no_script)


def _program(script: bytes, script_sig: bytes) -> tuple[int, bytes] | None:
    """Return the witness program that an input is for; inside p2sh only version 0 has a meaning.

    Likewise version 1 has one only with 32 bytes (BIP 141, BIP 341).
    """
    if is_script_hash(script):
        revealed = _redeem_script(script_sig)
        program = None if revealed is None else witness_program(revealed)
        return program if program is not None and program[0] == 0 else None
    program = witness_program(script)
    return (2, b"") if program is not None and program[0] == 1 and len(program[1]) != 32 else program


def _has_only_pushes(script_sig: bytes) -> bool:
    return all(opcode <= OP_16 and data is not None for opcode, data in operations(script_sig))


def _redeem_script(script_sig: bytes) -> bytes | None:
    """Return the last push of an input script that has only pushes; None for any other (BIP 16)."""
    return next(reversed(pushes(script_sig)), None) if _has_only_pushes(script_sig) else None


def _mismatch_v0(program: bytes, witness: Sequence[bytes]) -> str | None:
    if len(program) == 20:
        if len(witness) != 2 or hash160(witness[1]) != program:
            return "it reveals no public key with the hash in that p2wpkh script"
    elif not witness or hashlib.sha256(witness[-1]).digest() != program:
        return "it reveals no script with the hash in that p2wsh script"
    return None


def _mismatch_taproot(output_key: bytes, witness: Sequence[bytes]) -> str | None:
    stack = _without_annex(witness)
    if not stack:
        return "it has no witness, as spending that p2tr script takes"
    if len(stack) == 1:
        size = len(stack[0])
        is_signature = size == 64 or (size == 65 and stack[0][-1] in _TAPROOT_HASH_TYPES)
        return None if is_signature else "its witness has no signature for that p2tr script's key"
    leaf, control = stack[-2:]
    if not _CONTROL_BASE <= len(control) <= _CONTROL_BASE + 128 * 32 or (len(control) - _CONTROL_BASE) % 32:
        return "its control block has a length that no p2tr script allows"
    try:
        committed = tweak(control[1:33], _tree_root(leaf, control))
    except ValueError as error:
        return f"its control block cannot belong to any p2tr script: {error}"
    if committed != (output_key, control[0] & 1 == 1):
        return "that p2tr script does not commit to the script that it reveals"
    return None


def _tree_root(leaf: bytes, control: bytes) -> bytes:
    """Compute the root of a tree of scripts from one of them and its path (BIP 341)."""
    node = tagged_hash("TapLeaf", bytes([control[0] & 0xFE]) + write_count(len(leaf)) + leaf)
    for at in range(_CONTROL_BASE, len(control), 32):
        node = tagged_hash("TapBranch", b"".join(sorted((node, control[at : at + 32]))))
    return node


def _without_annex(witness: Sequence[bytes]) -> Sequence[bytes]:
    has_annex = len(witness) > 1 and witness[-1][:1] == bytes([_ANNEX])
    return witness[:-1] if has_annex else witness


def _taproot_types(witness: Sequence[bytes]) -> Iterator[str]:
    stack = _without_annex(witness)
    for item in stack if len(stack) == 1 else stack[:-2]:
        if len(item) == 64:
            yield "DEFAULT"
        elif len(item) == 65 and item[-1] in _TAPROOT_HASH_TYPES:
            yield _name(item[-1])


def _ecdsa_signatures(script: bytes, stack: Sequence[bytes], *, has_only_pushes: bool) -> Sequence[bytes]:
    """Find the signatures among the items that a script gets.

    If the script shows which they are, they need not look like one: before BIP 66 many did not. Elsewhere
    whatever looks like one counts. An input script that does more than push may reorder its items, so that
    all of them count: a signature must not hide behind another item.
    """
    if is_public_key_hash(script):
        place = slice(-2, -1)
    elif public_key(script) is not None:
        place = slice(-1, None)
    elif multisig_keys(script):
        place = slice(-pushes(script)[0][0], None)
    else:
        return [item for item in stack if _is_der(item)]
    return stack[place] if has_only_pushes else stack


def _is_der(item: bytes) -> bool:
    """Check whether an item has the form of an ECDSA signature with a hash type (BIP 66)."""
    if len(item) not in _DER_SIZES or item[0] != 0x30 or item[1] != len(item) - 3 or item[2] != 2:
        return False
    size = item[3]
    return 5 + size < len(item) and item[4 + size] == 2 and size + item[5 + size] + 7 == len(item)


def _name(hash_type: int) -> str:
    name = {2: "NONE", 3: "SINGLE"}.get(hash_type & 0x1F, "ALL")
    return f"{name}|ANYONECANPAY" if hash_type & 0x80 else name
