"""Where files of blocks are found, and what is refused as something else."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.bitcoin.files.checking import check_whole
from tests.unit.bitcoin.files.writing import KEY, append, frame, write_blocks
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import NodeError, NodeUnavailable, UsageError
from virtualchain.testing import ChainBuilder

REGTEST = network("regtest")
Open = Callable[..., BlockSource]


@pytest.fixture(scope="module")
def chain() -> ChainBuilder:
    """Make a chain of 110 blocks."""
    return ChainBuilder(premine=110)


def test_one_file_of_any_name(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """As `ChainBuilder.save` and a -loadblock file are."""
    chain.save(tmp_path / "my chain")
    check_whole(opened(tmp_path / "my chain"), chain)
    check_whole(opened(tmp_path / "my chain", "regtest"), chain)


@pytest.mark.parametrize("key", [b"", bytes(8), KEY], ids=["no key", "key of zeros", "key"])
@pytest.mark.parametrize("name", ["blocks", "blocks/blk00000.dat", "", "mixed"])
def test_folders_of_a_node(chain: ChainBuilder, opened: Open, tmp_path: Path, key: bytes, name: str) -> None:
    """Its data folder, its blocks folder and one of its files; of two networks the one that is named."""
    node = tmp_path / "node"
    blocks = node / "regtest" / "blocks"
    blocks.mkdir(parents=True)
    if key:
        (blocks / "xor.dat").write_bytes(key)
    used = key if any(key) else b""
    numbers = (0, 0) if name.endswith(".dat") else (0, 1)
    write_blocks(blocks / f"blk{numbers[0]:05}.dat", chain, chain.tree.chain[:70], used)
    write_blocks(blocks / f"blk{numbers[1]:05}.dat", chain, chain.tree.chain[70:], used)
    (blocks / "blk00001.dat.bak").write_bytes(b"no business of ours")
    if name == "mixed":
        (node / "signet" / "blocks").mkdir(parents=True)
        append(node / "signet" / "blocks" / "blk00000.dat", frame(network("signet"), bytes(100)))
        with pytest.raises(UsageError, match="several networks: say which with --network"):
            opened(node)
        check_whole(opened(node, "regtest"), chain)
    else:
        check_whole(opened(node / "regtest" / name if name else node), chain)


def test_a_plain_file_beside_another_nodes_key(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """The key is only used where it fits."""
    (tmp_path / "xor.dat").write_bytes(KEY)
    chain.save(tmp_path / "blocks.dat")
    check_whole(opened(tmp_path / "blocks.dat"), chain)


def test_what_is_no_place_of_blocks(opened: Open, tmp_path: Path) -> None:
    """Each mistake has its message, and names the path."""
    with pytest.raises(UsageError, match=r"there is no .*/gone: give a `blocks` folder"):
        opened(tmp_path / "gone")
    with pytest.raises(UsageError, match="holds no blocks: neither blk00000"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="holds no blocks of signet"):
        opened(tmp_path, "signet")
    (tmp_path / "notes").write_text("nothing of the sort")
    with pytest.raises(UsageError, match="notes begins with 6e6f7468, as the blocks of no network"):
        opened(tmp_path / "notes")


@pytest.mark.parametrize("content", [b"", bytes(1000), REGTEST.message_start])
def test_files_without_a_block_yet(opened: Open, tmp_path: Path, content: bytes) -> None:
    """A node that was only just started: trying again helps."""
    (tmp_path / "blk00000.dat").write_bytes(content)
    with pytest.raises(NodeUnavailable, match=r"holds no (whole )?block yet"):
        opened(tmp_path)


def test_a_key_that_is_none(opened: Open, tmp_path: Path) -> None:
    """Files that cannot be read with it are not guessed at."""
    (tmp_path / "blk00000.dat").write_bytes(bytes(10))
    (tmp_path / "xor.dat").write_bytes(b"short")
    with pytest.raises(NodeError, match=r"xor.dat has 5 bytes, and a key has 8"):
        opened(tmp_path)


def test_another_network_is_refused(chain: ChainBuilder, opened: Open, tmp_path: Path) -> None:
    """Both are named: at the start, in the middle, and by the genesis block."""
    chain.save(tmp_path / "regtest")
    with pytest.raises(NodeError, match=r"regtest is of regtest, but mainnet was asked for"):
        opened(tmp_path / "regtest", "mainnet")
    append(tmp_path / "regtest", frame(network("testnet4"), bytes(100)))
    with pytest.raises(NodeError, match="holds blocks of testnet4 among those of regtest"):
        opened(tmp_path / "regtest")
    append(tmp_path / "posing", frame(network("signet"), chain.raw_blocks()[0]))
    with pytest.raises(NodeError, match=rf"is of signet, whose first block .*{REGTEST.genesis_hash}"):
        opened(tmp_path / "posing")
