"""Amounts and fee rates are read exactly, or not at all."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtualchain.bitcoin.networks import network
from virtualchain.errors import UsageError
from virtualchain.writing.amounts import (
    read_amount,
    read_coin,
    read_fee_rate,
    split_payment,
    write_amount,
)


@given(st.integers(min_value=0, max_value=21_000_000 * 10**8))
def test_what_is_written_is_read(satoshi: int) -> None:
    """Every amount has one text, which no float could hold."""
    written = write_amount(satoshi, network("mainnet")).removesuffix(" BTC")
    assert read_amount(written) == read_amount(f"{satoshi}sat") == satoshi


def test_every_chain_has_its_unit_and_its_limit() -> None:
    """Amounts are written with the unit, and what no output can hold is refused."""
    assert write_amount(546, network("dogecoin")) == "0.00000546 DOGE"
    network("dogecoin").require_possible(21_000_001 * 10**8)
    with pytest.raises(UsageError, match=r"21000001\.00000000 BTC is more than there can be"):
        network("mainnet").require_possible(21_000_001 * 10**8)


@pytest.mark.parametrize(
    ("text", "satoshi"),
    [
        ("1", 10**8),
        ("0.1", 10**7),
        (" 0.00000001 ", 1),
        ("20999999.9769", 2_099_999_997_690_000),
        ("546 sats", 546),
        ("00.5", 5 * 10**7),
    ],
)
def test_amounts_that_people_write(text: str, satoshi: int) -> None:
    """Decimals may be left out, and blanks do not count."""
    assert read_amount(text) == satoshi


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e8",
        "1,5",
        ".5",
        "5.",
        "0.000000001",
        "1.5sat",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "1_0",
        "nan",
        "100000000",
        "0x10",
        "1 2",
    ],
)
def test_amounts_that_mean_nothing(text: str) -> None:
    """Nothing is rounded or guessed."""
    with pytest.raises(UsageError):
        read_amount(text)


def test_fee_rates() -> None:
    """They have up to three decimals, and are not 0."""
    assert read_fee_rate("1") == 1
    assert read_fee_rate(" 0.125 ") == Decimal("0.125")
    for text in ("0", "0.000", "-1", "1e3", "0.0001", "", "x"):
        with pytest.raises(UsageError, match="is not a fee rate"):
            read_fee_rate(text)


def test_payments() -> None:
    """The last equals sign ends the address."""
    assert split_payment(" bc1q = 0.5 ") == ("bc1q", 5 * 10**7)
    assert split_payment("a=b=1sat") == ("a=b", 1)
    for text in ("bc1q", "=1", "bc1q=", "bc1q=x"):
        with pytest.raises(UsageError):
            split_payment(text)


def test_coins() -> None:
    """An output is named by its transaction and its number."""
    assert read_coin(f" {'ab' * 32}:7 ") == ("ab" * 32, 7)
    for text in ("", "ab" * 32, f"{'AB' * 32}:0", f"{'ab' * 32}:-1", f"{'ab' * 31}:0", f"{'ab' * 32}:x"):
        with pytest.raises(UsageError, match="is not a coin"):
            read_coin(text)
