"""The main job on real input: a generated chain, from a real node and from files, into PostgreSQL.

The generator recorded what an app must find; the node itself tells the types and addresses of scripts.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.acceptance import accept_all
from tests.acceptance.conftest import Commands
from tests.support.generated import GeneratedChain
from tests.support.tables import tables
from virtualchain import StateEngine, consensus
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.testing import FakeNode
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer

pytestmark = pytest.mark.node

APPS = (accept_all, accept_all.builder)
NAMES = ("module", "builder")

Rows = list[dict[str, Any]]
Sync = Callable[..., str]


@pytest.fixture(scope="module")
def database(database_server: DatabaseServer) -> Iterator[Callable[[], str]]:
    """Return a function that creates databases, which are dropped after the module's last test."""
    urls: list[str] = []

    def make() -> str:
        urls.append(database_server.clone())
        return urls[-1]

    yield make
    for url in urls:
        database_server.drop(url)


@pytest.fixture(scope="module")
def source(loaded_bitcoind: Bitcoind) -> Callable[..., BlockSource]:
    """Return a function that opens the real node, over REST or, with `rest=False`, over RPC alone."""
    return lambda *, rest: open_source(loaded_bitcoind.url, loaded_bitcoind.cookie, rest=rest)


@pytest.fixture(scope="module")
def over_rest(database: Callable[[], str], source: Callable[..., BlockSource]) -> str:
    """Sync both apps over REST; return the database."""
    return sync(database(), source(rest=True))


@pytest.fixture(scope="module")
def over_rpc(database: Callable[[], str], source: Callable[..., BlockSource]) -> str:
    """Sync both apps over RPC alone; return the database."""
    return sync(database(), source(rest=False))


@pytest.fixture(scope="module")
def from_its_files(database: Callable[[], str], loaded_bitcoind: Bitcoind) -> str:
    """Sync both apps from the node's data folder; return the database."""
    return sync(database(), open_blocks(loaded_bitcoind.datadir))


@pytest.fixture(scope="module")
def from_one_file(database: Callable[[], str], generated: GeneratedChain) -> str:
    """Sync both apps from the generator's file; return the database."""
    return sync(database(), open_blocks(generated.file))


@pytest.fixture(params=["over_rest", "over_rpc", "from_its_files", "from_one_file"])
def synced(request: pytest.FixtureRequest) -> str:
    """Return each of these databases in turn."""
    return str(request.getfixturevalue(request.param))


def sync(url: str, source: BlockSource | str, *apps: object) -> str:
    """Sync apps, by default both, to the chain's tip; return the database."""
    with StateEngine(*(apps or APPS), database=url, source=source, confirmations=0) as engine:
        engine.build()
    return url


def query(url: str, statement: str, *parameters: object) -> Rows:
    """Run a query."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


def pairs(items: list[dict[str, Any]]) -> list[list[Any]]:
    """Return scripts and values in the form in which the generator records them."""
    return [[item["script_pubkey"], item["value"]] for item in items]


def test_inputs_are_those_that_the_generator_recorded(synced: str, generated: GeneratedChain) -> None:
    """Exactly the transactions with the magic are stored, with their senders, outputs and fees."""
    rows = [
        (
            row["block_id"],
            row["txindex"],
            row["txid"],
            pairs(row["senders"]),
            pairs(row["outputs"]),
            row["fee"],
        )
        for row in query(synced, "SELECT * FROM virtualchain.inputs ORDER BY block_id, txindex")
    ]
    assert rows == [
        (int(height), each["txpos"], each["txid"], each["senders"], each["outputs"], each["fee"])
        for height, block in generated.truth.items()
        for each in block
    ]
    assert len(rows) > 20


@pytest.mark.parametrize("app", NAMES)
def test_ops_are_those_that_the_generator_recorded(synced: str, generated: GeneratedChain, app: str) -> None:
    """All are accepted, in order, and hold the arguments of the callbacks."""
    rows = query(synced, "SELECT * FROM virtualchain.ops WHERE app = %s ORDER BY block_id, vtxindex", app)
    ops = [
        (
            (row["block_id"], row["vtxindex"], row["txindex"], row["txid"]),
            b"id" + row["opcode"] + row["payload"],
            row["fields"],
        )
        for row in rows
    ]
    assert ops == [
        (
            (int(height), vtxindex, each["txpos"], each["txid"]),
            bytes.fromhex(each["payload"]),
            {
                "payload": each["payload"][6:],
                "fee": each["fee"],
                "senders": [value for _, value in each["senders"]],
                "spends": each["senders"],
                "outputs": each["outputs"],
                "vtxindex": vtxindex,
            },
        )
        for height, block in generated.truth.items()
        for vtxindex, each in enumerate(block)
    ]
    assert query(synced, "SELECT * FROM virtualchain.rejections") == []


@pytest.mark.parametrize("app", NAMES)
def test_consensus_hashes_follow_from_the_ops(synced: str, generated: GeneratedChain, app: str) -> None:
    """Every digest can be recomputed from the rows, by the rules of docs/protocol/consensus.md."""
    ops: dict[int, list[bytes]] = {}
    for row in query(synced, "SELECT block_id, opcode, fields FROM virtualchain.ops WHERE app = %s", app):
        text = consensus.serialize_op(row["opcode"], row["fields"], accept_all.FIELDS)
        ops.setdefault(row["block_id"], []).append(text)
    known: dict[int, str] = {}
    for block_id in range(generated.tip + 1):
        known[block_id] = consensus.consensus_hash(
            consensus.ops_hash(ops.get(block_id, [])),
            [known[prior] for prior in consensus.prior_block_ids(block_id, 0)],
        )
    rows = query(synced, "SELECT * FROM virtualchain.snapshots WHERE app = %s ORDER BY block_id", app)
    assert {row["block_id"]: row["consensus_hash"] for row in rows} == known
    assert [row["block_hash"] for row in rows] == [generated.hash(n) for n in range(generated.tip + 1)]


def test_both_forms_of_the_app_agree(synced: str) -> None:
    """A module of functions and an `App` with the same rules have the same digests and the same table."""
    [module, builder] = [
        query(
            synced,
            "SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots WHERE app = %s"
            " ORDER BY block_id",
            app,
        )
        for app in NAMES
    ]
    assert module == builder
    assert query(synced, "TABLE module.seen EXCEPT TABLE builder.seen") == []
    assert query(synced, "SELECT count(*) FROM builder.seen") == query(
        synced, "SELECT count(*) FROM virtualchain.inputs"
    )


def test_types_and_addresses_are_those_of_the_node(
    over_rest: str, loaded_bitcoind: Bitcoind, generated: GeneratedChain
) -> None:
    """Types and addresses of outputs and spent outputs equal those in the node's own JSON."""

    def theirs(script: dict[str, Any]) -> tuple[str, str, list[str]]:
        return script["hex"], script["type"], [script["address"]] if "address" in script else []

    def ours(items: list[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
        return [(item["script_pubkey"], item["type"], item["addresses"]) for item in items]

    for height in generated.truth:
        block = loaded_bitcoind.rpc("getblock", generated.hash(int(height)), 3)["tx"]
        for row in query(over_rest, "SELECT * FROM virtualchain.inputs WHERE block_id = %s", int(height)):
            transaction = block[row["txindex"]]
            assert row["raw"].hex() == transaction["hex"]
            assert ours(row["outputs"]) == [theirs(output["scriptPubKey"]) for output in transaction["vout"]]
            assert ours(row["senders"]) == [
                theirs(spending["prevout"]["scriptPubKey"]) for spending in transaction["vin"]
            ]


def test_every_source_produces_the_same_tables(
    synced: str, over_rest: str, generated: GeneratedChain
) -> None:
    """The tables of the engine and of the apps are equal, row by row."""
    expected = tables(over_rest)
    assert len(expected["vc.blocks"]) == generated.tip + 1
    assert len(expected["builder__1.seen"]) == len(expected["vc.inputs"])
    assert tables(synced) == expected


def test_verified_blocks_produce_the_same_tables(
    over_rest: str, database: Callable[[], str], source: Callable[..., BlockSource]
) -> None:
    """Checking every block's transactions against its header does not change the result."""
    url = database()
    with StateEngine(
        *APPS, database=url, source=source(rest=True), confirmations=0, verify="merkle"
    ) as engine:
        engine.build()
    assert tables(url) == tables(over_rest)


def test_a_fake_node_produces_the_same_tables(
    over_rest: str, database: Callable[[], str], generated: GeneratedChain
) -> None:
    """A fake node with the same blocks leads to the same tables as the real one."""
    raws = (generated.raw(block_id) for block_id in range(1, generated.tip + 1))
    with FakeNode.from_blocks("regtest", raws) as node:
        assert tables(sync(database(), node.url)) == tables(over_rest)


def test_an_app_that_joins_later_gets_the_same_rows(
    over_rest: str, database: Callable[[], str], source: Callable[..., BlockSource]
) -> None:
    """An app that advances along the tape gets the rows of one that was there from the start."""
    url = sync(database(), source(rest=True), accept_all.builder)
    late, early = tables(sync(url, source(rest=True))), tables(over_rest)
    for each in (late, early):
        del each["vc.published"]  # views name their build by its serial number
    assert late == early


def test_a_second_build_finds_nothing_to_do(synced: str, source: Callable[..., BlockSource]) -> None:
    """A second build writes no row, not even with the same values."""
    before = tables(synced, versions=True)
    for rest in (True, False):
        sync(synced, source(rest=rest))
    assert tables(synced, versions=True) == before


def test_the_command_produces_the_same_tables(
    over_rest: str,
    database: Callable[[], str],
    cli: Commands,
    loaded_bitcoind: Bitcoind,
    generated: GeneratedChain,
) -> None:
    """`virtualchain sync` produces the tables of the engine, and a second sync finds nothing to do."""
    url = database()
    shutil.copy(Path(accept_all.__file__), cli.folder)
    command = [
        *("sync", "--app", "accept_all", "--app", "accept_all:builder", "--confirmations", 0, "--json"),
        *("--bitcoin", loaded_bitcoind.url, "--cookie", loaded_bitcoind.cookie, "--database", url),
    ]
    printed = json.loads(cli(*command).out)
    matches = sum(map(len, generated.truth.values()))
    assert (printed["blocks"], printed["inputs"]) == (generated.tip + 1, matches)
    assert {app["name"]: app["block_hash"] for app in printed["apps"]} == dict.fromkeys(
        NAMES, generated.hash(generated.tip)
    )
    assert tables(url) == tables(over_rest)
    before = tables(url, versions=True)
    assert json.loads(cli(*command).out)["blocks"] == 0
    assert tables(url, versions=True) == before
