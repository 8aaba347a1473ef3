"""The order of a miner, compared with a slow computation that follows the rule word by word."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin import mining_order as module
from virtualchain.bitcoin.mining_order import Priced, mining_order

Mempool = dict[str, Priced]


def hashed(txid: str) -> bytes:
    """Return the bytes of an id as they are compared."""
    return bytes.fromhex(txid)[::-1]


def ancestors(transactions: Mempool, txid: str, among: set[str]) -> set[str]:
    """Collect a transaction's ancestors among some."""
    parents = {each for each in transactions[txid].parents if each in among}
    return parents.union(*(ancestors(transactions, each, among) for each in parents))


def rate(transactions: Mempool, txid: str, left: set[str]) -> Fraction:
    """Compute the fee rate of a package."""
    package = [transactions[each] for each in {txid} | ancestors(transactions, txid, left)]
    return Fraction(sum(each.fee for each in package), sum(each.vsize for each in package))


def slowly(transactions: Mempool) -> list[str]:
    """Take one package after the other, each found by looking at all."""
    everything = left = set(transactions)
    order: list[str] = []
    while left:
        _, _, first = min((-rate(transactions, txid, left), hashed(txid), txid) for txid in left)
        package = {first} | ancestors(transactions, first, left)
        order += [
            txid
            for _, _, txid in sorted(
                (len(ancestors(transactions, txid, everything)), hashed(txid), txid) for txid in package
            )
        ]
        left = left - package
    return order


@st.composite
def mempools(draw: st.DrawFn) -> dict[str, Priced]:
    """Draw transactions that spend earlier ones, and some that are confirmed."""
    numbers = draw(st.permutations(range(draw(st.integers(1, 12)))))
    transactions: dict[str, Priced] = {}
    for number in numbers:
        parents = draw(st.lists(st.sampled_from([*transactions, "ff" * 32]), max_size=3))
        transactions[f"{number:064x}"] = Priced(
            draw(st.integers(-3, 8)) * 100, draw(st.sampled_from([100, 150, 200])), parents
        )
    return transactions


@given(mempools())
def test_the_order_is_that_of_the_rule(transactions: dict[str, Priced]) -> None:
    """Packages are taken by fee rate, whatever their fees, ancestors first."""
    order = mining_order(transactions)
    assert order == slowly(transactions)
    places = {txid: place for place, txid in enumerate(order)}
    for txid, priced in transactions.items():
        assert all(places[parent] < places[txid] for parent in priced.parents if parent in places)


@given(mempools(), mempools())
def test_unconnected_transactions_have_no_influence(one: dict[str, Priced], other: dict[str, Priced]) -> None:
    """The order of transactions is the same with or without others that are not connected with them."""
    apart = {
        f"a{txid[1:]}": priced._replace(parents=[f"a{each[1:]}" for each in priced.parents])
        for txid, priced in other.items()
    }
    assert [txid for txid in mining_order({**apart, **one}) if txid in one] == mining_order(one)


def test_fees_of_a_child_pay_for_its_parent() -> None:
    """A parent comes with its child, in front of what pays more than the parent alone."""
    parent, child, other = "0" * 63 + "1", "0" * 63 + "2", "0" * 63 + "3"
    transactions = {
        other: Priced(500, 100, []),
        child: Priced(2000, 100, [parent]),
        parent: Priced(100, 100, []),
    }
    assert mining_order(transactions) == [parent, child, other]


def test_what_no_node_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle, and more ancestors than any node allows, are errors, not endless work."""
    a, b = "aa" * 32, "bb" * 32
    with pytest.raises(ValueError, match="its own ancestor"):
        mining_order({a: Priced(1, 1, [b]), b: Priced(1, 1, [a])})
    with pytest.raises(ValueError, match="its own ancestor"):
        mining_order({a: Priced(1, 1, [a])})
    chain = {f"{n:064x}": Priced(1, 1, [f"{n - 1:064x}"] if n else []) for n in range(200)}
    assert mining_order(chain) == list(chain)
    monkeypatch.setattr(module, "MOST_REACHED", 150)
    with pytest.raises(ValueError, match="more than 150"):
        mining_order(chain)
