"""Headers, compared with the first block of Bitcoin and parts of real chains."""

from itertools import pairwise

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.header import headers_from, read_header
from virtualchain.errors import MalformedBlock

GENESIS = bytes.fromhex(
    "01000000"
    + "00" * 32
    + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    + "29ab5f49"
    + "ffff001d"
    + "1dac2b7c"
)


def test_the_first_header_of_bitcoin_is_read() -> None:
    """Every field of the genesis block has its well-known value."""
    block = read_header(0, GENESIS)
    assert block.block_id == 0
    assert block.hash == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert block.prev_hash == "00" * 32
    assert block.merkle_root == "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert (block.time, block.bits) == (1231006505, 0x1D00FFFF)
    assert block.header == GENESIS


@pytest.mark.parametrize("size", [0, 79, 81])
def test_a_header_of_another_size_is_rejected(size: int) -> None:
    """The error names the block and the size."""
    with pytest.raises(MalformedBlock, match=f"block 7: a header has 80 bytes, not {size}"):
        read_header(7, bytes(size))


def test_headers_in_a_row_are_read_with_their_heights() -> None:
    """Each header is one block higher than the previous one."""
    assert [block.block_id for block in headers_from(5, GENESIS * 3)] == [5, 6, 7]
    assert headers_from(5, b"") == []


def test_truncated_headers_are_rejected() -> None:
    """The error names the block whose header is incomplete."""
    with pytest.raises(MalformedBlock, match=r"block 6: .* not 79"):
        headers_from(5, GENESIS + GENESIS[:-1])


@pytest.mark.parametrize(
    ("file", "first"),
    [
        ("headers/signet_0_2015.bin", 0),
        ("headers/testnet3_0_10000.bin", 0),
        ("headers/mainnet_576576_578692.bin", 576576),
    ],
)
def test_real_headers_name_each_other_as_parent(file: str, first: int) -> None:
    """In thousands of headers, every parent hash is the hash computed for the previous header."""
    blocks = headers_from(first, shared(file).read_bytes())
    assert len(blocks) > 2000
    assert all(child.prev_hash == parent.hash for parent, child in pairwise(blocks))
