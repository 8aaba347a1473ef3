"""Show, for a proof, that an op's transaction is in the chain: its Merkle branch, and headers."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import psycopg

from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, read_header, sha256d
from virtualchain.bitcoin.inclusion import Inclusion, inclusions
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.networks import network as find_network
from virtualchain.bitcoin.source import BlockSource
from virtualchain.bitcoin.spv import make_spv
from virtualchain.consensus.proof_file import LONGEST
from virtualchain.errors import DamagedTables, InvalidProof, UsageError
from virtualchain.model import Block, Json
from virtualchain.proof.ops import Place
from virtualchain.reading import views
from virtualchain.store.sql import queries

_Q = queries("proof")
MOST_HEADERS = LONGEST // (2 * HEADER_SIZE + 3) - 2**16
"""In one proof, so that there is room for the rest of the file."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What the tape has of the chain: the network, and the headers from an op's block on."""

    network: Network
    headers: Sequence[Block]


def read_stretch(connection: psycopg.Connection, first: int, last: int | None = None) -> Stretch:
    """Read headers of the tape, up to its tip or to block `last`; raises UsageError if that is not there."""
    name = views.network(connection)
    tip = connection.execute(_Q["tip"]).fetchall()[0][0]
    if name is None or tip is None or not first <= tip:
        raise UsageError(f"the tape does not have block {first}")
    last = tip if last is None else last
    if not first <= last <= tip:
        raise UsageError(
            f"the headers of the proof begin at block {first}, and the tape ends at block {tip}: they cannot "
            f"end at block {last}"
        )
    if last - first >= MOST_HEADERS:
        raise UsageError(
            f"{last - first + 1:,} headers are more than fit into a proof ({MOST_HEADERS:,}): let them end "
            f"earlier, at a block whose hash the receiver trusts, with --spv-to BLOCK"
        )
    rows = connection.execute(_Q["headers"], {"first": first, "last": last}).fetchall()
    return Stretch(find_network(name), [read_header(block_id, bytes(header)) for block_id, header in rows])


def show(place: Place, stretch: Stretch, open_source: Callable[[], BlockSource]) -> Json:
    """Return the part `spv` of a proof; a source is opened to fetch the block, and closed.

    Raises NodeError if the source does not have it, and DamagedTables if the tape has something else.
    """
    inclusion = _inclusion(place, stretch, open_source)
    txid = display_hash(sha256d(inclusion.transaction))
    if txid != place.txid:
        raise DamagedTables(
            f"transaction {place.txindex} of block {place.block_id} is {txid}, but the tape has "
            f"{place.txid}: `virtualchain verify` finds what else is wrong"
        )
    try:
        return make_spv(inclusion, stretch.headers, stretch.network)
    except InvalidProof as error:
        raise DamagedTables(f"nothing shows that transaction {txid} is in the chain: {error}") from error


def _inclusion(place: Place, stretch: Stretch, open_source: Callable[[], BlockSource]) -> Inclusion:
    """Find what shows that a transaction is in its block: the block itself is fetched for it."""
    header = stretch.headers[0]
    with closing(open_source()) as source:
        raw = source.raw_block(header.hash)
    block = CheckedBlock(header, raw, stretch.network, "merkle")
    [inclusion] = inclusions(block.layout, [place.txindex])
    return inclusion
