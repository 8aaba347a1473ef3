"""How a serialized block is laid out: where each of its transactions begins and ends, and their ids."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from virtualchain.bitcoin.compiled import hash_transactions, outpoints, walk_block
from virtualchain.bitcoin.encoding import plain_block
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, sha256d
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.bitcoin.transaction import hash_transaction, read_count
from virtualchain.errors import MalformedBlock

LARGEST_BLOCK: Final = 4_000_000
"""Bytes: a byte weighs at least one unit (BIP 141)."""
_MAINNET: Final = NETWORKS["mainnet"]
MOST_TRANSACTIONS: Final = LARGEST_BLOCK // (60 * 4)
"""In a block: one has 60 bytes or more, each of which weighs four units."""
_SMALLEST: Final = 12
"""Bytes: the walk takes nothing shorter for a transaction."""
_LONGEST_SEARCHED: Final = 255
"""Bytes of a magic that are searched for, as its length is written in one byte."""


@dataclass(frozen=True, slots=True)
class Search:
    """A search for OP_RETURN outputs that push one of some magics; made by `Search.of`."""

    magics: bytes
    """One after the other, each after its length."""
    firsts: bytes
    """1 at the place of every byte with which one of them starts."""

    @classmethod
    def of(cls, magics: Iterable[bytes]) -> "Search":
        """Prepare the search for some magics, none of them empty."""
        searched = sorted({magic[:_LONGEST_SEARCHED] for magic in magics})
        firsts = {magic[0] for magic in searched}
        return cls(
            b"".join(len(magic).to_bytes() + magic for magic in searched),
            bytes(byte in firsts for byte in range(256)),
        )


NO_SEARCH: Final = Search.of(())


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the transactions of a block are, by txindex, and what the walk over them saw."""

    raw: bytes = field(repr=False)
    search: Search = field(repr=False)
    starts: "array[int]"
    """Where each transaction starts; one more item is where the last one ends."""
    outputs_ends: "array[int]"
    """Where the outputs of each transaction end."""
    spendings: "array[int]"
    """How many inputs each transaction has."""
    coinbases: bytearray
    """1 for a transaction that has the form of a coinbase."""
    matches: bytearray
    """1 for a transaction with an output that the search matches."""

    def __len__(self) -> int:
        return len(self.matches)

    def transaction(self, txindex: int) -> bytes:
        """Cut a transaction out of the block."""
        return self.raw[self.starts[txindex] : self.starts[txindex + 1]]

    def has_witness(self, txindex: int) -> bool:
        """Check whether a transaction is serialized with a witness."""
        return not self.raw[self.starts[txindex] + 4]  # no count of inputs, but a marker (BIP 144)

    def digests(self) -> tuple[bytes, bytes]:
        """Hash all transactions without their witnesses, which makes their ids, and with them."""
        digests: tuple[bytes, bytes] = hash_transactions(self.raw, self.starts, self.outputs_ends)
        return digests

    def spends(self) -> list[bytes]:
        """List what each transaction spends, as outpoints one after the other; the coinbase: nothing."""
        return [b"", *(outpoints(self.raw, start) for start in self.starts[1:-1])]

    def txid(self, txindex: int) -> bytes:
        """Compute the id of a transaction, in display order."""
        end = self.outputs_ends[txindex] - self.starts[txindex]
        return hash_transaction(self.transaction(txindex), end)[::-1]

    def containing(self, patterns: Iterable[bytes]) -> set[int]:
        """Find the transactions that contain one of some byte strings, witness included."""
        txindexes = set()
        for pattern in patterns:
            at = self.raw.find(pattern, self.starts[0])
            while at >= 0:
                txindex = bisect_right(self.starts, at) - 1
                if at + len(pattern) <= self.starts[txindex + 1]:
                    txindexes.add(txindex)
                    at = self.raw.find(pattern, self.starts[txindex + 1])
                else:  # it begins in one transaction and ends in the next
                    at = self.raw.find(pattern, at + 1)
        return txindexes

    def matching(self) -> Iterator[int]:
        """Yield the transactions that the search matches."""
        txindex = self.matches.find(1)
        while txindex >= 0:
            yield txindex
            txindex = self.matches.find(1, txindex + 1)


def split_transactions(raw: bytes, network: Network = _MAINNET) -> list[bytes]:
    """Split a serialized block into its serialized transactions; raises MalformedBlock."""
    layout = _named_layout(raw, network)
    return [layout.transaction(txindex) for txindex in range(len(layout))]


def txids(raw: bytes, network: Network = _MAINNET) -> list[str]:
    """Compute the transaction ids of a serialized block, in order; raises MalformedBlock."""
    ids, _ = _named_layout(raw, network).digests()
    return [display_hash(ids[at : at + 32]) for at in range(0, len(ids), 32)]


@contextmanager
def naming_block(block: str) -> Iterator[None]:
    """Add the block's name to errors about its bytes."""
    try:
        yield
    except MalformedBlock as error:
        raise MalformedBlock(
            f"block {block} is damaged: {error}; fetch it again, or from another node"
        ) from error


def _named_layout(raw: bytes, network: Network) -> Layout:
    with naming_block(display_hash(sha256d(raw[:HEADER_SIZE]))):
        return walk(plain_block(raw, network))


def walk(raw: bytes, search: Search = NO_SEARCH) -> Layout:
    """Find where the transactions of a block in Bitcoin's encoding are; it must end with the last one.

    Raises MalformedBlock.
    """
    try:
        count, at = read_count(raw, HEADER_SIZE)
    except IndexError as error:
        raise MalformedBlock("its bytes end inside transaction 0") from error
    if not count:
        raise MalformedBlock("it has no transactions")
    room = min(count, len(raw) // _SMALLEST)  # a count may be a lie
    starts = array("I", bytes(4 * (room + 1)))
    outputs_ends, spendings = array("I", bytes(4 * room)), array("I", bytes(4 * room))
    coinbases, matches = bytearray(room), bytearray(room)
    end = walk_block(
        raw, at, count, search.firsts, search.magics, starts, outputs_ends, spendings, coinbases, matches
    )
    if end > len(raw):
        raise MalformedBlock(f"its bytes end inside transaction {count - 1}")
    if end < len(raw):
        raise MalformedBlock(f"{len(raw) - end} bytes follow its last transaction")
    return Layout(raw, search, starts, outputs_ends, spendings, coinbases, matches)
