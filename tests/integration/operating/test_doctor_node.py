"""What the doctor finds of a node: nothing if it is in order, and each disorder."""

import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.doctored import NOTARY, examined, finding_of, not_ok
from virtualchain import App, StateEngine
from virtualchain.examples import notary
from virtualchain.operating.doctor.findings import Finding
from virtualchain.operating.doctor.node import NODE
from virtualchain.settings import Settings
from virtualchain.testing import FakeNode
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.fakenode import rpc
from virtualchain.testing.fakenode.rpc import Method, RpcError
from virtualchain.testing.fakenode.state import NodeState

LEFT_OUT = "left out"
Answer = Callable[[str, Any], None]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Return a function that changes some parts of a method's answer; one that is LEFT_OUT is not there."""
    methods = dict(rpc.METHODS)

    def change(method: str, parts: Any) -> None:
        before = methods.get(method)

        def changed(state: NodeState) -> Any:
            if isinstance(parts, Exception):
                raise parts
            if not isinstance(parts, dict) or before is None:
                return parts
            whole = {**before.call(state), **parts}
            return {
                name: part for name, part in whole.items() if name not in parts or parts[name] != LEFT_OUT
            }

        monkeypatch.setitem(rpc.METHODS, method, Method((), changed))

    return change


@pytest.fixture
def settings(fake_node: FakeNode) -> Settings:
    """Return settings with a node, and with a database that does not answer."""
    return Settings(bitcoin=(fake_node.url,), database="postgresql://127.0.0.1:1/none", confirmations=0)


CHAIN, PEERS = "getblockchaininfo", "getnetworkinfo"
LATER = 2**32 - 1
CASES = (
    ("node-version", PEERS, {"version": 240_100}, "problem", "version 24"),
    ("node-version", PEERS, {"version": 990_000}, "warning", "version 99"),
    ("node-syncing", CHAIN, {"initialblockdownload": True}, "warning", "downloading"),
    ("node-syncing", CHAIN, {"headers": 900}, "warning", "block 101 of 900"),
    ("node-warnings", CHAIN, {"warnings": "Unknown rules\x1b[31m"}, "warning", "Unknown rules\\x1b[31m"),
    ("node-warnings", PEERS, {"warnings": ["one", "two"]}, "warning", "'one'; 'two'"),
    ("node-peers", CHAIN, {"chain": "main"}, "warning", "no peers"),
    ("node-last-block", CHAIN, {"chain": "main", "time": 1_600_000_000}, "warning", "minutes ago"),
    ("node-clock", PEERS, {"timeoffset": -90}, "warning", "differs from its peers' by 90 s"),
    ("node-clock", CHAIN, {"time": LATER}, "problem", "hours ahead of this machine's clock"),
    ("node-index", "getindexinfo", {"txindex": {"synced": False}}, "warning", "being built"),
    ("node-version", PEERS, {"version": "30"}, "problem", "as no Bitcoin node does"),
    ("node-version", PEERS, {"version": 10**300}, "problem", "as no Bitcoin node does"),
    ("node-syncing", CHAIN, {"headers": LEFT_OUT}, "ok", "block 101 of 101"),
    ("node-warnings", CHAIN, {"warnings": [1]}, "problem", "as no Bitcoin node does"),
    ("node-last-block", CHAIN, {"time": LEFT_OUT}, "skipped", "does not state"),
)


@pytest.mark.parametrize(
    ("check", "method", "parts", "verdict", "text"), CASES, ids=lambda value: str(value)[:40]
)
def test_what_a_node_says(
    settings: Settings, answer: Answer, check: str, method: str, parts: Any, verdict: str, text: str
) -> None:
    """Each disorder is named, and is not there before."""
    assert finding_of(check, settings).verdict == "ok"
    answer(method, parts)
    finding = finding_of(check, settings)
    assert (finding.verdict, text in finding.observed) == (verdict, True), finding
    assert finding.observed.isprintable()


HOSTILE: tuple[Any, ...] = (
    None,
    [],
    {},
    "x" * 100_000,
    10**30,
    -1,
    True,
    {"a": [{}]},
    [[[]]],
    "\x1b]0;title\x07",
    1e308,
)


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
def test_a_node_that_answers_anything(settings: Settings, answer: Answer, value: Any) -> None:
    """Whatever is answered, as a whole or in part, every check has a verdict and none of them fails."""
    results = []
    for method in (PEERS, "getindexinfo", "getzmqnotifications", CHAIN):
        answer(method, value)
        results.append(examined(settings, checks=NODE))
    names = ("chain", "blocks", "headers", "warnings", "time", "pruned", "pruneheight", "connections")
    answer(CHAIN, {"chain": "main", "blocks": 1, "headers": 1, **dict.fromkeys(names[1:], value)})
    answer(PEERS, dict.fromkeys((*names, "version", "subversion", "timeoffset"), value))
    answer("getindexinfo", {"txindex": value})
    answer("getzmqnotifications", [value, {"type": "pubhashblock", "address": value}])
    for findings in (*results, examined(settings, checks=NODE)):
        assert len(findings) == len(NODE)
        assert not any("the check failed" in finding.observed for finding in findings.values()), findings
        assert all(len(finding.observed) < 2000 for finding in findings.values())


def test_a_node_that_is_not_there(settings: Settings, fake_node: FakeNode) -> None:
    """A node that is away, or refuses the login, is one problem; passwords are not shown."""
    wrong = fake_node.url.replace("password", "hunter2")
    findings = examined(settings, bitcoin=(wrong,))
    assert findings["node"].verdict == "problem"
    assert "refuses the password" in findings["node"].observed
    fake_node.stop()
    findings = examined(settings)
    assert [name for name in not_ok(findings) if name in NODE] == ["node"]
    assert {finding.verdict for name, finding in findings.items() if name in NODE} == {"problem", "skipped"}
    assert "password@" not in repr(findings)


def test_networks_and_encryption(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of another network is a problem; a password that crosses a network in clear a warning."""
    assert finding_of("node-network", settings, network="signet").verdict == "problem"
    monkeypatch.setattr("virtualchain.bitcoin.node.login.NodeUrl.is_local", False)
    assert finding_of("node-encryption", settings).verdict == "warning"


def test_nodes_with_less(fake_node: FakeNode, settings: Settings) -> None:
    """What an older node, or one without REST, offers less is named."""
    with FakeNode(rest=False) as without, FakeNode(spent_outputs=False) as older:
        assert finding_of("node-rest", settings, bitcoin=(without.url,)).verdict == "warning"
        for node in (without, older):
            assert "JSON-RPC" in finding_of("node-spent-outputs", settings, bitcoin=(node.url,)).observed


def test_a_pruned_node(fake_node: FakeNode, settings: Settings, database_url: str) -> None:
    """A pruned node is in order as long as it has the next blocks of all apps, installed or named."""
    fake_node.prune(50)
    fixed = {"database": database_url}
    assert finding_of("node-pruned", settings, **fixed).verdict == "skipped"
    named = finding_of("node-pruned", settings, **fixed, apps=NOTARY)
    assert (named.verdict, "needs block 0 next" in named.observed) == ("problem", True)
    fake_node.prune(0)
    with StateEngine(notary.app, database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
    fake_node.prune(50)
    assert finding_of("node-pruned", settings, **fixed, apps=NOTARY).verdict == "ok"


def test_a_node_on_another_chain(fake_node: FakeNode, settings: Settings, database_url: str) -> None:
    """The fork is named, also one below all of the tape; so is a node that lags, and an app that does."""

    def made(check: str = "node-chain") -> Finding:
        return finding_of(check, settings, database=database_url)

    assert made().verdict == "skipped"
    late = App("late", b"la", first_block_id=90)
    late.add(b"x", parse=lambda payload: {})
    with StateEngine(late, database=database_url, source=fake_node.url) as engine:
        engine.build()
    assert (made().verdict, made("lag").verdict) == ("ok", "ok")
    fake_node.reorg(10, 30)
    assert "after block 91, 4 before its end" in made().observed
    assert "app late lags by 20 blocks" in made("lag").observed
    fake_node.reorg(40, 50)
    assert "after block 89, 6 before its end" in made().observed
    with FakeNode() as lagging:
        lagging.fall_behind(20)
        finding = finding_of("node-chain", settings, database=database_url, bitcoin=(lagging.url,))
    assert (finding.verdict, "the node is at block 81" in finding.observed) == ("warning", True)


def test_block_files(settings: Settings, tmp_path: Path) -> None:
    """Files take the node's place; files that are not there are a problem."""
    findings = examined(settings, bitcoin=(), blocks=tmp_path)
    assert findings["node"].verdict == "ok"
    assert {finding.verdict for name, finding in findings.items() if name in NODE} == {"ok", "skipped"}
    assert finding_of("node", settings, bitcoin=(), blocks=tmp_path / "none").verdict == "problem"


def test_several_nodes(settings: Settings, fake_node: FakeNode) -> None:
    """Each node is examined; one that is away is a warning as long as another answers."""
    with FakeNode(rest=False) as other:
        both = {"bitcoin": (fake_node.url, other.url), "zmq": "tcp://127.0.0.1:1"}
        assert finding_of("node", settings, **both).verdict == "ok"
        finding = finding_of("node-rest", settings, **both)
        assert (finding.verdict, finding.observed.count("http://")) == ("warning", 1)
        assert str(other.url.rpartition(":")[2]) in finding.observed
        assert finding_of("node-announcements", settings, **both).observed.count("http://") == 1
        other.fail("garbage", None, on="getnetworkinfo")
        finding = finding_of("node-version", settings, **both)
        assert (finding.verdict, finding.observed.count("http://")) == ("problem", 2), finding
    findings = examined(settings, checks=NODE, bitcoin=(fake_node.url, other.url))
    assert [*not_ok(findings)] == ["node"]
    assert findings["node"].verdict == "warning"
    fake_node.stop()
    assert finding_of("node", settings, bitcoin=(fake_node.url, other.url)).verdict == "problem"


def test_announcements(settings: Settings, answer: Answer) -> None:
    """What the settings expect of ZMQ is compared with what the node publishes, and with who listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        answer("getzmqnotifications", RpcError(-32601, "Method not found"))
        finding = finding_of("node-announcements", settings, zmq=here)
        assert (finding.verdict, "publishes no blocks" in finding.observed) == ("warning", True)
        answer(
            "getzmqnotifications", [{"type": "pubhashblock", "address": here.replace("127.0.0.1", "0.0.0.0")}]
        )
        assert finding_of("node-announcements", settings, zmq=here).verdict == "ok"
        finding = finding_of("node-announcements", settings, zmq="tcp://127.0.0.1:1")
        assert "but --zmq is 'tcp://127.0.0.1:1'; nothing listens" in finding.observed
    for broken in ("tcp://[", "ipc:///nothing", "tcp://127.0.0.1:x", "", "x\x1b"):
        finding = finding_of("node-announcements", settings, zmq=broken)
        assert (finding.verdict, finding.observed.isprintable()) == ("warning", True)


def test_a_node_that_hangs(settings: Settings, fake_node: FakeNode) -> None:
    """It is given up after the limit, once, and the remaining checks are made."""
    fake_node.fail("hang", None)
    began = time.monotonic()
    findings = examined(settings, limit=1.0)
    fake_node.heal()
    assert time.monotonic() - began < 10
    assert findings["node"].observed == "no answer within 1 seconds"
    assert findings["node-rest"].verdict == "skipped"
    assert findings["apps"].verdict == "skipped"


def test_a_database_that_hangs(settings: Settings) -> None:
    """It is given up like a node, whatever it waits with."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user:hunter2@127.0.0.1:{silent.getsockname()[1]}/name"
        findings = examined(settings, database=url, limit=0.5)
    assert [*not_ok(findings)] == ["database"]
    assert "no answer within" in findings["database"].observed
    assert "hunter2" not in repr(findings)


@pytest.mark.node
def test_a_real_node(bitcoind_factory: Callable[..., Bitcoind]) -> None:
    """A real node's answers are understood, and it publishes where it says."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    node = bitcoind_factory(f"-zmqpubhashblock={address}", "-txindex=1")
    node.mine()
    settings = Settings(bitcoin=(node.url,), zmq=address, database="postgresql://127.0.0.1:1/none")
    findings = {name: finding for name, finding in examined(settings).items() if name in NODE}
    assert not_ok(findings) == {}
    assert [name for name, finding in findings.items() if finding.verdict == "skipped"] == ["node-chain"]
    node.rpc("setmocktime", int(time.time()) + 10 * 3600)
    node.mine()
    assert finding_of("node-clock", settings).verdict == "problem"
