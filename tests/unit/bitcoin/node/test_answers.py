"""Spent outputs in a node's answers: parsed to the byte and to the satoshi, or not at all."""

import time
from collections.abc import Mapping
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin.node.answers import read_prevouts, read_spent_outputs, satoshi
from virtualchain.bitcoin.transaction import MAX_MONEY
from virtualchain.errors import MalformedBlock
from virtualchain.model import SpentOutput
from virtualchain.testing.wire import compact_size

OUTPUTS = st.builds(
    SpentOutput,
    st.integers(0, MAX_MONEY),
    st.binary(max_size=40) | st.just(b"\x6a" * 253) | st.just(b"\x51" * 5000),
    st.none(),
)
BLOCKS = st.lists(st.lists(OUTPUTS, max_size=4), min_size=1, max_size=6)

# The answer of Knots 29.4 for block 1 of a regtest chain, whose only transaction is the coinbase.
EMPTY = bytes.fromhex("0100")
# Made by hand: a coinbase, one transaction that spends 7 satoshi and 300,000 satoshi, one that spends none.
SMALL = bytes.fromhex("03000207000000000000000151e0930400000000000351025200")


def serialize(block: list[list[SpentOutput]]) -> bytes:
    """Write spent outputs as the node does."""
    return compact_size(len(block)) + b"".join(
        compact_size(len(outputs))
        + b"".join(
            output.value.to_bytes(8, "little")
            + compact_size(len(output.script_pubkey))
            + output.script_pubkey
            for output in outputs
        )
        for outputs in block
    )


def test_read_spent_outputs_of_known_bytes() -> None:
    """The format is a count, then for each transaction a count of outputs: satoshi, length and script."""
    assert read_spent_outputs(EMPTY, [0]) == {0: ()}
    spent = (SpentOutput(7, b"\x51"), SpentOutput(300_000, b"\x51\x02\x52"))
    assert read_spent_outputs(SMALL, [0, 1, 2]) == {0: (), 1: spent, 2: ()}
    assert read_spent_outputs(SMALL, [1]) == {1: spent}


@given(BLOCKS, st.data())
def test_read_spent_outputs_returns_what_was_written(
    block: list[list[SpentOutput]], data: st.DataObject
) -> None:
    """The outputs are returned for the requested transactions, and only for them."""
    txindexes = data.draw(st.sets(st.integers(0, len(block) - 1)))
    assert read_spent_outputs(serialize(block), txindexes) == {
        index: tuple(block[index]) for index in txindexes
    }


@given(BLOCKS, st.data())
def test_read_spent_outputs_rejects_a_truncated_answer(
    block: list[list[SpentOutput]], data: st.DataObject
) -> None:
    """If the answer is too short, nothing is made up for what is missing."""
    answer = serialize(block)
    size = data.draw(st.integers(0, len(answer) - 1))
    with pytest.raises(MalformedBlock):
        read_spent_outputs(answer[:size], {len(block) - 1})


@given(st.binary(max_size=60), st.sets(st.integers(0, 5), min_size=1))
def test_read_spent_outputs_of_any_bytes(answer: bytes, txindexes: set[int]) -> None:
    """Any bytes yield outputs for every requested transaction, or MalformedBlock."""
    try:
        spent = read_spent_outputs(answer, txindexes)
    except MalformedBlock:
        return
    assert set(spent) == txindexes


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "cannot be read"),
        (SMALL[:1] + b"\x00", "cannot be read"),
        (SMALL[:-3], "too short"),
        (bytes.fromhex("0100"), "without number 1"),
        (bytes.fromhex("020001ffffffffffffffff00"), "-1 satoshi"),
        (bytes.fromhex("020001014000ba7dd1070000"), "satoshi"),
        (bytes.fromhex("0200ffffffffffffffffff"), "count"),
    ],
)
def test_read_spent_outputs_reports_what_is_wrong(answer: bytes, message: str) -> None:
    """Each flaw has its own message."""
    with pytest.raises(MalformedBlock, match=message):
        read_spent_outputs(answer, [1])


@pytest.mark.parametrize(
    ("bitcoins", "expected"),
    [
        (Decimal("0E-8"), 0),
        (Decimal("0.00000001"), 1),
        (Decimal("1E-8"), 1),
        (Decimal("0.1"), 10_000_000),
        (Decimal("20999999.97690001"), 2_099_999_997_690_001),
        (50, 5_000_000_000),
        (Decimal("0." + "1" + "0" * 60), 10_000_000),
        (Decimal("0E+999990"), 0),
        (Decimal("-0.0"), 0),
    ],
)
def test_satoshi_is_exact(bitcoins: object, expected: int) -> None:
    """Amounts that a float cannot represent are exact to the satoshi."""
    assert satoshi(bitcoins) == expected


def test_satoshi_does_not_depend_on_the_precision_of_decimals() -> None:
    """An app may set it for all threads to come."""
    with localcontext() as context:
        context.prec = 3
        assert satoshi(Decimal("20999999.97690001")) == 2_099_999_997_690_001


@given(st.integers(0, MAX_MONEY))
def test_satoshi_of_every_amount(value: int) -> None:
    """Every possible amount is read back from the text that the node prints."""
    assert satoshi(Decimal(f"{value // 10**8}.{value % 10**8:08}")) == value


@pytest.mark.parametrize(
    "bitcoins",
    [
        *(0.1, True, "1", None, Decimal("0.000000001"), Decimal("-0.1"), Decimal(21000001), Decimal("NaN")),
        *(Decimal("1E+999990"), Decimal("-1E+999990"), Decimal("Infinity"), Decimal("1E-999990"), 10**400),
        *(Decimal("0.00000001" + "0" * 30 + "1"), Decimal(21_000_000 * 10**8)),
    ],
)
def test_satoshi_rejects(bitcoins: object) -> None:
    """A float, a fraction of a satoshi and an impossible amount are rejected, at once."""
    began = time.process_time()
    with pytest.raises((ValueError, ArithmeticError)):
        satoshi(bitcoins)
    assert time.process_time() - began < 1


def spending(value: object = Decimal("0.1"), script: str = "51") -> dict[str, Any]:
    """Make an input as the node prints it."""
    return {"txid": "00" * 32, "vout": 0, "prevout": {"value": value, "scriptPubKey": {"hex": script}}}


def test_read_prevouts() -> None:
    """Prevouts are in the order of the inputs, as satoshi and bytes."""
    transaction = {"vin": [spending(), spending(Decimal("0.00000002"), "6a00")]}
    assert read_prevouts(transaction) == (SpentOutput(10_000_000, b"\x51"), SpentOutput(2, b"\x6a\x00"))


@pytest.mark.parametrize(
    "transaction",
    [
        {"vin": [spending(), {"txid": "00" * 32, "vout": 0}]},
        {"vin": [{"coinbase": "00"}]},
        {"vin": [{"prevout": None}]},
    ],
)
def test_read_prevouts_with_one_missing(transaction: Mapping[str, Any]) -> None:
    """If the node leaves out one prevout, there are none."""
    assert read_prevouts(transaction) is None
