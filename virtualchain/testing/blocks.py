"""Valid blocks: coinbase, witness commitment, Merkle root and, at regtest's difficulty, proof of work."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.bitcoin.script import push, push_height
from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import UsageError
from virtualchain.model import Block
from virtualchain.testing.wire import compact_size, serialize_output

START_TIME: Final = 1_735_689_600
"""The time of the first block after a genesis block: 2025-01-01, independent of the clock."""
MAX_WEIGHT: Final = 4_000_000
"""The maximum weight of a block (BIP 141)."""

_VERSION = 0x20000000
_OWN_VERSION = 4
"""What the version of a chain with AuxPoW says beside the chain's number."""
_REGTEST: Final = NETWORKS["regtest"]
_NULL = bytes(32)
_EASY_BITS = 0x207FFFFF
_EASY_TARGET_BITS = 240
"""Proof of work is done only for targets with more bits than this: on average, for up to 2^16 tries."""

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
    """Return the serialized genesis block of a network; raises UsageError if only its hash is known."""
    if network.genesis_block:
        return network.genesis_block
    if network.name not in _GENESIS:
        raise UsageError(
            f"network {network.name} has no genesis_block, which chains that are made up begin with"
        )
    message, key = (
        (_TESTNET4, bytes(33)) if network.name == "testnet4" else (_TIMES, bytes.fromhex(_SATOSHI_KEY))
    )
    script = bytes.fromhex("04ffff001d0104") + push(message.encode())
    coinbase = _coinbase_body(1, script, serialize_output(50 * 10**8, push(key) + b"\xac"), 1)
    time, bits, nonce = _GENESIS[network.name]
    header = struct.pack("<i32s32sIII", 1, _NULL, sha256d(coinbase), time, bits, nonce)
    return header + b"\x01" + coinbase


def subsidy(network: Network, block_id: int) -> int:
    """Return the block subsidy at a height, in satoshi."""
    halvings = block_id // (150 if network.name == "regtest" else 210_000)
    return 50 * 10**8 >> halvings if halvings < 64 else 0


def make_block(
    parent: Block,
    transactions: Sequence[tuple[bytes, bytes]],
    script: bytes,
    reward: int,
    tag: bytes = b"",
    bits: int | None = None,
    network: Network = _REGTEST,
) -> tuple[bytes, bytes]:
    """Build the block after `parent` that holds `transactions` (bytes, and txid in internal byte order).

    The coinbase pays `reward` (satoshi: subsidy and fees) to `script`; `tag` distinguishes blocks that
    would otherwise be equal. Returns the block's bytes and the coinbase's txid. `bits` is the target, by
    default the parent's. The block has proof of work only if its target is about as easy as regtest's,
    which takes two tries on average; with a harder one, only a fake node accepts it. `network` says how
    it is hashed, and whether there are witnesses.
    """
    outputs, count = serialize_output(reward, script), 1
    if network.segwit_block_id is not None:
        witness_root = merkle_root([_NULL, *(sha256d(raw) for raw, _ in transactions)])
        commitment = b"\x6a\x24\xaa\x21\xa9\xed" + sha256d(witness_root + _NULL)
        outputs, count = outputs + serialize_output(0, commitment), 2
    body = _coinbase_body(2, push_height(parent.block_id + 1) + push(tag), outputs, count)
    coinbase = body
    if network.segwit_block_id is not None:
        coinbase = body[:4] + b"\x00\x01" + body[4:-4] + b"\x01\x20" + _NULL + body[-4:]
    coinbase_id = sha256d(body)
    root = merkle_root([coinbase_id, *(txid for _, txid in transactions)])
    time = max(parent.time + network.spacing, START_TIME)
    header = make_header(parent, root, time, parent.bits if bits is None else bits, network=network)
    parts = [header, compact_size(len(transactions) + 1), coinbase, *(raw for raw, _ in transactions)]
    return b"".join(parts), coinbase_id


def make_header(
    parent: Block,
    root: bytes,
    time: int,
    bits: int,
    version: int | None = None,
    network: Network = _REGTEST,
) -> bytes:
    """Build the header of the block after `parent`; it has proof of work only if that is easy."""
    if version is None:
        number = network.auxpow_chain_id
        version = _VERSION if number is None else number << 16 | _OWN_VERSION
    head = struct.pack("<i32s32sII", version, bytes.fromhex(parent.hash)[::-1], root, time, bits)
    return _prove_work(head, bits, network)


def bare_coinbase(block_id: int) -> bytes:
    """Build the coinbase of a block without other transactions; it pays nothing."""
    return _coinbase_body(2, push_height(block_id), serialize_output(0, b"\x51"), 1)


def merkle_root(hashes: Sequence[bytes]) -> bytes:
    """Hash pairs of hashes down to one; a level with an odd count repeats its last hash."""
    level = list(hashes)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256d(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


def target(bits: int) -> int:
    """Expand a header's compact target (`nBits`)."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    return mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)


def work(bits: int) -> int:
    """Return the expected number of hashes for a block with this target, as chainwork adds them up."""
    return (1 << 256) // (target(bits) + 1)


def bits_for(least: int) -> int:
    """Return the compact target of a block that has at least so much work, and little more."""
    largest = (1 << 256) // least - 1
    size = (largest.bit_length() + 7) // 8
    mantissa = largest >> 8 * (size - 3)
    if mantissa & 0x800000:  # the sign of a compact number
        mantissa, size = mantissa >> 8, size + 1
    return size << 24 | mantissa


def framed(network: Network, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Frame blocks as in `blk*.dat`, for `bitcoind -loadblock`; the genesis block must come first."""
    for raw in blocks:
        yield network.message_start + struct.pack("<I", len(raw))
        yield raw


def _prove_work(head: bytes, bits: int, network: Network) -> bytes:
    """Complete a header's first 76 bytes with the first nonce that meets the target; 0 if that is hard."""
    limit, hashed = target(bits), network.proof_of_work
    for nonce in range(1 << 32 if limit >> _EASY_TARGET_BITS else 0):
        header = head + struct.pack("<I", nonce)
        if hashed is None or int.from_bytes(hashed(header), "little") <= limit:
            return header
    return head + bytes(4)


def _coinbase_body(version: int, script: bytes, outputs: bytes, count: int) -> bytes:
    """Serialize a coinbase without its witness."""
    null_input = b"\x01" + _NULL + b"\xff" * 4 + compact_size(len(script)) + script + b"\xff" * 4
    return struct.pack("<i", version) + null_input + compact_size(count) + outputs + bytes(4)
