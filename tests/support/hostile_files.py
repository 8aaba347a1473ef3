"""Folders of block files in which strangers have hidden what looks like records, and damage of any kind.

A transaction may hold any bytes, and so may a script that a later transaction spends, which puts it into the
undo data. Here they hold honest headers with forged transactions, whole blocks, and undo data with another
sender, so that whoever searches a damaged file for records finds them.
"""

import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.unit.bitcoin.building import P2PKH, as_coinbase, mined, transaction
from tests.unit.bitcoin.files.writing import KEY, frame, obfuscate, undo_bytes, write_blocks, write_undo
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header, sha256d
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import MalformedBlock, NodeError, UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing import ChainBuilder
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import Coin, read_undo
from virtualchain.testing.wire import outpoint, serialize_output

REGTEST = network("regtest")
BLOCKS, UNDO = "blk00000.dat", "rev00000.dat"
_LAST = 12
"""How many blocks, at the end, have transactions; the others are empty."""


@dataclass(frozen=True)
class Hostile:
    """A node's files, and the truth about what is in them."""

    chain: ChainBuilder
    files: dict[str, bytes]
    key: bytes
    raw: dict[str, bytes]
    """The bytes of every honest block, by its hash."""
    spent: dict[str, dict[int, tuple[SpentOutput, ...]]]
    """What the last blocks' transactions spend."""


def forged_block(header: bytes) -> bytes:
    """Put transactions of a stranger's own after a header."""
    return header + b"\x02" + as_coinbase(transaction(P2PKH, values=[50 * 10**8])) + transaction(P2PKH, P2PKH)


def node_block(header: bytes) -> bytes:
    """Put what could be an inner node of the Merkle tree after a header."""
    return header + b"\x01" + transaction(b"\x51" * 4)


def forged_undo(chain: ChainBuilder, stored: StoredBlock) -> bytes:
    """Write an undo record of a block, framed, whose checksum is right and whose coins are not."""
    undo = chain.undo(stored)
    assert undo is not None
    coins = [
        [Coin(coin.value + 1, P2PKH, coin.height, coin.generated) for coin in each]
        for each in read_undo(undo)[1:]
    ]
    data = undo_bytes(coins)
    return frame(REGTEST, data) + sha256d(bytes.fromhex(stored.block.prev_hash)[::-1] + data)


@cache
def hostile(*, key: bytes = b"", undo: bool = True) -> Hostile:
    """Make a node's files; its last blocks hold forgeries of those below."""
    chain = ChainBuilder(premine=104)
    while len(chain.tree.chain) < 104 + _LAST:
        _add_block(chain)
    chain.reorg(1, 2, [chain.send(b"id!other", sender="carol")])
    stale = next(tip.stored for tip in chain.tree.tips() if tip.branch_length)
    order = [*chain.tree.chain[:-2], stale, *chain.tree.chain[-2:]]
    files = _written(chain, order, key, undo=undo)
    spent = {each.block.hash: _spent(chain, each) for each in order[-_LAST:]}
    return Hostile(chain, files, key, {each.block.hash: each.raw for each in order}, spent)


def _add_block(chain: ChainBuilder) -> None:
    """Mine forgeries of the last blocks in a transaction, and in a script that another one spends."""
    tip, below = chain.tree.chain[-1], chain.tree.chain[-3]
    unknown = mined(tip.raw[:4] + bytes.fromhex(tip.block.hash)[::-1] + tip.raw[36:HEADER_SIZE])
    records = [
        forged_block(tip.raw[:HEADER_SIZE]),
        forged_block(below.raw[:HEADER_SIZE]),
        forged_block(unknown),
        below.raw,
        node_block(tip.raw[:HEADER_SIZE]),
    ]
    payload = b"".join(frame(REGTEST, record) for record in records)
    script = b"\x51" + forged_undo(chain, tip)
    carrier = chain.send(b"id!" + payload, to=[(script, 20_000)])
    chain.mine([carrier, chain.send(b"id?", sender="bob")])
    spending = b"".join(
        [
            struct.pack("<i", 2) + b"\x01" + outpoint(carrier.txid, 1) + b"\x00" + b"\xff" * 4,
            b"\x01" + serialize_output(10_000, P2PKH) + bytes(4),
        ]
    )
    chain.mine([spending, chain.send(b"id!after")])


def _written(chain: ChainBuilder, order: list[StoredBlock], key: bytes, *, undo: bool) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_blocks(folder / BLOCKS, chain, order, key)
        if undo:
            write_undo(folder / UNDO, chain, order, key)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | ({"xor.dat": key} if key else {})


def _spent(chain: ChainBuilder, stored: StoredBlock) -> dict[int, tuple[SpentOutput, ...]]:
    undo = chain.undo(stored)
    assert undo is not None
    return {
        n: tuple(SpentOutput(coin.value, coin.script) for coin in coins)
        for n, coins in enumerate(read_undo(undo))
        if n
    }


Change = Callable[[bytearray], object]


def damages(made: Hostile, data: bytes) -> Iterator[tuple[str, Change]]:
    """Read damages from bytes, five for each: in which file, what, where, and how much."""
    for at in range(0, len(data) - 4, 5):
        which, kind, high, low, amount = data[at : at + 5]
        name = UNDO if which % 4 == 3 and UNDO in made.files else BLOCKS
        yield name, _damage(made, name, kind, high << 8 | low, amount)


def _damage(made: Hostile, name: str, kind: int, place: int, amount: int) -> Change:
    plain = obfuscate(made.files[name], made.key)
    # Most of the chain is empty blocks: only near its end can something go wrong.
    starts = [at for at in _starts(plain) if at > len(plain) - 60_000] or [0]
    start = starts[place % len(starts)]
    size = int.from_bytes(plain[start + 4 : start + 8], "little")

    def change(content: bytearray) -> None:
        at = min(start, len(content))
        if kind % 8 == 0:  # the end is missing
            del content[-1 - amount :]
        elif kind % 8 == 1:  # a record's frame is unreadable
            content[at : at + 8] = bytes(8)
        elif kind % 8 == 2:  # a record lost some bytes
            del content[at + 8 + place % max(size, 1) : at + 8 + place % max(size, 1) + amount]
        elif kind % 8 == 3:  # a record is gone
            del content[at : at + 8 + size]
        elif kind % 8 == 4:  # a node that has forgotten the rest begins to write over it
            replaced = obfuscate(frame(REGTEST, made.chain.tree.chain[place % 100 + 1].raw), made.key, at)
            content[at : at + len(replaced)] = replaced
        elif kind % 8 == 5:  # a byte is wrong
            content[at + place % max(size, 1) : at + place % max(size, 1) + 1] = bytes([amount])
        elif kind % 8 == 6:  # space was reserved in between
            content[at:at] = bytes(amount)
        else:  # a record claims another length
            length = (size + amount - 128).to_bytes(4, "little", signed=True)
            content[at + 4 : at + 8] = obfuscate(length, made.key, at + 4)

    return change


def _starts(plain: bytes) -> Iterator[int]:
    at = plain.find(REGTEST.message_start)
    while at >= 0:
        yield at
        at = plain.find(REGTEST.message_start, at + 1)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files, in place if they exist."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def check_damaged(made: Hostile, data: bytes, folder: Path) -> None:
    """Damage the files as the bytes say, before and while they are read: no block is moved or changed."""
    half = len(data) // 2 // 5 * 5
    files = dict(made.files)
    _apply(made, files, data[:half])
    write(folder, files)
    try:
        source = open_blocks(folder)
    except (NodeError, UsageError):
        return
    with closing(source):
        check(made, source)
        _apply(made, files, data[half:])
        write(folder, files)
        check(made, source)


def _apply(made: Hostile, files: dict[str, bytes], data: bytes) -> None:
    for name, change in damages(made, data):
        content = bytearray(files[name])
        change(content)
        files[name] = bytes(content)


def check(made: Hostile, source: BlockSource) -> None:
    """Compare what a source says with the truth; it may also say that it does not know."""
    with suppress(NodeError):
        tip = source.tip()
        for block_id in range(max(tip.block_id - 20, 0), tip.block_id + 1):
            with suppress(NodeError):
                block_hash = source.block_hash(block_id)
                stored = made.chain.tree.find(block_hash)
                if stored is None:
                    _check_unknown(made, block_id, source.raw_block(block_hash))
                else:
                    assert stored.height == block_id
    for block_hash, spent in made.spent.items():
        raw = made.raw[block_hash]
        with suppress(NodeError):
            taken = source.raw_block(block_hash)
            if taken != raw:  # damaged, which the gate notices, but nothing that a stranger made up
                assert not _is_forged(taken, raw), f"block {block_hash} has a stranger's transactions"
        transactions = dict(enumerate(txids(raw)[1:], 1))
        with suppress(NodeError):
            assert source.spent_outputs(block_hash, transactions) == spent


def _check_unknown(made: Hostile, block_id: int, raw: bytes) -> None:
    """Check that a block which nobody made is an honest one with damage to its header, or does not pass.

    On regtest every second header that is damaged still has proof of work.
    """
    if any(raw[HEADER_SIZE:] == honest[HEADER_SIZE:] for honest in made.raw.values()):
        return
    with suppress(MalformedBlock):
        CheckedBlock(read_header(block_id, raw[:HEADER_SIZE]), raw, REGTEST, "merkle")
        raise AssertionError(f"block {block_id} is a stranger's")
    assert not raw.startswith(forged_block(raw[:HEADER_SIZE])), f"block {block_id} is a stranger's"


def _is_forged(taken: bytes, raw: bytes) -> bool:
    return taken.startswith((forged_block(raw[:HEADER_SIZE]), node_block(raw[:HEADER_SIZE])))


KEYS = (b"", KEY, bytes(5) + b"\x8f\x02\x71")
"""No key, a usual one, and one that begins with zeros."""
