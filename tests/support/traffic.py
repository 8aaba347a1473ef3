"""Transactions for a real node's mempool, made by hand of coins that anyone can spend."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from weakref import WeakKeyDictionary

from virtualchain.bitcoin.header import display_hash, sha256d
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.transaction import write_count
from virtualchain.testing.bitcoind import Bitcoind

ANYONE = b"\x51"
"""OP_TRUE: spent by nothing at all."""
FINAL_BUT_REPLACEABLE = 0xFFFFFFFD
_MATURE = 100
_VALUE = 1_000_000
_AT_ONCE = 1000
_numbers = count(1)


@dataclass(frozen=True)
class Coin:
    """An output that anyone can spend."""

    txid: str
    vout: int
    value: int


@dataclass(frozen=True)
class Made:
    """A transaction: its bytes and the coins that it makes."""

    raw: bytes
    txid: str
    coins: tuple[Coin, ...]
    spends: tuple[Coin, ...]
    fee: int

    @property
    def vsize(self) -> int:
        """Its size; it has no witness."""
        return len(self.raw)


_stocks: WeakKeyDictionary[Bitcoind, list[Coin]] = WeakKeyDictionary()


def make(
    spends: Sequence[Coin],
    fee: int,
    *,
    outputs: int = 1,
    payload: bytes | None = None,
    script: bytes | None = None,
) -> Made:
    """Spend coins into equal ones, followed by an OP_RETURN that makes it unique, a script, and a payload."""
    share = (sum(coin.value for coin in spends) - fee) // outputs
    rest = sum(coin.value for coin in spends) - fee - share * outputs
    scripts = [(share + (rest if not n else 0), ANYONE) for n in range(outputs)]
    scripts.append((0, op_return(b"x" + next(_numbers).to_bytes(8, "big"))))
    if script is not None:
        scripts.append((0, script))
    if payload is not None:
        scripts.append((0, op_return(payload)))
    raw = b"".join(
        (
            struct.pack("<i", 2),
            write_count(len(spends)),
            *(
                bytes.fromhex(coin.txid)[::-1]
                + struct.pack("<I", coin.vout)
                + b"\x00"
                + struct.pack("<I", FINAL_BUT_REPLACEABLE)
                for coin in spends
            ),
            write_count(len(scripts)),
            *(struct.pack("<q", value) + write_count(len(script)) + script for value, script in scripts),
            bytes(4),
        )
    )
    txid = display_hash(sha256d(raw))
    made = tuple(Coin(txid, n, value) for n, (value, _) in enumerate(scripts[:outputs]))
    return Made(raw, txid, made, tuple(spends), fee)


def send(node: Bitcoind, transaction: Made) -> Made:
    """Send a transaction to the node, whatever fee it pays."""
    assert node.rpc("sendrawtransaction", transaction.raw.hex(), 0, 1_000_000) == transaction.txid
    return transaction


def mine(node: Bitcoind, n: int = 1) -> list[str]:
    """Mine blocks whose coins anyone can spend."""
    hashes: list[str] = node.rpc("generatetodescriptor", n, f"raw({ANYONE.hex()})")
    return hashes


def fund(node: Bitcoind, coins: int) -> list[Coin]:
    """Return confirmed coins of a million satoshi each that were not returned before."""
    stock = _stocks.setdefault(node, [])
    if len(stock) < coins:
        whole = coinbase(node, mine(node)[0])
        mine(node, _MATURE)
        fee = whole.value - _AT_ONCE * _VALUE
        stock += send(node, make([whole], fee, outputs=_AT_ONCE)).coins
        mine(node)
    taken, stock[:] = stock[:coins], stock[coins:]
    assert len(taken) == coins, "fewer are asked for at once"
    return taken


def coinbase(node: Bitcoind, block_hash: str) -> Coin:
    """Return the coin that a block made."""
    transaction = node.rpc("getblock", block_hash, 2)["tx"][0]
    return Coin(transaction["txid"], 0, round(transaction["vout"][0]["value"] * 100_000_000))
