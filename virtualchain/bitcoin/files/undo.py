"""Undo data: what a block spends, as bitcoind writes it to `rev*.dat` when it connects the block.

For each transaction behind the coinbase it holds a coin per input, in order: height and whether a coinbase
made it, the amount and the script, both in a short form. The forms are those of Bitcoin Core's `undo.h`,
`compressor.cpp` and `serialize.h` (VARINT).
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from virtualchain.bitcoin.node.spent import MAX_MONEY
from virtualchain.bitcoin.transaction import long_count
from virtualchain.errors import MalformedBlock

_PRIME: Final = 2**256 - 2**32 - 977
"""The field of secp256k1."""
_SPECIAL_SIZES: Final = (20, 20, 32, 32, 32, 32)
"""Bytes behind each of the script forms 0 to 5; a higher number is a script's length and 6."""
_COUNT_SIZES: Final = {0xFD: 2, 0xFE: 4, 0xFF: 8}


class Coin(NamedTuple):
    """An output that was spent, and the height of the block that made it."""

    height: int
    value: int
    script_pubkey: bytes


def first_count(data: bytes) -> int:
    """Read the count that data begin with, of which no more than the first nine bytes need be there."""
    size = _COUNT_SIZES.get(data[0])
    return data[0] if size is None else int.from_bytes(data[1 : 1 + size], "little")


def read_undo(data: bytes, wanted: Collection[int]) -> dict[int, tuple[Coin, ...]]:
    """Read what the transactions with the `wanted` txindexes spend; raises MalformedBlock."""
    found: dict[int, tuple[Coin, ...]] = {}
    try:
        transactions, at = _count(data, 0)
        for txindex in range(1, min(transactions, max(wanted, default=0)) + 1):
            coins, at = _count(data, at)
            if txindex in wanted:
                taken = []
                for _ in range(coins):
                    coin, at = _coin(data, at)
                    taken.append(coin)
                found[txindex] = tuple(taken)
            else:
                at = _behind(data, at, coins)
    except (IndexError, ValueError) as error:
        raise MalformedBlock(f"undo data that cannot be read: {error}") from error
    if at > len(data):
        raise MalformedBlock(f"undo data end {at - len(data)} bytes too early")
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise MalformedBlock(f"undo data of {transactions} transactions, without number {missing[0]}")
    return found


def _coin(data: bytes, at: int) -> tuple[Coin, int]:
    code, at = _number(data, at)
    if code > 1:  # a transaction's version stood here once; the height of the genesis block had none
        _, at = _number(data, at)
    short, at = _number(data, at)
    value = _amount(short)
    if value > MAX_MONEY:
        raise ValueError(f"an output of {value} satoshi")
    form, at = _number(data, at)
    size = _SPECIAL_SIZES[form] if form < len(_SPECIAL_SIZES) else form - len(_SPECIAL_SIZES)
    return Coin(code >> 1, value, _script(form, data[at : at + size])), at + size


def _behind(data: bytes, at: int, coins: int) -> int:
    """Pass over some coins. Every read is inlined: a block spends thousands, and mostly none is wanted."""
    for _ in range(coins):
        has_version = data[at] > 1
        for _ in range(3 if has_version else 2):
            while data[at] & 0x80:
                at += 1
            at += 1
        form = data[at]
        if form & 0x80:
            form, at = _number(data, at)
        else:
            at += 1
        at += _SPECIAL_SIZES[form] if form < 6 else form - 6
    return at


def _script(form: int, data: bytes) -> bytes:
    """Write a script from its short form."""
    if form == 0:
        return b"\x76\xa9\x14" + data + b"\x88\xac"
    if form == 1:
        return b"\xa9\x14" + data + b"\x87"
    if form in {2, 3}:
        return b"\x21" + bytes([form]) + data + b"\xac"
    if form in {4, 5}:
        return b"\x41\x04" + data + _other_coordinate(data, odd=form == 5) + b"\xac"
    return data


def _other_coordinate(data: bytes, *, odd: bool) -> bytes:
    """Compute the second coordinate of a public key on secp256k1 from the first one."""
    x = int.from_bytes(data, "big")
    square: int = (pow(x, 3, _PRIME) + 7) % _PRIME
    y: int = pow(square, (_PRIME + 1) // 4, _PRIME)
    if y * y % _PRIME != square:
        raise ValueError(f"{data.hex()} belongs to no public key")
    if y % 2 != odd:
        y = _PRIME - y
    return y.to_bytes(32, "big")


def _amount(short: int) -> int:
    """Expand an amount: its last digit but zeros, and how many zeros follow, are written apart."""
    if short == 0:
        return 0
    rest, zeros = divmod(short - 1, 10)
    if zeros == 9:
        return (rest + 1) * 10**9
    rest, digit = divmod(rest, 9)
    value: int = (10 * rest + digit + 1) * 10**zeros
    return value


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a VARINT: seven bits a byte, the highest first; each byte but the last counts one more."""
    value = 0
    while True:
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
        value += 1
        if value >> 64:
            raise ValueError("a number of more than 64 bits")


def _count(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    return (first, at + 1) if first < 0xFD else long_count(data, at)
