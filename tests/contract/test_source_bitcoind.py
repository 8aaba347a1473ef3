"""What only a real node shows: a block that it never connected, and many queries at once."""

import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.generated import GeneratedChain
from virtualchain.bitcoin.block import txids
from virtualchain.bitcoin.header import display_hash, read_header, sha256d
from virtualchain.bitcoin.node.node import NodeSource, open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import MissingData, NodeError
from virtualchain.testing.bitcoind import Bitcoind

pytestmark = pytest.mark.node


@pytest.fixture(params=["rpc", "rest", "rest with spenttxouts"])
def source(request: pytest.FixtureRequest, loaded_bitcoind: Bitcoind) -> Iterator[BlockSource]:
    """Open a source on the real node, with each of its interfaces."""
    opened = open_source(loaded_bitcoind.url, loaded_bitcoind.cookie, rest=request.param != "rpc")
    assert isinstance(opened, NodeSource)
    if request.param == "rest":
        opened._spent_by_rest = False
    opened._index.refuse()  # it finds a transaction whatever block it is in
    yield opened
    opened.close()


def rival_of(raw: bytes) -> bytes:
    """Mine a block that differs from this one only in its time."""
    version, parent, root, time, bits = struct.unpack_from("<i32s32sII", raw)
    nonce = 0
    while True:
        header = struct.pack("<i32s32sIII", version, parent, root, time + 1, bits, nonce)
        if sha256d(header)[-1] < 0x7F:  # regtest's target
            return header + raw[80:]
        nonce += 1


def test_block_that_was_never_connected(
    source: BlockSource, loaded_bitcoind: Bitcoind, generated: GeneratedChain
) -> None:
    """The node has its bytes but not what it spends: this is an error, never empty or zero."""
    block_id = generated.tip - 1
    raw = rival_of(generated.raw(block_id))
    block_hash = display_hash(sha256d(raw[:80]))
    assert loaded_bitcoind.rpc("submitblock", raw.hex()) in {
        "inconclusive",
        "duplicate-inconclusive",
        "duplicate",
    }
    assert source.raw_block(block_hash) == raw
    assert source.headers_after(block_id, block_hash) is None
    assert not source.is_invalid(block_id, block_hash)
    ids = txids(raw)
    for count in (1, 20):
        with pytest.raises(MissingData, match=block_hash):
            source.spent_outputs(block_hash, {n: ids[n] for n in range(1, count + 1)})
    generated_hash = generated.hash(block_id)
    assert len(source.spent_outputs(generated_hash, {1: ids[1]})) == 1


def test_transaction_of_another_block(source: BlockSource, generated: GeneratedChain) -> None:
    """A transaction that is looked up by its id and is not in the block has no outputs."""
    assert isinstance(source, NodeSource)
    if source._spent_by_rest:
        pytest.skip("spenttxouts has no ids")
    with pytest.raises(NodeError):
        source.spent_outputs(generated.hash(generated.tip), {1: "11" * 32})


def test_many_queries_at_once(source: BlockSource, generated: GeneratedChain) -> None:
    """Threads that ask for different blocks each get their own."""
    heights = [block_id for block_id in range(generated.tip) for _ in range(2)]

    def ask(block_id: int) -> bool:
        raw = source.raw_block(source.block_hash(block_id))
        return read_header(block_id, raw[:80]).hash == generated.hash(block_id)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, heights))


def test_wrong_password(loaded_bitcoind: Bitcoind) -> None:
    """The error says that the node refuses the password."""
    with pytest.raises(NodeError, match="refuses the password of user 'nobody'"):
        open_source(f"http://nobody:secret@127.0.0.1:{loaded_bitcoind.port}")
