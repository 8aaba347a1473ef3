"""The node's unconfirmed transactions, as far as apps are to see them, in the order of a miner.

Which ones the node has follows from its list of ids, and then from the changes that it publishes, or else
from the next list. Each new transaction is read and searched once, like those of a block, and only those that
apps are to see are kept. Of these, the node is asked for fees, and for the transactions that are connected
with them and so have a say in their order. That is little, so an update costs what has changed. What it shows
is of one moment: if a transaction is gone when it is asked for, or the tip changes meanwhile, it looks again.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Final

from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.compiled import outpoints
from virtualchain.bitcoin.header import display_hash
from virtualchain.bitcoin.layout import Layout
from virtualchain.bitcoin.mining_order import Priced, mining_order
from virtualchain.bitcoin.node.client import MOST_IN_BATCH
from virtualchain.bitcoin.node.news import Change, News
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.node.questions import Best, Entry, Questions, Signs
from virtualchain.bitcoin.source import Tip
from virtualchain.bitcoin.spending import capped, mismatch
from virtualchain.bitcoin.transaction import Transaction, read_transaction, split_outpoints
from virtualchain.errors import MalformedBlock, NodeError
from virtualchain.model import SpentOutput, Watch

_ATTEMPTS: Final = 6
"""How often an update looks again while the node changes."""
_TRUSTING: Final = 3
"""Of these, how often it waits for changes that are to be published, before it reads the list."""
_ON_THE_WAY: Final = 0.005
"""Seconds that it waits then."""
_SEARCHED_AT_ONCE: Final = 4 * MOST_IN_BATCH
"""Transactions."""
_SHARE: Final = 20
"""What is read although nothing shows that it has changed takes at most one part in so many of the time."""
_SHARE_OF_LISTS: Final = 4
"""Lists that are read because something has changed take at most one part in so many, as far as `wait` sees
to it."""
_LONGEST_UNREAD: Final = 2.0
"""Seconds, or more if it takes long, after which the list is read although nothing shows a change."""
_DOUBTFUL: Final = 0.1
"""Seconds until the next update is due after one that did not see everything."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A transaction that is in no block, as the node has it."""

    txid: str
    raw: bytes
    spent: tuple[SpentOutput, ...]
    """The outputs that its inputs spend, in their order; `made_at` is None if that is unconfirmed, too."""
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
class _Kept:
    """A transaction that is to be shown, once everything about it is known."""

    transaction: Transaction
    raw: bytes
    magics: tuple[bytes, ...]
    spent: tuple[SpentOutput, ...] | None = None
    shown: Unconfirmed | None = None


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
        """Prepare to follow; the first `update` asks the node.

        Transactions with a payload for one of the watches are shown. With `tracks_outputs`, all are, or those
        that `track` asks for. `zmq` is the address of the node's publisher of changes (`zmqpubsequence` in
        bitcoin.conf). Raises UsageError if that cannot be used.
        """
        self._source = source
        self._questions = Questions(source.url, source.rpc, source.network)
        self._scanner = Scanner(watches, source.network)
        self._news = News(self._questions.signs, source.wake, zmq)
        self._known: set[str] = set()
        """All unconfirmed transactions: each was searched."""
        self._kept: dict[str, _Kept] = {}
        self._entries: dict[str, Entry] = {}
        """Those of all transactions that are connected with those that are kept."""
        self._listed: tuple[Unconfirmed, ...] = ()
        self._best: Best | None = None
        self._signs: Signs | None = None
        self._number: int | None = None
        """That of the next change; None if changes are not published."""
        self._changes: list[Change] = []
        self._publishes = zmq is not None
        self._is_in_doubt = True
        self._has_changed = False
        """Whether what is listed may no longer be what is known."""
        self._list_time = 0.0
        self._list_due = self._entries_due = 0.0
        self._spends = _Spends() if tracks_outputs else None
        self._tracked: Collection[bytes] | None = None

    def update(self) -> bool:
        """Read what has changed since the last call; return whether `transactions` is another list now.

        Raises NodeUnavailable; NodeError if the node's answers cannot be right, or if it does not answer what
        has to be asked. It can be called again after an error.
        """
        self._news.start()
        self._read_changes()
        self._read_entries_again()
        if not self._has_changed:
            return False
        before = self._listed
        try:
            self._listed = tuple(self._in_order())
        except NodeError:  # nothing that it answered is to be trusted
            self._is_in_doubt = True
            for kept in self._kept.values():
                kept.spent = None
            raise
        self._has_changed = False
        return self._listed != before

    def transactions(self) -> Sequence[Unconfirmed]:
        """Return those that are to be seen as of the last update, in the order in which a miner takes them.

        The order is that of `virtualchain/bitcoin/mining_order.py`.
        """
        return self._listed

    @property
    def tip(self) -> Tip | None:
        """The block on top of which the last update saw them; None before it."""
        return None if self._best is None else Tip(self._best.block_id, self._best.hash)

    def spends(self) -> Collection[bytes]:
        """Return all outpoints that unconfirmed transactions spend, with `tracks_outputs`; see `OUTPOINT`."""
        assert self._spends is not None, "it tracks outputs"
        return self._spends.spenders.keys()

    def new_spends(self) -> Sequence[bytes]:
        """Return the outpoints that transactions spend which have come since the last call."""
        assert self._spends is not None, "it tracks outputs"
        new, self._spends.new = self._spends.new, []
        return new

    def track(self, tracked: Collection[bytes]) -> None:
        """From the next update on, show only candidates and those that spend one of these outpoints.

        What spends an output of a transaction that is shown is shown, too. Before the first call, everything
        is, which takes more time and memory the more there is.
        """
        self._tracked = tracked
        self._is_in_doubt = True

    def wait(self, timeout: float) -> bool:
        """Sleep until `update` may find something, at most `timeout` seconds; `wake` of the source ends it.

        Returns whether there may be something.
        """
        was_in_doubt = self._is_in_doubt
        self._news.expect(self._signs, (_SHARE_OF_LISTS - 1) * self._list_time)
        try:
            self._source.wait(min(timeout, _DOUBTFUL) if was_in_doubt else timeout)
        finally:
            has_come = self._news.has_come()
        message = self._news.silence()
        if message is not None:
            self._source.notify(message)
        return has_come or was_in_doubt

    def close(self) -> None:
        """End the thread that waits for changes. The source stays open."""
        self._news.close()

    # What is in the mempool

    def _read_changes(self) -> None:
        """Read until what is kept is complete, or leave some of it for the next update."""
        looks, has_changes = [], False
        for attempt in range(_ATTEMPTS):
            # Signs first: what changes after them shows at the next look.
            signs, best = self._questions.signs(), self._questions.best(self._best)
            self._changes += self._news.changes()
            has_changes = has_changes or bool(self._changes)
            is_due = self._is_in_doubt or best != self._best or time.monotonic() >= self._list_due
            can_follow = not is_due and attempt < _TRUSTING
            if can_follow and signs == self._signs and not self._changes:
                return
            self._is_in_doubt, was_in_doubt = True, self._is_in_doubt
            if can_follow and self._follow():
                is_all = has_changes and signs.transactions == len(self._known)
            else:
                looks.append((signs, best))
                self._read_list(best, trusts_entries=not was_in_doubt)
                is_all = True
            if self._complete():
                self._is_in_doubt, self._signs = False, signs if is_all else None
                if is_all:
                    return
                time.sleep(_ON_THE_WAY)
        if self._is_in_doubt and len(set(looks)) == 1:
            self._raise_inconsistent()

    def _follow(self) -> bool:
        """Take the changes that were published; return False if that cannot be all, or none are published."""
        changes, self._changes = self._changes, []
        added: dict[str, None] = {}
        for change in changes:
            if self._number is None or change.number > self._number:
                return False
            if change.number == self._number:  # else it was in the list
                self._number += 1
                added.pop(change.txid, None)
                if change.has_come:
                    added[change.txid] = None
                else:
                    self._forget(change.txid)
        self._look_at(txid for txid in added if txid not in self._known)
        return self._number is not None

    def _read_list(self, best: Best, *, trusts_entries: bool) -> None:
        """Compare what is known with the node's list."""
        if best != self._best:
            is_next = self._best is not None and best.parent == self._best.hash
            for kept in self._kept.values():
                # The block may have confirmed it; other branches may have outputs at other heights.
                if kept.spent and not (is_next and all(each.made_at is not None for each in kept.spent)):
                    kept.spent = None
                    self._has_changed = True
            trusts_entries = trusts_entries and is_next
            self._best = best
        if not trusts_entries:
            self._entries.clear()
        began = time.monotonic()
        listed, new, number = self._questions.txids(self._known)
        ended = time.monotonic()
        self._list_time = ended - began
        self._list_due = ended + max(_LONGEST_UNREAD, _SHARE * self._list_time)
        self._number = number if self._publishes else None
        for txid in self._known - listed:
            self._forget(txid)
        self._look_at(new)

    def _raise_inconsistent(self) -> None:
        for txid, kept in self._kept.items():
            if kept.spent is None or txid not in self._entries:
                unknown = "what it spends" if kept.spent is None else "its fee"
                raise NodeError(
                    f"{self._source} lists transaction {txid} as unconfirmed and does not know {unknown}"
                )

    def _forget(self, txid: str) -> None:
        self._known.discard(txid)
        if self._kept.pop(txid, None) or self._entries.pop(txid, None):
            self._entries.pop(txid, None)
            self._has_changed = True
        if self._spends is not None:
            self._spends.forget(txid)

    def _look_at(self, txids: Iterable[str]) -> None:
        """Read new transactions and search them; those that the node no longer has are left out."""
        connected: list[str] = []
        for raws, layout, ids in self._read(txids):
            candidates = {each.txindex: each for each in self._scanner.candidates(layout)}
            for n, (txid, raw) in enumerate(zip(ids, raws, strict=True)):
                spent = split_outpoints(outpoints(layout.raw, layout.starts[n]))
                candidate = candidates.get(n)
                if candidate is not None:
                    self._kept[txid] = _Kept(candidate.transaction, raw, candidate.magics)
                elif self._is_tracked(spent):
                    self._keep(txid, raw)
                if any(each[:32].hex() in self._entries for each in spent):
                    connected.append(txid)
                if self._spends is not None:
                    self._spends.add(txid, spent)
            self._known.update(ids)
        self._read_entries(connected)

    def _read(self, txids: Iterable[str]) -> Iterator[tuple[Sequence[bytes], Layout, Sequence[str]]]:
        """Read transactions in groups, checked by their ids, without those that the node no longer has."""
        results = self._questions.raws(txids)
        while group := list(islice(results, _SEARCHED_AT_ONCE)):
            # What holds nothing but MWEB data has no outputs that a payload could be in.
            self._known.update(txid for txid, raw in group if raw is None)
            raws = [raw for _, raw in group if raw is not None]
            if not raws:
                continue
            try:
                layout = self._scanner.lay_out(raws)
            except MalformedBlock as error:
                raise NodeError(
                    f"{self._source} answers getrawtransaction with other bytes: {error}"
                ) from error
            hashes, _ = layout.digests()
            ids = [display_hash(hashes[at : at + 32]) for at in range(0, len(hashes), 32)]
            asked = (txid for txid, raw in group if raw is not None)
            for txid, actual in zip(asked, ids, strict=True):
                if actual != txid:
                    raise NodeError(f"{self._source} answers a request for transaction {txid} with {actual}")
            yield raws, layout, ids

    def _keep(self, txid: str, raw: bytes) -> None:
        self._kept[txid] = _Kept(read_transaction(raw, self._source.network), raw, ())

    # What is shown because of what it spends

    def _is_tracked(self, spent: Iterable[bytes]) -> bool:
        if self._spends is None:
            return False
        return self._tracked is None or any(each in self._tracked for each in spent)

    def _follow_spends(self) -> None:
        """Keep what spends tracked outputs, or outputs of what is kept, and nothing else but candidates."""
        if self._spends is None or self._tracked is None:
            return
        spenders = self._spends.spenders
        candidates = {txid for txid, kept in self._kept.items() if kept.magics}
        reached = candidates | {spenders[each] for each in spenders.keys() & set(self._tracked)}
        ahead = reached
        while ahead:
            for raws, _, ids in self._read(txid for txid in ahead if txid not in self._kept):
                for txid, raw in zip(ids, raws, strict=True):
                    self._keep(txid, raw)
            made = {
                bytes.fromhex(txid) + n.to_bytes(4, "big")
                for txid in ahead
                if txid in self._kept
                for n in range(len(self._kept[txid].transaction.paid))
            }
            ahead = {spenders[each] for each in made & spenders.keys()} - reached
            reached |= ahead
        for txid in self._kept.keys() - reached:
            del self._kept[txid]
            self._has_changed = True

    # What is known of those that are kept

    def _complete(self) -> bool:
        """Find what is not known; return whether it is all there, and of one moment."""
        self._follow_spends()
        self._find_spent()
        self._read_entries(self._kept)
        return self._kept.keys() <= self._entries.keys() and all(
            kept.spent is not None for kept in self._kept.values()
        )

    def _find_spent(self) -> None:
        """Find the spent outputs that are not known, as far as the node has them and is at the same block."""
        assert self._best is not None, "the list was read"
        waiting = [kept for kept in self._kept.values() if kept.spent is None]
        spends = [(each.txid, each.vout) for kept in waiting for each in kept.transaction.inputs]
        made = self._transactions({txid for txid, _ in spends if txid in self._known})
        confirmed = [outpoint for outpoint in spends if outpoint[0] not in self._known]
        outputs = self._questions.outputs(confirmed, self._best)
        outputs |= {
            (txid, vout): made[txid].paid[vout]
            for txid, vout in spends
            if txid in made and vout < len(made[txid].paid)
        }
        for kept in waiting:
            spent = [outputs.get((each.txid, each.vout)) for each in kept.transaction.inputs]
            known = [output for output in spent if output is not None]
            if len(known) == len(spent):
                self._check_spent(kept.transaction, known)
                kept.spent = capped(known)
                self._has_changed = True

    def _transactions(self, txids: Collection[str]) -> dict[str, Transaction]:
        made = {txid: self._kept[txid].transaction for txid in txids if txid in self._kept}
        for raws, _, ids in self._read(txid for txid in txids if txid not in made):
            for txid, raw in zip(ids, raws, strict=True):
                made[txid] = read_transaction(raw, self._source.network)
        return made

    def _check_spent(self, transaction: Transaction, spent: Sequence[SpentOutput]) -> None:
        for n, (spending, output) in enumerate(zip(transaction.inputs, spent, strict=True)):
            problem = mismatch(output.script_pubkey, spending)
            if problem is not None:
                raise NodeError(
                    f"{self._source} states that input {n} of transaction {transaction.txid} spends "
                    f"{output.script_pubkey.hex()}, which it cannot: {problem}"
                )

    # Fees, and the order

    def _read_entries(self, txids: Iterable[str]) -> None:
        """Read the entries of transactions, and of all that are connected with them."""
        ahead = {txid for txid in txids if txid not in self._entries}
        while ahead:
            neighbors: set[object] = set()
            for txid, entry in self._questions.entries(ahead):
                self._entries[txid] = entry
                self._has_changed = True
                neighbors.update(entry.parents, entry.children)
            # Others have come or gone since the list was read.
            ahead = {txid for txid in self._known & neighbors if txid not in self._entries}

    def _read_entries_again(self) -> None:
        """Read entries again once in a while: nothing shows that `prioritisetransaction` has changed one."""
        began = time.monotonic()
        if began < self._entries_due:
            return
        for txid, entry in self._questions.entries(self._entries):
            if self._entries[txid] != entry:
                self._entries[txid] = entry
                self._has_changed = True
        ended = time.monotonic()
        self._entries_due = ended + _SHARE * (ended - began)

    def _in_order(self) -> Iterator[Unconfirmed]:
        self._keep_connected()
        priced = {
            txid: Priced(
                entry.modified_fee, entry.vsize, [each for each in entry.parents if each in self._entries]
            )
            for txid, entry in self._entries.items()
        }
        with self._questions.well_formed_entries():
            order = mining_order(priced)
        for txid in order:
            kept = self._kept.get(txid)
            if kept is not None and kept.spent is not None:
                yield self._shown(txid, kept, kept.spent)

    def _keep_connected(self) -> None:
        """Forget entries that are no longer connected with what is kept."""
        neighbors: dict[str, list[str]] = {txid: [] for txid in self._entries}
        for txid, entry in self._entries.items():
            for parent in self._entries.keys() & entry.parents:
                neighbors[parent].append(txid)
                neighbors[txid].append(parent)
        reached: set[str] = set()
        ahead = [txid for txid in self._kept if txid in neighbors]
        while ahead:
            txid = ahead.pop()
            if txid not in reached:
                reached.add(txid)
                ahead += neighbors[txid]
        for txid in self._entries.keys() - reached:
            del self._entries[txid]

    def _shown(self, txid: str, kept: _Kept, spent: tuple[SpentOutput, ...]) -> Unconfirmed:
        entry = self._entries[txid]
        spends, pays = (sum(each.value for each in outputs) for outputs in (spent, kept.transaction.paid))
        if spends - pays != entry.fee or spends > self._source.network.largest_amount:
            raise NodeError(
                f"{self._source} states {entry.fee} satoshi as the fee of transaction {txid}, which spends "
                f"{spends} and pays {pays}"
            )
        rate = Decimal(entry.fee) / entry.vsize
        shown = Unconfirmed(txid, kept.raw, spent, kept.magics, entry.fee, entry.vsize, rate, entry.time)
        if kept.shown != shown:
            kept.shown = shown
        return kept.shown


class _Spends:
    """What all unconfirmed transactions spend."""

    def __init__(self) -> None:
        self.spenders: dict[bytes, str] = {}
        """The transactions, by outpoint."""
        self.new: list[bytes] = []
        self._outpoints: dict[str, Sequence[bytes]] = {}

    def add(self, txid: str, spent: Sequence[bytes]) -> None:
        """Add a transaction."""
        self._outpoints[txid] = tuple(spent)
        self.spenders.update(dict.fromkeys(spent, txid))
        self.new += spent

    def forget(self, txid: str) -> None:
        """Take a transaction out, if it is there."""
        for outpoint in self._outpoints.pop(txid, ()):
            if self.spenders.get(outpoint) == txid:  # else another one has taken its place
                del self.spenders[outpoint]
