"""The scan: find the few transactions of a block that carry a registered payload, and decode only these.

A block has thousands of transactions, and usually none of them is an input, so a scan decodes few of them.
The walk over all transactions, which finds where each begins and ends and shows that the block is complete,
looks for outputs that are an OP_RETURN with a push and a magic on its way. The scan decodes the transactions
that match.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from virtualchain.bitcoin.compiled import can_spend, show_senders
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE
from virtualchain.bitcoin.inclusion import Tree
from virtualchain.bitcoin.layout import (
    LARGEST_BLOCK,
    Layout,
    Search,
    naming_block,
    split_transactions,
    txids,
    walk,
)
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.payload import payloads, starts_with_magic
from virtualchain.bitcoin.script import classify, public_keys
from virtualchain.bitcoin.spending import (
    UNCHECKED_BLOCKS,
    capped,
    is_substitute,
    mismatch,
    sighash,
    unusual_keys,
)
from virtualchain.bitcoin.transaction import (
    Transaction,
    pack_outputs,
    read_inputs,
    read_transaction,
    unpack_outputs,
    write_count,
)
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import (
    Block,
    Coinbase,
    Evidence,
    Input,
    Lazy,
    Output,
    Sender,
    SpentOutput,
    SpentOutputs,
    TxIn,
    Watch,
)

__all__ = [
    "LARGEST_BLOCK",
    "LARGEST_SPENDABLE_SCRIPT",
    "MOST_INPUTS",
    "MOST_KEPT",
    "Candidate",
    "Scan",
    "Scanner",
    "StoredTransaction",
    "Transaction",
    "inputs",
    "read_inputs",
    "read_transaction",
    "split_transactions",
    "txids",
]

MOST_INPUTS: Final = LARGEST_BLOCK // (41 * 4)
"""The most inputs in a block: one weighs four units for each of its 41 bytes."""
LARGEST_SPENDABLE_SCRIPT: Final = 10_000
"""Bytes: a longer output script cannot be spent."""
MOST_KEPT: Final = 1_000_000
"""Bytes of a block's inputs, and of what they spend, that are kept decoded, in ten times the memory; if
there are more, each is decoded when it is looked at."""
_NO_KEYS: Final[Mapping[int, Sequence[str]]] = {}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A transaction that an app is to see; `raw` is its serialization, witness included."""

    txindex: int
    transaction: Transaction
    raw: bytes
    magics: tuple[bytes, ...]
    """Those that payload rules found: distinct and sorted, so that the tape does not depend on the order of
    the apps. None, if only the outputs that it spends matter."""
    needs_heights: bool = False
    """Whether an app needs the heights of the outputs that it spends."""

    @property
    def spends(self) -> int:
        """How many outputs it spends: a coinbase none."""
        return len(self.transaction.inputs) if self.txindex else 0


@dataclass(frozen=True, slots=True)
class Scan:
    """The candidates that a scan found in a block, in the order of its transactions."""

    block: Block
    candidates: tuple[Candidate, ...]
    network: Network
    spendings: Sequence[int] = ()
    """How many outputs each of the block's transactions spends, the coinbase none; empty if not counted."""
    layout: Layout | None = None
    """The block's bytes, if apps that track outputs may ask for more of it."""
    tree: Tree | None = None
    """The Merkle tree over its transactions, if it was compared with the header."""

    def more(self, requested: Mapping[int, bool]) -> "Scan":
        """Return a scan whose candidates are these transactions, by txindex; the value: need of heights."""
        assert self.layout is not None, "the block was kept"
        candidates = []
        for txindex, needs_heights in sorted(requested.items()):
            raw = self.layout.transaction(txindex)
            candidates.append(Candidate(txindex, read_transaction(raw, self.network), raw, (), needs_heights))
        return replace(
            self, candidates=tuple(candidates), spendings=array("I", [0]) + self.layout.spendings[1:]
        )


class Scanner:
    """Searches raw blocks for the payloads that a set of watches asks for.

    With `keeps_blocks`, a scan keeps the block for apps that track outputs. `tracking` has the names of such
    apps, each with the rule by which the tape's coverage is kept: a source that hands out inputs needs both.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        network: Network,
        *,
        keeps_blocks: bool = False,
        tracking: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._network = network
        self._keeps_blocks = keeps_blocks
        self.tracking: Final = tracking
        self.watches: Final = tuple(watches)
        self._prefiltered = tuple(watch for watch in watches if watch.prefilter and watch.magic)
        self._patterned = tuple(
            watch for watch in watches if watch.patterns and watch not in self._prefiltered
        )
        self._everywhere = tuple(
            watch for watch in watches if watch not in (*self._prefiltered, *self._patterned)
        )
        self.search: Final = Search.of(watch.magic for watch in self._prefiltered)
        """What a block's outputs are searched with when it is checked, which spares a second walk."""

    def scan(self, block: CheckedBlock) -> Scan:
        """Find the candidates in a block; raises MalformedBlock if one cannot be decoded."""
        with naming_block(f"{block.header.block_id} ({block.header.hash})"):
            searched = block.layout
            layout = searched if searched.search == self.search else walk(block.raw, self.search)
            candidates = tuple(self._candidates(layout))
            spendings = array("I", [0]) + layout.spendings[1:] if candidates else ()
            kept = layout if self._keeps_blocks else None
            return Scan(block.header, candidates, self._network, spendings, kept, block.tree)

    def lay_out(self, raws: Sequence[bytes]) -> Layout:
        """Search transactions that are in no block, one or more; `candidates` picks those with a payload.

        Raises MalformedBlock if one of them is not exactly one transaction, or is a coinbase.
        """
        layout = walk(b"".join((bytes(HEADER_SIZE), write_count(len(raws)), *raws)), self.search)
        if any(layout.transaction(n) != raw for n, raw in enumerate(raws)):
            raise MalformedBlock("bytes follow a transaction's end")
        if any(layout.coinbases):
            raise MalformedBlock("a transaction in no block has the form of a coinbase")
        return layout

    def candidates(self, layout: Layout) -> Iterator[Candidate]:
        """Find the candidates among the transactions of `lay_out`; their txindex is their place there."""
        return self._candidates(layout, has_coinbase=False)

    def candidate(self, txindex: int, raw: bytes, magics: Collection[bytes]) -> Candidate | None:
        """Look for payloads in a transaction that was found before; None if there is none.

        Only watches for `magics`, with which it was found, look at it. Raises MalformedBlock.
        """
        watches = [each for each in self.watches if each.magic in magics and (txindex or each.takes_coinbase)]
        transaction = read_transaction(raw, self._network)
        matching, needs_heights = _matching_magics(watches, raw, transaction)
        if not matching:
            return None
        return Candidate(txindex, transaction, raw, tuple(sorted(matching)), needs_heights)

    def _candidates(self, layout: Layout, *, has_coinbase: bool = True) -> Iterator[Candidate]:
        for txindex, searched in self._searched(layout):
            # A coinbase carries an input only for a rule that says so.
            is_coinbase = has_coinbase and not txindex
            watches = [watch for watch in searched if watch.takes_coinbase or not is_coinbase]
            if not watches:
                continue
            raw = layout.transaction(txindex)
            transaction = read_transaction(raw, self._network)
            magics, needs_heights = _matching_magics(watches, raw, transaction)
            if magics:
                yield Candidate(txindex, transaction, raw, tuple(sorted(magics)), needs_heights)

    def _searched(self, layout: Layout) -> Iterator[tuple[int, Sequence[Watch]]]:
        """Yield the transactions that may have a payload, each with the watches that must look at it."""
        if self._everywhere:
            for txindex in range(len(layout)):
                yield txindex, self.watches if layout.matches[txindex] else self._unsearched
            return
        if not self._patterned:
            for txindex in layout.matching():
                yield txindex, self._prefiltered
            return
        by_place: defaultdict[int, list[Watch]] = defaultdict(list)
        for txindex in layout.matching():
            by_place[txindex] += self._prefiltered
        for watch in self._patterned:
            for txindex in layout.containing(watch.patterns):
                by_place[txindex].append(watch)
        yield from sorted(by_place.items(), key=lambda item: item[0])

    @property
    def _unsearched(self) -> Sequence[Watch]:
        return (*self._everywhere, *self._patterned)


def inputs(scan: Scan, spent: Mapping[int, Sequence[SpentOutput]]) -> tuple[Input, ...]:
    """Join a scan's candidates with the outputs that they spend, as the tape stores them.

    `spent` maps a txindex to the spent outputs in the order of the transaction's inputs. Raises MissingData
    unless there is one for each input, and MalformedBlock if an input cannot spend what it is said to spend,
    or the amounts cannot be right.
    """
    evidence = spent.evidence if isinstance(spent, SpentOutputs) else "node"
    is_checked = scan.block.hash not in UNCHECKED_BLOCKS and getattr(spent, "are_signed", True)
    counts = spent.counts if isinstance(spent, SpentOutputs) else None
    if counts is not None and scan.spendings and array("I", counts) != array("I", scan.spendings):
        raise MalformedBlock(
            f"block {scan.block.block_id} ({scan.block.hash}): its transactions do not have as many inputs "
            "as spent outputs were reported for them"
        )
    spent_by = {each.txindex: capped(spent.get(each.txindex, ())) for each in scan.candidates}
    coinbase = None if scan.tree is None else Coinbase(scan.tree.coinbase, scan.tree.branch(0))
    size = sum(len(each.raw) for each in scan.candidates)
    size += sum(len(output.script_pubkey) for outputs in spent_by.values() for output in outputs)
    return tuple(
        _input(
            scan,
            candidate,
            spent_by.pop(candidate.txindex),
            evidence,
            coinbase,
            is_checked=is_checked,
            keeps=size <= MOST_KEPT,
        )
        for candidate in scan.candidates
    )


def _matching_magics(
    watches: Iterable[Watch], raw: bytes, transaction: Transaction
) -> tuple[set[bytes], bool]:
    """Collect the magics with which a payload starts, if what must follow does; each rule is called once.

    Two functions are both called even if their rules have one name: a digest of code does not show all. With
    the magics comes whether the heights of the spent outputs are needed.

    A rule that fails counts as a match: the app hits the error when it parses the input, and only this app
    halts. An error raised here would stop the tape for all apps.
    """
    by_rule: dict[int, list[bytes] | None] = {}
    magics: set[bytes] = set()
    needs_heights = False
    for watch in watches:
        rule = id(watch.find_payload)
        if rule not in by_rule:
            by_rule[rule] = _payloads(watch, raw, transaction)
        payloads = by_rule[rule]
        if payloads is None or any(starts_with_magic(watch, payload) for payload in payloads):
            magics.add(watch.magic)
            needs_heights = needs_heights or watch.needs_heights
    return magics, needs_heights


def _payloads(watch: Watch, raw: bytes, transaction: Transaction) -> list[bytes] | None:
    """Find the payloads of a transaction; None if the rule fails."""
    try:
        return payloads(watch.find_payload, raw, transaction.outputs)
    except Exception:  # noqa: BLE001  an app's own code may raise anything
        return None


def _input(
    scan: Scan,
    candidate: Candidate,
    spent: Sequence[SpentOutput],
    evidence: Evidence,
    coinbase: Coinbase | None,
    *,
    is_checked: bool,
    keeps: bool,
) -> Input:
    block, network, transaction = scan.block, scan.network, candidate.transaction
    place = f"transaction {candidate.txindex} ({transaction.txid})"
    if len(spent) != candidate.spends:
        raise MissingData(
            f"block {block.block_id} ({block.hash}): {place} spends {candidate.spends} outputs, but the node "
            f"returned {len(spent)}: use a node that has connected this block and not pruned it"
        )
    # Whether a source states heights that nobody needs must not show on the tape.
    spent_at = _spent_at(spent) if candidate.needs_heights else None
    if candidate.needs_heights and spent_at is None:
        raise MissingData(
            f"block {block.block_id} ({block.hash}): {place} spends outputs whose heights an app needs, and "
            "this source does not know them: use a node of version 24 or later, or its block files"
        )
    if spent_at and is_checked and not 0 <= min(spent_at) <= max(spent_at) <= 2 * block.block_id:
        raise MalformedBlock(
            f"block {block.block_id} ({block.hash}): {place} is said to spend outputs that were made later. "
            "What it spends was reported wrongly; use another node"
        )
    fee = _fee(scan, candidate, spent) if candidate.txindex else 0
    packed = pack_outputs(spent)
    unusual: dict[int, Sequence[str]] = {}
    spendings = transaction.inputs[: len(spent)]
    is_usual = can_spend(candidate.raw, packed, network.forms)
    for n, (spending, output) in enumerate(() if is_usual else zip(spendings, spent, strict=True)):
        problem = mismatch(output.script_pubkey, spending) if is_checked else None
        if problem is not None:
            raise MalformedBlock(
                f"block {block.block_id} ({block.hash}): input {n} of {place} cannot spend "
                f"{output.script_pubkey.hex()}: {problem}. What the transaction spends was reported wrongly; "
                "use another node"
            )
        keys = unusual_keys(output.script_pubkey, spending, fits=is_checked)
        if keys is not None:
            unusual[n] = keys
    stored = StoredTransaction(
        candidate.raw, packed, network, spent_at, (spendings, spent) if keeps else None
    )
    return Input(
        block_id=block.block_id,
        txindex=candidate.txindex,
        txid=transaction.txid,
        raw=candidate.raw,
        magics=candidate.magics,
        senders=Lazy(StoredTransaction.senders, stored),
        outputs=transaction.outputs if keeps else Lazy(StoredTransaction.outputs, stored),
        fee=fee,
        spent=packed,
        unusual_keys=unusual or _NO_KEYS,
        evidence=evidence,
        spent_at=spent_at,
        branch=None if scan.tree is None else scan.tree.branch(candidate.txindex),
        coinbase=coinbase,
    )


def _spent_at(spent: Sequence[SpentOutput]) -> tuple[int, ...] | None:
    """Return where outputs were made, as `Input.spent_at`; None if one is unknown."""
    places = tuple(output.made_at for output in spent)
    return None if None in places else places  # type: ignore[return-value]  # there is no None among them


@dataclass(slots=True)
class StoredTransaction:
    """A transaction as the tape has it, which is decoded when its senders or outputs are looked at."""

    raw: bytes
    spent: bytes
    """As in `Input`."""
    network: Network
    spent_at: Sequence[int] | None = None
    """As in `Input`."""
    decoded: tuple[Sequence[TxIn], Sequence[SpentOutput]] | None = None
    """Its inputs and what they spend, if they are kept."""

    def senders(self) -> tuple[Sender, ...]:
        """Make its senders."""
        shown = show_senders(self.raw, self.spent, self.network.forms)
        if shown is not None:
            places = self._places(len(shown))
            return tuple(
                [Sender._make((*fields, place)) for fields, place in zip(shown, places, strict=True)]
            )
        spendings, spent = self.decoded or (read_inputs(self.raw), unpack_outputs(self.spent))
        places = self._places(len(spent))
        # A coinbase spends nothing.
        return tuple(
            _sender(spending, output, self.network)._replace(made_at=place)
            for spending, output, place in zip(spendings[: len(spent)], spent, places, strict=True)
        )

    def _places(self, count: int) -> Sequence[int | None]:
        return [None] * count if self.spent_at is None else self.spent_at

    def outputs(self) -> tuple[Output, ...]:
        """Make its outputs."""
        return tuple(read_transaction(self.raw, self.network).outputs)


def _fee(scan: Scan, candidate: Candidate, spent: Sequence[SpentOutput]) -> int:
    """Compute what a transaction spends beyond its outputs; raises MalformedBlock above what there can be."""
    paid = [output.value for output in candidate.transaction.paid]
    taken = [output.value for output in spent]
    spends, pays = sum(taken), sum(paid)
    largest = scan.network.largest_amount
    if spends > largest or pays > largest or min([*paid, *taken, 0]) < 0:
        raise MalformedBlock(
            f"block {scan.block.block_id} ({scan.block.hash}): transaction {candidate.txindex} "
            f"({candidate.transaction.txid}) is said to spend {spends} satoshi, and pays {pays}: no chain "
            "holds that. What it spends was reported wrongly, or no node has checked it; use another node"
        )
    return spends - pays


def _sender(spending: TxIn, spent: SpentOutput, network: Network) -> Sender:
    script = spent.script_pubkey
    script_type, addresses = ("nonstandard", ()) if is_substitute(script) else classify(script, network)
    return Sender(
        txid=spending.txid,
        vout=spending.vout,
        value=spent.value,
        script_pubkey=script.hex(),
        type=script_type,
        addresses=addresses,
        public_keys=public_keys(script, spending.script_sig, spending.witness),
        sighash=sighash(script, spending),
    )
