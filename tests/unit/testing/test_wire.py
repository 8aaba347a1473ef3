"""Reading serialised transactions and blocks."""

import gzip
import json

import pytest

from tests.support.shared_data import shared
from virtualchain.errors import MalformedBlock
from virtualchain.testing import ChainBuilder
from virtualchain.testing.wire import compact_size, read_block, read_compact_size, read_transaction


@pytest.mark.parametrize("number", [0, 252, 253, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000, (1 << 64) - 1])
def test_a_count_comes_back_as_it_was_written(number: int) -> None:
    """Every form of Bitcoin's variable-length integer, at its edges."""
    written = compact_size(number)
    assert read_compact_size(b"??" + written, 2) == (number, 2 + len(written))


def test_a_count_beyond_the_wire_format_cannot_be_written() -> None:
    """Eight bytes are the most."""
    with pytest.raises(OverflowError, match="no count"):
        compact_size(1 << 64)


@pytest.mark.parametrize("block_id", [325000, 549400])
def test_the_ids_of_a_real_block_are_those_that_a_node_gives(block_id: int) -> None:
    """Two mainnet blocks, before and after segwit, against a node's own JSON."""
    with gzip.open(shared(f"getblock/{block_id}.json.gz")) as file:
        told = json.load(file)
    told = told.get("result", told)
    expected = [tx if isinstance(tx, str) else tx["txid"] for tx in told["tx"]]
    read = read_block(shared(f"mainnet/{block_id}.blk").read_bytes())
    assert [tx.txid[::-1].hex() for tx in read] == expected
    assert sum(tx.stripped_size for tx in read) + 80 + len(compact_size(len(read))) == told.get(
        "strippedsize", told["size"]
    )


def test_the_weights_of_a_real_segwit_block_add_up() -> None:
    """Block 481824 is the first with witnesses: its transactions fill it, and some are lighter without."""
    raw = shared("mainnet/481824.blk").read_bytes()
    read = read_block(raw)
    assert sum(len(tx.raw) for tx in read) + 80 + 3 == len(raw)
    assert any(tx.weight < 4 * len(tx.raw) for tx in read)


def test_what_is_cut_off_or_too_long_is_no_transaction_and_no_block() -> None:
    """Every place to cut, and a byte too many."""
    chain = ChainBuilder()
    tx = chain.send(b"hello")
    chain.mine([tx])
    for cut in range(len(tx.raw)):
        with pytest.raises(MalformedBlock):
            read_transaction(tx.raw[:cut])
    with pytest.raises(MalformedBlock, match="follow"):
        read_transaction(tx.raw + b"x")
    block = chain.raw_blocks()[-1]
    for cut in (0, 79, 80, 81, 200, len(block) - 1):
        with pytest.raises(MalformedBlock):
            read_block(block[:cut])
    with pytest.raises(MalformedBlock, match="follow"):
        read_block(block + b"x")
