"""Spent outputs as a node tells them: the bytes of `/rest/spenttxouts`, or the prevouts of its JSON."""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from virtualchain.bitcoin.transaction import long_count
from virtualchain.errors import MalformedBlock
from virtualchain.model import SpentOutput

MAX_MONEY = 21_000_000 * 100_000_000
"""The most satoshi that there can be, and so the most that an output can hold."""


def read_spent_outputs(data: bytes, wanted: Collection[int]) -> dict[int, tuple[SpentOutput, ...]]:
    """Read the answer of `/rest/spenttxouts/HASH.bin` for the transactions with the `wanted` txindexes.

    The answer is a count of transactions and for each, the coinbase too, a count of spent outputs, each
    with 8 bytes of satoshi, a length and its script. Raises MalformedBlock where it is not that.
    """
    found: dict[int, tuple[SpentOutput, ...]] = {}
    try:
        transactions, at = _count(data, 0)
        for txindex in range(min(transactions, max(wanted, default=-1) + 1)):
            outputs, at = _count(data, at)
            spent = []
            for _ in range(outputs):
                length, script_at = _count(data, at + 8)
                if txindex in wanted:
                    value = int.from_bytes(data[at : at + 8], "little", signed=True)
                    spent.append(SpentOutput(_plausible(value), data[script_at : script_at + length]))
                at = script_at + length
            if txindex in wanted:
                found[txindex] = tuple(spent)
    except (IndexError, ValueError) as error:
        raise MalformedBlock(f"spent outputs that cannot be read: {error}") from error
    if at > len(data):
        raise MalformedBlock(f"spent outputs end {at - len(data)} bytes too early")
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise MalformedBlock(f"spent outputs of {transactions} transactions, without number {missing[0]}")
    return found


def read_prevouts(transaction: Mapping[str, Any]) -> tuple[SpentOutput, ...] | None:
    """Take the prevouts from a transaction as bitcoind prints it; None where one is left out.

    Raises KeyError, TypeError, ValueError or ArithmeticError for what bitcoind does not print.
    """
    prevouts = [spending.get("prevout") for spending in transaction["vin"]]
    if None in prevouts:
        return None
    return tuple(
        SpentOutput(satoshi(prevout["value"]), bytes.fromhex(prevout["scriptPubKey"]["hex"]))
        for prevout in prevouts
    )


def satoshi(bitcoins: object) -> int:
    """Convert an amount of JSON exactly; raises ValueError for a float and for a part of a satoshi."""
    if isinstance(bitcoins, bool) or not isinstance(bitcoins, int | Decimal):
        raise ValueError(f"{bitcoins!r} is no exact amount")  # noqa: TRY004 one error for all bad amounts
    value = Decimal(bitcoins).scaleb(8)
    if value != value.to_integral_value():
        raise ValueError(f"{bitcoins} bitcoins are no whole number of satoshi")
    return _plausible(int(value))


def _plausible(value: int) -> int:
    if not 0 <= value <= MAX_MONEY:
        raise ValueError(f"an output of {value} satoshi")
    return value


def _count(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    return (first, at + 1) if first < 0xFD else long_count(data, at)
