"""Parse undo data: the outputs that a block spends, as bitcoind writes them to `rev*.dat` on connecting it.

For each transaction after the coinbase there is one coin per input, in order: its height, whether a coinbase
created it, and the amount and the script, both compressed. The format is that of Bitcoin Core's `undo.h`,
`compressor.cpp` and `serialize.h` (VARINT).
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from virtualchain.bitcoin.transaction import MAX_MONEY, read_count
from virtualchain.errors import MalformedBlock

_PRIME: Final = 2**256 - 2**32 - 977
"""The prime of secp256k1's field."""
_SPECIAL_SIZES: Final = (20, 20, 32, 32, 32, 32)
"""Bytes that follow each of the script forms 0 to 5; a higher number is a script's length plus 6."""
_COUNT_SIZES: Final = {0xFD: 2, 0xFE: 4, 0xFF: 8}


class Coin(NamedTuple):
    """An output that was spent, and the height of the block that created it."""

    height: int
    value: int
    script_pubkey: bytes


def first_count(data: bytes) -> int:
    """Read the count at the start of undo data; their first nine bytes are enough."""
    size = _COUNT_SIZES.get(data[0])
    return data[0] if size is None else int.from_bytes(data[1 : 1 + size], "little")


def read_undo(data: bytes, txindexes: Collection[int]) -> dict[int, tuple[Coin, ...]]:
    """Read the coins that the transactions at `txindexes` spend; raises MalformedBlock."""
    spent: dict[int, tuple[Coin, ...]] = {}
    try:
        transactions, at = read_count(data, 0)
        for txindex in range(1, min(transactions, max(txindexes, default=0)) + 1):
            count, at = read_count(data, at)
            if txindex in txindexes:
                coins = []
                for _ in range(count):
                    coin, at = _read_coin(data, at)
                    coins.append(coin)
                spent[txindex] = tuple(coins)
            else:
                at = _skip_coins(data, at, count)
    except (IndexError, ValueError) as error:
        raise MalformedBlock(f"undo data that cannot be read: {error}") from error
    if at > len(data):
        raise MalformedBlock(f"undo data are {at - len(data)} bytes too short")
    missing = sorted(set(txindexes) - set(spent))
    if missing:
        raise MalformedBlock(f"undo data of {transactions} transactions, without number {missing[0]}")
    return spent


def _read_coin(data: bytes, at: int) -> tuple[Coin, int]:
    code, at = _varint(data, at)
    if code > 1:  # formerly the transaction's version, which a coin at height 0 never had
        _, at = _varint(data, at)
    compressed, at = _varint(data, at)
    value = _decompress_amount(compressed)
    if value > MAX_MONEY:
        raise ValueError(f"an output of {value} satoshi")
    form, at = _varint(data, at)
    size = _SPECIAL_SIZES[form] if form < len(_SPECIAL_SIZES) else form - len(_SPECIAL_SIZES)
    return Coin(code >> 1, value, _decompress_script(form, data[at : at + size])), at + size


def _skip_coins(data: bytes, at: int, count: int) -> int:
    """Return where `count` coins end. Every read is inlined: a block spends thousands, and few are needed."""
    for _ in range(count):
        has_version = data[at] > 1
        for _ in range(3 if has_version else 2):
            while data[at] & 0x80:
                at += 1
            at += 1
        form = data[at]
        if form & 0x80:
            form, at = _varint(data, at)
        else:
            at += 1
        at += _SPECIAL_SIZES[form] if form < 6 else form - 6
    return at


def _decompress_script(form: int, data: bytes) -> bytes:
    """Write a script from its compressed form."""
    if form == 0:
        return b"\x76\xa9\x14" + data + b"\x88\xac"
    if form == 1:
        return b"\xa9\x14" + data + b"\x87"
    if form in {2, 3}:
        return b"\x21" + bytes([form]) + data + b"\xac"
    if form in {4, 5}:
        return b"\x41\x04" + data + _y_coordinate(data, odd=form == 5) + b"\xac"
    return data


def _y_coordinate(data: bytes, *, odd: bool) -> bytes:
    """Compute the y coordinate of a public key on secp256k1 from its x coordinate."""
    x = int.from_bytes(data, "big")
    square: int = (pow(x, 3, _PRIME) + 7) % _PRIME
    y: int = pow(square, (_PRIME + 1) // 4, _PRIME)
    if y * y % _PRIME != square:
        raise ValueError(f"{data.hex()} is not the x coordinate of a public key")
    if y % 2 != odd:
        y = _PRIME - y
    return y.to_bytes(32, "big")


def _decompress_amount(compressed: int) -> int:
    """Expand an amount: its trailing zeros are counted, and its last other digit is stored separately."""
    if compressed == 0:
        return 0
    rest, zeros = divmod(compressed - 1, 10)
    if zeros == 9:
        return (rest + 1) * 10**9
    rest, digit = divmod(rest, 9)
    value: int = (10 * rest + digit + 1) * 10**zeros
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a VARINT: seven bits a byte, most significant first; one is added for each byte but the last."""
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
