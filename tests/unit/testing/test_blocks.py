"""Serialized transactions and blocks: reading them, and building blocks."""

import gzip
import json

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import NETWORKS, network
from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import MalformedBlock
from virtualchain.testing import ChainBuilder
from virtualchain.testing.blocks import bits_for, framed, genesis_block, merkle_root, subsidy, target, work
from virtualchain.testing.wire import compact_size, read_block, read_compact_size, read_transaction


@pytest.mark.parametrize("number", [0, 252, 253, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000, (1 << 64) - 1])
def test_a_count_comes_back_as_it_was_written(number: int) -> None:
    """Every form of Bitcoin's variable-length integer round-trips at its limits."""
    written = compact_size(number)
    assert read_compact_size(b"??" + written, 2) == (number, 2 + len(written))


def test_a_count_beyond_the_wire_format_cannot_be_written() -> None:
    """A number of more than eight bytes is an error."""
    with pytest.raises(OverflowError, match="does not fit"):
        compact_size(1 << 64)


@pytest.mark.parametrize("block_id", [325000, 549400])
def test_the_txids_of_a_real_block_are_those_that_a_node_reports(block_id: int) -> None:
    """Two mainnet blocks, before and after segwit, agree with a node's own JSON."""
    with gzip.open(shared(f"getblock/{block_id}.json.gz")) as file:
        reported = json.load(file)
    reported = reported.get("result", reported)
    expected = [tx if isinstance(tx, str) else tx["txid"] for tx in reported["tx"]]
    transactions = read_block(shared(f"mainnet/{block_id}.blk").read_bytes())
    assert [tx.txid[::-1].hex() for tx in transactions] == expected
    size = sum(tx.stripped_size for tx in transactions) + 80 + len(compact_size(len(transactions)))
    assert size == reported.get("strippedsize", reported["size"])


def test_the_weights_of_a_real_segwit_block_add_up() -> None:
    """The transactions of block 481824, the first with witnesses, fill it, and witnesses weigh less."""
    raw = shared("mainnet/481824.blk").read_bytes()
    transactions = read_block(raw)
    assert sum(len(tx.raw) for tx in transactions) + 80 + 3 == len(raw)
    assert any(tx.weight < 4 * len(tx.raw) for tx in transactions)


def test_truncated_and_overlong_transactions_and_blocks_are_malformed() -> None:
    """A cut at any place is an error, and so is one extra byte."""
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


@pytest.mark.parametrize("name", NETWORKS)
def test_the_genesis_block_has_the_networks_hash_and_its_own_merkle_root(name: str) -> None:
    """It is built from its message, key, time and nonce, and any wrong byte would change its hash."""
    raw = genesis_block(network(name))
    block = read_header(0, raw[:80])
    assert block.hash == network(name).genesis_hash
    assert [tx.txid[::-1].hex() for tx in read_block(raw)] == [block.merkle_root]


def test_every_block_of_a_builder_is_consistent() -> None:
    """Parent, Merkle root and proof of work are right, and blocks are ten minutes apart."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"a"), chain.send(b"b"), chain.send(b"c", "bob")], n=2)
    blocks = [read_header(height, raw[:80]) for height, raw in enumerate(chain.raw_blocks())]
    assert len(blocks) == 104
    for parent, block, raw in zip(blocks[:-1], blocks[1:], chain.raw_blocks()[1:], strict=True):
        assert block.prev_hash == parent.hash
        assert int(block.hash, 16) <= target(block.bits)
        assert merkle_root([tx.txid for tx in read_block(raw)])[::-1].hex() == block.merkle_root
        assert block.time == 1_735_689_600 + 600 * (block.block_id - 1)


def test_a_real_block_has_the_computed_merkle_root() -> None:
    """The tree of a full mainnet block has levels with an odd count."""
    raw = shared("mainnet/400000.blk").read_bytes()
    ids = [tx.txid for tx in read_block(raw)]
    assert merkle_root(ids)[::-1].hex() == read_header(400_000, raw[:80]).merkle_root


def test_the_subsidy_halves_every_150_blocks_on_regtest_and_ends() -> None:
    """It equals bitcoind's; on mainnet, it halves every 210,000 blocks."""
    assert [subsidy(network("regtest"), height) for height in (1, 149, 150, 300)] == [
        5_000_000_000,
        5_000_000_000,
        2_500_000_000,
        1_250_000_000,
    ]
    assert subsidy(network("regtest"), 150 * 64) == 0
    assert subsidy(network("mainnet"), 210_000) == 2_500_000_000


def test_work_follows_from_the_target() -> None:
    """Every second hash meets regtest's target; mainnet's first target took 2^32 hashes."""
    assert work(0x207FFFFF) == 2
    assert work(0x1D00FFFF) == 0x100010001


def test_blocks_are_framed_as_in_a_nodes_files() -> None:
    """With magic and length, blocks reproduce the shared data's mainnet file byte for byte."""
    original = shared("mainnet/blocks-0-599.dat").read_bytes()
    at, blocks = 0, []
    while at < len(original):
        length = int.from_bytes(original[at + 4 : at + 8], "little")
        blocks.append(original[at + 8 : at + 8 + length])
        at += 8 + length
    assert b"".join(framed(network("mainnet"), blocks)) == original


def test_a_block_on_another_network_is_made_without_proof_of_work() -> None:
    """Mining would take too long, so the header only keeps its parent's target."""
    chain = ChainBuilder("mainnet", premine=2)
    block = chain.tree.tip.block
    assert block.bits == 0x1D00FFFF
    assert int(sha256d(block.header)[::-1].hex(), 16) > target(block.bits)


@pytest.mark.parametrize("least", [1, 2, 3, 5, 7, 9, 100, 255, 256, 257, 12_345])
def test_a_target_for_an_amount_of_work(least: int) -> None:
    """It takes at least so many tries, and hardly more: less than a thousandth."""
    assert least <= work(bits_for(least)) <= least + 1 + least // 1_000
