"""Blocks that a node takes: coinbase, witness commitment, Merkle root and, where easy, proof of work."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from virtualchain.bitcoin.networks import Network
from virtualchain.consensus.hashing import sha256d
from virtualchain.model import Block
from virtualchain.testing.transactions import push
from virtualchain.testing.wire import compact_size, serialise_output

SPACING: Final = 600
"""Seconds from a block to the next."""
START_TIME: Final = 1_735_689_600
"""When the first block behind a genesis block was mined: 2025-01-01, whatever the clock says."""
MAX_WEIGHT: Final = 4_000_000
"""A block's weight at most (BIP 141)."""

_VERSION = 0x20000000
_NULL = bytes(32)
_EASY_BITS = 0x207FFFFF
_TRIED = 240
"""A target has at least so many bits where a nonce is looked for: 2^16 tries at the most, on average."""

_TIMES = "The Times 03/Jan/2009 Chancellor on brink of second bailout for banks"
_TESTNET4 = "03/May/2024 000000000000000000001ebd58c244970b3aa9d783bb001011fbe8ea8e98e00e"
_SATOSHI_KEY = (
    "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"
    "49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
)
_GENESIS: Final = {
    "mainnet": (1231006505, 0x1D00FFFF, 2083236893),
    "testnet3": (1296688602, 0x1D00FFFF, 414098458),
    "testnet4": (1714777860, 0x1D00FFFF, 393743547),
    "signet": (1598918400, 0x1E0377AE, 52613770),
    "regtest": (1296688602, _EASY_BITS, 2),
}
"""Time, bits and nonce."""


def genesis_block(network: Network) -> bytes:
    """Give the serialised genesis block of a network."""
    message, key = (
        (_TESTNET4, bytes(33)) if network.name == "testnet4" else (_TIMES, bytes.fromhex(_SATOSHI_KEY))
    )
    script = bytes.fromhex("04ffff001d0104") + push(message.encode())
    coinbase = _coinbase_body(1, script, serialise_output(50 * 10**8, push(key) + b"\xac"), 1)
    time, bits, nonce = _GENESIS[network.name]
    header = struct.pack("<i32s32sIII", 1, _NULL, sha256d(coinbase), time, bits, nonce)
    return header + b"\x01" + coinbase


def subsidy(network: Network, block_id: int) -> int:
    """Give what the miner of a block may create, in satoshi."""
    halvings = block_id // (150 if network.name == "regtest" else 210_000)
    return 50 * 10**8 >> halvings if halvings < 64 else 0


def make_block(
    parent: Block,
    transactions: Sequence[tuple[bytes, bytes]],
    script: bytes,
    reward: int,
    tag: bytes = b"",
    bits: int | None = None,
) -> tuple[bytes, bytes]:
    """Make the block behind `parent` that holds `transactions` (their bytes, and ids as computed).

    The coinbase pays `reward` (satoshi: subsidy and fees) to `script`; `tag` tells apart blocks that would
    be equal otherwise. Gives the block's bytes and the coinbase's id. Its target is that of `bits`, or else
    the parent's; the block has proof of work where that is as easy as regtest's, which takes two tries on
    average. With any other only a fake node takes it.
    """
    witness_root = merkle_root([_NULL, *(sha256d(raw) for raw, _ in transactions)])
    commitment = b"\x6a\x24\xaa\x21\xa9\xed" + sha256d(witness_root + _NULL)
    outputs = serialise_output(reward, script) + serialise_output(0, commitment)
    body = _coinbase_body(2, _height(parent.block_id + 1) + push(tag), outputs, 2)
    coinbase = body[:4] + b"\x00\x01" + body[4:-4] + b"\x01\x20" + _NULL + body[-4:]
    coinbase_id = sha256d(body)
    root = merkle_root([coinbase_id, *(txid for _, txid in transactions)])
    time = max(parent.time + SPACING, START_TIME)
    bits = parent.bits if bits is None else bits
    head = struct.pack("<i32s32sII", _VERSION, bytes.fromhex(parent.hash)[::-1], root, time, bits)
    header = _prove_work(head, bits)
    parts = [header, compact_size(len(transactions) + 1), coinbase, *(raw for raw, _ in transactions)]
    return b"".join(parts), coinbase_id


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """Join hashes in pairs down to one; an odd row repeats its last."""
    row = list(hashes)
    while len(row) > 1:
        if len(row) % 2:
            row.append(row[-1])
        row = [sha256d(row[at] + row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def target(bits: int) -> int:
    """Expand a header's compact target (`nBits`)."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    return mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)


def work(bits: int) -> int:
    """Give how many hashes a block with this target stands for, as chainwork adds them up."""
    return (1 << 256) // (target(bits) + 1)


def framed(network: Network, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Frame blocks as `blk*.dat` and `bitcoind -loadblock` have them; the genesis block must come first."""
    for raw in blocks:
        yield network.message_start + struct.pack("<I", len(raw))
        yield raw


def _prove_work(head: bytes, bits: int) -> bytes:
    """Put the first nonce behind the header's 76 bytes that meets an easy target; 0 for a harder one."""
    limit = target(bits)
    for nonce in range(1 << 32 if limit >> _TRIED else 0):
        header = head + struct.pack("<I", nonce)
        if int.from_bytes(sha256d(header), "little") <= limit:
            return header
    return head + bytes(4)


def _height(block_id: int) -> bytes:
    """Push a height as BIP 34 wants it: the script number in its shortest form."""
    if block_id <= 16:
        return bytes([0x50 + block_id])
    return push(block_id.to_bytes(block_id.bit_length() // 8 + 1, "little"))


def _coinbase_body(version: int, script: bytes, outputs: bytes, count: int) -> bytes:
    """Serialise a coinbase without its witness."""
    spends_nothing = b"\x01" + _NULL + b"\xff" * 4 + compact_size(len(script)) + script + b"\xff" * 4
    return struct.pack("<i", version) + spends_nothing + compact_size(count) + outputs + bytes(4)
