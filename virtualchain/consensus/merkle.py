"""The reference network's Merkle trees and their paths, on which ops hash and consensus hash are built.

A leaf is a hash, decoded from hex and byte-reversed. An odd row repeats its last node. The root is reversed
back. A path is a netstring of netstrings, one for each row from the bottom up: `r-HASH` if the sibling is on
the right, `l-HASH` if it is on the left, and a single `m-HASH` for a tree of one leaf.
"""

import re
from binascii import unhexlify
from collections.abc import Iterable, Sequence

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import UsageError, quoted

_STEP = re.compile("([lmr])-((?:[0-9a-f]{2})+),")


def merkle_root(hashes: Sequence[str]) -> str:
    """Compute the Merkle root (64 hex digits) of hashes in lower-case hex, whose lengths may differ.

    A single hash is its own root. Raises UsageError if there is no hash or one is malformed.
    """
    return root_of_digests(_leaves(hashes))[::-1].hex()


def root_of_digests(row: list[bytes]) -> bytes:
    """Compute the Merkle root of one or more digests, all in the order in which they were computed."""
    while len(row) > 1:
        row = _parents(_even(row))
    return row[0]


def shortest_length(row: list[bytes]) -> int:
    """Return how many of one or more leaves make the same root, if those of repeated nodes are cut off.

    A row of an odd number of nodes repeats the last one, so if a row of an even number ends with two equal
    ones, the root is the same without the last. No more than that may repeat, as two nodes are not their own
    root. `row` may as well have what leaves are made from, one to one.
    """
    rows = [row]
    while len(rows[-1]) > 2:
        rows.append(_parents(_even(rows[-1])))
    length, level = len(row), 0
    while level < len(rows):
        nodes = (length + (1 << level) - 1) >> level
        if nodes > 2 and nodes % 2 == 0 and rows[level][nodes - 1] == rows[level][nodes - 2]:
            # The nodes above stay as they are, and so do those below that are left.
            length, level = (nodes - 1) << level, 0
        else:
            level += 1
    return length


def merkle_path(hashes: Sequence[str], leaf: str) -> str:
    """Write the path from the first occurrence of `leaf` in `hashes` up to their Merkle root.

    Raises UsageError if `leaf` is not one of them.
    """
    if leaf not in hashes:
        raise UsageError(f"{quoted(leaf)} is not a leaf of this tree")
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
    """Check whether `path` leads from `leaf` to `root`; a malformed argument makes the answer False.

    A tree does not state its height, so the hash of an inner node has a path too: the caller must know that
    `leaf` is a leaf. Unlike the reference, an `m` path is compared with the root.
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
        raise UsageError("hashes must be in lower-case hex")
    return [leaf[::-1] for leaf in leaves]


def _even(row: list[bytes]) -> list[bytes]:
    return [*row, row[-1]] if len(row) % 2 else row


def _parents(row: list[bytes]) -> list[bytes]:
    return [sha256d(left + right) for left, right in zip(row[::2], row[1::2], strict=True)]


def _write_path(steps: Iterable[tuple[str, str]]) -> str:
    return _netstring("".join(_netstring(f"{side}-{sibling}") for side, sibling in steps))


def _netstring(text: str) -> str:
    return f"{len(text)}:{text},"
