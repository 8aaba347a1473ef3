"""Scripts: types and addresses as bitcoind reports them, OP_RETURN payloads, and the keys of inputs."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from virtualchain.bitcoin.compiled import write_address, write_base58
from virtualchain.bitcoin.networks import Network
from virtualchain.consensus.hashing import hash160

OP_PUSHDATA1: Final = 0x4C
OP_PUSHDATA4: Final = 0x4E
OP_1: Final = 0x51
OP_16: Final = 0x60
OP_RETURN: Final = 0x6A
OP_EQUAL: Final = 0x87
OP_CHECKSIG: Final = 0xAC
OP_CHECKMULTISIG: Final = 0xAE

_ANNEX: Final = b"\x50"
_MAX_MULTISIG_KEYS = 20
_KEY_SIZES: Final = {2: 33, 3: 33, 4: 65, 6: 65, 7: 65}
"""Bytes of a public key by its first byte; 6 and 7 are the hybrid form that the network still accepts."""
_ANCHOR_PROGRAM: Final = bytes.fromhex("4e73")
_MWEB_OUTPUTS: Final = {8: "witness_mweb_hogaddr", 9: "witness_mweb_pegin"}
"""Types of what marks an MWEB block, and of what enters one, by witness version; they have no address."""


def operations(script: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Walk a script: yield each opcode with the bytes that it pushes, empty if it pushes none.

    A push that runs past the end of the script yields None instead of bytes, and ends the walk.
    """
    at = 0
    while at < len(script):
        opcode = script[at]
        if opcode > OP_PUSHDATA4:
            at += 1
            yield opcode, b""
        else:
            start, at = _push(script, at)
            yield opcode, script[start:at] if at <= len(script) else None


def pushes(script: bytes) -> list[bytes]:
    """List the data that a script pushes, up to a push that is truncated; OP_0 pushes empty data."""
    pushed = []
    for opcode, data in operations(script):
        if data is None:
            break
        if opcode <= OP_PUSHDATA4:
            pushed.append(data)
        elif OP_1 <= opcode <= OP_16:
            pushed.append(bytes([opcode - OP_1 + 1]))
    return pushed


def push(data: bytes) -> bytes:
    """Write a script's push of `data` in its shortest form, but never as OP_1 to OP_16."""
    size = len(data)
    if size < OP_PUSHDATA1:
        return bytes([size]) + data
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    return bytes([OP_PUSHDATA1 + width // 2]) + size.to_bytes(width, "little") + data


def op_return(payload: bytes) -> bytes:
    """Write the output script that carries a payload: OP_RETURN and one push."""
    return bytes([OP_RETURN]) + push(payload)


def push_height(block_id: int) -> bytes:
    """Write the script with which the coinbase at a height begins (BIP 34)."""
    if block_id <= 16:
        return bytes([OP_1 - 1 + block_id if block_id else 0])
    number = block_id.to_bytes(block_id.bit_length() // 8 + 1, "little")
    return bytes([len(number)]) + number


def op_return_payload(script: bytes) -> bytes | None:
    """Return the data of the single push after an OP_RETURN, or None if the script is anything else.

    A push that runs past the end of the script yields the bytes that are there, possibly none (extraction
    rules, `docs/protocol/consensus.md`).
    """
    if len(script) < 2 or script[0] != OP_RETURN or not 1 <= script[1] <= OP_PUSHDATA4:
        return None
    start, end = _push(script, 1)
    return script[start:end] if end >= len(script) else None


def classify(script: bytes, network: Network) -> tuple[str, tuple[str, ...]]:
    """Return a script's type as current versions of bitcoind name it, and its address if it has one.

    pubkey, multisig, nulldata and nonstandard have no address; no type has more than one.
    """
    program = witness_program(script)
    if program is not None and network.segwit_block_id is not None:
        return _classify_witness(*program, network)
    if is_script_hash(script):
        return "scripthash", (write_base58(network.p2sh + script[2:22]),)
    if is_public_key_hash(script):
        return "pubkeyhash", (write_base58(network.p2pkh + script[3:23]),)
    return _type_without_address(script), ()


def leaf_script(witness: Sequence[bytes]) -> bytes | None:
    """Return the script that a taproot script-path spend reveals, None without one (BIP 341).

    Only the witness is looked at: neither that the spent output is taproot, nor the control block.
    """
    has_annex = len(witness) > 1 and witness[-1][:1] == _ANNEX
    items = witness[:-1] if has_annex else witness
    return items[-2] if len(items) > 1 else None


def public_keys(script_pubkey: bytes, script_sig: bytes, witness: Sequence[bytes]) -> tuple[str, ...]:
    """List the public keys (hex) that an input reveals and the spent script commits to, in script order.

    A multisig script has all of its keys listed, whoever signed; taproot has the 32-byte output key. There
    are none if the script commits to no key, or the input does not match the commitment.
    """
    return _revealed_keys(script_pubkey, script_sig, witness, _commits_to)


def likely_keys(script_pubkey: bytes, script_sig: bytes, witness: Sequence[bytes]) -> tuple[str, ...]:
    """List the public keys like `public_keys`, without computing hashes: as if each commitment were kept.

    The key that a hash stands for is taken to be the last item on the stack. The database's views show these
    keys, unless they are known to be others.
    """
    return _revealed_keys(
        script_pubkey, script_sig, witness, lambda commitment, _: len(commitment) in {20, 32}
    )


def _commits_to(commitment: bytes, data: bytes) -> bool:
    return commitment == (hash160(data) if len(commitment) == 20 else hashlib.sha256(data).digest())


def _revealed_keys(
    script_pubkey: bytes,
    script_sig: bytes,
    witness: Sequence[bytes],
    commits_to: Callable[[bytes, bytes], bool],
) -> tuple[str, ...]:
    program = witness_program(script_pubkey)
    if program is not None and program[0] == 1 and len(program[1]) == 32:
        return (program[1].hex(),)
    stack: Sequence[bytes] = pushes(script_sig)
    script = script_pubkey
    if is_script_hash(script):
        if not stack or not commits_to(script[2:22], stack[-1]):
            return ()
        *stack, script = stack
        program = witness_program(script)
    if program is not None:
        return tuple(key.hex() for key in _witness_keys(*program, witness, commits_to))
    return tuple(key.hex() for key in _committed_keys(script, stack, commits_to))


def _push(script: bytes, at: int) -> tuple[int, int]:
    """Return where the data of the push at `at` starts and ends; both may be past the end of the script."""
    opcode = script[at]
    if opcode < OP_PUSHDATA1:
        return at + 1, at + 1 + opcode
    start = at + 1 + (1 << (opcode - OP_PUSHDATA1))
    return start, start + int.from_bytes(script[at + 1 : start], "little")


def _is_push_only(script: bytes) -> bool:
    # OP_RESERVED counts as a push here, as it does in Bitcoin Core.
    return all(opcode <= OP_16 and data is not None for opcode, data in operations(script))


def is_script_hash(script: bytes) -> bool:
    """Check whether an output script is p2sh."""
    return len(script) == 23 and script[:2] == b"\xa9\x14" and script[22] == OP_EQUAL


def is_public_key_hash(script: bytes) -> bool:
    """Check whether an output script is p2pkh."""
    return len(script) == 25 and script[:3] == b"\x76\xa9\x14" and script[23:] == b"\x88\xac"


def witness_program(script: bytes) -> tuple[int, bytes] | None:
    """Return the version and program of a segwit output script (BIP 141)."""
    if not 4 <= len(script) <= 42 or script[1] + 2 != len(script):
        return None
    if script[0] == 0:
        return 0, script[2:]
    if OP_1 <= script[0] <= OP_16:
        return script[0] - OP_1 + 1, script[2:]
    return None


def _classify_witness(version: int, program: bytes, network: Network) -> tuple[str, tuple[str, ...]]:
    if version == 0:
        names = {20: "witness_v0_keyhash", 32: "witness_v0_scripthash"}
        if len(program) not in names:
            return "nonstandard", ()
        name = names[len(program)]
    elif version == 1 and len(program) == 32:
        name = "witness_v1_taproot"
    elif version == 1 and program == _ANCHOR_PROGRAM:
        name = "anchor"
    elif network.mweb_hrp and version in _MWEB_OUTPUTS and len(program) == 32:
        return _MWEB_OUTPUTS[version], ()
    else:
        name = "witness_unknown"
    if not network.bech32_hrp:
        return name, ()
    return name, (write_address(network.bech32_hrp, version, program),)


def _type_without_address(script: bytes) -> str:
    if script[:1] == bytes([OP_RETURN]) and _is_push_only(script[1:]):
        return "nulldata"
    if public_key(script) is not None:
        return "pubkey"
    return "multisig" if multisig_keys(script) else "nonstandard"


def is_key(data: bytes) -> bool:
    """Check whether data have the form of a public key."""
    return bool(data) and _KEY_SIZES.get(data[0]) == len(data)


def public_key(script: bytes) -> bytes | None:
    """Return the key of a pay-to-public-key script."""
    key = script[1:-1]
    if len(script) >= 35 and script[0] == len(key) and script[-1] == OP_CHECKSIG and is_key(key):
        return key
    return None


def multisig_keys(script: bytes) -> list[bytes]:
    """List the keys of a script `m <key> … n OP_CHECKMULTISIG`; empty for any other script."""
    if script[-1:] != bytes([OP_CHECKMULTISIG]):
        return []
    walk = operations(script)
    required = _small_number(*next(walk))
    keys: list[bytes] = []
    for opcode, data in walk:
        if data is None or not is_key(data):
            fits = 1 <= required <= _small_number(opcode, data) == len(keys)
            return keys if fits and list(walk) == [(OP_CHECKMULTISIG, b"")] else []
        keys.append(data)
    return []


def _small_number(opcode: int, data: bytes | None) -> int:
    """Read a number from 1 to 20 in its one minimal form, else return 0; above 16 that is a one-byte push."""
    if OP_1 <= opcode <= OP_16:
        return opcode - OP_1 + 1
    if opcode == 1 and data is not None and 16 < data[0] <= _MAX_MULTISIG_KEYS:
        return data[0]
    return 0


def _committed_keys(
    script: bytes, stack: Sequence[bytes], commits_to: Callable[[bytes, bytes], bool]
) -> list[bytes]:
    """List the keys in `script`, or the one on `stack` whose hash it contains."""
    key = public_key(script)
    if key is not None:
        return [key]
    if is_public_key_hash(script):
        return next(([data] for data in reversed(stack) if commits_to(script[3:23], data)), [])
    return multisig_keys(script)


def _witness_keys(
    version: int, program: bytes, witness: Sequence[bytes], commits_to: Callable[[bytes, bytes], bool]
) -> list[bytes]:
    if version != 0 or not witness or not commits_to(program, witness[-1]):
        return []
    if len(program) == 20:
        return [witness[-1]]
    return _committed_keys(witness[-1], witness[:-1], commits_to)
