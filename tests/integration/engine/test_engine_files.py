"""The engine on block files, and on blocks whose transactions do not match their header."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Query
from tests.support.shared_data import shared
from tests.support.text_app import text_app
from virtualchain import StateEngine
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.header import HEADER_SIZE
from virtualchain.errors import MalformedBlock, MissingData, UsageError
from virtualchain.testing import ChainBuilder, FakeNode


def every_transaction(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Return a payload for every transaction; the rule is not called for coinbases."""
    return b"sto%d" % len(outputs)


@pytest.fixture
def chain() -> ChainBuilder:
    """Return a chain of 104 blocks with an op in each of the last three."""
    made = ChainBuilder()
    for text in (b"one", b"two", b"three"):
        made.mine([made.send(b"sto" + text, sender="bob")])
    return made


def build(url: str, source: Any, **options: Any) -> int:
    """Sync an app and return the last block."""
    app = options.pop("app", None) or text_app()
    settings = {"database": url, "source": source, "confirmations": 0, **options}
    with StateEngine(app, **settings) as engine:
        return engine.build()


@pytest.mark.parametrize("confirmations", [0, 6])
def test_the_first_blocks_of_bitcoin(database_url: str, query: Query, confirmations: int) -> None:
    """Blocks 0 to 599 are taken as a chain, with the first transactions and their senders."""
    source = open_blocks(shared("mainnet/blocks-0-599.dat"))
    app = text_app(payload_rule=every_transaction)
    last = 599 - confirmations
    options = {"app": app, "confirmations": confirmations, "verify": "merkle"}
    assert build(database_url, source, **options) == last
    [ends] = query("SELECT count(*) AS n, min(block_id) AS first, max(block_id) AS last FROM vc.blocks")
    assert ends == {"n": last + 1, "first": 0, "last": last}
    blocks = query("SELECT block_id, hash FROM virtualchain.blocks WHERE block_id IN (0, 170) ORDER BY 1")
    assert [row["hash"] for row in blocks] == [
        "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        "00000000d1145790a8694403d4063f323d499e655c83426834d4ce2f8dd4a2ee",
    ]
    inputs = query("SELECT * FROM virtualchain.inputs ORDER BY block_id, txindex")
    assert {row["evidence"] for row in inputs} == {"transaction"}
    first = inputs[0]
    assert first["txid"] == "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"
    assert (first["block_id"], first["txindex"], first["fee"]) == (170, 1, 0)
    [sender] = first["senders"]
    assert (sender["value"], sender["type"], sender["vout"]) == (50 * 10**8, "pubkey", 0)
    assert [output["value"] for output in first["outputs"]] == [10 * 10**8, 40 * 10**8]
    assert len(query("SELECT * FROM virtualchain.ops")) == len(inputs) > 10


def test_a_sync_continues_when_the_file_has_grown(
    chain: ChainBuilder, database_url: str, query: Query, tmp_path: Path
) -> None:
    """Blocks appended between two runs and within a run are taken."""
    path = tmp_path / "chain"
    chain.save(path)
    assert build(database_url, open_blocks(path)) == 104
    chain.mine([chain.send(b"stofour")])
    chain.save(path)
    with StateEngine(text_app(), database=database_url, source=open_blocks(path), confirmations=0) as engine:
        assert engine.build() == 105
        chain.mine([chain.send(b"stofive")])
        chain.save(path)
        assert engine.build() == 106
    texts = query("SELECT fields ->> 'text' AS text FROM virtualchain.ops ORDER BY block_id")
    assert [row["text"] for row in texts] == ["one", "two", "three", "four", "five"]


def test_files_and_node_may_alternate(
    chain: ChainBuilder, database_url: str, query: Query, tmp_path: Path
) -> None:
    """The first sync may read files and the next a node; files that lag are waited for."""
    chain.save(tmp_path / "chain")
    with FakeNode(chain=chain) as node:
        assert build(database_url, open_blocks(tmp_path / "chain")) == 104
        node.mine([node.send(b"stofour")])
        assert build(database_url, node.url) == 105
        with StateEngine(
            text_app(), database=database_url, source=open_blocks(tmp_path / "chain"), confirmations=0
        ) as engine:
            assert engine.build() == 105
            assert engine.waits_for == "waiting for the node: it is at block 104, we are at block 105"
    assert len(query("SELECT * FROM virtualchain.ops")) == 4


def cut_at(chain: ChainBuilder, first: int, path: Path) -> None:
    """Write the chain to a file from block `first` on."""
    chain.save(path)
    skipped = sum(8 + len(raw) for raw in chain.raw_blocks()[:first])
    path.write_bytes(path.read_bytes()[skipped:])


@pytest.mark.parametrize("first", [90, 95, 0, 50])
def test_a_partial_file_serves_an_app_that_starts_in_it(
    chain: ChainBuilder, database_url: str, query: Query, tmp_path: Path, first: int
) -> None:
    """A file of later blocks serves apps that start within it; others get an error that names its range."""
    chain.mine(n=3)
    cut_at(chain, 90, tmp_path / "cut")
    source = open_blocks(tmp_path / "cut")
    app = text_app(first_block_id=first, magic=b"nothing like it")
    if first >= 90:
        assert build(database_url, source, app=app) == 107
        assert query("SELECT min(block_id) AS first FROM vc.blocks") == [{"first": first}]
    else:
        with pytest.raises(MissingData, match=f"cut holds blocks 90 to 107 of the chain, but not {first}"):
            build(database_url, source, app=app)
        assert query("SELECT * FROM vc.blocks") == []


def test_a_partial_file_without_rev_files_lacks_senders(
    chain: ChainBuilder, database_url: str, query: Query, tmp_path: Path
) -> None:
    """A block whose senders are unknown is not taken, and the error says what is needed."""
    cut_at(chain, 104, tmp_path / "cut")
    with pytest.raises(MissingData, match="use files from the first block on"):
        build(database_url, open_blocks(tmp_path / "cut"), app=text_app(first_block_id=104))
    assert query("SELECT * FROM vc.blocks") == []


def forged(chain: ChainBuilder) -> list[bytes]:
    """Return the chain's blocks, the last but one with the transactions of its parent."""
    blocks = chain.raw_blocks()
    blocks[-2] = blocks[-2][:HEADER_SIZE] + blocks[-3][HEADER_SIZE:]
    return blocks


@pytest.mark.parametrize("way", ["rest", "rpc", "file"])
def test_transactions_that_do_not_match_the_header_are_refused(
    chain: ChainBuilder, database_url: str, query: Query, tmp_path: Path, way: str
) -> None:
    """The error names the block and the source, and nothing of the block is in the database."""
    path = tmp_path / "forged"
    bad = ChainBuilder.from_blocks("regtest", forged(chain))
    bad.save(path)
    with FakeNode.from_blocks("regtest", forged(chain), rest=way == "rest") as node:
        source = open_blocks(path) if way == "file" else node.url
        name = str(path) if way == "file" else "http://127.0.0.1:"
        with pytest.raises(
            MalformedBlock, match=rf"{name}.*: block 103 .* does not have the transactions that it commits to"
        ):
            build(database_url, source, verify="merkle")
    assert query("SELECT max(block_id) AS tip FROM vc.blocks") == [{"tip": 102}]
    assert [row["block_id"] for row in query("SELECT block_id FROM virtualchain.ops")] == [102]


def test_an_unknown_verification_is_refused(database_url: str, fake_node: FakeNode) -> None:
    """An unknown value of `verify` is refused before anything is opened."""
    with pytest.raises(UsageError, match="verify='all': choose off, headers or merkle"):
        build(database_url, fake_node.url, verify="all")
