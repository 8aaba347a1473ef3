"""Files with unusual keys, and those of custom signets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.bitcoin.files.writing import (
    BLOCKS,
    KEY,
    append,
    frame,
    tip_of,
    write_node,
)
from virtualchain.bitcoin.networks import network, signet_of
from virtualchain.bitcoin.source import BlockSource, Tip
from virtualchain.errors import NodeError, UsageError
from virtualchain.testing import ChainBuilder

Open = Callable[..., BlockSource]
REGTEST = network("regtest")
CHALLENGE = "51"
"""A custom signet's challenge, whose message start and first bytes a real node wrote as below."""
CUSTOM = "signet-54d26fbd"


@pytest.mark.parametrize("zeros", range(8))
def test_a_key_that_begins_with_zeros(opened: Open, tmp_path: Path, zeros: int) -> None:
    """The message start is the same with it and without it."""
    key = bytes(zeros) + KEY[zeros:]
    chain = ChainBuilder(premine=104)
    write_node(tmp_path, chain, key=key)
    source = opened(tmp_path)
    assert source.tip() == tip_of(chain)
    assert source.raw_block(chain.tip) == chain.tree.tip.raw
    plain = tmp_path / "plain"
    chain.save(plain)
    assert opened(plain).tip() == tip_of(chain)


def test_a_key_that_begins_with_the_message_start(opened: Open, tmp_path: Path) -> None:
    """The file then begins with zeros, as reserved space does."""
    key = REGTEST.message_start + KEY[4:]
    chain = ChainBuilder(premine=104)
    write_node(tmp_path, chain, key=key)
    assert (tmp_path / BLOCKS).read_bytes().startswith(bytes(4))
    assert opened(tmp_path).tip() == tip_of(chain)


def test_a_custom_signet_is_recognized_by_its_genesis_block(opened: Open, tmp_path: Path) -> None:
    """Its message start is nobody's else; without the genesis block it must be named."""
    custom = signet_of(bytes.fromhex(CHALLENGE))
    assert (custom.name, custom.message_start.hex()) == (CUSTOM, "54d26fbd")
    genesis = ChainBuilder("signet", premine=0).raw_blocks()[0]
    folder = tmp_path / "node" / "signet_54d26fbd" / "blocks"
    folder.mkdir(parents=True)
    (folder / "xor.dat").write_bytes(bytes.fromhex("16b64da4c5cac40b"))
    append(folder / BLOCKS, frame(custom, genesis), bytes.fromhex("16b64da4c5cac40b"))
    assert (folder / BLOCKS).read_bytes().startswith(bytes.fromhex("42642219d8cbc40b17b64da4"))
    for path in (folder, folder / BLOCKS, tmp_path / "node"):
        for name in (None, CUSTOM):
            source = opened(path, name)
            assert (source.network, source.tip()) == (custom, Tip(0, custom.genesis_hash))
    for name in ("signet", "signet-00000000", "regtest"):
        with pytest.raises(NodeError, match=f"is of {CUSTOM}, but {name} was asked for"):
            opened(folder, name)
    other = tmp_path / "later"
    append(other, frame(custom, ChainBuilder().raw_blocks()[1]))
    with pytest.raises(UsageError, match="begins with 54d26fbd, not with the message start"):
        opened(other)
    with pytest.raises(NodeError, match=f"holds no block of {CUSTOM}"):
        opened(other, CUSTOM)
    public = frame(network("signet"), genesis)
    append(tmp_path / "public", public)
    assert opened(tmp_path / "public").network == network("signet")
    with pytest.raises(NodeError, match=f"is of signet, but {CUSTOM} was asked for"):
        opened(tmp_path / "public", CUSTOM)


def test_a_custom_signet_in_the_folder_of_all(opened: Open, tmp_path: Path) -> None:
    """Older nodes keep every signet in `signet`."""
    custom = signet_of(bytes.fromhex(CHALLENGE))
    folder = tmp_path / "signet" / "blocks"
    folder.mkdir(parents=True)
    append(folder / BLOCKS, frame(custom, ChainBuilder("signet", premine=0).raw_blocks()[0]))
    assert opened(tmp_path).network == custom
    assert opened(tmp_path, CUSTOM).network == custom
    with pytest.raises(NodeError, match="but signet was asked for"):
        opened(tmp_path, "signet")
