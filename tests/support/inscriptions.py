"""Transactions with taproot coins that anyone can spend, and envelopes in the scripts that spend them.

Nothing is signed: the script of a coin is a leaf that succeeds, so a real node takes the transactions, too.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.unit.bitcoin.building import count
from virtualchain.bitcoin.curve import tagged_hash, tweak
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify, push
from virtualchain.bitcoin.transaction import write_count
from virtualchain.testing import FakeNode
from virtualchain.testing.transactions import Tx
from virtualchain.testing.wire import outpoint, read_transaction, serialize_output

INTERNAL: Final = bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
"""The generator: nobody needs its key, and everybody knows that of the scripts."""
ANNEX: Final = b"\x50annex"


def envelope(*pushes: bytes, tag: bytes = b"ord") -> bytes:
    """Write an envelope."""
    return b"\x00\x63" + b"".join(map(push, (tag, *pushes))) + b"\x68"


def leaf(*envelopes: bytes, name: str = "") -> bytes:
    """Write a leaf script that succeeds; another `name` makes another one."""
    return push(name.encode()) + b"\x75" + b"".join(envelopes) + b"\x51"


def taproot(script: bytes) -> tuple[bytes, bytes]:
    """Return the output script that commits to a leaf script, and the control block that shows it."""
    root = tagged_hash("TapLeaf", b"\xc0" + write_count(len(script)) + script)
    key, is_odd = tweak(INTERNAL, root)
    return b"\x51\x20" + key, bytes([0xC0 | is_odd]) + INTERNAL


class Coin(NamedTuple):
    """An output that is spent by showing its leaf script."""

    txid: str
    vout: int
    value: int
    script: bytes

    @property
    def pays(self) -> bytes:
        """The output script."""
        return taproot(self.script)[0]


def owner(name: str) -> tuple[bytes, bytes]:
    """Return the leaf script of someone with this name, and the output script."""
    script = leaf(name=name)
    return script, taproot(script)[0]


def address(name: str) -> str:
    """Return the address of someone with this name."""
    return classify(owner(name)[1], network("regtest"))[1][0]


def fund(node: FakeNode, *coins: tuple[bytes, int]) -> list[Coin]:
    """Mine coins with these leaf scripts and values; a value of 0 is fine."""
    tx = node.send(to=[(taproot(script)[0], value) for script, value in coins])
    node.mine([tx])
    return [Coin(tx.txid, vout, value, script) for vout, (script, value) in enumerate(coins)]


def spend(coins: Sequence[Coin], *outputs: tuple[str | bytes, int], annex: bool = False) -> Tx:
    """Spend coins into outputs of someone (a name), or with an output script; the rest is the fee."""
    scripts = [(owner(to)[1] if isinstance(to, str) else to, value) for to, value in outputs]
    spent = b"".join(outpoint(coin.txid, coin.vout) + b"\0\xff\xff\xff\xff" for coin in coins)
    paid = b"".join(serialize_output(value, script) for script, value in scripts)
    witnesses = [[coin.script, taproot(coin.script)[1], *[ANNEX] * annex] for coin in coins]
    witness = b"".join(
        count(len(items)) + b"".join(write_count(len(item)) + item for item in items) for items in witnesses
    )
    parts = (b"\2\0\0\0\0\1", count(len(coins)), spent, count(len(scripts)), paid, witness, bytes(4))
    raw = b"".join(parts)
    return Tx(raw, read_transaction(raw).txid[::-1].hex())


def coin(tx: Tx, vout: int, name: str) -> Coin:
    """Return an output of someone's as a coin."""
    return Coin(tx.txid, vout, read_transaction(tx.raw).outputs[vout][0], owner(name)[0])
