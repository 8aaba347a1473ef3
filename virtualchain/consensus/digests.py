"""Ops hash and consensus hash of a block, and which earlier hashes are mixed in."""

from binascii import unhexlify
from collections.abc import Iterable

from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.consensus.merkle import merkle_root
from virtualchain.errors import UsageError


def ops_hash(serialized_ops: Iterable[bytes]) -> str:
    """Hash a block's serialised ops, in whatever order they come, to 64 hex digits.

    No op counts as one empty string. The last of an odd row is repeated in the tree, so a list may
    share its hash with one that holds its last leaf twice (the shape of CVE-2012-2459): the hash says
    which ops a block has, not how often.
    """
    leaves = sorted(sha256d(op).hex() for op in serialized_ops)
    return merkle_root(leaves or [sha256d(b"").hex()])


def prior_block_ids(block_id: int, first_block_id: int) -> list[int]:
    """List the blocks whose consensus hashes are mixed into that of `block_id`, nearest first.

    They lie 1, 3, 7, 15 … below it and not below the app's first block.
    """
    ids = []
    gap = 1
    while block_id - gap >= first_block_id:
        ids.append(block_id - gap)
        gap = 2 * gap + 1
    return ids


def consensus_hash(ops_hash: str, prior: Iterable[str]) -> str:
    """Mix a block's ops hash (64 hex digits) and its prior hashes (32 each, in any order) to 32 hex digits.

    Raises UsageError where a hash has another length or is not lower-case hex.
    """
    hashes = [ops_hash, *prior]
    if len(ops_hash) != 64 or any(len(text) != 32 for text in hashes[1:]):
        raise UsageError("an ops hash has 64 hex digits, a consensus hash 32")
    root = merkle_root(sorted(hashes))
    return hash160(unhexlify(root))[:16].hex()
