"""The node's unconfirmed transactions, as far as apps are to see them, in the order of a miner.

The node's list of ids is compared with the list before. Each new transaction is read and searched once, like
those of a block; only candidates are kept. Of those, the node is asked for fees, and for the transactions
that are connected to them and so have a say in their order. That is little, so an update costs what has
changed. What it shows is of one moment: a transaction that is gone when it is asked for, or a tip that
changes meanwhile, makes it look again.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Any, Final, NamedTuple

from virtualchain.bitcoin.block import Candidate, Scanner
from virtualchain.bitcoin.compiled import outpoints
from virtualchain.bitcoin.header import display_hash
from virtualchain.bitcoin.layout import Layout
from virtualchain.bitcoin.mining_order import Priced, mining_order
from virtualchain.bitcoin.node import answers
from virtualchain.bitcoin.node.answers import well_formed
from virtualchain.bitcoin.node.client import MOST_IN_BATCH, NotOffered
from virtualchain.bitcoin.node.news import News
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.source import Tip
from virtualchain.bitcoin.spending import capped, mismatch
from virtualchain.bitcoin.transaction import MAX_MONEY, Transaction, read_transaction
from virtualchain.errors import MalformedBlock, MissingData, NodeError, quoted
from virtualchain.model import OUTPOINT, SpentOutput, Watch

_ATTEMPTS: Final = 5
"""How often an update looks again while the node changes."""
_SEARCHED_AT_ONCE: Final = 4 * MOST_IN_BATCH
"""Transactions."""
_SHARE: Final = 20
"""What is only looked at in case that it has changed takes at most one part in so many of the time."""
_LONGEST_UNREAD: Final = 2.0
"""Seconds, or more if it takes long, after which the list is read although nothing shows a change."""
_LATEST: Final = 253_402_300_799
"""Unix time of the last second of the year 9999."""
_LARGEST_DELTA: Final = 2**63
_LARGEST_VSIZE: Final = 1_000_000_000
"""Virtual bytes: a transaction has at most a million, but a node may count signature checks for more."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A transaction that is in no block, as the node has it."""

    txid: str
    raw: bytes
    spent: tuple[SpentOutput, ...]
    """The outputs that its inputs spend, in their order. Where one was made is None if that is unconfirmed,
    too."""
    magics: tuple[bytes, ...]
    """As in `Candidate`."""
    fee: int
    """Satoshi."""
    vsize: int
    """Virtual bytes, by which the node counts it."""
    fee_rate: Decimal
    """Satoshi per virtual byte of this transaction alone."""
    seen_at: int
    """Unix time at which the node took it."""


@dataclass(slots=True)
class _Found:
    """A transaction that is to be shown, once everything about it is known."""

    transaction: Transaction
    raw: bytes
    magics: tuple[bytes, ...]
    spent: tuple[SpentOutput, ...] | None = None
    shown: Unconfirmed | None = None


class _Entry(NamedTuple):
    """What the node says about an unconfirmed transaction."""

    priced: Priced
    fee: int
    time: int
    children: Sequence[str]
    """Those of the time at which this was read."""


class Mempool:
    """Follows the unconfirmed transactions of a node; for use by one thread."""

    def __init__(
        self,
        source: NodeSource,
        watches: Sequence[Watch],
        *,
        tracks_outputs: bool = False,
        zmq: str | None = None,
    ) -> None:
        """Prepare to follow; `update` asks the node first.

        What carries a payload for one of the watches is shown, and with `tracks_outputs` everything. `zmq` is
        the address of the node's publisher of changes (`zmqpubsequence` in bitcoin.conf). Raises UsageError
        if that cannot be used.
        """
        self._source = source
        self._url, self._rpc = source.url, source.rpc
        self._scanner = Scanner(watches, source.network)
        self._shows_all = tracks_outputs
        self._known: set[str] = set()
        self._found: dict[str, _Found] = {}
        self._entries: dict[str, _Entry] = {}
        """Those of all transactions that are connected with those that are shown."""
        self._listed: tuple[Unconfirmed, ...] = ()
        self._tip: Tip | None = None
        self._signs: object = None
        self._is_in_doubt = True
        self._reading_due = self._entries_due = 0.0
        self._zmq = zmq
        self._news = News(self._read_signs, source.wake)

    def update(self) -> bool:
        """Read what has changed since the last call; return whether `transactions` is another list now.

        Raises NodeUnavailable; NodeError if the node's answers cannot be right, or if it does not answer what
        has to be asked. It can be called again after an error.
        """
        before = self._listed
        with self._naming_methods():
            self._read_changes()
            self._read_entries_again()
            self._listed = tuple(self._in_order())
        return self._listed != before

    def transactions(self) -> Sequence[Unconfirmed]:
        """Return those that are to be seen as of the last update, in the order in which a miner takes them.

        That order is explained in `bitcoin/mining_order.py`.
        """
        return self._listed

    def wait(self, timeout: float) -> bool:
        """Sleep until `update` may find something, at most `timeout` seconds; `wake` of the source ends it.

        Returns whether there may be something.
        """
        self._news.expect(timeout, self._signs)
        self._source.wait(timeout)
        return self._news.has_come()

    def close(self) -> None:
        """End the thread that waits for changes. The source stays open."""
        self._news.close()

    @contextmanager
    def _naming_methods(self) -> Iterator[None]:
        try:
            yield
        except (NotOffered, MissingData) as error:
            raise NodeError(
                f"{error}. Unconfirmed transactions are followed with getbestblockhash, getblockheader, "
                "getmempoolentry, getmempoolinfo, getrawmempool, getrawtransaction and gettxout: allow them "
                "in rpcwhitelist, and use a node of version 0.21 or later"
            ) from error

    # What is in the mempool

    def _read_changes(self) -> None:
        looks = []
        for _ in range(_ATTEMPTS):
            # Signs first: what changes after them shows at the next look.
            signs, tip = self._read_signs(), self._read_tip()
            looks.append((signs, tip))
            is_due = self._is_in_doubt or time.monotonic() >= self._reading_due
            if not is_due and (signs, tip) == (self._signs, self._tip):
                return
            if self._is_in_doubt:
                self._entries.clear()
            self._is_in_doubt = True
            self._move_to(tip)
            self._read_list()
            self._signs = signs
            self._find_spent()
            self._read_entries(self._found)
            if all(found.spent is not None for found in self._found.values()) and (
                self._found.keys() <= self._entries.keys()
            ):
                self._is_in_doubt = False
                return
        if len(set(looks)) == 1:
            self._raise_inconsistent()

    def _raise_inconsistent(self) -> None:
        for txid, found in self._found.items():
            if found.spent is None or txid not in self._entries:
                missing = "what it spends" if found.spent is None else "its fee"
                raise NodeError(
                    f"{self._url} lists transaction {txid} as unconfirmed and does not know {missing}"
                )

    def _read_signs(self) -> tuple[int, int, object]:
        """Read what hardly any change leaves as it is; costs next to nothing."""
        with well_formed(self._url, "getmempoolinfo"):
            info = self._rpc.call("getmempoolinfo")
            fees = info.get("total_fee")
            size, total = answers.whole_number(info["size"]), answers.whole_number(info["bytes"])
            return size, total, None if fees is None else answers.satoshi(fees)

    def _read_tip(self) -> Tip:
        with well_formed(self._url, "getbestblockhash"):
            block_hash = answers.block_hash(self._rpc.call("getbestblockhash"))
        if self._tip is not None and self._tip.hash == block_hash:
            return self._tip
        with well_formed(self._url, "getblockheader"):
            header = self._rpc.call("getblockheader", block_hash)
            return Tip(answers.height(header["height"]), block_hash)

    def _move_to(self, tip: Tip) -> None:
        """Forget what a block changes about transactions that are still there."""
        if tip == self._tip:
            return
        self._tip = tip
        self._entries.clear()
        for found in self._found.values():
            found.spent = None

    def _read_list(self) -> None:
        began = time.monotonic()
        with well_formed(self._url, "getrawmempool"):
            answer = self._rpc.call("getrawmempool", False, True)
            txids, _ = answer["txids"], answers.whole_number(answer["mempool_sequence"])
            listed = set(txids)
            new = [answers.block_hash(txid) for txid in txids if txid not in self._known]
        ended = time.monotonic()
        self._reading_due = ended + max(_LONGEST_UNREAD, _SHARE * (ended - began))
        for txid in self._known - listed:
            self._forget(txid)
        self._look_at(new)

    def _forget(self, txid: str) -> None:
        self._known.discard(txid)
        self._found.pop(txid, None)
        self._entries.pop(txid, None)

    def _look_at(self, txids: Iterable[str]) -> None:
        """Read new transactions and search them; those that the node no longer has are left out."""
        raws = self._read_raws(txids)
        attached: list[str] = []
        while batch := dict(islice(raws, _SEARCHED_AT_ONCE)):
            layout, candidates = self._search(batch)
            by_place = {each.txindex: each for each in candidates}
            for n, txid in enumerate(batch):
                candidate = by_place.get(n)
                if candidate is None and self._shows_all:
                    raw = layout.transaction(n)
                    candidate = Candidate(n, read_transaction(raw, self._source.network), raw, ())
                if candidate is not None:
                    self._found[txid] = _Found(candidate.transaction, candidate.raw, candidate.magics)
            self._known.update(batch)
            attached += self._attached(layout, list(batch))
        self._read_entries(attached)

    def _read_raws(self, txids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        asked = list(dict.fromkeys(txids))
        with well_formed(self._url, "getrawtransaction"):
            results = self._rpc.find_each("getrawtransaction", [(txid, 0) for txid in asked])
            for txid, result in zip(asked, results, strict=True):
                if result is not None:
                    yield txid, bytes.fromhex(result)

    def _search(self, raws: Mapping[str, bytes]) -> tuple[Layout, Sequence[Candidate]]:
        try:
            layout, candidates = self._scanner.scan_transactions(list(raws.values()))
        except MalformedBlock as error:
            raise NodeError(
                f"{self._url} answers getrawtransaction with bytes that are not that: {error}"
            ) from error
        ids, _ = layout.digests()
        for n, txid in enumerate(raws):
            actual = display_hash(ids[32 * n : 32 * n + 32])
            if actual != txid:
                raise NodeError(f"{self._url} answers a request for transaction {txid} with {actual}")
        return layout, candidates

    def _attached(self, layout: Layout, txids: Sequence[str]) -> Iterator[str]:
        """Find transactions that spend outputs of those whose entries are known."""
        if not self._entries:
            return
        for n, txid in enumerate(txids):
            spends = outpoints(layout.raw, layout.starts[n])
            if any(spends[at : at + 32].hex() in self._entries for at in range(0, len(spends), OUTPOINT)):
                yield txid

    # What candidates spend

    def _find_spent(self) -> None:
        """Find the spent outputs that are not known, as far as the node still has them and is at the tip."""
        waiting = [found for found in self._found.values() if found.spent is None]
        spends = [(each.txid, each.vout) for found in waiting for each in found.transaction.inputs]
        made = self._unconfirmed_outputs({txid for txid, _ in spends if txid in self._known})
        confirmed = [outpoint for outpoint in spends if outpoint[0] not in self._known]
        with well_formed(self._url, "gettxout"):
            results = self._rpc.call_each("gettxout", [(*outpoint, False) for outpoint in confirmed])
            outputs: dict[tuple[str, int], SpentOutput | None] = {
                outpoint: None if result is None else self._confirmed_output(result)
                for outpoint, result in zip(confirmed, results, strict=True)
            }
        for found in waiting:
            spent = [
                made[each.txid].paid[each.vout : each.vout + 1]
                if each.txid in made
                else (outputs.get((each.txid, each.vout)),)
                for each in found.transaction.inputs
            ]
            known = [output for each in spent for output in each if output is not None]
            if len(known) == len(found.transaction.inputs):
                self._check_spent(found, known)
                found.spent = capped(known)

    def _unconfirmed_outputs(self, txids: Collection[str]) -> dict[str, Transaction]:
        made = {txid: self._found[txid].transaction for txid in txids if txid in self._found}
        raws = self._read_raws(txid for txid in txids if txid not in made)
        while batch := dict(islice(raws, _SEARCHED_AT_ONCE)):
            self._search(batch)
            made |= {txid: read_transaction(raw, self._source.network) for txid, raw in batch.items()}
        return made

    def _confirmed_output(self, answer: Mapping[str, Any]) -> SpentOutput | None:
        """Read an output; None if the node is at another tip."""
        assert self._tip is not None, "the tip was read first"
        if answers.block_hash(answer["bestblock"]) != self._tip.hash:
            return None
        block_id = answers.height(self._tip.block_id - answers.whole_number(answer["confirmations"]) + 1)
        is_coinbase = answer["coinbase"]
        if not isinstance(is_coinbase, bool) or block_id > self._tip.block_id:
            raise TypeError(f"{quoted(answer)} does not say which block made an output")
        value, script = answers.satoshi(answer["value"]), bytes.fromhex(answer["scriptPubKey"]["hex"])
        return SpentOutput(value, script, 2 * block_id + is_coinbase)

    def _check_spent(self, found: _Found, spent: Sequence[SpentOutput]) -> None:
        for n, (spending, output) in enumerate(zip(found.transaction.inputs, spent, strict=True)):
            problem = mismatch(output.script_pubkey, spending)
            if problem is not None:
                raise NodeError(
                    f"{self._url} states that input {n} of transaction {found.transaction.txid} spends "
                    f"{output.script_pubkey.hex()}, which it cannot: {problem}"
                )

    # Fees, and the order

    def _read_entries(self, txids: Iterable[str]) -> None:
        """Read the entries of transactions, and of all that are connected with them."""
        ahead = {txid for txid in txids if txid not in self._entries}
        while ahead:
            asked, ahead = list(ahead), set()
            for txid, entry in self._entries_of(asked):
                self._entries[txid] = entry
                ahead.update(entry.priced.parents, entry.children)
            ahead = {txid for txid in ahead if txid not in self._entries}

    def _read_entries_again(self) -> None:
        """Read entries again once in a while: nothing shows that `prioritisetransaction` has changed one."""
        began = time.monotonic()
        if began < self._entries_due:
            return
        for txid, entry in self._entries_of(list(self._entries)):
            self._entries[txid] = entry
        ended = time.monotonic()
        self._entries_due = ended + _SHARE * (ended - began)

    def _entries_of(self, txids: Sequence[str]) -> Iterator[tuple[str, _Entry]]:
        with well_formed(self._url, "getmempoolentry"):
            results = self._rpc.find_each("getmempoolentry", [(txid,) for txid in txids])
            for txid, result in zip(txids, results, strict=True):
                if result is not None:
                    yield txid, self._entry(result)

    def _entry(self, answer: Mapping[str, Any]) -> _Entry:
        vsize, seen_at = answers.whole_number(answer["vsize"]), answers.whole_number(answer["time"])
        if not 0 < vsize <= _LARGEST_VSIZE or not 0 <= seen_at <= _LATEST:
            raise ValueError(f"a transaction of {vsize} vbytes at the time {seen_at}")
        fees = answer["fees"]
        modified = Decimal(fees["modified"]).scaleb(8)
        if not abs(modified) < _LARGEST_DELTA or modified != modified.to_integral_value():
            raise ValueError(f"a fee of {modified} satoshi")
        # Others have come or gone since the list was read.
        parents = [txid for txid in answer["depends"] if txid in self._known]
        children = [txid for txid in answer["spentby"] if txid in self._known]
        return _Entry(Priced(int(modified), vsize, parents), answers.satoshi(fees["base"]), seen_at, children)

    def _in_order(self) -> Iterator[Unconfirmed]:
        self._keep_connected()
        with well_formed(self._url, "getmempoolentry"):
            order = mining_order({txid: entry.priced for txid, entry in self._entries.items()})
        for txid in order:
            found = self._found.get(txid)
            if found is not None and found.spent is not None:
                yield self._shown(txid, found, found.spent)

    def _keep_connected(self) -> None:
        """Forget entries that are no longer connected with what is shown."""
        neighbors: dict[str, list[str]] = {txid: [] for txid in self._entries}
        for txid, entry in self._entries.items():
            for parent in entry.priced.parents:
                if parent in neighbors:
                    neighbors[parent].append(txid)
                    neighbors[txid].append(parent)
        kept: set[str] = set()
        ahead = [txid for txid in self._found if txid in neighbors]
        while ahead:
            txid = ahead.pop()
            if txid not in kept:
                kept.add(txid)
                ahead += neighbors[txid]
        for txid in self._entries.keys() - kept:
            del self._entries[txid]

    def _shown(self, txid: str, found: _Found, spent: tuple[SpentOutput, ...]) -> Unconfirmed:
        entry = self._entries[txid]
        fee, vsize = entry.fee, entry.priced.vsize
        spends = sum(output.value for output in spent)
        if spends - sum(output.value for output in found.transaction.paid) != fee or spends > MAX_MONEY:
            raise NodeError(
                f"{self._url} states {fee} satoshi as the fee of transaction {txid}, which spends {spends}"
            )
        shown = Unconfirmed(
            txid, found.raw, spent, found.magics, fee, vsize, Decimal(fee) / vsize, entry.time
        )
        if found.shown != shown:
            found.shown = shown
        return found.shown
