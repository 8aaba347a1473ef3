"""Names as the network writes and hashes them (`names.md` §1)."""

import hashlib
import re
from typing import Final

from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names.refusal import needs

_NAME: Final = re.compile(rb"[a-z0-9_-]+\.[a-z0-9_-]+")
_NAMESPACE: Final = re.compile(rb"[a-z0-9_-]+")
_LONGEST_NAME: Final = 37
_LONGEST_NAMESPACE: Final = 19
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz-_.+"


def read_name(text: bytes) -> str:
    """Read a whole name, such as `judecn.id`; raises Refused for anything else."""
    needs(_NAME.fullmatch(text) is not None and len(text) <= _LONGEST_NAME, "this is no name")
    name = text.decode("ascii")
    needs(len(namespace_of(name)) <= _LONGEST_NAMESPACE, "its namespace's id is too long")
    return name


def read_namespace_id(text: bytes) -> str:
    """Read a namespace's id, such as `id`; raises Refused for anything else."""
    needs(
        _NAMESPACE.fullmatch(text) is not None and len(text) <= _LONGEST_NAMESPACE,
        "this is no namespace's id",
    )
    return text.decode("ascii")


def namespace_of(name: str) -> str:
    """Give the namespace's id of a whole name."""
    return name.partition(".")[2]


def b40(text: str) -> bytes:
    """Write text as a big-endian number of base 40, in as few whole bytes as hold it, one at least."""
    number = 0
    for character in text:
        number = 40 * number + _DIGITS.index(character)
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def preorder_hash(text: str, script: str, address: str) -> str:
    """Commit to a name or a namespace's id: 40 hex digits, from the sender's script (hex) and an address.

    The address is that of the recipient of the registration, import or reveal to come.
    """
    return hash160(b40(text) + bytes.fromhex(script) + address.encode("ascii")).hex()


def hash128(text: str) -> str:
    """Give the first 16 bytes of text's SHA-256 as hex."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]
