"""A real litecoind: the same state over REST, over JSON-RPC alone and from its files, with MWEB blocks."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.support.litecoind import BEFORE_MWEB, Litecoind
from virtualchain import App, StateEngine, send
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.source import BlockSource
from virtualchain.errors import UsageError
from virtualchain.examples.notary import app as notary
from virtualchain.store.upstream import UpstreamSource
from virtualchain.testing.database import DatabaseServer

pytestmark = pytest.mark.node
NET = network("litecoin-regtest")
KINDS = ("legacy", "p2sh-segwit", "bech32")

app = App(
    "senders",
    magic=b"ls",
    projections="CREATE TABLE senders (txid text PRIMARY KEY, owner text, value bigint, payload text)",
)


@app.opcode(b"s", fields=["owner", "value", "text"])
class Sign:
    """Whoever sends it is recorded."""

    def parse(self, payload: bytes, senders: list[dict[str, Any]]) -> dict[str, Any]:
        """Take the first sender."""
        return {
            "owner": senders[0]["addresses"][0],
            "value": senders[0]["value"],
            "text": payload.decode(),
        }

    def commit(self, op: dict[str, Any], state: Any, txid: str) -> None:
        """Record it."""
        state.table("senders").put(
            {"txid": txid, "owner": op["owner"], "value": op["value"], "payload": op["text"]}
        )


class Chain(NamedTuple):
    """A node, and the payloads on its chain: by txid, who sent which, and the value that was spent."""

    node: Litecoind
    sent: dict[str, tuple[str, int, str]]


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Mine MWEB blocks: into it, within it, out of it, and payloads of every kind of sender."""
    node, sent = Litecoind(), {}
    try:
        node.mine(BEFORE_MWEB)
        node.pay(node.address("mweb"), 8)  # the first MWEB block must hold something that enters
        node.mine()
        addresses = {kind: node.address(kind) for kind in KINDS}
        for address in addresses.values():
            node.pay(address, 1)
        left = node.address("bech32")
        node.mine()
        node.pay_from_mweb(left, 3)
        node.mine()
        for kind, address in addresses.items():
            txid = node.carry(b"lss" + kind.encode(), node.unspent(address))
            sent[txid] = address, 10**8, kind
        node.pay(node.address("mweb"), 1)
        node.mine()
        node.mine(6)
        sent[node.carry(b"lssleft", node.unspent(left))] = left, 3 * 10**8, "left"
        node.pay_from_mweb(node.address("mweb"), 1)  # nothing but MWEB data
        node.mine(3)
        yield Chain(node, sent)
    finally:
        node.stop()


OPENED: dict[str, Callable[[Litecoind], BlockSource]] = {
    "REST": lambda node: open_source(node.url, network=NET),
    "without --network": lambda node: open_source(node.url),
    "files": lambda node: open_blocks(node.datadir, NET),
}


def derive(url: str, source: BlockSource, confirmations: int = 0) -> tuple[str, str]:
    """Run the app to the end of a source's chain; return its hashes."""
    with StateEngine(
        app, database=url, source=source, confirmations=confirmations, verify="merkle"
    ) as engine:
        engine.build()
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY block_id DESC LIMIT 1"
        ).fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("name", OPENED)
def test_every_way_to_the_blocks_has_the_same_state(
    name: str, chain: Chain, database_url: str, query: Query, database_server: DatabaseServer
) -> None:
    """Senders of every type, a peg-out among them, with the addresses that the node prints."""
    hashes = derive(database_url, OPENED[name](chain.node))
    rows = query("SELECT txid, owner, value, payload FROM senders.senders")
    assert {row["txid"]: (row["owner"], row["value"], row["payload"]) for row in rows} == chain.sent
    assert query("SELECT count(*) AS n FROM virtualchain.rejections") == [{"n": 0}]
    other = database_server.clone()
    assert derive(other, open_source(chain.node.url, network=NET)) == hashes
    database_server.drop(other)


def test_rpc_alone_and_what_the_node_serves_otherwise(chain: Chain, database_server: DatabaseServer) -> None:
    """Without REST, and with -rpcserialversion=1, which leaves MWEB data out, the hashes are the same."""
    urls = [database_server.clone() for _ in range(3)]
    first = derive(urls[0], open_source(chain.node.url, network=NET))
    for url, arguments in zip(urls[1:], [("-rest=0",), ("-rpcserialversion=1",)], strict=True):
        chain.node.restart("-txindex=1", *arguments)
        assert derive(url, open_source(chain.node.url, network=NET)) == first
    chain.node.restart("-txindex=1")
    for url in urls:
        database_server.drop(url)


def test_a_fork_of_mweb_blocks_is_undone(
    chain: Chain, database_url: str, query: Query, database_server: DatabaseServer
) -> None:
    """Blocks with payloads leave the chain: the rows are those of a new index, in a state node, too."""
    node = chain.node
    follower = database_server.clone()
    hashes = derive(database_url, open_source(node.url, network=NET))
    assert derive(follower, UpstreamSource(database_url)) == hashes
    height = node.rpc("getblockcount")
    stale = node.rpc("getblockhash", height - 3)
    node.rpc("invalidateblock", stale)
    node.mine(6)
    hashes = derive(database_url, open_source(node.url, network=NET))
    fresh = database_server.clone()
    assert derive(fresh, open_source(node.url, network=NET)) == hashes
    assert derive(follower, UpstreamSource(database_url)) == hashes
    for url in (fresh, follower):
        database_server.drop(url)
    assert query("SELECT count(*) AS n FROM virtualchain.reorgs") == [{"n": 1}]


def test_unconfirmed_transactions_with_mweb_data_are_read(
    chain: Chain, database_url: str, query: Query
) -> None:
    """A payload is judged before it is in a block, beside transactions of the MWEB."""
    node = chain.node
    address = node.address("bech32")
    node.pay(address, 1)
    node.mine()
    node.pay(node.address("mweb"), 1)
    node.pay_from_mweb(node.address("mweb"), 0.5)
    txid = node.carry(b"lsspending", node.unspent(address))
    flags = {bytes.fromhex(node.rpc("getrawtransaction", each))[5] & 8 for each in node.rpc("getrawmempool")}
    assert flags == {0, 8}
    source = open_source(node.url, network=NET)
    with StateEngine(app, database=database_url, source=source, confirmations=0, pending=True) as engine:
        engine.build()
        engine._judge_pending()
        assert [row["txid"] for row in query("SELECT txid FROM virtualchain.pending")] == [txid]
    node.mine()


def test_the_doctor_knows_what_a_node_of_litecoin_needs(chain: Chain, database_url: str) -> None:
    """Its version is not compared with Bitcoin Core's; without an index of transactions it is of no use."""
    node = chain.node

    def examine() -> dict[str, str]:
        named = [sys.executable, "-m", "virtualchain", "--bitcoin", node.url, "--network", NET.name]
        done = subprocess.run(
            [*named, "--database", database_url, "--json", "doctor"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return {check["name"]: check["verdict"] for check in json.loads(done.stdout)["checks"]}

    assert examine()["node-version"] == examine()["node-index"] == "ok"
    node.restart("-txindex=0")
    assert examine()["node-index"] == "problem"
    node.restart("-txindex=1")


def test_inputs_are_sent(chain: Chain, database_url: str) -> None:
    """Its wallet is older than Taproot, and its coins have a unit of their own."""
    node = chain.node
    owner = node.address("bech32")
    node.pay(owner, 1)
    node.mine()
    source = open_source(node.url, network=NET)
    with StateEngine(notary, database=database_url, source=source, confirmations=0) as engine:
        engine.build()
    with closing(open_source(node.url, network=NET)) as source:
        options: dict[str, Any] = {"database": database_url, "bitcoin": source, "sender": owner}
        with pytest.raises(UsageError, match=r"over the limit of 0\.00000100 LTC"):
            send(notary, "claim", sha256="ab" * 32, fee_rate="10", max_fee="100sat", **options)
        sent = send(notary, "claim", sha256="ab" * 32, fee_rate="10", **options)
    assert sent.txid in node.rpc("getrawmempool")
    assert sent.sender == owner
    node.mine()
