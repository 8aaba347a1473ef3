"""The scan: find the few transactions of a block that carry a registered payload, and decode only these.

A block has thousands of transactions, and usually none of them is an input, so a scan decodes few of them.
The walk over all transactions, which finds where each begins and ends and shows that the block is complete,
looks for outputs that are an OP_RETURN with a push and a magic on its way. The scan decodes the transactions
that match.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.gate import CheckedBlock
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
    MAX_MONEY,
    Transaction,
    pack_outputs,
    read_inputs,
    read_transaction,
    unpack_outputs,
)
from virtualchain.errors import MalformedBlock, MissingData
from virtualchain.model import (
    Block,
    Evidence,
    Input,
    Lazy,
    Output,
    PayloadRule,
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
    """A transaction in which payload rules found magics; `raw` is its serialization, witness included."""

    txindex: int
    transaction: Transaction
    raw: bytes
    magics: tuple[bytes, ...]
    """Distinct and sorted, so that the tape does not depend on the order of the apps."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The candidates that a scan found in a block, in the order of its transactions."""

    block: Block
    candidates: tuple[Candidate, ...]
    network: Network
    spendings: Sequence[int] = ()
    """How many outputs each of the block's transactions spends, the coinbase none; empty if not counted."""


class Scanner:
    """Searches raw blocks for the payloads that a set of watches asks for."""

    def __init__(self, watches: Sequence[Watch], network: Network) -> None:
        self._network = network
        self._watches = tuple(watches)
        self._everywhere = tuple(watch for watch in watches if not (watch.prefilter and watch.magic))
        self.search: Final = Search.of(watch.magic for watch in watches if watch.prefilter and watch.magic)
        """What a block's outputs are searched with when it is checked, which spares a second walk."""

    def scan(self, block: CheckedBlock) -> Scan:
        """Find the candidates in a block; raises MalformedBlock if one cannot be decoded."""
        with naming_block(f"{block.header.block_id} ({block.header.hash})"):
            searched = block.layout
            layout = searched if searched.search == self.search else walk(block.raw, self.search)
            candidates = tuple(self._candidates(layout))
            spendings = array("I", [0]) + layout.spendings[1:] if candidates else ()
            return Scan(block.header, candidates, self._network, spendings)

    def _candidates(self, layout: Layout) -> Iterator[Candidate]:
        for txindex in range(len(layout)) if self._everywhere else layout.matching():
            if txindex < 1:  # the coinbase never carries an input
                continue
            watches = self._watches if layout.matches[txindex] else self._everywhere
            raw = layout.transaction(txindex)
            transaction = read_transaction(raw, self._network)
            magics = _matching_magics(watches, transaction)
            if magics:
                yield Candidate(txindex, transaction, raw, tuple(sorted(magics)))


def inputs(scan: Scan, spent: Mapping[int, Sequence[SpentOutput]]) -> tuple[Input, ...]:
    """Join a scan's candidates with the outputs that they spend, as the tape stores them.

    `spent` maps a txindex to the spent outputs in the order of the transaction's inputs. Raises MissingData
    unless there is one for each input, and MalformedBlock if an input cannot spend what it is said to spend,
    or the amounts cannot be right.
    """
    evidence = spent.evidence if isinstance(spent, SpentOutputs) else "node"
    counts = spent.counts if isinstance(spent, SpentOutputs) else None
    if counts is not None and scan.spendings and array("I", counts) != array("I", scan.spendings):
        raise MalformedBlock(
            f"block {scan.block.block_id} ({scan.block.hash}): its transactions do not have as many inputs "
            "as spent outputs were reported for them"
        )
    spent_by = {each.txindex: capped(spent.get(each.txindex, ())) for each in scan.candidates}
    size = sum(len(each.raw) for each in scan.candidates)
    size += sum(len(output.script_pubkey) for outputs in spent_by.values() for output in outputs)
    return tuple(
        _input(scan, candidate, spent_by.pop(candidate.txindex), evidence, keeps=size <= MOST_KEPT)
        for candidate in scan.candidates
    )


def _matching_magics(watches: Iterable[Watch], transaction: Transaction) -> set[bytes]:
    """Collect the magics with which a payload starts, if an opcode follows; each function is called once.

    Two functions are both called even if their rules have one name: a digest of code does not show all.

    A rule that fails counts as a match: the app hits the error when it parses the input, and only this app
    halts. An error raised here would stop the tape for all apps.
    """
    payloads: dict[int, object] = {}
    magics: set[bytes] = set()
    for watch in watches:
        rule = id(watch.find_payload)
        if rule not in payloads:
            payloads[rule] = _payload(watch, transaction)
        payload = payloads[rule]
        if isinstance(payload, bytes):
            if len(payload) > len(watch.magic) and payload.startswith(watch.magic):
                magics.add(watch.magic)
        elif payload is not None:
            magics.add(watch.magic)
    return magics


def _payload(watch: Watch, transaction: Transaction) -> object:
    try:
        if isinstance(watch.find_payload, PayloadRule):
            return watch.find_payload.find([output.script_pubkey for output in transaction.paid])
        return watch.find_payload([output.as_dict() for output in transaction.outputs])
    except Exception as error:  # noqa: BLE001  an app's own code may raise anything
        return error


def _input(
    scan: Scan, candidate: Candidate, spent: Sequence[SpentOutput], evidence: Evidence, *, keeps: bool
) -> Input:
    block, network, transaction = scan.block, scan.network, candidate.transaction
    if len(spent) != len(transaction.inputs):
        raise MissingData(
            f"block {block.block_id} ({block.hash}): transaction {candidate.txindex} ({transaction.txid}) "
            f"spends {len(transaction.inputs)} outputs, but the node returned {len(spent)}: use a node that "
            "has connected this block and not pruned it"
        )
    is_checked = block.hash not in UNCHECKED_BLOCKS
    unusual: dict[int, Sequence[str]] = {}
    for n, (spending, output) in enumerate(zip(transaction.inputs, spent, strict=True)):
        problem = mismatch(output.script_pubkey, spending) if is_checked else None
        if problem is not None:
            raise MalformedBlock(
                f"block {block.block_id} ({block.hash}): input {n} of transaction {candidate.txindex} "
                f"({transaction.txid}) cannot spend {output.script_pubkey.hex()}: {problem}. What the "
                "transaction spends was reported wrongly; use another node"
            )
        keys = unusual_keys(output.script_pubkey, spending, fits=is_checked)
        if keys is not None:
            unusual[n] = keys
    packed = pack_outputs(spent)
    stored = StoredTransaction(candidate.raw, packed, network)
    return Input(
        block_id=block.block_id,
        txindex=candidate.txindex,
        txid=transaction.txid,
        raw=candidate.raw,
        magics=candidate.magics,
        senders=(
            Lazy(_senders, (transaction.inputs, spent, network))
            if keeps
            else Lazy(StoredTransaction.senders, stored)
        ),
        outputs=transaction.outputs if keeps else Lazy(StoredTransaction.outputs, stored),
        fee=_fee(scan.block, candidate, spent),
        spent=packed,
        unusual_keys=unusual or _NO_KEYS,
        evidence=evidence,
    )


@dataclass(slots=True)
class StoredTransaction:
    """A transaction as the tape has it, which is decoded when its senders or outputs are looked at."""

    raw: bytes
    spent: bytes
    """As in `Input`."""
    network: Network

    def senders(self) -> tuple[Sender, ...]:
        """Make its senders."""
        return _senders((read_inputs(self.raw), unpack_outputs(self.spent), self.network))

    def outputs(self) -> tuple[Output, ...]:
        """Make its outputs."""
        return tuple(read_transaction(self.raw, self.network).outputs)


def _fee(block: Block, candidate: Candidate, spent: Sequence[SpentOutput]) -> int:
    """Compute what a transaction spends beyond its outputs; raises MalformedBlock above what there can be."""
    paid = [output.value for output in candidate.transaction.paid]
    spends, pays = sum(output.value for output in spent), sum(paid)
    if spends > MAX_MONEY or pays > MAX_MONEY or min(paid, default=0) < 0:
        raise MalformedBlock(
            f"block {block.block_id} ({block.hash}): transaction {candidate.txindex} "
            f"({candidate.transaction.txid}) is said to spend {spends} satoshi, and pays {pays}: no chain "
            "holds that. What it spends was reported wrongly, or no node has checked it; use another node"
        )
    return spends - pays


def _senders(decoded: tuple[Sequence[TxIn], Sequence[SpentOutput], Network]) -> tuple[Sender, ...]:
    spendings, spent, network = decoded
    return tuple(
        _sender(spending, output, network) for spending, output in zip(spendings, spent, strict=True)
    )


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
