"""Undo data: compressed numbers, amounts and scripts, and MalformedBlock for anything else."""

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bitcoin.files.writing import coin_bytes, compress_amount, undo_bytes, varint
from virtualchain.bitcoin.files.undo import Coin, _decompress_amount, _varint, first_count, read_undo
from virtualchain.bitcoin.transaction import MAX_MONEY
from virtualchain.errors import MalformedBlock
from virtualchain.testing import undo

HASH = bytes(range(20))
KEYS = [PrivateKey(bytes([n]) * 32).public_key for n in range(1, 9)]
SCRIPTS = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"\x76\xa9\x14" + HASH + b"\x88\xac",
            b"\xa9\x14" + HASH + b"\x87",
            *(b"\x21" + key.format() + b"\xac" for key in KEYS),
            *(b"\x41" + key.format(compressed=False) + b"\xac" for key in KEYS),
        ]
    ),
)
COINS = st.builds(
    undo.Coin, st.integers(0, MAX_MONEY), SCRIPTS, st.integers(0, 2**31 - 1), st.booleans()
).filter(lambda coin: coin.height > 0 or not coin.generated)
SPENT = st.lists(st.lists(COINS, max_size=4), max_size=5)


def expected(spent: list[list[undo.Coin]]) -> dict[int, tuple[Coin, ...]]:
    """Return the coins that should be read, by txindex."""
    return {
        txindex: tuple(Coin(coin.height, coin.value, coin.script, coin.generated) for coin in row)
        for txindex, row in enumerate(spent, 1)
    }


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "00"),
        (0x7F, "7f"),
        (0x80, "8000"),
        (0x1234, "a334"),
        (0xFFFF, "82fe7f"),
        (0x123456, "c7e756"),
        (0x80123456, "86ffc7e756"),
        (0xFFFFFFFF, "8efefefe7f"),
        (0x7FFFFFFFFFFFFFFF, "fefefefefefefefe7f"),
        (0xFFFFFFFFFFFFFFFF, "80fefefefefefefefe7f"),
    ],
)
def test_numbers_are_those_of_bitcoin_core(number: int, written: str) -> None:
    """The values are those of Bitcoin Core's own tests."""
    assert _varint(bytes.fromhex(written), 0) == (number, len(written) // 2)
    assert varint(number).hex() == written


@pytest.mark.parametrize(
    ("value", "compressed"),
    [(0, 0), (1, 1), (10**6, 7), (10**8, 9), (50 * 10**8, 0x32), (21 * 10**14, 0x1406F40)],
)
def test_amounts_are_those_of_bitcoin_core(value: int, compressed: int) -> None:
    """They include one cent, one bitcoin, fifty, and all bitcoins."""
    assert _decompress_amount(compressed) == value
    assert compress_amount(value) == compressed


@given(SPENT, st.sets(st.integers(1, 5)))
def test_undo_data_are_read_as_they_were_written(spent: list[list[undo.Coin]], txindexes: set[int]) -> None:
    """Whichever transactions are requested, the others are skipped."""
    txindexes &= set(range(1, len(spent) + 1))
    coins = read_undo(undo_bytes(spent), txindexes)
    assert coins == {txindex: row for txindex, row in expected(spent).items() if txindex in txindexes}


@given(SPENT.filter(len), st.data())
def test_truncated_undo_data_are_rejected(spent: list[list[undo.Coin]], data: st.DataObject) -> None:
    """They are rejected even if only the last byte is missing."""
    raw = undo_bytes(spent)
    truncated = raw[: data.draw(st.integers(0, len(raw) - 1))]
    with pytest.raises(MalformedBlock):
        read_undo(truncated, range(1, len(spent) + 1))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_rejected(raw: bytes) -> None:
    """No error but MalformedBlock is raised."""
    for txindexes in ({1}, {3}):
        try:
            coins = read_undo(raw, txindexes)
        except MalformedBlock:
            continue
        assert set(coins) == txindexes


def test_many_transactions_and_coins() -> None:
    """Counts of three bytes are read."""
    coin = undo.Coin(5000, b"\x51", 7, generated=False)
    spent = [[coin], *[[]] * 299, [coin] * 300]
    raw = undo_bytes(spent)
    assert first_count(raw[:9]) == 301
    assert read_undo(raw, {301})[301] == expected(spent)[301]


def test_what_no_node_writes_is_rejected() -> None:
    """The cases are too large an amount, an invalid key, and a transaction that is not in the block."""
    rich = undo_bytes([[undo.Coin(MAX_MONEY + 1, b"\x51", 7, generated=False)]])
    with pytest.raises(MalformedBlock, match="2100000000000001 satoshi"):
        read_undo(rich, {1})
    no_key = b"\1\1" + coin_bytes(undo.Coin(1, b"", 7, generated=False))[:-1] + b"\4" + bytes(31) + b"\5"
    with pytest.raises(MalformedBlock, match="not the x coordinate of a public key"):
        read_undo(no_key, {1})
    with pytest.raises(MalformedBlock, match="of 1 transactions, without number 2"):
        read_undo(rich.replace(varint(compress_amount(MAX_MONEY + 1)), b"\1"), {2})
