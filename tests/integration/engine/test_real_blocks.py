"""Real blocks of Bitcoin through the whole engine: the first 600 of mainnet, and one of testnet3."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from embit import base58

from tests.integration.conftest import Rows
from tests.support.shared_data import shared
from tests.support.tables import tables
from virtualchain import App, StateEngine, consensus
from virtualchain.bitcoin.block import Scanner, read_inputs, read_transaction, split_transactions, txids
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.source import Tip
from virtualchain.consensus.hashing import hash160
from virtualchain.model import Block, SpentOutput
from virtualchain.testing import FakeNode

Query = Callable[..., Rows]
Op = dict[str, Any]

SATOSHI = (
    "0411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5c"
    "b2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3"
)
FIRST_PAYMENT = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"


def taking(name: str, **options: Any) -> App:
    """Make an app that takes any opcode and keeps what parse is given."""
    app = App(name, **options)
    for code in range(256):
        app.add(bytes([code]), parse=lambda payload, senders, fee: {"payload": payload.hex(), "fee": fee})
    return app


def everything(name: str, **options: Any) -> App:
    """Make an app whose payload rule takes every transaction: an opcode, and the number of its outputs."""

    def rule(outputs: Sequence[Mapping[str, Any]]) -> bytes:
        return b"x" + len(outputs).to_bytes(4)

    return taking(name, magic=b"", payload_rule=rule, **options)


@pytest.fixture(scope="module")
def first_blocks() -> list[bytes]:
    """Return mainnet's blocks 0 to 599."""
    file, found, at = shared("mainnet/blocks-0-599.dat").read_bytes(), [], 0
    while at < len(file):
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        found.append(file[at + 8 : at + 8 + size])
        at += 8 + size
    return found


@pytest.fixture(scope="module")
def mainnet(first_blocks: list[bytes]) -> Iterator[FakeNode]:
    """Return a node that serves them."""
    with FakeNode.from_blocks("mainnet", first_blocks) as node:
        yield node


def test_the_first_blocks_of_bitcoin_hold_no_payload(
    mainnet: FakeNode, first_blocks: list[bytes], database_url: str, query: Query
) -> None:
    """An app without a magic that takes any opcode gets 600 snapshots, and not one op."""
    for confirmations in (6, 0):
        with StateEngine(
            taking("any", magic=b""),
            database=database_url,
            source=mainnet.url,
            confirmations=confirmations,
        ) as engine:
            assert engine.build() == 599 - confirmations
    rows = query("SELECT * FROM virtualchain.blocks ORDER BY block_id")
    assert [row["header"] for row in rows] == [raw[:80] for raw in first_blocks]
    assert [(row["hash"], row["time"].timestamp()) for row in rows] == [
        (block.hash, block.time) for block in (read_header(0, raw[:80]) for raw in first_blocks)
    ]
    assert [row["chainwork"] for row in rows] == [n * (2**32 + 2**16 + 1) for n in range(600)]
    assert query("SELECT * FROM virtualchain.inputs") == []
    known: list[str] = []
    for block_id in range(600):
        prior = [known[item] for item in consensus.prior_block_ids(block_id, 0)]
        known.append(consensus.consensus_hash(consensus.ops_hash([]), prior))
    snapshots = query("SELECT consensus_hash FROM virtualchain.snapshots ORDER BY block_id")
    assert [row["consensus_hash"] for row in snapshots] == known


def test_every_payment_of_the_first_blocks_is_an_op(
    mainnet: FakeNode, first_blocks: list[bytes], database_url: str, query: Query
) -> None:
    """Ids, keys and amounts of the oldest transactions, with the first payment from Satoshi to Finney."""
    with StateEngine(everything("all"), database=database_url, source=mainnet.url, confirmations=0) as engine:
        engine.build()
    rows = query("SELECT * FROM virtualchain.inputs ORDER BY block_id, txindex")
    payments = [
        (block_id, txindex, txid)
        for block_id, raw in enumerate(first_blocks)
        for txindex, txid in enumerate(txids(raw))
        if txindex > 0
    ]
    assert [(row["block_id"], row["txindex"], row["txid"]) for row in rows] == payments
    assert len(query("SELECT * FROM virtualchain.ops")) == len(payments)
    for row in rows:
        assert row["fee"] == 0  # nobody paid one yet
        for sender in row["senders"]:
            [key] = sender["public_keys"]
            assert (sender["type"], sender["addresses"]) == ("pubkey", [])
            assert sender["script_pubkey"] == f"41{key}ac"
    [first] = [row for row in rows if row["txid"] == FIRST_PAYMENT]
    assert (first["block_id"], first["txindex"]) == (170, 1)
    assert [(sender["value"], sender["public_keys"]) for sender in first["senders"]] == [
        (50 * 10**8, [SATOSHI])
    ]
    assert [output["value"] for output in first["outputs"]] == [10 * 10**8, 40 * 10**8]


def test_rest_and_rpc_agree_on_the_first_blocks(
    mainnet: FakeNode, database_url: str, empty_database_url: str
) -> None:
    """Headers in pages of a hundred give the same tables as two thousand at once."""
    for url, rest in ((database_url, True), (empty_database_url, False)):
        source = open_source(mainnet.url, rest=rest)
        with StateEngine(everything("all"), database=url, source=source, confirmations=0) as engine:
            engine.build()
    assert tables(database_url) == tables(empty_database_url)


def test_runes_and_coinbases_are_no_inputs() -> None:
    """Mainnet's block 951,658 has 211 OP_RETURNs: all but two are the coinbase's, or push more than once."""
    raw = shared("mainnet/951658.blk").read_bytes()
    main = network("mainnet")
    scripts = [
        (txindex, output.script_pubkey)
        for txindex, each in enumerate(split_transactions(raw))
        for output in read_transaction(each, main).outputs
        if output.script_pubkey.startswith("6a")
    ]
    runes = [txindex for txindex, script in scripts if script.startswith(("6a5c", "6a5d"))]  # OP_12, OP_13
    found = [each.txindex for each in Scanner([watch(b"", None, "any")], main).scan(951_658, raw).candidates]
    assert (len(scripts), len(found)) == (211, 2)
    assert sorted([0, *runes, *found]) == [txindex for txindex, _ in scripts]


class OneBlock:
    """A source whose chain is known from one block on, and ends with it."""

    def __init__(self, where: Network, block_id: int, raw: bytes, prevouts: dict[str, list[Any]]) -> None:
        self.network = where
        self._block = read_header(block_id, raw[:80])
        self._raw = raw
        self._prevouts = prevouts

    def tip(self) -> Tip:
        """Tell the one block."""
        return Tip(self._block.block_id, self._block.hash)

    def block_hash(self, block_id: int) -> str:
        """Tell its hash, or that of its parent."""
        return {0: self._block.hash, -1: self._block.prev_hash}[block_id - self._block.block_id]

    def headers_after(self, block_id: int, block_hash: str) -> list[Block]:
        """Return its header behind its parent."""
        return [self._block] if block_hash == self._block.prev_hash else []

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Nothing is."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return its bytes."""
        return self._raw

    def spent_outputs(self, block_hash: str, transactions: Mapping[int, str]) -> dict[int, list[SpentOutput]]:
        """Return what is written beside it, found by the outpoints in its bytes."""
        raws = split_transactions(self._raw)
        return {
            txindex: [
                SpentOutput(value, bytes.fromhex(script))
                for value, script in (
                    self._prevouts[f"{spending.txid}:{spending.vout}"]
                    for spending in read_inputs(raws[txindex])
                )
            ]
            for txindex in transactions
        }

    def wait(self, timeout: float) -> None:
        """Nothing will change."""

    def wake(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """There is nothing to let go of."""


def test_senders_of_a_real_block(database_url: str, query: Query) -> None:
    """Testnet3's block 1,087,400 as an app's first: amounts, scripts, addresses, keys, fees in the tables."""
    raw = shared("testnet3/1087400.blk").read_bytes()
    prevouts = json.loads(shared("testnet3/1087400.prevouts.json").read_text())
    testnet = network("testnet3")
    source = OneBlock(testnet, 1_087_400, raw, prevouts)
    app = everything("all", first_block_id=1_087_400)
    with StateEngine(app, database=database_url, source=source, confirmations=0) as engine:
        assert engine.build() == 1_087_400
    rows = query("SELECT * FROM virtualchain.inputs ORDER BY txindex")
    assert [row["txid"] for row in rows] == txids(raw)[1:]
    senders = [sender for row in rows for sender in row["senders"]]
    assert {f"{s['txid']}:{s['vout']}": [s["value"], s["script_pubkey"]] for s in senders} == prevouts
    for sender in senders:
        script = bytes.fromhex(sender["script_pubkey"])
        version, place = {
            "pubkeyhash": (testnet.p2pkh, slice(3, 23)),
            "scripthash": (testnet.p2sh, slice(2, 22)),
        }[sender["type"]]
        assert base58.decode_check(sender["addresses"][0]) == version + script[place]
        if sender["type"] == "pubkeyhash":
            [key] = sender["public_keys"]
            assert hash160(bytes.fromhex(key)) == script[3:23]
    for row in rows:
        paid = sum(sender["value"] for sender in row["senders"])
        assert row["fee"] == paid - sum(output["value"] for output in row["outputs"])
    ops = query("SELECT vtxindex, fields FROM virtualchain.ops ORDER BY vtxindex")
    assert [op["fields"]["fee"] for op in ops] == [row["fee"] for row in rows]
    assert [op["vtxindex"] for op in ops] == list(range(len(rows)))
