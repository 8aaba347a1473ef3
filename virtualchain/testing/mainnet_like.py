"""Blocks as full as mainnet's, for benchmarks: about 2,400 transactions and 1.3 MB each.

Input and output counts, script types, inscriptions and other protocols' OP_RETURNs are distributed as on
mainnet. Txids, Merkle roots, amounts, spent outputs and proof of work (regtest's) are correct. But
signatures are random bytes and coinbases are spent at once: a fake node serves these blocks, a real one
rejects them.
"""

import hashlib
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.curve import tagged_hash, tweak, y_coordinate
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import op_return, push
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.errors import UsageError
from virtualchain.testing.blocks import genesis_block, make_block, subsidy
from virtualchain.testing.chain import BuiltBlock
from virtualchain.testing.undo import Coin, make_undo
from virtualchain.testing.wire import HEADER_SIZE, compact_size, serialize_output

SEED_BLOCKS: Final = 6
"""Blocks before the full ones, which split coinbases into enough outputs to spend."""

_TRANSACTIONS = 2_400
_SEED_OUTPUTS = 3_000
_OWNERS = 200
_MAX_MATCHES = 20
_MIN_VALUE = 1_000
_MAX_WEIGHT = 3_900_000
_SEQUENCE: Final = b"\xfd\xff\xff\xff"
_VERSION: Final = b"\x02\x00\x00\x00"
_LOCKTIME: Final = bytes(4)
_OTHER_DATA_SHARE = 0.15
"""The share of transactions that carry another protocol's data."""


@dataclass(frozen=True, slots=True)
class Match:
    """A transaction that carries the magic."""

    txindex: int
    txid: str
    payload: bytes
    """Magic included."""
    fee: int


@dataclass(frozen=True, slots=True)
class FullBlock(BuiltBlock):
    """A block, what it spends, and what an app should find in it."""

    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class _Owner:
    """An output script and the bytes that spend it, lengths included."""

    script: bytes
    script_sig: bytes
    witness: bytes


@dataclass(frozen=True, slots=True)
class _Unspent:
    outpoint: bytes
    coin: Coin
    owner: _Owner


@dataclass(frozen=True, slots=True)
class _BuiltTx:
    raw: bytes
    txid: bytes
    spent: list[Coin]
    fee: int
    weight: int


def mainnet_like(blocks: int, *, magic: bytes = b"id", seed: int = 1) -> Iterator[FullBlock]:
    """Generate `SEED_BLOCKS` small blocks and `blocks` full ones on top of regtest's genesis block.

    Up to 20 transactions of a full block carry `magic`, an opcode and random bytes in an OP_RETURN. The same
    arguments produce the same bytes. Raises UsageError if the magic is so short that it occurs by chance.
    """
    if len(magic) < 2:
        raise UsageError("mainnet-like blocks need a magic of two bytes or more")
    yield from _Miner(random.Random(seed), magic).mine(blocks)  # noqa: S311 - repeatable, not secret


class _Miner:
    def __init__(self, rng: random.Random, magic: bytes) -> None:
        self._rng = rng
        self._magic = magic
        self._network = network("regtest")
        self._tip = read_header(0, genesis_block(self._network)[:HEADER_SIZE])
        kinds = [kind for kind, share in _KINDS.items() for _ in range(share)]
        self._owners = [kinds[place % len(kinds)](rng) for place in range(_OWNERS)]
        self._pool: list[_Unspent] = []

    def mine(self, blocks: int) -> Iterator[FullBlock]:
        yield self._block([])
        for _ in range(SEED_BLOCKS - 1):
            yield self._block([self._transaction([self._pool.pop()], _SEED_OUTPUTS)])
        for _ in range(blocks):
            yield self._full_block()

    def _full_block(self) -> FullBlock:
        rng = self._rng
        count = round(rng.gauss(_TRANSACTIONS, _TRANSACTIONS / 8))
        marked = set(rng.sample(range(count), rng.randint(0, _MAX_MATCHES)))
        built: list[_BuiltTx] = []
        payloads: dict[int, bytes] = {}
        weight = 0
        for place in range(count):
            data = None
            if place in marked:
                payload = self._magic + rng.choice(b"?:+&>~;").to_bytes() + rng.randbytes(rng.randint(20, 77))
                payloads[len(built)] = payload
                data = op_return(payload)
            elif rng.random() < _OTHER_DATA_SHARE:
                data = self._other_data()
            built.append(self._transaction(self._inputs(), self._output_count(), data))
            weight += built[-1].weight
            if weight > _MAX_WEIGHT:
                break
        return self._block(built, payloads)

    def _block(self, built: Sequence[_BuiltTx], payloads: dict[int, bytes] | None = None) -> FullBlock:
        height = self._tip.block_id + 1
        owner = self._owners[0]
        reward = subsidy(self._network, height) + sum(tx.fee for tx in built)
        raw, coinbase = make_block(self._tip, [(tx.raw, tx.txid) for tx in built], owner.script, reward)
        self._tip = read_header(height, raw[:HEADER_SIZE])
        self._pool.append(_Unspent(coinbase + bytes(4), Coin(reward, owner.script, height, True), owner))
        matches = (
            Match(place + 1, built[place].txid[::-1].hex(), payload, built[place].fee)
            for place, payload in (payloads or {}).items()
        )
        return FullBlock(raw, make_undo([[], *(tx.spent for tx in built)]), tuple(matches))

    def _transaction(self, spent: list[_Unspent], outputs: int, data: bytes | None = None) -> _BuiltTx:
        rng = self._rng
        total = sum(each.coin.value for each in spent)
        fee = rng.randint(300, 4_000)
        owners = rng.choices(self._owners, k=max(1, min(outputs, (total - fee) // _MIN_VALUE)))
        share, rest = divmod(total - fee, len(owners))
        values = [share + rest, *([share] * (len(owners) - 1))]
        parts = [serialize_output(value, owner.script) for value, owner in zip(values, owners, strict=True)]
        if data is not None:
            parts.append(serialize_output(0, data))
        body = b"".join(
            [
                compact_size(len(spent)),
                *(each.outpoint + each.owner.script_sig + _SEQUENCE for each in spent),
                compact_size(len(parts)),
                *parts,
            ]
        )
        stripped = _VERSION + body + _LOCKTIME
        witness = b"".join(each.owner.witness for each in spent)
        raw = _VERSION + b"\x00\x01" + body + witness + _LOCKTIME if any(witness) else stripped
        txid = sha256d(stripped)
        for place, (value, owner) in enumerate(zip(values, owners, strict=True)):
            coin = Coin(value, owner.script, self._tip.block_id + 1, generated=False)
            self._pool.append(_Unspent(txid + struct.pack("<I", place), coin, owner))
        return _BuiltTx(raw, txid, [each.coin for each in spent], fee, 3 * len(stripped) + len(raw))

    def _inputs(self) -> list[_Unspent]:
        """Take coins at random from the pool, enough for a fee and one output."""
        rng, pool = self._rng, self._pool
        count = rng.choices((1, 2, 3, rng.randint(4, 8), rng.randint(9, 60)), (62, 20, 7, 9, 2))[0]
        taken: list[_Unspent] = []
        while len(taken) < count or sum(each.coin.value for each in taken) < 6_000:
            place = rng.randrange(len(pool))
            pool[place], pool[-1] = pool[-1], pool[place]
            taken.append(pool.pop())
        return taken

    def _output_count(self) -> int:
        rng = self._rng
        return rng.choices(
            (1, 2, rng.randint(3, 5), rng.randint(6, 20), rng.randint(21, 120)), (12, 68, 14, 5, 1)
        )[0]

    def _other_data(self) -> bytes:
        rng = self._rng
        return rng.choices(
            (
                b"\x6a\x5d" + push(rng.randbytes(rng.randint(4, 24))),
                op_return(b"omni" + rng.randbytes(16)),
                op_return(b"\x00" + rng.randbytes(31)),
                op_return(b"=:ETH.ETH:0x" + rng.randbytes(20).hex().encode()),
                op_return(b"\x00" + rng.randbytes(79)),
                b"\x6a" + push(b"\x00" + rng.randbytes(19)) + push(rng.randbytes(8)),
            ),
            (45, 15, 15, 10, 10, 5),
        )[0]


def _key(rng: random.Random) -> bytes:
    return b"\x02" + rng.randbytes(32)


def _signature(rng: random.Random) -> bytes:
    """Return 71 bytes that look like a DER signature with its hash type."""
    return b"\x30\x44\x02\x20" + rng.randbytes(32) + b"\x02\x20" + rng.randbytes(32) + b"\x01"


def _witness(*items: bytes) -> bytes:
    return b"".join([compact_size(len(items)), *(compact_size(len(item)) + item for item in items)])


def _with_length(script: bytes) -> bytes:
    return compact_size(len(script)) + script


_NO_SCRIPT: Final = b"\x00"
_NO_WITNESS: Final = b"\x00"


def _p2wpkh(rng: random.Random) -> _Owner:
    key = _key(rng)
    return _Owner(b"\x00\x14" + hash160(key), _NO_SCRIPT, _witness(_signature(rng), key))


def _p2pkh(rng: random.Random) -> _Owner:
    key = _key(rng)
    script = b"\x76\xa9\x14" + hash160(key) + b"\x88\xac"
    return _Owner(script, _with_length(push(_signature(rng)) + push(key)), _NO_WITNESS)


def _p2sh_p2wpkh(rng: random.Random) -> _Owner:
    inner = _p2wpkh(rng)
    return _Owner(
        b"\xa9\x14" + hash160(inner.script) + b"\x87", _with_length(push(inner.script)), inner.witness
    )


def _p2wsh(rng: random.Random) -> _Owner:
    """Require two signatures of three keys."""
    script = b"\x52" + b"".join(push(_key(rng)) for _ in range(3)) + b"\x53\xae"
    program = hashlib.sha256(script).digest()
    return _Owner(b"\x00\x20" + program, _NO_SCRIPT, _witness(b"", _signature(rng), _signature(rng), script))


def _p2tr(rng: random.Random) -> _Owner:
    return _Owner(b"\x51\x20" + rng.randbytes(32), _NO_SCRIPT, _witness(rng.randbytes(64)))


def _inscription(rng: random.Random) -> _Owner:
    """Spend by a taproot script path whose script carries data in an envelope that is never executed."""
    data = rng.randbytes(min(12_000, round(rng.lognormvariate(6.0, 1.2)) + 60))
    pushes = b"".join(push(data[at : at + 520]) for at in range(0, len(data), 520))
    leaf = b"\x00\x63" + push(b"ord") + b"\x01\x01" + push(b"text/plain") + b"\x00" + pushes + b"\x68\x51"
    internal_key = _x_coordinate(rng)
    tree = tagged_hash("TapLeaf", b"\xc0" + _with_length(leaf))
    output_key, is_odd = tweak(internal_key, tree)
    return _Owner(b"\x51\x20" + output_key, _NO_SCRIPT, _witness(leaf, bytes([0xC0 + is_odd]) + internal_key))


def _x_coordinate(rng: random.Random) -> bytes:
    """Draw numbers until one, as every other does, belongs to a point of the curve."""
    while True:
        x = rng.randbytes(32)
        with suppress(ValueError):
            y_coordinate(int.from_bytes(x, "big"), odd=False)
            return x


_KINDS: Final[dict[Callable[[random.Random], _Owner], int]] = {
    _p2wpkh: 48,
    _p2tr: 18,
    _p2pkh: 14,
    _p2sh_p2wpkh: 11,
    _p2wsh: 5,
    _inscription: 4,
}
"""How many of a hundred owners are of each kind."""
