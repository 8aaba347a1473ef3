"""Blocks: find the few transactions of a block that carry a payload, and decode only these.

A block holds thousands of transactions and mostly none of ours, so a scan decodes few of them: it walks over
all to find where they begin and end, which also shows that the block is whole; it searches the raw bytes for
OP_RETURN, a push and a magic; and it decodes the transactions that the search hit.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from virtualchain import consensus
from virtualchain.bitcoin.header import HEADER_SIZE, display, read_header, sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.script import classify, public_keys
from virtualchain.bitcoin.transaction import (
    Transaction,
    long_count,
    read_inputs,
    read_transaction,
    transaction_id,
)
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import Block, Input, Sender, SpentOutput, TxIn, Watch

__all__ = [
    "Candidate",
    "Scan",
    "Scanner",
    "Transaction",
    "inputs",
    "merkle_root",
    "read_inputs",
    "read_transaction",
    "split_transactions",
    "txids",
]

_Place = tuple[int, int, int]
"""Where a transaction starts, where its outputs end, where it ends."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transaction in which payload rules found magics; `raw` is its serialisation, witness included."""

    txindex: int
    transaction: Transaction
    raw: bytes
    magics: tuple[bytes, ...]
    """The magics found, without repeats and sorted: no order of apps shows in the tape."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found in a block, in the order of its transactions."""

    block: Block
    candidates: tuple[Candidate, ...]
    network: Network


class Scanner:
    """Looks through raw blocks for what a set of watches asks for."""

    def __init__(self, watches: Sequence[Watch], network: Network) -> None:
        self._network = network
        self._watches = tuple(watches)
        self._everywhere = tuple(watch for watch in watches if not (watch.prefilter and watch.magic))
        self._search = _search({watch.magic for watch in watches if watch.prefilter and watch.magic})

    def scan(self, block_id: int, raw: bytes) -> Scan:
        """Find the candidates of the serialised block `raw`, which stands at height `block_id`.

        Bytes that are no whole block raise MalformedBlock, also where nothing was to be found in them.
        """
        block = read_header(block_id, raw[:HEADER_SIZE])
        with _naming(f"{block_id} ({block.hash})"):
            return Scan(block, tuple(self._candidates(raw, _walk(raw))), self._network)

    def _candidates(self, raw: bytes, places: Sequence[_Place]) -> Iterator[Candidate]:
        hits = () if self._search is None else self._search.finditer(raw, HEADER_SIZE)
        starts = [start for start, _, _ in places]
        hit_txindexes = {bisect_right(starts, hit.start()) - 1 for hit in hits}
        for txindex in range(len(places)) if self._everywhere else sorted(hit_txindexes):
            if txindex < 1:  # the coinbase never carries an input
                continue
            watches = self._watches if txindex in hit_txindexes else self._everywhere
            start, _, end = places[txindex]
            transaction = read_transaction(raw[start:end], self._network)
            magics = _magics(watches, transaction)
            if magics:
                yield Candidate(txindex, transaction, raw[start:end], tuple(sorted(magics)))


def inputs(scan: Scan, spent: Mapping[int, Sequence[SpentOutput]]) -> tuple[Input, ...]:
    """Join a scan's candidates with what they spend, as the tape keeps them.

    `spent` gives, by txindex, the spent outputs in the order of the transaction's inputs; where there are
    not as many of them this raises MissingData.
    """
    return tuple(_input(scan, found, spent.get(found.txindex, ())) for found in scan.candidates)


def split_transactions(raw: bytes) -> list[bytes]:
    """Cut a serialised block into its serialised transactions; raises MalformedBlock."""
    return [raw[start:end] for start, _, end in _every_place(raw)]


def txids(raw: bytes) -> list[str]:
    """Compute the transaction ids of a serialised block, in order; raises MalformedBlock."""
    return [
        transaction_id(raw[start:end], outputs_end - start) for start, outputs_end, end in _every_place(raw)
    ]


def merkle_root(raw: bytes) -> str:
    """Compute the Merkle root of a serialised block's transactions, as its header should state it.

    Raises MalformedBlock, also where a transaction occurs twice: a block with its last ones repeated can
    have the same root, so the root would say nothing about it (CVE-2012-2459).
    """
    found = txids(raw)
    if len(set(found)) != len(found):
        with _naming(_hash(raw)):
            raise MalformedBlock("a transaction occurs twice")
    return consensus.merkle_root(found)


def _hash(raw: bytes) -> str:
    return display(sha256d(raw[:HEADER_SIZE]))


def _every_place(raw: bytes) -> list[_Place]:
    with _naming(_hash(raw)):
        return _walk(raw)


@contextmanager
def _naming(block: str) -> Iterator[None]:
    """Name the block in the errors of what reads its bytes."""
    try:
        yield
    except MalformedBlock as error:
        raise MalformedBlock(
            f"block {block} is damaged: {error}; fetch it anew, or from another node"
        ) from error


def _search(magics: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Compile the search for OP_RETURN, a push in any of its forms, and a magic.

    Only OP_RETURN is consumed, the rest is looked at: a hit that starts inside another one is met as well.
    """
    choice = b"|".join(re.escape(magic) for magic in sorted(magics))
    if not choice:
        return None
    push = rb"[\x01-\x4b]|\x4c.|\x4d..|\x4e...."
    return re.compile(rb"\x6a(?=(?:%b)(?:%b))" % (push, choice), re.DOTALL)


def _magics(watches: Iterable[Watch], transaction: Transaction) -> set[bytes]:
    """Give the magics that a payload begins with, and an opcode behind it; each rule is asked once.

    A rule that fails counts as a find: the app meets the error when it parses the input, and that halts
    only this app, where an error here would stop the tape for all.
    """
    payloads: dict[str, object] = {}
    found: set[bytes] = set()
    for watch in watches:
        if watch.rule not in payloads:
            payloads[watch.rule] = _payload(watch, transaction)
        payload = payloads[watch.rule]
        if isinstance(payload, bytes):
            if len(payload) > len(watch.magic) and payload.startswith(watch.magic):
                found.add(watch.magic)
        elif payload is not None:
            found.add(watch.magic)
    return found


def _payload(watch: Watch, transaction: Transaction) -> object:
    try:
        return watch.find_payload([output.as_dict() for output in transaction.outputs])
    except Exception as error:  # noqa: BLE001  an app's own code may raise anything
        return error


def _input(scan: Scan, found: Candidate, spent: Sequence[SpentOutput]) -> Input:
    block, transaction = scan.block, found.transaction
    if len(spent) != len(transaction.inputs):
        raise MissingData(
            f"block {block.block_id} ({block.hash}): transaction {found.txindex} ({transaction.txid}) spends "
            f"{len(transaction.inputs)} outputs, but {len(spent)} came from the node: use one that has "
            "connected this block and not pruned it"
        )
    return Input(
        block_id=block.block_id,
        txindex=found.txindex,
        txid=transaction.txid,
        raw=found.raw,
        magics=found.magics,
        senders=tuple(
            _sender(spending, output, scan.network)
            for spending, output in zip(transaction.inputs, spent, strict=True)
        ),
        outputs=transaction.outputs,
        fee=sum(output.value for output in spent) - sum(output.value for output in transaction.outputs),
    )


def _sender(spending: TxIn, spent: SpentOutput, network: Network) -> Sender:
    script_type, addresses = classify(spent.script_pubkey, network)
    witness = [bytes.fromhex(item) for item in spending.witness]
    return Sender(
        txid=spending.txid,
        vout=spending.vout,
        value=spent.value,
        script_pubkey=spent.script_pubkey.hex(),
        type=script_type,
        addresses=addresses,
        public_keys=public_keys(spent.script_pubkey, bytes.fromhex(spending.script_sig), witness),
    )


def _walk(raw: bytes) -> list[_Place]:  # noqa: C901, PLR0912, PLR0915  calls would be slow
    """Find the transactions of a block, which must end with the last one.

    Every read is inlined, and bytes that run out are noticed late, by an IndexError or at the end: this runs
    over every byte of ours.
    """
    places: list[_Place] = []
    try:
        count, at = raw[HEADER_SIZE], HEADER_SIZE + 1
        if count >= 0xFD:
            count, at = long_count(raw, at - 1)
        while len(places) < count:
            start = at
            at += 4
            has_witness = not raw[at]
            if has_witness:
                if raw[at + 1] != 1:
                    raise MalformedBlock(f"transaction {len(places)} has no input")
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
            places.append((start, outputs_end, at))
    except IndexError as error:
        raise MalformedBlock(f"its bytes end inside transaction {len(places)}") from error
    if at > len(raw):
        raise MalformedBlock(f"its bytes end inside transaction {len(places) - 1}")
    if not places:
        raise MalformedBlock("it holds no transaction")
    if at < len(raw):
        raise MalformedBlock(f"{len(raw) - at} bytes stand behind its last transaction")
    return places
