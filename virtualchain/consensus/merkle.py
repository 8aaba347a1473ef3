"""The reference network's Merkle trees and their paths.

A leaf is a hash, unhexed and byte-reversed; an odd row repeats its last; the root is reversed back.
A path is a netstring of netstrings, one for each row from the bottom up: `r-HASH` where the sibling
stands to the right, `l-HASH` to the left, and `m-HASH` alone in a tree of one leaf.
"""

import re
from binascii import unhexlify
from collections.abc import Iterable, Sequence

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import UsageError

_STEP = re.compile("([lmr])-((?:[0-9a-f]{2})+),")


def merkle_root(hashes: Sequence[str]) -> str:
    """Join hashes (lower-case hex, their lengths may differ) to their Merkle root, 64 hex digits.

    A single hash is its own root. Raises UsageError for no hashes and for what is no hash.
    """
    row = _leaves(hashes)
    while len(row) > 1:
        row = _parents(_even(row))
    return row[0][::-1].hex()


def merkle_path(hashes: Sequence[str], leaf: str) -> str:
    """Write the path from the first `leaf` among `hashes` up to their Merkle root.

    Raises UsageError where `leaf` is not among them.
    """
    if leaf not in hashes:
        raise UsageError(f"{leaf!r} is not a leaf of this tree")
    place = hashes.index(leaf)
    row = _leaves(hashes)
    steps = [] if len(row) > 1 else [("m", leaf)]
    while len(row) > 1:
        row = _even(row)
        steps.append(("l" if place % 2 else "r", row[place ^ 1][::-1].hex()))
        row = _parents(row)
        place //= 2
    return _write_path(steps)


def verify_merkle_path(root: str, path: str, leaf: str) -> bool:
    """Whether `path` leads from `leaf` to `root`; False, too, where any of them is malformed.

    A tree does not say how high it is, so the hash of an inner node has a path as well: whoever asks
    must know that `leaf` is a leaf. Unlike the reference, an `m` path is compared with the root.
    """
    steps: list[tuple[str, str]] = _STEP.findall(path)
    if not steps or _write_path(steps) != path:
        return False
    if steps == [("m", leaf)]:
        return leaf == root
    try:
        node = unhexlify(leaf)[::-1]
    except ValueError:
        return False
    for side, sibling_hex in steps:
        sibling = unhexlify(sibling_hex)[::-1]
        if side == "m":
            return False
        node = sha256d(sibling + node if side == "l" else node + sibling)
    return node[::-1].hex() == root


def _leaves(hashes: Sequence[str]) -> list[bytes]:
    if not hashes:
        raise UsageError("a Merkle tree needs at least one hash")
    try:
        leaves = [unhexlify(text) for text in hashes]
    except ValueError as error:
        raise UsageError(f"not a hash in hex: {error}") from error
    if b"".join(leaves).hex() != "".join(hashes):
        raise UsageError("hashes are written in lower-case hex")
    return [leaf[::-1] for leaf in leaves]


def _even(row: list[bytes]) -> list[bytes]:
    return [*row, row[-1]] if len(row) % 2 else row


def _parents(row: list[bytes]) -> list[bytes]:
    return [sha256d(left + right) for left, right in zip(row[::2], row[1::2], strict=True)]


def _write_path(steps: Iterable[tuple[str, str]]) -> str:
    return _netstring("".join(_netstring(f"{side}-{sibling}") for side, sibling in steps))


def _netstring(text: str) -> str:
    return f"{len(text)}:{text},"
