"""The order in which a miner would take unconfirmed transactions.

The rule: of all transactions that are left, the one whose package has the highest fee rate is next. Its
package is itself and its unconfirmed ancestors that are left; the package's fee rate is the sum of their
fees, as the node modifies them for mining, by the sum of their virtual sizes. The whole package is taken,
those with fewer ancestors first. Ties are broken by the transaction's id, byte by byte in the order in which
it is hashed. Bitcoin Core's miner did so before version 31 (`BlockAssembler::addPackageTxs`); later versions
linearize clusters, with nearly the same result.

Transactions that are not connected, as ancestor, descendant, or through others, have no influence on each
other's packages.
"""

import heapq
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

MOST_REACHED: Final = 5000
"""Ancestors or descendants of one transaction: unless they are set up otherwise, nodes allow 25, and since
Bitcoin Core 31 clusters of 64."""
_SCALE: Final = 64
"""Bits: two different fee rates differ in so many binary places."""


class Priced(NamedTuple):
    """What a miner looks at in an unconfirmed transaction."""

    fee: int
    """Satoshi, as modified by `prioritisetransaction`."""
    vsize: int
    parents: Sequence[str]
    """The transactions whose outputs it spends, as far as they are unconfirmed, too."""


def mining_order(transactions: Mapping[str, Priced]) -> list[str]:
    """Return the ids of these transactions in the order in which they would be taken.

    Parents that are not among them count as confirmed. Raises ValueError if a transaction is its own
    ancestor, or has too many.
    """
    return [txid for package in _Packages(transactions).take() for txid in package]


class _Packages:
    """The transactions that are left, and the sums over their packages."""

    def __init__(self, transactions: Mapping[str, Priced]) -> None:
        self._transactions = transactions
        self._parents: dict[str, list[str]] = {}
        self._children: dict[str, list[str]] = {txid: [] for txid in transactions}
        self._fees: dict[str, int] = {}
        self._vsizes: dict[str, int] = {}
        self._ancestors: dict[str, int] = {}
        for txid, priced in transactions.items():
            self._parents[txid] = [each for each in dict.fromkeys(priced.parents) if each in transactions]
            for parent in self._parents[txid]:
                self._children[parent].append(txid)
        for txid in transactions:
            package = [transactions[each] for each in (txid, *self._ancestors_of(txid, transactions))]
            self._ancestors[txid] = len(package) - 1
            self._fees[txid] = sum(each.fee for each in package)
            self._vsizes[txid] = sum(each.vsize for each in package)

    def take(self) -> Iterator[Sequence[str]]:
        """Yield the packages in the order in which they are taken."""
        left = set(self._transactions)
        heap = [self._place(txid) for txid in left]
        heapq.heapify(heap)
        while heap:
            place = heapq.heappop(heap)
            txid = place[-1]
            if txid not in left or place != self._place(txid):
                continue  # it was taken, or there is a newer place of it
            package = sorted([txid, *self._ancestors_of(txid, left)], key=self._place_in_package)
            left.difference_update(package)
            changed = set()
            for taken in package:
                priced = self._transactions[taken]
                # Through others of the package, too.
                for descendant in _reach(self._children, taken, self._transactions) & left:
                    self._fees[descendant] -= priced.fee
                    self._vsizes[descendant] -= priced.vsize
                    changed.add(descendant)
            for each in changed:
                heapq.heappush(heap, self._place(each))
            yield package

    def _ancestors_of(self, txid: str, among: Container[str]) -> set[str]:
        ancestors = _reach(self._parents, txid, among)
        if txid in ancestors:
            raise ValueError(f"transaction {txid} is its own ancestor")
        return ancestors

    def _place(self, txid: str) -> tuple[int, bytes, str]:
        return -(self._fees[txid] << _SCALE) // self._vsizes[txid], _hashed(txid), txid

    def _place_in_package(self, txid: str) -> tuple[int, bytes]:
        return self._ancestors[txid], _hashed(txid)


def _reach(links: Mapping[str, Sequence[str]], start: str, among: Container[str]) -> set[str]:
    """Collect what can be reached along links, without the start unless it is on a circle."""
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        for each in links[ahead.pop()]:
            if each in among and each not in reached:
                reached.add(each)
                ahead.append(each)
        if len(reached) > MOST_REACHED:
            raise ValueError(f"transaction {start} has more than {MOST_REACHED} ancestors or descendants")
    return reached


def _hashed(txid: str) -> bytes:
    """Return the bytes of an id as they are hashed: it is displayed with the last one first."""
    return bytes.fromhex(txid)[::-1]
