"""Other chains: apps run on a node of each, and on a chain that a package adds with one file."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.support.shared_data import shared
from tests.unit.bitcoin.test_other_coins import framed
from virtualchain import App, StateEngine
from virtualchain.audit.tape import check_tape
from virtualchain.bitcoin.difficulty import check_work
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.networks import NETWORKS, network
from virtualchain.bitcoin.node.node import open_source
from virtualchain.errors import MalformedBlock, NodeError, UsageError
from virtualchain.examples import notary
from virtualchain.reading.search import search
from virtualchain.store.upstream import UpstreamSource
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

if TYPE_CHECKING:
    from virtualchain.bitcoin.source import BlockSource

PAGE = Path(__file__).parents[3] / "docs" / "chains.md"
CLAIM = b"ntc" + bytes(32)
BITCOIN = "from dataclasses import replace\nfrom virtualchain.bitcoin.networks import NETWORKS\n"
REGTESTS = [name for name in NETWORKS if name.endswith("-regtest")]


@pytest.fixture
def other_url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the database of a second deployment."""
    url = database_server.clone()
    yield url
    database_server.drop(url)


def content(url: str) -> list[object]:
    """Return rows, digests and tape of a deployment."""
    with psycopg.connect(url) as connection:
        return [
            connection.execute(statement).fetchall()
            for statement in (
                "SELECT * FROM notary.documents ORDER BY 1",
                "SELECT block_hash, consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY block_id",
                "SELECT block_id, txid, senders::text, fee, branch FROM virtualchain.inputs ORDER BY 1, 2",
            )
        ]


@pytest.mark.parametrize(
    ("name", "rest"), [*((name, True) for name in REGTESTS), ("litecoin-regtest", False)]
)
def test_an_app_runs_on_other_coins(name: str, rest: bool, database_url: str, query: Query) -> None:
    """With the coin's hashes, addresses and confirmations, over REST and over JSON-RPC alone."""
    net = network(name)
    with FakeNode(name, rest=rest) as node:
        node.mine([node.send(CLAIM)])
        node.mine(n=net.confirmations - 1)
        source = open_source(node.url, network=net)
        with StateEngine(notary.app, database=database_url, source=source, verify="merkle") as engine:
            assert engine.build() == node.height - net.confirmations
            assert query("SELECT owner FROM notary.documents") == []
            node.mine()
            engine.build()
            (row,) = query("SELECT owner FROM notary.documents")
        prefix = f"{net.bech32_hrp}1q" if net.bech32_hrp else ("m", "n")
        assert row["owner"].startswith(prefix)
        (seen,) = query("SELECT senders -> 0 -> 'addresses' ->> 0 AS sender FROM virtualchain.inputs")
        assert seen["sender"] == row["owner"]
        with psycopg.connect(database_url) as connection:
            assert "address" in [hit.kind for hit in search(connection, row["owner"])]
        assert query("SELECT network FROM vc.deployment") == [{"network": name}]


@pytest.mark.parametrize("name", REGTESTS)
def test_state_nodes_of_other_coins(name: str, database_url: str, other_url: str) -> None:
    """Rows, digests and branches are those of the upstream, over a fork, too; another coin is refused."""
    with FakeNode(name) as node, ExitStack() as stack:

        def engine(at: str, source: "BlockSource") -> StateEngine:
            options: dict[str, Any] = {"source": source, "verify": "merkle", "confirmations": 0}
            return stack.enter_context(StateEngine(notary.app, database=at, **options))

        node.mine([node.send(CLAIM)])
        first = engine(database_url, open_source(node.url, network=network(name)))
        first.build()
        second = engine(other_url, UpstreamSource(database_url))
        seen = []
        for _ in range(2):
            assert first.build() == second.build() == node.height
            seen.append(content(other_url))
            assert seen[-1] == content(database_url)
            node.reorg(1, 2, [node.send(CLAIM, sender="bob")])
        assert seen[0] != seen[1]
        with pytest.raises(NodeError, match=f"follows {name} .* but regtest was asked for"):
            UpstreamSource(database_url, network("regtest"))


def test_a_node_of_another_coin_is_refused() -> None:
    """The message has both names, also where the node's own name for its network is the same."""
    with (
        FakeNode("litecoin-regtest", premine=0) as node,
        pytest.raises(NodeError, match="is on litecoin-regtest, but regtest was asked for"),
    ):
        open_source(node.url, network=network("regtest"))


def added_chain(folder: Path, *, module: str | None = None, name: str = "examplecoin") -> dict[str, str]:
    """Install the page's chain, or another module, in a folder; return the environment that has it."""
    code = re.findall(r"```python\n# examplecoin.py\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    toml = re.findall(r"```toml\n(\[project.entry-points.*?)```", PAGE.read_text(), re.DOTALL)[0]
    (folder / f"{name}.py").write_text(code if module is None else module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    entry = toml.replace('"', "").splitlines()[1].replace("examplecoin", name)
    (info / "entry_points.txt").write_text(f"[virtualchain.chains]\n{entry}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "virtualchain", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )


def test_a_chain_is_added_with_the_page_s_file(tmp_path: Path, database_server: DatabaseServer) -> None:
    """A node of it is followed, a block is read with its work, and one of no such package is an error."""
    environment = added_chain(tmp_path)
    program = """
import sys
from dataclasses import replace
from virtualchain.bitcoin import networks
from virtualchain.testing import FakeNode
import examplecoin
genesis = networks.network("litecoin-regtest").genesis_block
examplecoin.REGTEST = replace(examplecoin.REGTEST, genesis_block=genesis)
with FakeNode("examplecoin-regtest") as node:
    node.mine([node.send(b"ntc" + bytes(32))])
    node.mine(n=30)
    print(node.url, flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    url = database_server.create()
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as served:
        assert served.stdout is not None
        assert served.stdin is not None
        node = served.stdout.readline().strip()
        options = ("--database", url, "--network", "examplecoin-regtest", "--bitcoin", node)
        app = ("--app", "virtualchain.examples.notary")
        done = run(environment, *options, *app, "--json", "sync")
        assert done.returncode == 0, done.stderr
        with psycopg.connect(url) as connection:
            (owner,) = connection.execute("SELECT owner FROM notary.documents").fetchone() or ("",)
        assert owner.startswith("exrt1q")
        unknown = run({**environment, "PYTHONPATH": ""}, *options, *app, "sync")
        assert unknown.returncode != 0
        assert "there is no network 'examplecoin-regtest'" in unknown.stderr
        served.stdin.close()
    database_server.drop(url)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("REGTEST = 1", "'int'"),
        ("import missing_module", "No module named 'missing_module'"),
        (f"{BITCOIN}REGTEST = NETWORKS['litecoin']", "uses itself"),
        (f"{BITCOIN}REGTEST = replace(NETWORKS['regtest'], name='Bad Name')", "name must be small letters"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(
    module: str, message: str, tmp_path: Path, database_url: str
) -> None:
    """The error says which package, and what is wrong with it."""
    environment = added_chain(tmp_path, module=module, name="badcoin")
    app = ("--app", "virtualchain.examples.notary", "--database", database_url)
    done = run(environment, "--network", "badcoin-regtest", *app, "sync")
    assert done.returncode == 2
    assert "badcoin" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["REST", "JSON-RPC", "files"])
@pytest.mark.parametrize("name", ["litecoin-regtest", "namecoin-regtest"])
def test_real_blocks_of_other_coins_are_followed(
    name: str, way: str, database_url: str, other_url: str
) -> None:
    """Nodes and files hand out headers with AuxPoW; the tape keeps 80 bytes of each, and passes an audit.

    A state node takes these. A header must have its own work there; one with an AuxPoW, its chain's number.
    """
    file = shared(f"chains/{name.removesuffix('-regtest')}/regtest-blocks-0-51.dat")
    net = network(name)
    with ExitStack() as opened:
        if way == "files":
            source: BlockSource = open_blocks(file, net)
        else:
            node = FakeNode.from_blocks(name, framed(file.read_bytes()), rest=way == "REST")
            source = open_source(opened.enter_context(node).url, network=net)
        engine = StateEngine(
            notary.app, database=database_url, source=source, confirmations=0, verify="merkle"
        )
        assert opened.enter_context(engine).build() == 51
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT max(length(header)) FROM vc.blocks").fetchone() == (80,)
        assert list(check_tape(connection)) == []
    if way != "REST":
        return
    with StateEngine(notary.app, database=other_url, source=database_url) as engine:
        assert engine.build() == 51
    complaint, lie = {
        "litecoin-regtest": ("has no proof of work", "set_byte(header, 76, get_byte(header, 76) # 1)"),
        "namecoin-regtest": ("is of the chain 7", "set_byte(header, 2, 7)"),
    }[name]
    with psycopg.connect(database_url) as connection:
        connection.execute(f"UPDATE vc.blocks SET header = {lie} WHERE block_id = 51".encode())
    with closing(UpstreamSource(database_url)) as upstream, pytest.raises(MalformedBlock, match=complaint):
        check_work(upstream._headers(51, 51)[0], net, is_stored=True)


def test_a_package_that_cannot_be_used_is_in_nobody_s_way(
    tmp_path: Path, database_url: str, fake_node: FakeNode
) -> None:
    """Who follows another chain does not load it."""
    environment = added_chain(tmp_path, module="raise RuntimeError('out of order')", name="badcoin")
    app = ("--app", "virtualchain.examples.notary", "--confirmations", "0")
    done = run(environment, "--database", database_url, "--bitcoin", fake_node.url, *app, "sync")
    assert (done.returncode, "badcoin" in done.stderr) == (0, False)


def test_an_app_may_ask_for_what_its_coin_waits_for_anyway(database_url: str) -> None:
    """More confirmations than Bitcoin's default, and no more than Litecoin's; what is too few is refused."""
    app = App("patient", magic=b"pa", confirmations=12)
    app.add(b"o", parse=lambda payload: {})
    with FakeNode("litecoin-regtest") as node:
        with StateEngine(app, database=database_url, source=node.url) as engine:
            assert engine.build() == node.height - 12
        with pytest.raises(UsageError, match="raise --confirmations from 6"):
            StateEngine(app, database=database_url, source=node.url, confirmations=6)


def test_a_node_that_makes_up_the_work_of_other_chains_is_refused(
    database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte of an AuxPoW differs, so that the parent does not commit to the block: nothing is taken."""
    raws = framed(shared("chains/namecoin/regtest-blocks-0-51.dat").read_bytes())
    with FakeNode.from_blocks("namecoin-regtest", raws) as node:
        stored = node.chain.tree.chain[51]
        false = bytearray(stored.block.auxpow)
        false[-40] ^= 1  # in the Merkle root of the parent
        monkeypatch.setattr(stored, "block", replace(stored.block, auxpow=bytes(false)))
        source = open_source(node.url, network=network("namecoin-regtest"))
        with (
            StateEngine(notary.app, database=database_url, source=source, confirmations=0) as engine,
            pytest.raises(MalformedBlock, match="block 51 has no proof of work: its AuxPoW"),
        ):
            engine.build()
    assert query("SELECT count(*) AS n FROM virtualchain.blocks") == [{"n": 0}]
