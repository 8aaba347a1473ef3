"""Compares everything that a source tells of a chain."""

from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.model import Block
from virtualchain.testing import ChainBuilder


def all_headers(source: BlockSource, start: Block) -> list[Block]:
    """Read every header behind a block."""
    headers: list[Block] = []
    last = start
    while page := source.headers_after(last.block_id, last.hash):
        headers += page
        last = page[-1]
    return headers


def tip_of(chain: ChainBuilder) -> Tip:
    """Give the chain's tip as a source tells it."""
    return Tip(chain.height, chain.tip)


def check_whole(source: BlockSource, chain: ChainBuilder) -> None:
    """Compare everything that a source tells of a chain."""
    blocks = [stored.block for stored in chain.tree.chain]
    assert source.network == chain.network
    assert source.tip() == tip_of(chain)
    assert [source.block_hash(block.block_id) for block in blocks] == [block.hash for block in blocks]
    assert all_headers(source, blocks[0]) == blocks[1:]
    assert [source.raw_block(stored.block.hash) for stored in chain.tree.chain] == chain.raw_blocks()
