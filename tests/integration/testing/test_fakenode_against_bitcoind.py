"""The fake node compared with a real one: the same blocks, the same requests, the same answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.node_client import NodeClient, Reply
from virtualchain.testing import ChainBuilder, FakeNode, Tx, key, op_return
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.chain import PREMINE
from virtualchain.testing.transactions import KEY_KINDS

pytestmark = pytest.mark.node

_OF_SOME_VERSIONS = {"txcount", "header_version", "target"}
"""Fields that only some releases return."""
_OF_THE_NODE = {"size_on_disk", "initialblockdownload", "verificationprogress"}
"""Fields that depend on the real node's disk, clock and estimates."""

_KEY = key("anyone").public_key.hex()
_OTHER = key("anyone else").public_key.hex()
_UNCOMPRESSED = (
    "04678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"
    "49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5f"
)
_SCRIPTS = [
    "",
    "51",
    "6a",
    "6a51",
    "6a00",
    "6a0161",
    "6a02616263",
    "6a4c",
    "6a0461626364",
    "6a05616263646504deadbe8f",
    "6a056162636465ac",
    f"21{_KEY}ac",
    "2102" + "ff" * 32 + "ac",
    f"41{_UNCOMPRESSED}ac",
    f"5121{_KEY}51ae",
    f"5121{_KEY}21{_OTHER}52ae",
    f"0021{_KEY}51ae",
    "0014" + "11" * 20,
    "0020" + "22" * 32,
    "0015" + "33" * 21,
    "5120" + key("anyone", "p2tr").script_pubkey[2:].hex(),
    "5120" + "ff" * 32,
    "51024e73",
    "5202abcd",
    "6028" + "44" * 40,
    "a914" + "55" * 20 + "87",
    "76a914" + "66" * 20 + "88ac",
    "4f01810280000300008004000000800500000000810101ff",
    "".join(f"{opcode:02x}" for opcode in range(0x4F, 0x100)),
    "63516768ba",
]


class Pair:
    """A fake node and a real one that has its blocks."""

    def __init__(self, node: FakeNode, fake: NodeClient, real: NodeClient) -> None:
        self.node = node
        self.fake = fake
        self.real = real
        self._sent: set[str] = set()

    def share(self) -> None:
        """Submit the fake node's blocks to the real one."""
        for stored in self.node.chain.tree.chain[1:]:
            if stored.block.hash not in self._sent:
                self._sent.add(stored.block.hash)
                verdict = self.real.result("submitblock", stored.raw.hex())
                assert verdict in {None, "inconclusive"}, f"block {stored.height}: {verdict}"
        assert self.real.result("getbestblockhash") == self.node.tip

    def call(self, method: str, *params: object) -> None:
        """Check that both answer a call equally."""
        self.compare(lambda client: client.call(method, *params))

    def get(self, path: str) -> None:
        """Check that both answer a REST request equally."""
        self.compare(lambda client: client.get(path))

    def post(self, body: str) -> None:
        """Check that both answer the same body, sent to JSON-RPC with the password, equally."""
        self.compare(lambda client: client.post(body))

    def request(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        """Check that both answer an HTTP request equally."""
        self.compare(lambda client: client.request(method, path, body, headers))

    def compare(self, ask: Callable[[NodeClient], Reply]) -> None:
        """Check that both answers are equal: status, headers, and the body with the order of its fields."""
        fake, real = ask(self.fake), ask(self.real)
        assert (fake.status, _without_length(fake)) == (real.status, _without_length(real))
        if ("Content-Type", "application/json") not in real.headers:
            assert fake == real
        elif real.body:
            assert list(_differences(_comparable(fake), _comparable(real))) == []


def _without_length(reply: Reply) -> list[tuple[str, str]]:
    return [(name, value) for name, value in reply.headers if name != "Content-Length"]


def _comparable(reply: Reply) -> object:
    """Parse JSON, keeping the order of fields and the digits of numbers."""
    return json.loads(reply.body, object_pairs_hook=_fields, parse_float=str)


def _fields(pairs: list[tuple[str, Any]]) -> object:
    if ("code", -1) in pairs:  # the help text, of which the first line is compared
        return [(name, str(value).partition("\n")[0]) for name, value in pairs]
    return [pair for pair in pairs if pair[0] not in _OF_SOME_VERSIONS | _OF_THE_NODE]


def _differences(fake: Any, real: Any, path: str = "") -> Iterator[str]:
    if isinstance(fake, list | tuple) and type(fake) is type(real) and len(fake) == len(real):
        for index, (ours, theirs) in enumerate(zip(fake, real, strict=True)):
            yield from _differences(ours, theirs, f"{path}/{index}")
    elif fake != real:
        yield f"{path}: {str(fake)[:300]} is not {str(real)[:300]}"


@contextmanager
def _pair(bitcoind: Bitcoind, premine: int = PREMINE) -> Iterator[Pair]:
    with FakeNode(premine=premine) as node, NodeClient(node.url) as fake, NodeClient(bitcoind.url) as real:
        yield Pair(node, fake, real)


@pytest.fixture
def pair(bitcoind_factory: Callable[..., Bitcoind]) -> Iterator[Pair]:
    """Yield a fake node, and a real one without its blocks yet."""
    with _pair(bitcoind_factory()) as both:
        yield both


def _busy_block(node: FakeNode) -> list[str]:
    """Mine every kind of key, payload and script that the builder supports; return the hashes."""
    payloads = [b"", b"a", b"\x01", b"x" * 75, b"x" * 76, b"x" * 255, b"x" * 256, b"x" * 65_535]
    sent: list[Tx] = [node.send(payload, f"sender {len(payload)}") for payload in payloads]
    sent += [node.send(b"id?" + kind.encode(), key("alice", kind), [("bob", 10_000)]) for kind in KEY_KINDS]
    everyone = [key(name, kind) for name in ("bob", "carol") for kind in KEY_KINDS]
    sent.append(node.send(b"many", everyone, [(key("dave", kind), 20_000) for kind in KEY_KINDS], fee=5_000))
    sent.append(node.send(None, "erin", [(bytes.fromhex(script), 1_000) for script in _SCRIPTS]))
    sent.append(node.send(b"first", "frank", [(op_return(b"second"), 0), ("frank", 1)]))
    hashes = node.mine(sent, n=2)
    hashes += node.mine(
        [node.send(b"from bob", "bob"), node.send(None, "dave", [("bob", 19_000)], fee=1_000)]
    )
    return hashes


def test_a_real_node_accepts_the_blocks_of_the_builder(pair: Pair) -> None:
    """The premine, every kind of sender and payload, and a reorg with a double spend are all valid."""
    _busy_block(pair.node)
    claim = pair.node.send(b"claim", "alice")
    pair.node.mine([claim])
    pair.share()
    pair.node.reorg(3, txs=[pair.node.double_spend(claim, b"other"), pair.node.send(b"y" * 100_000, "zoe")])
    pair.share()


def test_a_real_node_loads_a_saved_chain(bitcoind_factory: Callable[..., Bitcoind], tmp_path: Path) -> None:
    """It reads the file, which includes the genesis block, with -loadblock."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"hello", to=[("bob", 10_000)])])
    chain.save(tmp_path / "blocks.dat")
    node = bitcoind_factory(f"-loadblock={tmp_path / 'blocks.dat'}")
    node.wait_for_height(102)
    assert node.rpc("getbestblockhash") == chain.tip


def test_blocks_and_transactions_equal_a_real_nodes(pair: Pair) -> None:
    """For blocks with every kind of script, every endpoint returns the same fields."""
    genesis, *_ = (stored.block.hash for stored in pair.node.chain.tree.chain)
    hashes = [genesis, pair.node.chain.tree.chain[1].block.hash, *_busy_block(pair.node)]
    pair.share()
    for block_hash in hashes:
        for verbosity in (0, 1, 2, 3, None, True, False, 9, -1):
            pair.call("getblock", block_hash, verbosity)
        pair.call("getblock", block_hash)
        for verbose in ([], [True], [False], [None]):
            pair.call("getblockheader", block_hash, *verbose)
        for form in ("bin", "hex", "json"):
            pair.get(f"block/{block_hash}.{form}")
            pair.get(f"block/notxdetails/{block_hash}.{form}")
            pair.get(f"headers/{block_hash}.{form}")
            pair.get(f"headers/{block_hash}.{form}?count=2")
            pair.get(f"headers/3/{block_hash}.{form}")
            pair.get(f"spenttxouts/{block_hash}.{form}")
    for block_hash in hashes[1:]:
        for txid in pair.real.result("getblock", block_hash)["tx"]:
            for verbosity in (0, 1, 2, False, True, None):
                pair.call("getrawtransaction", txid, verbosity, block_hash)


def test_the_state_of_the_chain_equals_a_real_nodes(pair: Pair) -> None:
    """Tips, heights, hashes and chain info are equal before and after a reorg and an invalidation."""
    node = pair.node
    old = node.mine([node.send(b"one")], n=3)
    pair.share()
    _compare_chains(pair, old)
    node.reorg(2, txs=[node.send(b"two")])
    pair.share()
    _compare_chains(pair, old)
    block_id = node.height - 1
    pair.real.result("invalidateblock", node.chain.tree.chain[block_id].block.hash)
    node.invalidate(block_id)
    assert pair.real.result("getbestblockhash") == node.tip
    _compare_chains(pair, old)


def _compare_chains(pair: Pair, hashes: list[str]) -> None:
    pair.call("getblockchaininfo")
    pair.get("chaininfo.json")
    pair.call("getbestblockhash")
    pair.call("getblockcount")
    pair.call("getchaintips")
    pair.call("waitfornewblock", 10)
    pair.call("waitfornewblock", 10, pair.node.tip)
    pair.call("waitforblockheight", pair.node.height, 10)
    pair.call("waitforblockheight", pair.node.height + 1, 10)
    for height in (0, 1, pair.node.height, pair.node.height + 1):
        pair.call("getblockhash", height)
        for form in ("bin", "hex", "json"):
            pair.get(f"blockhashbyheight/{height}.{form}")
    for block_hash in hashes:
        pair.call("getblockheader", block_hash)
        pair.call("getblock", block_hash, 3)
        pair.get(f"headers/2000/{block_hash}.bin")
        pair.get(f"headers/2000/{block_hash}.json")
        pair.get(f"spenttxouts/{block_hash}.bin")
        txid = pair.real.result("getblock", block_hash)["tx"][-1]
        pair.call("getrawtransaction", txid, 2, block_hash)


def test_unspent_outputs_equal_a_real_nodes(pair: Pair) -> None:
    """Outputs of every kind of script, spent or not, and what funds a transaction before it is mined."""
    node = pair.node
    hashes = [node.chain.tree.chain[0].block.hash, *node.mine(), *_busy_block(node)]
    unmined = node.send(b"later", "somebody new")
    assert unmined.funding is not None
    pair.share()
    for block_hash in hashes:
        for tx in pair.real.result("getblock", block_hash, 2)["tx"]:
            for vout in range(len(tx["vout"]) + 1):
                pair.call("gettxout", tx["txid"], vout, False)
    wrong: list[list[object]] = [
        [],
        [_NOWHERE],
        [_NOWHERE, 0],
        ["zz", 0],
        ["zz" * 32, 0],
        [7, 0],
        [_NOWHERE, "x"],
    ]
    wrong += [
        [_NOWHERE, -1],
        [_NOWHERE, 1.5],
        [_NOWHERE, 2**31],
        [_NOWHERE, 2**32],
        [_NOWHERE, 0, 1],
        [_NOWHERE, 0, None, 2],
    ]
    for parameters in wrong:
        pair.call("gettxout", *parameters)
    raw = unmined.funding.raw.hex()
    assert pair.real.result("sendrawtransaction", raw) == unmined.funding.txid
    for verbosity in ([], [0], [1], [2], [False], [True], [None]):
        pair.call("getrawtransaction", unmined.funding.txid, *verbosity)
    pair.call("getrawtransaction", unmined.funding.txid, 1, node.tip)
    pair.call("gettxout", unmined.funding.txid, 0, False)
    node.mine([unmined])
    pair.share()
    pair.call("getrawtransaction", unmined.funding.txid)
    pair.call("gettxout", unmined.funding.txid, 0, False)


_NOWHERE = "00" * 32


def test_wrong_calls_fail_as_with_a_real_node(pair: Pair) -> None:
    """Wrong hashes, heights, types, parameter counts and methods yield equal codes, messages and statuses."""
    pair.share()
    tip = pair.node.tip
    short: list[list[object]] = [[], [_NOWHERE], ["zz"], ["zz" * 32], [7], [None], [tip.upper()]]
    for parameters in [*short, [tip, "x", 3, 4]]:
        pair.call("getblock", *parameters)
        pair.call("getblockheader", *parameters)
        pair.call("getrawtransaction", *parameters)
    heights: list[object] = [-1, 1000, "x", 1.5, None, True, [], {}]
    for height in heights:
        pair.call("getblockhash", height)
    for timeout in (-1, 1.5, "x", 1, None):
        pair.call("waitfornewblock", timeout, _NOWHERE)
        pair.call("waitforblockheight", 0, timeout)
    pair.call("waitfornewblock", 1, "zz")
    pair.call("waitfornewblock", 1, _NOWHERE, 3)
    pair.call("waitforblockheight", "x", 1)
    pair.call("waitforblockheight")
    pair.call("getblock", tip, "x")
    pair.call("getblock", tip, 1.5)
    pair.call("getblockheader", tip, 1)
    genesis_tx = pair.node.chain.tree.chain[0].block.merkle_root
    long: list[list[object]] = [
        [_NOWHERE],
        [_NOWHERE, 2, tip],
        [_NOWHERE, 2, _NOWHERE],
        [_NOWHERE, 2, "zz"],
        [_NOWHERE, 2, 7],
        [_NOWHERE, 2, None],
        [_NOWHERE, "x", tip],
        [genesis_tx, 2],
    ]
    for parameters in long:
        pair.call("getrawtransaction", *parameters)
    pair.call("nosuchmethod", 1)
    pair.call("getblockcount", 1)


_BATCH = [
    '{"method":"getblockcount","id":1}',
    '{"method":"getblockhash","params":[999],"id":2}',
    '{"jsonrpc":"2.0","method":"nosuch","id":3}',
    '{"jsonrpc":"2.0","method":"getblockcount"}',
]


def test_the_envelope_of_json_rpc_is_a_real_nodes(pair: Pair) -> None:
    """Versions, batches, named parameters, invalid JSON, wrong paths and passwords are answered equally."""
    pair.share()
    for body in (
        "{bad",
        "[]",
        "7",
        "{}",
        '{"method":1}',
        '{"method":"getblockcount"}',
        '{"method":"getblockcount","id":null}',
        '{"method":"getblockcount","id":"abc","version":"1.1"}',
        '{"method":"getblockcount","params":7,"id":1}',
        '{"method":"getblockhash","params":{"height":1},"id":1}',
        '{"method":"getblockhash","params":{"hi":1},"id":1}',
        '{"method":"getblockhash","params":{},"id":1}',
        '{"jsonrpc":"2.0","method":"getblockcount","id":1}',
        '{"jsonrpc":"2.0","method":"getblockhash","params":[999],"id":1}',
        '{"jsonrpc":"2.0","method":"nosuch","id":1}',
        '{"jsonrpc":"2.0","method":"getblockcount"}',
        '{"jsonrpc":"3.0","method":"nosuch","id":1}',
        f"[{','.join(_BATCH)}]",
        "[7]",
        '[{"id":5}]',
        '{"jsonrpc":"2.0","method":7,"id":3}',
        '{"method":"getblockhash","params":[1.0],"id":1}',
        '{"method":"getblockhash","params":[12345678901234],"id":1}',
        '[{"jsonrpc":"2.0","method":"getblockcount"}]',
    ):
        pair.post(body)
    pair.request("POST", "/", "{}", {"Connection": "close"})
    pair.request("GET", "/rest/chaininfo.json", None, {"Connection": "close"})
    wrong = {"Authorization": "Basic eDp5"}
    for method, path in (("GET", "/"), ("PUT", "/"), ("POST", "/nope"), ("POST", "/wallet/x"), ("POST", "/")):
        for headers in ({}, wrong):
            pair.request(method, path, "{}", headers)


def test_wrong_rest_requests_fail_as_with_a_real_node(pair: Pair) -> None:
    """Unknown formats, hashes, heights, counts and paths yield equal statuses and messages."""
    pair.share()
    tip = pair.node.tip
    for endpoint in ("block/", "block/notxdetails/", "headers/5/", "headers/", "spenttxouts/"):
        for name in (
            tip,
            f"{tip}.foo",
            "zz.bin",
            f"{_NOWHERE}.bin",
            f"{tip.upper()}.hex",
            f"{tip}.bin?x=1",
            "",
        ):
            pair.get(endpoint + name)
    for count in ("0", "1", "2000", "2001", "x", "-1", "", "99999999999999999999"):
        pair.get(f"headers/{count}/{tip}.hex")
        pair.get(f"headers/{tip}.hex?count={count}")
    pair.get(f"headers/5/6/{tip}.bin")
    for height in (
        "1",
        "1.foo",
        "-1.bin",
        "x.bin",
        "1x.hex",
        "99999999999.hex",
        "2147483648.hex",
        "0001.hex",
    ):
        pair.get(f"blockhashbyheight/{height}")
    for path in ("", "nosuch/x", "chaininfo", "chaininfo.bin", "chaininfo.json?x=1", "chaininfo.jsonx"):
        pair.get(path)
    for method in ("HEAD", "POST", "PUT"):
        pair.request(method, "/rest/chaininfo.json")
        pair.request(method, "/rest/nosuch")


def test_pruned_blocks_are_missing_as_from_a_real_node(bitcoind_factory: Callable[..., Bitcoind]) -> None:
    """Below the prune height, headers are served, and everything else fails with the same errors."""
    with _pair(bitcoind_factory("-fastprune", "-prune=1"), premine=700) as pair:
        pair.share()
        pair.real.result("pruneblockchain", 350)
        height = pair.real.result("getblockchaininfo")["pruneheight"]
        assert height > 100
        pair.node.prune(height)
        pair.call("getblockchaininfo")
        for block_id in (0, 100, height - 1, height, height + 1):
            block_hash = pair.node.chain.tree.chain[block_id].block.hash
            for verbosity in range(4):
                pair.call("getblock", block_hash, verbosity)
            pair.call("getblockheader", block_hash)
            pair.call("getrawtransaction", _NOWHERE, 2, block_hash)
            for endpoint in ("block", "block/notxdetails", "headers/1", "spenttxouts"):
                for form in ("bin", "hex", "json"):
                    pair.get(f"{endpoint}/{block_hash}.{form}")
