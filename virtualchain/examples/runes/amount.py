"""Amounts as people read them."""

from typing import Final

_NO_SYMBOL: Final = "¤"
_NO_BREAK_SPACE: Final = "\u00a0"


def amount_text(amount: int, divisibility: int, symbol: int | None) -> str:
    """Write an amount with its digits after the point and its symbol (a code point), such as `1.01 ¤`."""
    whole, fraction = divmod(amount, 10**divisibility)
    digits = f"{fraction:0{divisibility}d}".rstrip("0") if divisibility else ""
    number = f"{whole}.{digits}" if digits else f"{whole}"
    return f"{number}{_NO_BREAK_SPACE}{_NO_SYMBOL if symbol is None else chr(symbol)}"
