"""Hashes of transactions, Merkle roots and consensus hashes, as `hashes.c` computes them without hashlib."""

from collections.abc import Sequence
from itertools import pairwise

from virtualchain.consensus.digests import consensus_hash
from virtualchain.consensus.hashing import sha256d
from virtualchain.consensus.merkle import root_of_digests

__all__ = ["consensus_hash", "hash_transactions", "merkle_root"]


def hash_transactions(raw: bytes, starts: Sequence[int], outputs_ends: Sequence[int]) -> tuple[bytes, bytes]:
    """Hash the transactions of a block without their witnesses, which makes their ids, and with them.

    `starts` has one more item: where the last transaction ends. Returns the digests one after the other.
    """
    ids, whole = [], []
    for (start, end), outputs_end in zip(pairwise(starts), outputs_ends, strict=False):
        digest = sha256d(raw[start:end])
        whole.append(digest)
        if not raw[start + 4]:  # the marker of a witness (BIP 144)
            digest = sha256d(raw[start : start + 4] + raw[start + 6 : outputs_end] + raw[end - 4 : end])
        ids.append(digest)
    return b"".join(ids), b"".join(whole)


def merkle_root(digests: bytes) -> bytes:
    """Compute the Merkle root of one or more digests, one after the other."""
    return root_of_digests([digests[at : at + 32] for at in range(0, len(digests), 32)])
