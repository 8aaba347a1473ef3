"""Parse undo data: the outputs that a block spends, as bitcoind writes them to `rev*.dat` on connecting it.

For each transaction after the coinbase there is one coin per input, in order: its height, whether a coinbase
created it, and the amount and the script, both compressed. The format is that of Bitcoin Core's `undo.h`,
`compressor.cpp` and `serialize.h` (VARINT).
"""

from array import array
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from virtualchain.bitcoin.compiled import skip_undo
from virtualchain.bitcoin.curve import y_coordinate
from virtualchain.bitcoin.layout import MOST_TRANSACTIONS
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.bitcoin.spending import Capped
from virtualchain.bitcoin.transaction import read_count
from virtualchain.errors import MalformedBlock

_SPECIAL_SIZES: Final = (20, 20, 32, 32, 32, 32)
"""Bytes that follow each of the script forms 0 to 5; a higher number is a script's length plus 6."""
_MAINNET: Final = NETWORKS["mainnet"]
_COUNT_SIZES: Final = {0xFD: 2, 0xFE: 4, 0xFF: 8}


class Coin(NamedTuple):
    """An output that was spent, the height of the block that created it, and whether its coinbase did."""

    height: int
    value: int
    script_pubkey: bytes
    generated: bool

    @property
    def made_at(self) -> int:
        """As in `SpentOutput`."""
        return 2 * self.height + self.generated


def first_count(data: bytes) -> int:
    """Read the count at the start of undo data; their first nine bytes are enough."""
    size = _COUNT_SIZES.get(data[0])
    return data[0] if size is None else int.from_bytes(data[1 : 1 + size], "little")


class Coins(dict[int, tuple[Coin, ...]]):
    """The coins that transactions spend, by txindex; `counts` is how many each of the block's spends."""

    counts: Sequence[int] = ()


def read_undo(data: bytes, txindexes: Collection[int], network: Network = _MAINNET) -> Coins:
    """Read the coins that the transactions at `txindexes` spend, with their scripts capped.

    On a chain with MWEB blocks, what follows the coins undoes such a block, and is not looked at. Raises
    MalformedBlock unless the data are undo data from beginning to end.
    """
    spent = Coins()
    try:
        transactions, at = read_count(data, 0)
        if transactions > MOST_TRANSACTIONS:
            raise ValueError(f"{transactions} transactions, which no block has")
        counts = array("I", bytes(4 * (transactions + 1)))
        txindex = 1
        for requested in (*sorted(set(txindexes) & set(range(1, transactions + 1))), transactions + 1):
            at = _skip_transactions(data, at, txindex, requested, counts)
            if requested <= transactions:
                counts[requested], at = read_count(data, at)
                coins, cap = [], Capped().cap
                for _ in range(counts[requested]):
                    coin, at = _read_coin(data, at, network.largest_amount)
                    coins.append(coin._replace(script_pubkey=cap(coin.script_pubkey)))
                spent[requested] = tuple(coins)
            txindex = requested + 1
    except (IndexError, ValueError) as error:
        raise MalformedBlock(f"undo data that cannot be read: {error}") from error
    if at > len(data) or (at < len(data) and not network.mweb_hrp):
        amount = f"{at - len(data)} bytes too short" if at > len(data) else f"{len(data) - at} bytes too long"
        raise MalformedBlock(f"undo data are {amount}")
    missing = sorted(set(txindexes) - set(spent))
    if missing:
        raise MalformedBlock(f"undo data of {transactions} transactions, without number {missing[0]}")
    spent.counts = counts
    return spent


def _read_coin(data: bytes, at: int, largest: int) -> tuple[Coin, int]:
    taken = _take_coin(data, at)
    value = _decompress_amount(taken.amount)
    if value > largest:
        raise ValueError(f"an output of {value} satoshi")
    script = _decompress_script(taken.form, data[taken.script : taken.end])
    return Coin(taken.code >> 1, value, script, bool(taken.code & 1)), taken.end


class _TakenCoin(NamedTuple):
    """A coin as it is written: height and coinbase, amount, form of the script, and where that is."""

    code: int
    amount: int
    form: int
    script: int
    end: int


def _take_coin(data: bytes, at: int) -> _TakenCoin:
    code, at = _varint(data, at)
    if code > 1:  # formerly the transaction's version, which a coin at height 0 never had
        _, at = _varint(data, at)
    amount, at = _varint(data, at)
    form, at = _varint(data, at)
    size = _SPECIAL_SIZES[form] if form < len(_SPECIAL_SIZES) else form - len(_SPECIAL_SIZES)
    return _TakenCoin(code, amount, form, at, at + size)


def _skip_transactions(data: bytes, at: int, first: int, end: int, counts: "array[int]") -> int:
    """Skip and count what the transactions from `first` to before `end` spend; returns where that ends."""
    while first < end:
        first, at = skip_undo(data, at, first, end, counts)
        if first < end:  # it is long, or cannot be read
            counts[first], at = read_count(data, at)
            for _ in range(counts[first]):
                at = _take_coin(data, at).end
            first += 1
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
        y = y_coordinate(int.from_bytes(data, "big"), odd=form == 5)
        return b"\x41\x04" + data + y.to_bytes(32, "big") + b"\xac"
    return data


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
