"""Amounts, fee rates and coins as people write them: exact, and never through a float."""

import re
from decimal import Decimal
from typing import Final

from virtualchain.bitcoin.parameters import COIN, Network
from virtualchain.errors import UsageError, quoted

_AMOUNT: Final = re.compile(r"([0-9]{1,8})(?:\.([0-9]{1,8}))?")
_SATOSHI: Final = re.compile(r"([0-9]{1,16}) ?sats?")
_COIN: Final = re.compile(r"([0-9a-f]{64}):([0-9]{1,6})")
_RATE: Final = re.compile(r"[0-9]{1,8}(?:\.[0-9]{1,3})?")


def read_amount(text: str) -> int:
    """Read bitcoins such as `0.001`, or satoshis such as `546sat`; return satoshis. Raises UsageError."""
    text = text.strip()
    if satoshi := _SATOSHI.fullmatch(text):
        return int(satoshi[1])
    if bitcoins := _AMOUNT.fullmatch(text):
        return int(bitcoins[1]) * COIN + int((bitcoins[2] or "").ljust(8, "0"))
    raise UsageError(
        f"{quoted(text)} is not an amount: write bitcoins with up to eight decimals, such as 0.001, or "
        "satoshis, such as 546sat"
    )


def write_amount(satoshi: int, network: Network) -> str:
    """Write base units as coins of a network, with all eight decimals and the unit."""
    return network.written(satoshi)


def read_fee_rate(text: str) -> Decimal:
    """Read satoshis per vbyte, with up to three decimals; raises UsageError."""
    if not _RATE.fullmatch(text.strip()) or not Decimal(text):
        raise UsageError(
            f"{quoted(text)} is not a fee rate: write satoshis per vbyte, above 0, with up to three decimals"
        )
    return Decimal(text.strip())


def split_payment(text: str) -> tuple[str, int]:
    """Split ADDRESS=AMOUNT into the address and satoshis; raises UsageError."""
    address, equals, amount = text.strip().rpartition("=")
    if not equals or not address.strip():
        raise UsageError(f"{quoted(text)} is not a payment: write ADDRESS=AMOUNT")
    return address.strip(), read_amount(amount)


def read_coin(text: str) -> tuple[str, int]:
    """Read TXID:NUMBER, an output of a transaction; raises UsageError."""
    coin = _COIN.fullmatch(text.strip())
    if coin is None:
        raise UsageError(f"{quoted(text)} is not a coin: write TXID:NUMBER, with 64 lower-case hex digits")
    return coin[1], int(coin[2])
