"""How a serialized block is laid out: where each of its transactions begins and ends, and their ids."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from virtualchain.bitcoin.header import HEADER_SIZE, display_hash, sha256d
from virtualchain.bitcoin.transaction import long_count, transaction_id
from virtualchain.errors import MalformedBlock

LARGEST_BLOCK: Final = 4_000_000
"""Bytes: a byte weighs at least one unit (BIP 141)."""

Span = tuple[int, int, int]
"""Offsets in the block: where a transaction starts, where its outputs end, and where it ends."""


def split_transactions(raw: bytes) -> list[bytes]:
    """Split a serialized block into its serialized transactions; raises MalformedBlock."""
    return [raw[start:end] for start, _, end in _named_spans(raw)]


def txids(raw: bytes) -> list[str]:
    """Compute the transaction ids of a serialized block, in order; raises MalformedBlock."""
    return [
        transaction_id(raw[start:end], outputs_end - start) for start, outputs_end, end in _named_spans(raw)
    ]


@contextmanager
def naming_block(block: str) -> Iterator[None]:
    """Add the block's name to errors about its bytes."""
    try:
        yield
    except MalformedBlock as error:
        raise MalformedBlock(
            f"block {block} is damaged: {error}; fetch it again, or from another node"
        ) from error


def _named_spans(raw: bytes) -> list[Span]:
    with naming_block(display_hash(sha256d(raw[:HEADER_SIZE]))):
        return transaction_spans(raw)


def transaction_spans(raw: bytes) -> list[Span]:  # noqa: C901, PLR0912, PLR0915  calls would be slow
    """Find where the transactions of a block lie; the block must end with the last one.

    This runs over every byte of the chain, so every read is inlined, and a block that is too short is
    noticed late: by an IndexError or at the end.
    """
    spans: list[Span] = []
    try:
        count, at = raw[HEADER_SIZE], HEADER_SIZE + 1
        if count >= 0xFD:
            count, at = long_count(raw, at - 1)
        while len(spans) < count:
            start = at
            at += 4
            has_witness = not raw[at]
            if has_witness:
                if raw[at + 1] != 1:
                    raise MalformedBlock(f"transaction {len(spans)} has no input")
                at += 2
            spendings = raw[at]
            at += 1
            if spendings >= 0xFD:
                spendings, at = long_count(raw, at - 1)
            for _ in range(spendings):
                length = raw[at + 36]
                if length < 0xFD:
                    at += length + 41
                else:
                    length, at = long_count(raw, at + 36)
                    at += length + 4
            outputs = raw[at]
            at += 1
            if outputs >= 0xFD:
                outputs, at = long_count(raw, at - 1)
            for _ in range(outputs):
                length = raw[at + 8]
                if length < 0xFD:
                    at += length + 9
                else:
                    length, at = long_count(raw, at + 8)
                    at += length
            outputs_end = at
            if has_witness:
                for _ in range(spendings):
                    items = raw[at]
                    at += 1
                    if items >= 0xFD:
                        items, at = long_count(raw, at - 1)
                    for _ in range(items):
                        length = raw[at]
                        if length < 0xFD:
                            at += length + 1
                        else:
                            length, at = long_count(raw, at)
                            at += length
            at += 4
            spans.append((start, outputs_end, at))
    except IndexError as error:
        raise MalformedBlock(f"its bytes end inside transaction {len(spans)}") from error
    if at > len(raw):
        raise MalformedBlock(f"its bytes end inside transaction {len(spans) - 1}")
    if not spans:
        raise MalformedBlock("it has no transactions")
    if at < len(raw):
        raise MalformedBlock(f"{len(raw) - at} bytes follow its last transaction")
    return spans
