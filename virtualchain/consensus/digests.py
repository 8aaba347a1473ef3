"""From an op's fields to a block's consensus hash: canonical bytes, ops hash, and the prior hashes mixed in.

The reference implementation printed values with Python 2's `str()`. This module prints what it printed, and
rejects what it could not print, what a database cannot keep, and what would differ between two machines.
"""

import math
from binascii import unhexlify
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.consensus.merkle import merkle_root, root_of_digests
from virtualchain.consensus.values import MAX_INT_BITS, foreign_value, invalid_value
from virtualchain.errors import InvalidOp, Unserializable, UsageError, quoted

_HASHABLE: Final = "None, bool, int, float, str and lists of ints"
_LARGEST_PYTHON2_INT: Final = 2**63 - 1
EMPTY_OPS_HASH: Final = merkle_root([sha256d(b"").hex()])
"""The ops hash of a block without ops."""


def serialize_op(opcode: bytes, op: Mapping[str, object], fields: Sequence[str]) -> bytes:
    """Serialize an op: the opcode, a colon, and the texts of `fields` as netstrings joined by commas.

    The fields are written in the order of `fields`; any other field of the op is ignored. Raises InvalidOp
    for a field that is missing, Unserializable for one that cannot be hashed (`docs/protocol/consensus.md`).
    """
    missing = [field for field in fields if field not in op]
    if missing:
        raise InvalidOp(
            f"op {quoted(opcode)} has no {', '.join(missing)}: every hashed field is required; "
            "set it in every op, or declare the fields with types, so that inputs without it are rejected"
        )
    pairs = [(op[field], field) for field in fields]
    texts = [
        _decimal(value, field) if type(value) is int else text_of(value, field) for value, field in pairs
    ]
    return opcode + b":" + b",".join(b"%d:%s" % (len(text), text) for text in texts)


def text_of(value: object, field: str = "value") -> bytes:
    """Print a hashed value (None, bool, int, float, str or a list of ints) as UTF-8.

    Raises Unserializable, with the name of `field`, for any other type, text that is not valid Unicode (a
    lone surrogate), a float that is not finite, and an int of more than 2048 bits. If the type is not one of
    JSON's, that is an InvalidOp.
    """
    match value:
        case None:
            return b""
        case bool():
            return b"True" if value else b"False"
        case str():
            return _utf8(value, field)
        case int():
            return _decimal(value, field)
        case float():
            return _twelve_digits(value, field)
        case list():
            return b"[%s]" % b", ".join(_list_item(item, field, value) for item in value)
        case _:
            raise _unhashable(value, field, f"a {type(value).__name__} cannot be hashed; {_HASHABLE} can")


def ops_hash(serialized_ops: Iterable[bytes]) -> str:
    """Hash a block's serialized ops to 64 hex digits; their order does not matter.

    A block without ops is hashed as one empty string. The Merkle tree repeats the last node of an odd row, so
    a list of ops may have the same hash as the list with its last leaf repeated (CVE-2012-2459): the hash
    determines which ops a block has, but not how many times each occurs.
    """
    return ops_hash_of_digests(map(sha256d, serialized_ops))


def ops_hash_of_digests(
    digests: Iterable[bytes], root: Callable[[list[bytes]], bytes] = root_of_digests
) -> str:
    """Hash a block's ops as `ops_hash` does, from the `sha256d` of each, in any order.

    `root` computes the Merkle root of one or more digests.
    """
    leaves = [digest[::-1] for digest in sorted(digests)]
    return root(leaves)[::-1].hex() if leaves else EMPTY_OPS_HASH


def prior_block_ids(block_id: int, first_block_id: int) -> list[int]:
    """List the blocks whose consensus hashes are mixed into that of `block_id`, nearest first.

    They are 1, 3, 7, 15 … blocks below it, down to the app's first block.
    """
    ids = []
    gap = 1
    while block_id - gap >= first_block_id:
        ids.append(block_id - gap)
        gap = 2 * gap + 1
    return ids


def consensus_hash(ops_hash: str, prior: Iterable[str]) -> str:
    """Mix a block's ops hash (64 hex digits) with its prior consensus hashes (32 hex digits each, any order).

    Returns 32 hex digits. Raises UsageError if a hash has another length or is not lower-case hex.
    """
    hashes = [ops_hash, *prior]
    if len(ops_hash) != 64 or any(len(text) != 32 for text in hashes[1:]):
        raise UsageError("an ops hash has 64 hex digits, a consensus hash 32")
    root = merkle_root(sorted(hashes))
    return hash160(unhexlify(root))[:16].hex()


def _utf8(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unserializable(
            f"field {field!r}: character {error.start} is a lone surrogate, which UTF-8 cannot encode"
        ) from error


def _decimal(number: int, field: str) -> bytes:
    if number.bit_length() > MAX_INT_BITS:
        raise Unserializable(f"field {field!r}: an int of more than {MAX_INT_BITS} bits")
    return b"%d" % number


def _twelve_digits(number: float, field: str) -> bytes:
    if not math.isfinite(number):
        raise Unserializable(f"field {field!r}: {number} is not a number that JSON can represent")
    text = b"%.12g" % number
    return text if b"." in text or b"e" in text else text + b".0"


def _unhashable(value: object, field: str, reason: str) -> Unserializable:
    foreign = foreign_value(value)
    if foreign is not None:
        return invalid_value(foreign, f"field {field!r}", "cannot be hashed")
    return Unserializable(f"field {field!r}: {reason}")


def _list_item(item: object, field: str, items: list[object]) -> bytes:
    if isinstance(item, bool) or not isinstance(item, int):
        raise _unhashable(items, field, f"a list may contain ints only, not a {type(item).__name__}")
    text = _decimal(item, field)
    # Inside a list Python 2 printed the repr, which marks an int that does not fit a machine word.
    return text if -_LARGEST_PYTHON2_INT - 1 <= item <= _LARGEST_PYTHON2_INT else text + b"L"
