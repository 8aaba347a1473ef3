"""Blocks: genesis, Merkle root, proof of work, time, subsidy."""

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import NETWORKS, network
from virtualchain.consensus.hashing import sha256d
from virtualchain.testing import ChainBuilder
from virtualchain.testing.blocks import framed, genesis_block, merkle_root, subsidy, target, work
from virtualchain.testing.wire import read_block


@pytest.mark.parametrize("name", NETWORKS)
def test_the_genesis_block_has_the_networks_hash_and_its_own_merkle_root(name: str) -> None:
    """Built from its message, key, time and nonce; any wrong byte would show."""
    raw = genesis_block(network(name))
    block = read_header(0, raw[:80])
    assert block.hash == network(name).genesis_hash
    assert [tx.txid[::-1].hex() for tx in read_block(raw)] == [block.merkle_root]


def test_every_block_of_a_builder_holds_together() -> None:
    """Parent, Merkle root, proof of work and ten minutes from each block to the next."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"a"), chain.send(b"b"), chain.send(b"c", "bob")], n=2)
    blocks = [read_header(height, raw[:80]) for height, raw in enumerate(chain.raw_blocks())]
    assert len(blocks) == 104
    for parent, block, raw in zip(blocks[:-1], blocks[1:], chain.raw_blocks()[1:], strict=True):
        assert block.prev_hash == parent.hash
        assert int(block.hash, 16) <= target(block.bits)
        assert merkle_root([tx.txid for tx in read_block(raw)])[::-1].hex() == block.merkle_root
        assert block.time == 1_735_689_600 + 600 * (block.block_id - 1)


def test_real_blocks_have_the_merkle_root_that_we_compute() -> None:
    """A full mainnet block with an odd row somewhere in its tree."""
    raw = shared("mainnet/400000.blk").read_bytes()
    ids = [tx.txid for tx in read_block(raw)]
    assert merkle_root(ids)[::-1].hex() == read_header(400_000, raw[:80]).merkle_root


def test_the_subsidy_halves_every_150_blocks_on_regtest_and_ends() -> None:
    """As bitcoind has it; mainnet's takes 210,000."""
    assert [subsidy(network("regtest"), height) for height in (1, 149, 150, 300)] == [
        5_000_000_000,
        5_000_000_000,
        2_500_000_000,
        1_250_000_000,
    ]
    assert subsidy(network("regtest"), 150 * 64) == 0
    assert subsidy(network("mainnet"), 210_000) == 2_500_000_000


def test_work_follows_from_the_target() -> None:
    """Regtest's target is met by every second hash; mainnet's first took 2^32."""
    assert work(0x207FFFFF) == 2
    assert work(0x1D00FFFF) == 0x100010001


def test_blocks_are_framed_as_in_a_nodes_files() -> None:
    """Magic, length, block: the mainnet file of the shared data comes out byte for byte."""
    original = shared("mainnet/blocks-0-599.dat").read_bytes()
    at, blocks = 0, []
    while at < len(original):
        length = int.from_bytes(original[at + 4 : at + 8], "little")
        blocks.append(original[at + 8 : at + 8 + length])
        at += 8 + length
    assert b"".join(framed(network("mainnet"), blocks)) == original


def test_a_block_on_another_network_is_made_without_proof_of_work() -> None:
    """Nobody could wait for it; the header keeps the target of its parent."""
    chain = ChainBuilder("mainnet", premine=2)
    block = chain.tree.tip.block
    assert block.bits == 0x1D00FFFF
    assert int(sha256d(block.header)[::-1].hex(), 16) > target(block.bits)
