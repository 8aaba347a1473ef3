"""The fake node's answers, compared with literals that a real node returned.

The integration tests compare many more with a running bitcoind.
"""

import json
from collections.abc import Iterator

import pytest

from tests.support.node_client import NodeClient
from virtualchain.bitcoin.networks import network
from virtualchain.testing import ChainBuilder, FakeNode, key
from virtualchain.testing.fakenode.results import asm, difficulty, script_json
from virtualchain.testing.wire import read_transaction

_NOWHERE = "00" * 32
_COUNT = '{"method":"getblockcount","id":1}'
_COUNTED = '{"result":102,"error":null,"id":1}'
_WRONG_TYPE = """Wrong type passed:
{
    "Position 1 (height)": "JSON value of type string is not of expected type number"
}"""


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    """Yield a fake node with one payment in block 102."""
    with FakeNode() as started:
        started.mine([started.send(b"hello", to=[("bob", 10_000)])])
        yield started


@pytest.mark.parametrize(
    ("method", "params", "status", "code", "message"),
    [
        ("getblockhash", [999], 500, -8, "Block height out of range"),
        ("getblockhash", [-1], 500, -8, "Block height out of range"),
        ("getblockhash", [1.5], 500, -1, "JSON integer out of range"),
        ("getblockhash", [1 << 40], 500, -1, "JSON integer out of range"),
        ("getblockhash", [], 500, -1, "getblockhash height\n"),
        ("getblockheader", [], 500, -1, 'getblockheader "blockhash" ( verbose )\n'),
        ("getblockheader", [_NOWHERE], 500, -5, "Block not found"),
        ("getblockheader", ["zz"], 500, -8, "hash must be of length 64 (not 2, for 'zz')"),
        ("getblock", [_NOWHERE, 0], 500, -5, "Block not found"),
        ("getblock", ["zz"], 500, -8, "blockhash must be of length 64 (not 2, for 'zz')"),
        ("getrawtransaction", ["zz", 2], 500, -8, "parameter 1 must be of length 64 (not 2, for 'zz')"),
        ("getrawtransaction", [_NOWHERE, 2, _NOWHERE], 500, -5, "Block hash not found"),
        ("nosuch", [1], 404, -32601, "Method not found"),
        ("getblockhash", ["x"], 500, -3, _WRONG_TYPE),
    ],
)
def test_wrong_calls_fail_with_bitcoinds_codes_and_messages(
    client: NodeClient, method: str, params: list[object], status: int, code: int, message: str
) -> None:
    """Status, code and message are bitcoind's."""
    reply = client.call(method, *params)
    assert reply.status == status
    assert reply.json() == {"result": None, "error": {"code": code, "message": message}, "id": 1}


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("block/zz.bin", 400, "Invalid hash: zz"),
        (f"block/{_NOWHERE}.bin", 404, f"{_NOWHERE} not found"),
        ("headers/2001/TIP.bin", 400, "Header count is invalid or out of acceptable range (1-2000): 2001"),
        ("headers/TIP.bin?count=0", 400, "Header count is invalid or out of acceptable range (1-2000): 0"),
        (
            "headers/5/6/TIP.bin",
            400,
            "Invalid URI format. Expected /rest/headers/<hash>.<ext>?count=<count>",
        ),
        ("headers/TIP", 404, "output format not found (available: .bin, .hex, .json)"),
        ("blockhashbyheight/999.bin", 404, "Block height out of range"),
        ("blockhashbyheight/-1.bin", 400, "Invalid height: -1"),
        (f"spenttxouts/{_NOWHERE}.bin", 404, f"{_NOWHERE} not found"),
        ("chaininfo.bin", 404, "output format not found (available: json)"),
    ],
)
def test_wrong_rest_requests_fail_with_bitcoinds_messages(
    node: FakeNode, client: NodeClient, path: str, status: int, body: str
) -> None:
    """They are plain text and end with HTTP's line break."""
    reply = client.get(path.replace("TIP", node.tip))
    assert (reply.status, reply.body.decode()) == (status, f"{body}\r\n")
    assert reply.headers == (("Content-Type", "text/plain"), ("Content-Length", str(len(reply.body))))


def test_json_rpc_needs_the_password_and_rest_does_not(node: FakeNode, client: NodeClient) -> None:
    """Without it, the answer is 401 with a challenge and no body."""
    for headers in ({}, {"Authorization": "Basic eDp5"}):
        reply = client.request("POST", "/", '{"method":"uptime"}', headers)
        assert (reply.status, reply.body) == (401, b"")
        assert reply.headers[0] == ("WWW-Authenticate", 'Basic realm="jsonrpc"')
    assert client.get("chaininfo.json").status == 200
    assert client.request("GET", "/").status == 405
    assert client.request("POST", "/other", "{}", client.authorization).status == 404


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        ("{bad", 500, '{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}\n'),
        ("{}", 400, '{"result":null,"error":{"code":-32600,"message":"Missing method"}}\n'),
        ("[]", 200, "[]\n"),
        ('{"method":"getblockcount"}', 200, '{"result":102,"error":null}\n'),
        ('{"method":"getblockcount","id":"a"}', 200, '{"result":102,"error":null,"id":"a"}\n'),
        ('{"jsonrpc":"2.0","method":"getblockcount","id":1}', 200, '{"jsonrpc":"2.0","result":102,"id":1}\n'),
        (
            '{"jsonrpc":"2.0","method":"nosuch","id":1}',
            200,
            '{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":1}\n',
        ),
        (
            '{"jsonrpc":"2.0","id":1}',
            400,
            '{"jsonrpc":"2.0","error":{"code":-32600,"message":"Missing method"},"id":1}\n',
        ),
        ('{"jsonrpc":"2.0","method":"getblockcount"}', 204, ""),
        (f"[{_COUNT},{_COUNT}]", 200, f"[{_COUNTED},{_COUNTED}]\n"),
    ],
)
def test_the_envelope_of_json_rpc(client: NodeClient, body: str, status: int, answer: str) -> None:
    """Versions 1 and 2, batches, notifications and invalid requests are answered byte for byte."""
    reply = client.post(body)
    assert (reply.status, reply.body.decode()) == (status, answer)


def test_named_parameters_are_accepted(client: NodeClient, node: FakeNode) -> None:
    """They equal positional ones, and unknown names are rejected."""
    reply = client.post('{"method":"getblockhash","params":{"height":102},"id":1}')
    assert reply.json()["result"] == node.tip
    reply = client.post('{"method":"getblockhash","params":{"hi":102},"id":1}')
    assert reply.json()["error"] == {"code": -8, "message": "Unknown named parameter hi"}
    call = {"method": "getrawtransaction", "params": {"txid": _NOWHERE, "blockhash": node.tip}, "id": 1}
    assert "No such transaction found in the provided block" in client.post(json.dumps(call)).body.decode()


def test_spent_outputs_are_those_of_the_transactions(client: NodeClient, node: FakeNode) -> None:
    """In bitcoind's serialization: none for the coinbase, then the faucet's coinbase, then alice's coin."""
    faucet, alice = (
        client.result("getblock", node.tip, 3)["tx"][place]["vin"][0]["prevout"]["scriptPubKey"]["hex"]
        for place in (1, 2)
    )
    expected = f"030001{5_000_000_000:016x}16{faucet}01{1_000_000:016x}16{alice}"
    swapped = expected.replace(f"{5_000_000_000:016x}", (5_000_000_000).to_bytes(8, "little").hex())
    swapped = swapped.replace(f"{1_000_000:016x}", (1_000_000).to_bytes(8, "little").hex())
    assert client.get(f"spenttxouts/{node.tip}.hex").body.decode() == f"{swapped}\n"
    assert client.get(f"spenttxouts/{node.tip}.bin").body.hex() == swapped
    reported = client.get(f"spenttxouts/{node.tip}.json").json()
    assert [[each["value"] for each in spent] for spent in reported] == [[], [50], [0.01]]


def test_amounts_are_written_with_eight_decimals(client: NodeClient, node: FakeNode) -> None:
    """This is bitcoind's format, checked in the bytes of the answer."""
    assert b'"value":0.00010000,' in client.call("getblock", node.tip, 2).body


def test_a_transaction_is_found_in_its_block(client: NodeClient, node: FakeNode) -> None:
    """Verbosity 2 includes fee and prevouts, verbosity 0 is hex."""
    txid = client.result("getblock", node.tip)["tx"][2]
    tx = client.result("getrawtransaction", txid, 2, node.tip)
    assert (tx["in_active_chain"], tx["confirmations"], tx["fee"]) == (True, 1, 0.00001)
    assert "fee" not in client.result("getrawtransaction", txid, 1, node.tip)
    assert client.result("getrawtransaction", txid, 0, node.tip) == tx["hex"]
    assert client.call("getrawtransaction", txid).json()["error"]["code"] == -5


def test_headers_start_with_the_requested_block(client: NodeClient, node: FakeNode) -> None:
    """Both forms of the path return up to `count` headers, and none for an unknown block."""
    first = client.result("getblockhash", 100)
    for path in (f"headers/2/{first}.bin", f"headers/{first}.bin?count=2"):
        assert len(client.get(path).body) == 160
    assert len(client.get(f"headers/{first}.bin").body) == 240
    assert client.get(f"headers/2/{first}.hex").body.endswith(b"\n")
    assert [each["height"] for each in client.get(f"headers/2/{first}.json").json()] == [100, 101]
    assert client.get(f"headers/2/{_NOWHERE}.bin").body == b""


def test_hashes_by_height_have_three_formats(client: NodeClient, node: FakeNode) -> None:
    """Bytes are in internal byte order, hex and JSON in display order."""
    assert client.get("blockhashbyheight/102.bin").body[::-1].hex() == node.tip
    assert client.get("blockhashbyheight/102.hex").body.decode() == f"{node.tip}\n"
    assert client.get("blockhashbyheight/102.json").json() == {"blockhash": node.tip}


def test_a_header_has_all_fields(client: NodeClient, node: FakeNode) -> None:
    """Its median time is that of five blocks before; chainwork and adjacent blocks are included."""
    header = client.result("getblockheader", client.result("getblockhash", 101))
    assert header["mediantime"] == header["time"] - 5 * 600
    assert header["chainwork"] == f"{2 * 102:064x}"
    assert header["nextblockhash"] == node.tip
    raw = bytes.fromhex(client.result("getblockheader", header["hash"], False))
    assert raw[35:3:-1].hex() == header["previousblockhash"]


def test_a_client_can_end_the_connection(client: NodeClient) -> None:
    """The answer repeats the header `Connection: close`."""
    reply = client.request("GET", "/rest/chaininfo.json", headers={"Connection": "close"})
    assert ("Connection", "close") in reply.headers


def test_a_node_reports_its_version_and_uptime(client: NodeClient) -> None:
    """The version is one that virtualchain supports."""
    assert client.result("getnetworkinfo")["version"] >= 300000
    assert client.result("uptime") >= 0


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("", ""),
        ("51", "1"),
        ("4f6a", "-1 OP_RETURN"),
        ("0181", "-1"),
        ("028000", "128"),
        ("00", "0"),
        ("0461626364", "1684234849"),
        ("056162636465", "6162636465"),
        ("0561", "[error]"),
        ("baffbb", "OP_CHECKSIGADD OP_INVALIDOPCODE OP_UNKNOWN"),
        ("b1b2", "OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY"),
    ],
)
def test_scripts_are_disassembled_with_bitcoinds_names_and_numbers(script: str, printed: str) -> None:
    """Short pushes are decimal numbers, longer ones hex."""
    assert asm(bytes.fromhex(script)) == printed


def test_the_hash_type_of_a_signature_is_named() -> None:
    """This applies only to scriptSigs, and only to valid signatures."""
    chain = ChainBuilder()
    raw = read_transaction(chain.send(b"x", key("alice", "p2pkh")).raw).raw
    script = raw[42 : 42 + raw[41]]
    printed = asm(script, signatures=True)
    assert printed.split()[0].endswith("[ALL]")
    assert asm(script).split()[0].endswith("01")
    signature = bytearray(script[1 : 1 + script[0]])
    for place, value in ((0, 0x31), (1, 0), (2, 3), (3, 0), (3, 0xFF), (4, 0x80), (-1, 7)):
        broken = bytearray(signature)
        broken[place] = value
        assert "[" not in asm(bytes([len(broken)]) + broken, signatures=True)


def test_an_output_script_has_descriptor_type_and_address() -> None:
    """The fields are in bitcoind's order."""
    fields = script_json(key("alice").script_pubkey, network("regtest"))
    assert list(fields) == ["asm", "desc", "hex", "address", "type"]
    assert fields["desc"].startswith(f"addr({key('alice').address()})#")
    assert fields["type"] == "witness_v0_keyhash"
    assert list(script_json(b"\x51", network("regtest"))) == ["asm", "desc", "hex", "type"]


def test_the_difficulty_has_the_digits_that_a_node_prints() -> None:
    """The examples are mainnet blocks 325000 and 549400, the easiest target, and regtest's."""
    assert difficulty(0x181F6973) == 35002482026.13323
    assert difficulty(0x17272D92) == 7184404942701.792
    assert difficulty(0x1D00FFFF) == 1.0
    assert difficulty(0x207FFFFF) == 4.656542373906925e-10
