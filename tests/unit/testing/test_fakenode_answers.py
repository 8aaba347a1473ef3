"""What the fake node answers where no bitcoind is there to compare: literals seen from a real one."""

import json
from collections.abc import Iterator

import pytest

from tests.support.node_client import NodeClient
from virtualchain.testing import FakeNode

_NOWHERE = "00" * 32
_COUNT = '{"method":"getblockcount","id":1}'
_COUNTED = '{"result":102,"error":null,"id":1}'
_WRONG_TYPE = """Wrong type passed:
{
    "Position 1 (height)": "JSON value of type string is not of expected type number"
}"""


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    """Give a fake node with one payment in block 102."""
    with FakeNode() as started:
        started.mine([started.send(b"hello", to=[("bob", 10_000)])])
        yield started


@pytest.fixture
def client(node: FakeNode) -> Iterator[NodeClient]:
    """Give a connection to it."""
    with NodeClient(node.url) as connected:
        yield connected


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
    """Status, code and message."""
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
    """Plain text, ended as HTTP ends lines."""
    reply = client.get(path.replace("TIP", node.tip))
    assert (reply.status, reply.body.decode()) == (status, f"{body}\r\n")
    assert reply.headers == (("Content-Type", "text/plain"), ("Content-Length", str(len(reply.body))))


def test_json_rpc_needs_the_password_and_rest_does_not(node: FakeNode, client: NodeClient) -> None:
    """Status 401 with a challenge and without a body."""
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
    """Versions 1 and 2, batches, notifications and nonsense, byte for byte."""
    reply = client.post(body)
    assert (reply.status, reply.body.decode()) == (status, answer)


def test_named_parameters_are_put_into_their_places(client: NodeClient, node: FakeNode) -> None:
    """And unknown names are refused."""
    reply = client.post('{"method":"getblockhash","params":{"height":102},"id":1}')
    assert reply.json()["result"] == node.tip
    reply = client.post('{"method":"getblockhash","params":{"hi":102},"id":1}')
    assert reply.json()["error"] == {"code": -8, "message": "Unknown named parameter hi"}
    call = {"method": "getrawtransaction", "params": {"txid": _NOWHERE, "blockhash": node.tip}, "id": 1}
    assert "No such transaction found in the provided block" in client.post(json.dumps(call)).body.decode()


def test_spent_outputs_are_those_of_the_transactions(client: NodeClient, node: FakeNode) -> None:
    """Of the coinbase none, then the faucet's coinbase, then alice's coin: bitcoind's own serialisation."""
    faucet, alice = (
        client.result("getblock", node.tip, 3)["tx"][place]["vin"][0]["prevout"]["scriptPubKey"]["hex"]
        for place in (1, 2)
    )
    expected = f"030001{5_000_000_000:016x}16{faucet}01{1_000_000:016x}16{alice}"
    swapped = expected.replace(f"{5_000_000_000:016x}", (5_000_000_000).to_bytes(8, "little").hex())
    swapped = swapped.replace(f"{1_000_000:016x}", (1_000_000).to_bytes(8, "little").hex())
    assert client.get(f"spenttxouts/{node.tip}.hex").body.decode() == f"{swapped}\n"
    assert client.get(f"spenttxouts/{node.tip}.bin").body.hex() == swapped
    told = client.get(f"spenttxouts/{node.tip}.json").json()
    assert [[each["value"] for each in spent] for spent in told] == [[], [50], [0.01]]


def test_amounts_are_written_with_eight_places(client: NodeClient, node: FakeNode) -> None:
    """As bitcoind prints them, so that no client's float gets in between."""
    assert b'"value":0.00010000,' in client.call("getblock", node.tip, 2).body


def test_a_transaction_is_found_in_its_block(client: NodeClient, node: FakeNode) -> None:
    """With fee and prevouts at verbosity 2, and as hex at 0."""
    txid = client.result("getblock", node.tip)["tx"][2]
    told = client.result("getrawtransaction", txid, 2, node.tip)
    assert (told["in_active_chain"], told["confirmations"], told["fee"]) == (True, 1, 0.00001)
    assert "fee" not in client.result("getrawtransaction", txid, 1, node.tip)
    assert client.result("getrawtransaction", txid, 0, node.tip) == told["hex"]
    assert client.call("getrawtransaction", txid).json()["error"]["code"] == -5


def test_headers_come_from_the_block_that_is_named(client: NodeClient, node: FakeNode) -> None:
    """Both forms of the path, up to the count, and none for a block that is nowhere."""
    first = client.result("getblockhash", 100)
    for path in (f"headers/2/{first}.bin", f"headers/{first}.bin?count=2"):
        assert len(client.get(path).body) == 160
    assert len(client.get(f"headers/{first}.bin").body) == 240
    assert client.get(f"headers/2/{first}.hex").body.endswith(b"\n")
    assert [each["height"] for each in client.get(f"headers/2/{first}.json").json()] == [100, 101]
    assert client.get(f"headers/2/{_NOWHERE}.bin").body == b""


def test_hashes_by_height_have_three_forms(client: NodeClient, node: FakeNode) -> None:
    """Bytes in wire order, hex and JSON in display order."""
    assert client.get("blockhashbyheight/102.bin").body[::-1].hex() == node.tip
    assert client.get("blockhashbyheight/102.hex").body.decode() == f"{node.tip}\n"
    assert client.get("blockhashbyheight/102.json").json() == {"blockhash": node.tip}


def test_a_header_is_told_in_full(client: NodeClient, node: FakeNode) -> None:
    """The median of eleven times lies five blocks back; work and neighbours are there."""
    told = client.result("getblockheader", client.result("getblockhash", 101))
    assert told["mediantime"] == told["time"] - 5 * 600
    assert told["chainwork"] == f"{2 * 102:064x}"
    assert told["nextblockhash"] == node.tip
    header = bytes.fromhex(client.result("getblockheader", told["hash"], False))
    assert header[35:3:-1].hex() == told["previousblockhash"]


def test_a_client_that_wants_to_end_the_connection_is_heard(client: NodeClient) -> None:
    """The answer says so, too."""
    reply = client.request("GET", "/rest/chaininfo.json", headers={"Connection": "close"})
    assert ("Connection", "close") in reply.headers


def test_a_node_tells_of_itself(client: NodeClient) -> None:
    """Version and uptime."""
    assert client.result("getnetworkinfo")["version"] >= 300000
    assert client.result("uptime") >= 0
