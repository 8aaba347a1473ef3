"""Block files with damage anywhere: an answer is right, or it is one of virtualchain's errors."""

import tempfile
from contextlib import closing, suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bitcoin.files.writing import KEY, write_blocks, write_undo
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.errors import NodeError, UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing import ChainBuilder
from virtualchain.testing.undo import read_undo

BLOCKS, UNDO = "blk00000.dat", "rev00000.dat"
Truth = dict[str, dict[int, tuple[SpentOutput, ...]]]


@cache
def written(*, key: bytes, undo: bool) -> tuple[ChainBuilder, dict[str, bytes], Truth]:
    """Make a chain in which coins move, a node's files of it, and what its blocks spend."""
    chain = ChainBuilder(premine=103)
    for text in (b"one", b"two"):
        chain.mine([chain.send(b"id!" + text), chain.send(b"id?", sender="bob")])
    chain.reorg(1, 2, [chain.send(b"id!other", sender="carol")])
    stored = [*chain.tree.chain[-6:], *(tip.stored for tip in chain.tree.tips() if tip.branch_length)]
    blocks = [*chain.tree.chain[:-6], *stored]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_blocks(folder / BLOCKS, chain, blocks, key)
        if undo:
            write_undo(folder / UNDO, chain, blocks, key)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if key:
        files["xor.dat"] = key
    truth: Truth = {}
    for each in stored:
        undo_data = chain.undo(each)
        assert undo_data is not None
        truth[each.block.hash] = {
            n: tuple(SpentOutput(coin.value, coin.script) for coin in coins)
            for n, coins in enumerate(read_undo(undo_data))
            if n
        }
    return chain, files, truth


@settings(deadline=None, max_examples=150)
@given(st.booleans(), st.sampled_from([b"", KEY]), st.data())
def test_damaged_files_yield_the_truth_or_an_error(undo: bool, key: bytes, data: st.DataObject) -> None:
    """Bytes are removed, inserted and replaced in the block file, the undo data or the key."""
    chain, files, truth = written(key=key, undo=undo)
    raw_of = {hash_: chain.tree.find(hash_) for hash_ in truth}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        path = folder / data.draw(st.sampled_from(sorted(files)))
        for _ in range(data.draw(st.integers(1, 3))):
            content = path.read_bytes()
            # Most of the chain is empty blocks: only near its end can something go wrong.
            at = len(content) - min(data.draw(st.integers(0, 4000)), len(content))
            removed = data.draw(st.sampled_from([0, 1, 1, 4, 300]))
            path.write_bytes(content[:at] + data.draw(st.binary(max_size=4)) + content[at + removed :])
        try:
            source = open_blocks(folder)
        except (NodeError, UsageError):
            return
        with closing(source):
            with suppress(NodeError):
                tip = source.tip()
                assert source.block_hash(tip.block_id) == tip.hash
                headers = source.headers_after(tip.block_id - 3, source.block_hash(tip.block_id - 3))
                for before, block in pairwise(headers or ()):
                    assert before.hash == block.prev_hash
            for block_hash, spent in truth.items():
                with suppress(NodeError):
                    raw = source.raw_block(block_hash)
                    assert read_header(0, raw[:HEADER_SIZE]).hash == block_hash
                stored = raw_of[block_hash]
                assert stored is not None
                transactions = dict(enumerate(txids(stored.raw)[1:], 1))
                with suppress(NodeError):
                    assert source.spent_outputs(block_hash, transactions) == spent
