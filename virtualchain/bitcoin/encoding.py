"""Other chains' encodings of blocks and transactions, which everything else sees in Bitcoin's encoding.

A header with an AuxPoW goes on with that after its 80 bytes, in answers, in files, and in front of a block's
transactions. On Litecoin, the last transaction of a block may be the HogEx, with a flag of its own, after
which the MWEB block follows; unconfirmed transactions have the same flag if they hold MWEB data. None of that
enters an id. What is taken away is not kept: the plain form is the same whatever a node is set to serve.
"""

from array import array
from typing import Final

from virtualchain.bitcoin.auxpow import auxpow_end, has_auxpow
from virtualchain.bitcoin.compiled import walk_block
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.parameters import Network
from virtualchain.bitcoin.transaction import read_count, skip_body
from virtualchain.errors import MalformedBlock
from virtualchain.model import Block

_SMALLEST: Final = 12
"""Bytes: the walk takes nothing shorter for a transaction."""
_NO_FIRSTS: Final = bytes(256)
_WITNESS: Final = 1
_MWEB: Final = 8
_FLAGS: Final = (_WITNESS, _MWEB, _WITNESS | _MWEB)


def header_size(raw: bytes, network: Network, at: int = 0) -> int:
    """Measure the header at `at`, with its AuxPoW if it has one; raises MalformedBlock if it ends early."""
    if network.auxpow_chain_id is None or not has_auxpow(raw, at):
        return HEADER_SIZE
    return auxpow_end(raw, at + HEADER_SIZE) - at


def read_whole_header(block_id: int, raw: bytes, network: Network) -> Block:
    """Read the header at the start of some bytes as the block at height `block_id`, with its AuxPoW.

    Raises MalformedBlock if it ends early.
    """
    size = header_size(raw, network)
    return read_header(block_id, raw[:HEADER_SIZE], bytes(raw[HEADER_SIZE:size]))


def read_headers(block_id: int, blob: bytes, network: Network, most: int | None = None) -> list[Block]:
    """Read concatenated headers of a network, the first of them at height `block_id`.

    Does not check that they form a chain. Raises MalformedBlock if the last one is truncated, or if there are
    more than `most`.
    """
    headers, at = list[Block](), 0
    while at < len(blob):
        if len(headers) == most:
            raise MalformedBlock(f"more than {most:,} headers")
        end = at + header_size(blob, network, at)
        header = blob[at : min(end, at + HEADER_SIZE)]
        headers.append(read_header(block_id + len(headers), header, blob[at + HEADER_SIZE : end]))
        at = end
    return headers


def plain_block(raw: bytes, network: Network) -> bytes:
    """Return a block of a network in Bitcoin's encoding: its header, and its transactions as they are hashed.

    Raises MalformedBlock for a block that is in neither encoding.
    """
    size = header_size(raw, network)
    if size != HEADER_SIZE:
        raw = raw[:HEADER_SIZE] + raw[size:]
    return _without_mweb_block(raw) if network.mweb_hrp else raw


def plain_transaction(raw: bytes, network: Network) -> bytes | None:
    """Return a transaction of a network in Bitcoin's encoding; None if there is nothing but MWEB data in it.

    What follows the MWEB flag in an unconfirmed transaction is not looked at. Raises MalformedBlock if the
    transaction ends before that.
    """
    if not network.mweb_hrp or len(raw) < _SMALLEST or raw[4] or not raw[5] & _MWEB:
        return raw
    if raw[5] == _MWEB and raw[6:8] == b"\0\0":
        return None
    plain, _ = _plain(raw, 0, is_in_block=False)
    return plain


def _without_mweb_block(raw: bytes) -> bytes:
    """Take the MWEB block away, and what marks the HogEx in front of it; only the last one can be that."""
    try:
        count, at = read_count(raw, HEADER_SIZE)
        if not 1 < count <= len(raw) // _SMALLEST:
            return raw  # the HogEx follows a coinbase; a wrong count is for others to report
        start = _walk(raw, at, count - 1)
        if raw[start + 4] or not raw[start + 5] & _MWEB:
            return raw
        plain, end = _plain(raw, start, is_in_block=True)
        if raw[end] > 1 or (raw[end] == 0 and end + 1 < len(raw)):
            raise MalformedBlock(f"{len(raw) - end} bytes after its HogEx are no MWEB block")
    except IndexError as error:
        raise MalformedBlock("its bytes end inside the HogEx, or before the MWEB block") from error
    return raw[:start] + plain


def _walk(raw: bytes, at: int, count: int) -> int:
    """Walk over `count` transactions and return where the last one ends."""
    places = [array("I", bytes(4 * (count + 1))) for _ in range(3)]
    flags = [bytearray(count) for _ in range(2)]
    end: int = walk_block(raw, at, count, _NO_FIRSTS, b"", *places, *flags)
    return end


def _plain(raw: bytes, start: int, *, is_in_block: bool) -> tuple[bytes, int]:
    """Read a transaction with the MWEB flag; return it in Bitcoin's encoding, and where it ends."""
    flags = raw[start + 5]
    if flags not in _FLAGS:
        raise MalformedBlock(f"a transaction has the flags {flags:#04x}, which do not exist")
    body = start + 6
    try:
        inputs, witness = skip_body(raw, body)
        at = witness
        for _ in range(inputs if flags & _WITNESS else 0):
            items, at = read_count(raw, at)
            for _ in range(items):
                length, at = read_count(raw, at)
                at += length
        has_data = raw[at]
    except IndexError as error:
        raise MalformedBlock("a transaction with the MWEB flag ends too early") from error
    if is_in_block and has_data:
        raise MalformedBlock("a transaction of a block holds MWEB data, which only unconfirmed ones may")
    end = at + 5 if is_in_block or not has_data else len(raw)
    if end > len(raw) or not inputs:
        raise MalformedBlock("a transaction with the MWEB flag has no input, or ends too early")
    marker = b"\0\x01" if flags & _WITNESS else b""
    parts = [raw[start : start + 4], marker, raw[body:witness], raw[witness:at], raw[end - 4 : end]]
    return b"".join(parts), end
