"""The gate in the engine: no block of any source reaches a table unless it is what its header says."""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Query
from tests.support.chain_source import ChainSource
from tests.support.hostile_files import forged_block, node_block
from tests.support.text_app import text_app
from virtualchain import StateEngine
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.node.node import open_source
from virtualchain.errors import MalformedBlock, NodeError, NodeUnavailable, UsageError
from virtualchain.testing import ChainBuilder, FakeNode
from virtualchain.testing.tree import StoredBlock

Engine = Callable[..., StateEngine]


@pytest.fixture
def engine(database_url: str) -> Engine:
    """Return a function that opens an engine on the test's database."""

    def open_engine(*apps: object, source: Any, **options: Any) -> StateEngine:
        settings = {"confirmations": 0, **options}
        return StateEngine(*apps, database=database_url, source=source, **settings)

    return open_engine


def story(node: Any) -> None:
    """Mine three blocks with a text each."""
    for number in range(3):
        node.mine([node.send(b"sto%d" % number)])


def tamper(stored: StoredBlock, old: bytes, new: bytes) -> None:
    """Change a block's transactions under its header."""
    assert stored.raw.count(old) == 1
    stored.raw = stored.raw.replace(old, new)


def texts(query: Query, app: str) -> list[str]:
    """Return what an app has accepted."""
    rows = query("SELECT fields FROM virtualchain.ops WHERE app = %s ORDER BY block_id", [app])
    return [row["fields"]["text"] for row in rows]


@pytest.mark.parametrize("forge", [forged_block, node_block, lambda header: header + b"\0"])
@pytest.mark.parametrize("verify", ["headers", "merkle", None])
def test_a_header_with_something_else_is_refused(
    engine: Engine, query: Query, verify: Any, forge: Callable[[bytes], bytes]
) -> None:
    """Only a node of one's own may be trusted with a block's transactions, and not with their form."""
    if verify == "headers" and forge is forged_block:
        pytest.skip("this is what verify=headers leaves to the node")
    builder = ChainBuilder()
    story(builder)
    stored = builder.tree.chain[103]
    stored.raw = forge(stored.raw[:HEADER_SIZE])
    app = text_app(first_block_id=100)
    with engine(app, source=ChainSource(builder), verify=verify) as running, pytest.raises(MalformedBlock):
        running.build()
    assert query("SELECT max(block_id) AS tip FROM vc.blocks") == [{"tip": 102}]
    assert texts(query, "plain") == ["0"]


@pytest.mark.parametrize("way", ["RPC", "REST"])
def test_a_node_is_believed_as_far_as_verify_says(
    engine: Engine, query: Query, fake_node: FakeNode, way: str
) -> None:
    """By default a node's Merkle roots are its own matter; with "merkle" they are compared."""
    story(fake_node)
    tamper(fake_node.chain.tree.chain[103], b"sto1", b"stoX")
    source = open_source(fake_node.url, rest=way == "REST")
    with engine(text_app(first_block_id=100), source=source, verify="merkle") as running:
        with pytest.raises(MalformedBlock, match=r"block 103 .*Merkle root"):
            running.build()
        assert texts(query, "plain") == ["0"]
    with pytest.raises(UsageError, match="verify='all': choose off, headers or merkle"):
        engine(text_app(first_block_id=100), source=fake_node.url, verify="all")


def test_blocks_that_are_searched_for_a_joining_app_are_checked(
    engine: Engine, query: Query, fake_node: FakeNode
) -> None:
    """An app that joins late gets nothing from an unchecked block, on the tape or in front of it."""
    story(fake_node)
    fake_node.mine([fake_node.send(b"jno1")], n=5)
    first = text_app(first_block_id=104)
    with engine(first, source=fake_node.url, verify="merkle") as running:
        assert running.build() == 109
    late = text_app("late", magic=b"jn", first_block_id=100)
    below, above = fake_node.chain.tree.chain[102], fake_node.chain.tree.chain[105]
    whole, below.raw = below.raw, forged_block(below.raw[:HEADER_SIZE])
    tamper(above, b"jno1", b"jnoX")
    with engine(first, late, source=fake_node.url, verify="merkle") as running:
        with pytest.raises(MalformedBlock, match=r"block 102 .*Merkle root"):
            running.build()
        assert query("SELECT min(block_id) AS first FROM vc.blocks") == [{"first": 104}]
        below.raw = whole
        with pytest.raises(MalformedBlock, match=r"block 105 .*Merkle root"):
            running.build()
        assert texts(query, "late") == []
        tamper(above, b"jnoX", b"jno1")
        running.build()
    assert texts(query, "late") == ["1"]


def test_another_block_in_front_of_the_tape_is_refused(engine: Engine, query: Query) -> None:
    """What is put in front of the tape is what its first block names as parent."""
    builder = ChainBuilder()
    story(builder)
    source = ChainSource(builder)
    with engine(text_app(first_block_id=103), source=source) as running:
        running.build()
    source._known[builder.tree.chain[102].block.hash] = builder.tree.chain[101]
    late = text_app("late", magic=b"jn", first_block_id=100)
    with (
        engine(text_app(first_block_id=103), late, source=source) as running,
        pytest.raises(MalformedBlock, match="block 102: requested"),
    ):
        running.build()
    assert query("SELECT min(block_id) AS first FROM vc.blocks") == [{"first": 103}]


def test_every_other_source_is_checked_completely(engine: Engine, query: Query, tmp_path: Path) -> None:
    """Files and sources of one's own need no setting."""
    builder = ChainBuilder()
    story(builder)
    tamper(builder.tree.chain[103], b"sto1", b"stoX")
    builder.save(tmp_path / "chain")
    for source in (open_blocks(tmp_path / "chain"), ChainSource(builder)):
        with (
            engine(text_app(first_block_id=100), source=source) as running,
            pytest.raises(MalformedBlock, match=r"block 103 .*Merkle root"),
        ):
            running.build()
    assert texts(query, "plain") == ["0"]


@pytest.mark.parametrize("verify", ["headers", "merkle"])
@pytest.mark.parametrize("bits", [0x03000001, 0x1D00FFFF, 0x207FFFFF])
def test_claimed_work_undoes_no_block(engine: Engine, query: Query, verify: Any, bits: int) -> None:
    """Eight headers that state hard targets and met none do not outweigh ninety-five blocks, at K = 6."""
    builder = ChainBuilder(premine=110)
    app = text_app(first_block_id=1)
    with engine(app, source=ChainSource(builder), confirmations=6, verify=verify) as running:
        assert running.build() == 104
    parent, made = builder.tree.chain[9].block, []
    for number in range(8):
        previous = bytes.fromhex(parent.hash)[::-1]
        raw = struct.pack("<i32s32sIII", 4, previous, bytes(32), parent.time + 600, bits, number)
        while bits == 0x207FFFFF and read_header(0, raw).hash < "8":
            raw = raw[:76] + (int.from_bytes(raw[76:], "little") + 8).to_bytes(4, "little")
        parent = read_header(parent.block_id + 1, raw)
        made.append(StoredBlock(parent, raw, None, 0, 0))
    liar = ChainSource(builder, [*builder.tree.chain[:10], *made])
    with (
        engine(app, source=liar, confirmations=6, verify=verify) as running,
        pytest.raises(NodeError, match=r"a made-up chain: header .* of block 10 has no proof of work"),
    ):
        running.build()
    assert query("SELECT count(*) AS n FROM vc.reorgs") == [{"n": 0}]
    assert query("SELECT max(block_id) AS tip FROM vc.blocks") == [{"tip": 104}]


def test_a_node_that_returns_to_our_branch_stops_no_deployment(engine: Engine, query: Query) -> None:
    """It was on another branch for some questions: with the policy `halt`, this must not look like a fork."""
    builder = ChainBuilder(premine=110)
    ours = list(builder.tree.chain)
    app = text_app(first_block_id=1)
    with engine(app, source=ChainSource(builder)) as running:
        assert running.build() == 110
    builder.reorg(3, 3)
    rival = list(builder.tree.chain)
    builder.tree.activate(ours[-1])
    builder.mine(n=2)
    longer = list(builder.tree.chain)
    for back_at in range(1, 14):
        source = ChainSource(builder, rival)
        questions: list[str] = []

        def asked(
            question: str, source: ChainSource = source, seen: list[str] = questions, at: int = back_at
        ) -> None:
            seen.append(question)
            if len(seen) > at:
                source.chain = longer

        source.asked = asked
        with engine(app, source=source, on_deep_fork="halt") as running:
            while source.chain is not longer:
                with suppress(NodeUnavailable):
                    running.build(110)
            assert running.build(110) == 110
    assert query("SELECT count(*) AS n FROM vc.reorgs") == [{"n": 0}]
