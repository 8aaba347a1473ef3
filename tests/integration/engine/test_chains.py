"""Other chains: apps run on a node of each, and on a chain that a package adds with one file."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.support.shared_data import shared
from tests.unit.bitcoin.test_other_coins import framed
from virtualchain import StateEngine
from virtualchain.audit.tape import check_tape
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.networks import NETWORKS, network
from virtualchain.bitcoin.node.node import open_source
from virtualchain.errors import NodeError
from virtualchain.examples import notary
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

if TYPE_CHECKING:
    from virtualchain.bitcoin.source import BlockSource

PAGE = Path(__file__).parents[3] / "docs" / "chains.md"
CLAIM = b"ntc" + bytes(32)
BITCOIN = "from dataclasses import replace\nfrom virtualchain.bitcoin.networks import NETWORKS\n"
REGTESTS = [name for name in NETWORKS if name.endswith("-regtest")]


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
        assert query("SELECT network FROM vc.deployment") == [{"network": name}]


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
        (f"{BITCOIN}REGTEST = NETWORKS['regtest']", "uses itself"),
        (f"{BITCOIN}REGTEST = replace(NETWORKS['regtest'], name='Bad Name')", "name must be small letters"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(module: str, message: str, tmp_path: Path) -> None:
    """The error says which package, and what is wrong with it."""
    environment = added_chain(tmp_path, module=module, name="badcoin")
    done = run(environment, "--network", "badcoin-regtest", "--app", "virtualchain.examples.notary", "sync")
    assert done.returncode == 2
    assert "badcoin" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["REST", "JSON-RPC", "files"])
@pytest.mark.parametrize("name", ["litecoin-regtest", "namecoin-regtest"])
def test_real_blocks_of_other_coins_are_followed(name: str, way: str, database_url: str) -> None:
    """Nodes and files hand out headers with AuxPoW; the tape keeps 80 bytes of each, and passes an audit."""
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


def test_a_package_that_cannot_be_used_is_in_nobody_s_way(
    tmp_path: Path, database_url: str, fake_node: FakeNode
) -> None:
    """Who follows another chain does not load it."""
    environment = added_chain(tmp_path, module="raise RuntimeError('out of order')", name="badcoin")
    app = ("--app", "virtualchain.examples.notary", "--confirmations", "0")
    done = run(environment, "--database", database_url, "--bitcoin", fake_node.url, *app, "sync")
    assert (done.returncode, "badcoin" in done.stderr) == (0, False)
