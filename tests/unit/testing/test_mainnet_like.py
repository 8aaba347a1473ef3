"""Mainnet-like blocks for benchmarks."""

from itertools import islice

import pytest

from virtualchain.errors import UsageError
from virtualchain.testing import ChainBuilder
from virtualchain.testing.mainnet_like import SEED_BLOCKS, FullBlock, mainnet_like
from virtualchain.testing.wire import read_block


@pytest.fixture(scope="module")
def blocks() -> list[FullBlock]:
    """Generate two full blocks and those before them."""
    return list(mainnet_like(2))


def test_full_blocks_are_as_large_as_mainnets(blocks: list[FullBlock]) -> None:
    """Size and number of transactions are similar, and the weight is below the limit."""
    assert len(blocks) == SEED_BLOCKS + 2
    for block in blocks[SEED_BLOCKS:]:
        transactions = read_block(block.raw)
        assert 800_000 < len(block.raw) < 2_000_000
        assert 1_500 < len(transactions) < 3_500
        assert sum(tx.weight for tx in transactions) < 4_000_000


def test_undo_data_match_the_blocks(blocks: list[FullBlock]) -> None:
    """They equal the undo data that a chain builder derives from the blocks alone."""
    chain = ChainBuilder.from_blocks("regtest", [block.raw for block in blocks])
    assert [chain.undo(stored) for stored in chain.tree.chain[1:]] == [block.undo for block in blocks]


def test_the_matches_of_a_block_are_its_transactions_with_the_magic(blocks: list[FullBlock]) -> None:
    """Every match has the right position, txid, payload and fee, and none is missing."""
    for block in blocks:
        carriers = [
            (place, tx.txid[::-1].hex(), script)
            for place, tx in enumerate(read_block(block.raw))
            for _, script in tx.outputs
            if script[:1] == b"\x6a" and b"id" in script[2:6]
        ]
        assert [(place, txid) for place, txid, _ in carriers] == [
            (match.txindex, match.txid) for match in block.matches
        ]
        for (_, _, script), match in zip(carriers, block.matches, strict=True):
            assert script.endswith(match.payload)
            assert match.payload.startswith(b"id")
            assert 300 <= match.fee <= 4_000
    assert any(block.matches for block in blocks)


def test_the_same_seed_makes_the_same_blocks(blocks: list[FullBlock]) -> None:
    """Another seed makes different ones."""
    assert list(islice(mainnet_like(1), SEED_BLOCKS)) == blocks[:SEED_BLOCKS]
    assert next(iter(mainnet_like(1, seed=2))) != blocks[0]


def test_a_magic_must_have_two_bytes() -> None:
    """One byte would occur by chance."""
    with pytest.raises(UsageError, match="two bytes or more"):
        next(mainnet_like(1, magic=b"i"))
