"""Hashes of transactions, Merkle trees and consensus hashes, as `hashes.c` computes them without hashlib."""

from collections.abc import Sequence
from itertools import pairwise, zip_longest

from virtualchain.consensus.digests import consensus_hash
from virtualchain.consensus.hashing import sha256d

__all__ = ["consensus_hash", "hash_transactions", "merkle_rows"]


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


def merkle_rows(digests: bytes) -> bytes:
    """Compute the Merkle tree over one or more digests, one after the other.

    Returns its rows from the bottom up, so that it begins with the digests and ends with the root.
    """
    row = [digests[at : at + 32] for at in range(0, len(digests), 32)]
    if not row:
        raise ValueError("a Merkle tree needs at least one hash")
    rows = [digests]
    while len(row) > 1:
        row = [sha256d(left + right) for left, right in zip_longest(row[::2], row[1::2], fillvalue=row[-1])]
        rows.append(b"".join(row))
    return b"".join(rows)
