"""Writes blocks and undo data as bitcoind does: framed, obfuscated and compressed."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from virtualchain.bitcoin.header import sha256d
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.source import Tip
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import Coin, read_undo
from virtualchain.testing.wire import compact_size

KEY = bytes.fromhex("f1b18d3e957856d0")
BLOCKS, UNDO = "blk00000.dat", "rev00000.dat"


def frame(network: Network, raw: bytes) -> bytes:
    """Prepend message start and length."""
    return network.message_start + struct.pack("<I", len(raw)) + raw


def obfuscate(plain: bytes, key: bytes, at: int = 0) -> bytes:
    """XOR byte by byte; the first byte is at offset `at` in its file."""
    return bytes(byte ^ key[(at + offset) % len(key)] for offset, byte in enumerate(plain)) if key else plain


def append(path: Path, plain: bytes, key: bytes = b"") -> None:
    """Append to a file."""
    at = path.stat().st_size if path.exists() else 0
    with path.open("ab") as file:
        file.write(obfuscate(plain, key, at))


def write_blocks(path: Path, chain: ChainBuilder, blocks: Iterable[StoredBlock], key: bytes = b"") -> None:
    """Append blocks to a file."""
    append(path, b"".join(frame(chain.network, stored.raw) for stored in blocks), key)


def write_undo(path: Path, chain: ChainBuilder, blocks: Iterable[StoredBlock], key: bytes = b"") -> None:
    """Append the undo data of blocks to a file; the genesis block has none."""
    for stored in blocks:
        if stored.parent is None:
            continue
        undo = chain.undo(stored)
        assert undo is not None
        data = undo_bytes(read_undo(undo)[1:])
        checksum = sha256d(bytes.fromhex(stored.block.prev_hash)[::-1] + data)
        append(path, frame(chain.network, data) + checksum, key)


def write_node(folder: Path, chain: ChainBuilder, *, key: bytes = b"", undo: bool = True) -> None:
    """Write the files of a node that has this chain."""
    if key:
        (folder / "xor.dat").write_bytes(key)
    write_blocks(folder / BLOCKS, chain, chain.tree.chain, key)
    if undo:
        write_undo(folder / UNDO, chain, chain.tree.chain, key)


def tip_of(chain: ChainBuilder) -> Tip:
    """Return the tip that a source of this chain must have."""
    return Tip(chain.height, chain.tip)


def undo_bytes(spent: Sequence[Sequence[Coin]]) -> bytes:
    """Serialize what the transactions after a coinbase spend."""
    parts = [compact_size(len(spent))]
    for coins in spent:
        parts.append(compact_size(len(coins)))
        parts += [coin_bytes(coin) for coin in coins]
    return b"".join(parts)


def coin_bytes(coin: Coin) -> bytes:
    """Serialize one coin."""
    code = varint(coin.height << 1 | coin.generated)
    return (
        code
        + (b"\0" if coin.height else b"")
        + varint(compress_amount(coin.value))
        + compress_script(coin.script)
    )


def varint(number: int) -> bytes:
    """Write a number in groups of seven bits, most significant first; each but the last is one less."""
    groups = [number & 0x7F]
    while number > 0x7F:
        number = (number >> 7) - 1
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def compress_amount(value: int) -> int:
    """Combine an amount's digits without trailing zeros and the number of these zeros."""
    if value == 0:
        return 0
    zeros = 0
    while value % 10 == 0 and zeros < 9:
        value //= 10
        zeros += 1
    if zeros == 9:
        return 1 + 10 * (value - 1) + 9
    return 1 + 10 * (9 * (value // 10) + value % 10 - 1) + zeros


def compress_script(script: bytes) -> bytes:
    """Write the usual scripts as their hash or key."""
    if len(script) == 25 and script[:3] == b"\x76\xa9\x14" and script[23:] == b"\x88\xac":
        return b"\0" + script[3:23]
    if len(script) == 23 and script[:2] == b"\xa9\x14" and script[22:] == b"\x87":
        return b"\1" + script[2:22]
    if len(script) == 35 and script[0] == 33 and script[1] in {2, 3} and script[34] == 0xAC:
        return script[1:34]
    if len(script) == 67 and script[:2] == b"\x41\x04" and script[66] == 0xAC:
        return bytes([4 | script[65] & 1]) + script[2:34]
    return varint(len(script) + 6) + script
