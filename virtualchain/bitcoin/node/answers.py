"""Parse and check a node's answers: spent outputs in bytes and in JSON, hashes and numbers.

A node, or whatever listens at its address, may answer anything: nothing is used unchecked.
"""

import re
from array import array
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from virtualchain.bitcoin.block import LARGEST_SPENDABLE_SCRIPT, MOST_INPUTS
from virtualchain.bitcoin.compiled import skip_spent
from virtualchain.bitcoin.layout import MOST_TRANSACTIONS
from virtualchain.bitcoin.node.login import NodeUrl
from virtualchain.bitcoin.spending import Capped, capped
from virtualchain.bitcoin.transaction import MAX_MONEY, read_number
from virtualchain.errors import MalformedBlock, NodeError, quoted
from virtualchain.model import Block, SpentOutput, SpentOutputs

_HASH: Final = re.compile("[0-9a-f]{64}")
_HIGHEST: Final = 2**31 - 1
"""Heights are 32-bit numbers with a sign in every node."""


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
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not a hash")
    return value


def whole_number(value: object) -> int:
    """Return the value if it is an int; raises TypeError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{quoted(value)} is not a whole number")
    return value


def height(value: object) -> int:
    """Return the value if it can be a block's height; raises TypeError, ValueError."""
    number = whole_number(value)
    if not 0 <= number <= _HIGHEST:
        raise ValueError(f"{number} is not a height")
    return number


def is_chain(headers: Sequence[Block]) -> bool:
    """Check that each header names its predecessor as parent."""
    return all(block.prev_hash == before.hash for before, block in pairwise(headers))


def read_spent_outputs(
    answer: bytes | Iterator[bytes], txindexes: Collection[int], largest: int = MAX_MONEY
) -> SpentOutputs:
    """Parse the answer of `/rest/spenttxouts/HASH.bin` for the transactions at `txindexes`, scripts capped.

    The answer, which may come in pieces, is a count of transactions and for each, including the coinbase, a
    count of spent outputs; an output is 8 bytes of satoshi, a length and the script. No amount is above
    `largest`. Raises MalformedBlock if it is not that, from beginning to end.
    """
    spent: dict[int, tuple[SpentOutput, ...]] = {}
    reader = _Reader(iter((answer,)) if isinstance(answer, bytes) else answer, largest)
    try:
        transactions = reader.count(MOST_TRANSACTIONS)
        counts = array("I", bytes(4 * transactions))
        requested = deque(sorted(n for n in set(txindexes) if 0 <= n < transactions))
        spent.update(reader.transactions(counts, requested))
        reader.end()
    except (IndexError, ValueError) as error:
        raise MalformedBlock(f"spent outputs that cannot be read: {error}") from error
    missing = sorted(set(txindexes) - set(spent))
    if missing:
        raise MalformedBlock(f"spent outputs of {transactions} transactions, without number {missing[0]}")
    return SpentOutputs(spent, "node", counts)


class _Reader:
    """Reads an answer of spent outputs while it arrives, a piece at a time."""

    def __init__(self, pieces: Iterator[bytes], largest: int) -> None:
        self._pieces = pieces
        self._largest = largest
        self._data = b""
        self._at = 0

    def count(self, most: int) -> int:
        """Read a count; raises ValueError if it is larger than `most`."""
        self._need(9)
        value, self._at = read_number(self._data, self._at)
        if value > most:
            raise ValueError(f"a count of {value}, which no block has")
        return value

    def transactions(
        self, counts: "array[int]", requested: deque[int]
    ) -> Iterator[tuple[int, tuple[SpentOutput, ...]]]:
        """Count what each transaction spends, and yield what the requested ones do; those are in order."""
        places = array("I", bytes(4 * len(counts)))
        first = 0
        while first < len(counts):
            # In one go: other threads run meanwhile, and whoever lets them has to wait for them.
            first, at = skip_spent(self._data, self._at, first, len(counts), counts, places)
            while requested and requested[0] < first:
                txindex = requested.popleft()
                yield txindex, tuple(self._short_outputs(places[txindex], counts[txindex]))
            self._at = at
            if first < len(counts):  # it is long, or in several pieces
                counts[first] = self.count(MOST_INPUTS)
                if requested and requested[0] == first:
                    yield requested.popleft(), tuple(self._outputs(counts[first]))
                else:
                    for _ in range(counts[first]):
                        _, self._at = self._next_script()
                first += 1

    def _short_outputs(self, at: int, count: int) -> Iterator[SpentOutput]:
        """Read outputs that have been skipped: they are few and short, so that nothing is capped."""
        data = self._data
        for _ in range(count):
            end = at + 9 + data[at + 8]
            value = int.from_bytes(data[at : at + 8], "little", signed=True)
            yield SpentOutput(_plausible(value, self._largest), data[at + 9 : end])
            at = end

    def _outputs(self, count: int) -> Iterator[SpentOutput]:
        """Read the outputs that a transaction spends."""
        cap = Capped().cap
        for _ in range(count):
            start, end = self._next_script()
            value = int.from_bytes(self._data[self._at : self._at + 8], "little", signed=True)
            yield SpentOutput(_plausible(value, self._largest), cap(self._data[start:end]))
            self._at = end

    def end(self) -> None:
        """Check that nothing is left."""
        self._need(1)
        if self._at < len(self._data):
            raise MalformedBlock("spent outputs are followed by other bytes")

    def _next_script(self) -> tuple[int, int]:
        """Return where the script of the next output starts and ends, once it has arrived."""
        self._need(8 + 9)
        length, start = read_number(self._data, self._at + 8)
        if length > LARGEST_SPENDABLE_SCRIPT:
            raise ValueError(f"a script of {length} bytes, which cannot be spent")
        size = start - self._at + length
        self._need(size)
        missing = self._at + size - len(self._data)
        if missing > 0:
            raise MalformedBlock(f"spent outputs are {missing} bytes too short")
        return self._at + size - length, self._at + size

    def _need(self, size: int) -> None:
        """Wait until `size` bytes lie ahead, or all that are left."""
        if len(self._data) - self._at < size:
            parts = [self._data[self._at :]]
            missing = size - len(parts[0])
            for piece in self._pieces:
                parts.append(piece)
                missing -= len(piece)
                if missing <= 0:
                    break
            self._data, self._at = b"".join(parts), 0


def read_prevouts_of(
    answers: Mapping[int, Any],
    transactions: Mapping[int, str],
    *,
    heights: bool = False,
    largest: int = MAX_MONEY,
) -> dict[int, Sequence[SpentOutput]] | None:
    """Take the prevouts of some transactions (txindex to txid) from JSON; None if one is left out.

    Raises ValueError for another transaction, and what `read_prevouts` raises.
    """
    spent: dict[int, Sequence[SpentOutput]] = {}
    for txindex, txid in transactions.items():
        if answers[txindex]["txid"] != txid:
            raise ValueError(f"transaction {txindex} is {quoted(answers[txindex]['txid'])}, not {txid}")
        prevouts = read_prevouts(answers[txindex], heights=heights, largest=largest)
        if prevouts is None:
            return None
        spent[txindex] = prevouts
    return spent


def read_prevouts(
    transaction: Mapping[str, Any], *, heights: bool = False, largest: int = MAX_MONEY
) -> tuple[SpentOutput, ...] | None:
    """Take the prevouts from a transaction as bitcoind prints it; None if one is left out.

    Raises KeyError, TypeError, ValueError or ArithmeticError for what bitcoind does not print.
    """
    prevouts = [spending.get("prevout") for spending in transaction["vin"]]
    if None in prevouts:
        return None
    return capped(
        SpentOutput(
            satoshi(prevout["value"], largest),
            bytes.fromhex(prevout["scriptPubKey"]["hex"]),
            _made_at(prevout) if heights else None,
        )
        for prevout in prevouts
    )


def _made_at(prevout: Mapping[str, Any]) -> int | None:
    """Return where an output was made, as `SpentOutput` has it."""
    if "height" not in prevout or "generated" not in prevout:
        return None
    is_coinbase = prevout["generated"]
    if not isinstance(is_coinbase, bool):
        raise TypeError(f"{quoted(is_coinbase)} does not say whether a coinbase made an output")
    return 2 * height(prevout["height"]) + is_coinbase


def coin(answer: Mapping[str, Any], tip: int, largest: int = MAX_MONEY) -> SpentOutput:
    """Take an unspent output from what gettxout prints while a block is the last one.

    Raises KeyError, TypeError, ValueError or ArithmeticError for what bitcoind does not print.
    """
    made = {"height": tip - height(answer["confirmations"]) + 1, "generated": answer["coinbase"]}
    script = bytes.fromhex(answer["scriptPubKey"]["hex"])
    return SpentOutput(satoshi(answer["value"], largest), script, _made_at(made))


def satoshi(bitcoins: object, largest: int = MAX_MONEY) -> int:
    """Convert an amount from JSON exactly; raises ValueError for a float and for a fraction of a satoshi.

    `largest` is what there can be, in satoshi.
    """
    if isinstance(bitcoins, bool) or not isinstance(bitcoins, int | Decimal):
        raise ValueError(f"{quoted(bitcoins)} is not an exact amount")  # noqa: TRY004 one error for all bad amounts
    value = Decimal(bitcoins)
    if not 0 <= value <= largest:  # first, as an int of its digits might be very long
        raise ValueError(f"an output of {quoted(bitcoins)} bitcoins")
    # Arithmetic would round to the precision of the thread's context, which an app can set for all threads.
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "it is finite"
    shift = exponent + 8
    if shift < 0:
        if any(digits[shift:]):
            raise ValueError(f"{quoted(bitcoins)} bitcoins are not a whole number of satoshi")
        digits = digits[:shift]
    number = int("".join(map(str, digits)) or "0")
    return _plausible(number * 10**shift if number and shift > 0 else number, largest)


def _plausible(value: int, largest: int) -> int:
    if not 0 <= value <= largest:
        raise ValueError(f"an output of {value} satoshi")
    return value
