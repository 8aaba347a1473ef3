"""Parse and check a node's answers: spent outputs in bytes and in JSON, hashes and numbers.

A node, or whatever listens at its address, may answer anything: nothing is used unchecked.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.bitcoin.transaction import MAX_MONEY, read_count
from virtualchain.errors import MalformedBlock, NodeError, quoted
from virtualchain.model import Block, SpentOutput


@contextmanager
def well_formed(url: NodeUrl, method: str) -> Iterator[None]:
    """Turn the errors of taking a malformed answer apart into a NodeError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise NodeError(f"{url} answers {method} as no Bitcoin node does: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    match error:
        case KeyError():
            return f"there is no {error}"
        case ValueError():
            return str(error)
    return "it has another form"


def block_hash(value: object) -> str:
    """Return the value if it is a hash in hex; raises ValueError."""
    if not isinstance(value, str) or len(bytes.fromhex(value)) != 32:
        raise ValueError(f"{quoted(value)} is not a hash")
    return value


def whole_number(value: object) -> int:
    """Return the value if it is an int; raises ValueError."""
    if not isinstance(value, int):
        raise ValueError(f"{quoted(value)} is not a whole number")  # noqa: TRY004 - one error for all answers
    return value


def is_chain(headers: Sequence[Block]) -> bool:
    """Check that each header names its predecessor as parent."""
    return all(block.prev_hash == before.hash for before, block in pairwise(headers))


def read_spent_outputs(data: bytes, txindexes: Collection[int]) -> dict[int, tuple[SpentOutput, ...]]:
    """Parse the answer of `/rest/spenttxouts/HASH.bin` for the transactions at `txindexes`.

    The answer is a count of transactions and for each, including the coinbase, a count of spent outputs; an
    output is 8 bytes of satoshi, a length and the script. Raises MalformedBlock if it is not that.
    """
    spent: dict[int, tuple[SpentOutput, ...]] = {}
    try:
        transactions, at = read_count(data, 0)
        for txindex in range(min(transactions, max(txindexes, default=-1) + 1)):
            count, at = read_count(data, at)
            outputs = []
            for _ in range(count):
                length, script_at = read_count(data, at + 8)
                if txindex in txindexes:
                    value = int.from_bytes(data[at : at + 8], "little", signed=True)
                    outputs.append(SpentOutput(_plausible(value), data[script_at : script_at + length]))
                at = script_at + length
            if txindex in txindexes:
                spent[txindex] = tuple(outputs)
    except (IndexError, ValueError) as error:
        raise MalformedBlock(f"spent outputs that cannot be read: {error}") from error
    if at > len(data):
        raise MalformedBlock(f"spent outputs are {at - len(data)} bytes too short")
    missing = sorted(set(txindexes) - set(spent))
    if missing:
        raise MalformedBlock(f"spent outputs of {transactions} transactions, without number {missing[0]}")
    return spent


def read_prevouts_of(
    answers: Mapping[int, Any], transactions: Mapping[int, str]
) -> dict[int, Sequence[SpentOutput]] | None:
    """Take the prevouts of some transactions (txindex to txid) from JSON; None if one is left out.

    Raises ValueError for another transaction, and what `read_prevouts` raises.
    """
    spent: dict[int, Sequence[SpentOutput]] = {}
    for txindex, txid in transactions.items():
        if answers[txindex]["txid"] != txid:
            raise ValueError(f"transaction {txindex} is {answers[txindex]['txid']}, not {txid}")
        prevouts = read_prevouts(answers[txindex])
        if prevouts is None:
            return None
        spent[txindex] = prevouts
    return spent


def read_prevouts(transaction: Mapping[str, Any]) -> tuple[SpentOutput, ...] | None:
    """Take the prevouts from a transaction as bitcoind prints it; None if one is left out.

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
    """Convert an amount from JSON exactly; raises ValueError for a float and for a fraction of a satoshi."""
    if isinstance(bitcoins, bool) or not isinstance(bitcoins, int | Decimal):
        raise ValueError(f"{quoted(bitcoins)} is not an exact amount")  # noqa: TRY004 one error for all bad amounts
    value = Decimal(bitcoins).scaleb(8)
    if value != value.to_integral_value():
        raise ValueError(f"{bitcoins} bitcoins are not a whole number of satoshi")
    return _plausible(int(value))


def _plausible(value: int) -> int:
    if not 0 <= value <= MAX_MONEY:
        raise ValueError(f"an output of {value} satoshi")
    return value
