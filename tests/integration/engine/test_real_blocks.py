"""Real blocks of Bitcoin in the whole engine: mainnet's first 600, and one of testnet3."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from embit import base58

from tests.integration.conftest import Query
from tests.support.shared_data import shared
from tests.support.tables import tables
from virtualchain import App, StateEngine, consensus
from virtualchain.bitcoin.block import Scanner, read_inputs, read_transaction, split_transactions, txids
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.node.node import open_source
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.source import Tip
from virtualchain.consensus.hashing import hash160
from virtualchain.model import Block, SpentOutput
from virtualchain.testing import FakeNode

SATOSHI_KEY = (
    "0411db93e1dcdb8a016b49840f8c53bc1eb68a382e97b1482ecad7b148a6909a5c"
    "b2e0eaddfb84ccf9744464f82e160bfa9b8b64f9d4c03f999b8643f656b412a3"
)
FIRST_PAYMENT = "f4184fc596403b9d638783cf57adfe4c75c605f6356fbc91338530e9831e9e16"


def app_for_any_opcode(name: str, **options: Any) -> App:
    """Make an app that accepts every opcode, with payload and fee as its fields."""
    app = App(name, **options)
    for code in range(256):
        app.add(bytes([code]), parse=lambda payload, senders, fee: {"payload": payload.hex(), "fee": fee})
    return app


def app_for_every_transaction(name: str, **options: Any) -> App:
    """Make an app whose payload rule makes an op of every transaction, with the number of its outputs."""

    def rule(outputs: Sequence[Mapping[str, Any]]) -> bytes:
        return b"x" + len(outputs).to_bytes(4)

    return app_for_any_opcode(name, magic=b"", payload_rule=rule, **options)


@pytest.fixture(scope="module")
def first_blocks() -> list[bytes]:
    """Return the raw blocks 0 to 599 of mainnet."""
    file, blocks, offset = shared("mainnet/blocks-0-599.dat").read_bytes(), [], 0
    while offset < len(file):
        size = int.from_bytes(file[offset + 4 : offset + 8], "little")
        blocks.append(file[offset + 8 : offset + 8 + size])
        offset += 8 + size
    return blocks


@pytest.fixture(scope="module")
def mainnet(first_blocks: list[bytes]) -> Iterator[FakeNode]:
    """Return a fake node that serves them."""
    with FakeNode.from_blocks("mainnet", first_blocks) as node:
        yield node


def test_the_first_blocks_of_bitcoin_hold_no_payload(
    mainnet: FakeNode, first_blocks: list[bytes], database_url: str, query: Query
) -> None:
    """An app without a magic that accepts any opcode has 600 snapshots and no op."""
    for confirmations in (6, 0):
        with StateEngine(
            app_for_any_opcode("any", magic=b""),
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
    """Txids, keys and amounts of the oldest transactions are right, including Satoshi's first payment."""
    with StateEngine(
        app_for_every_transaction("all"), database=database_url, source=mainnet.url, confirmations=0
    ) as engine:
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
        assert row["fee"] == 0  # nobody paid fees yet
        for sender in row["senders"]:
            [key] = sender["public_keys"]
            assert (sender["type"], sender["addresses"]) == ("pubkey", [])
            assert sender["script_pubkey"] == f"41{key}ac"
    [first] = [row for row in rows if row["txid"] == FIRST_PAYMENT]
    assert (first["block_id"], first["txindex"]) == (170, 1)
    assert [(sender["value"], sender["public_keys"]) for sender in first["senders"]] == [
        (50 * 10**8, [SATOSHI_KEY])
    ]
    assert [output["value"] for output in first["outputs"]] == [10 * 10**8, 40 * 10**8]


def test_rest_and_rpc_agree_on_the_first_blocks(
    mainnet: FakeNode, database_url: str, empty_database_url: str
) -> None:
    """Headers in pages of a hundred lead to the same tables as two thousand at once."""
    for url, rest in ((database_url, True), (empty_database_url, False)):
        source = open_source(mainnet.url, rest=rest)
        with StateEngine(
            app_for_every_transaction("all"), database=url, source=source, confirmations=0
        ) as engine:
            engine.build()
    assert tables(database_url) == tables(empty_database_url)


def test_runes_and_coinbases_are_not_inputs() -> None:
    """In mainnet's block 951,658, all but two of 211 OP_RETURNs are a coinbase's or have several pushes."""
    raw = shared("mainnet/951658.blk").read_bytes()
    main = network("mainnet")
    scripts = [
        (txindex, output.script_pubkey)
        for txindex, each in enumerate(split_transactions(raw))
        for output in read_transaction(each, main).outputs
        if output.script_pubkey.startswith("6a")
    ]
    runes = [txindex for txindex, script in scripts if script.startswith(("6a5c", "6a5d"))]  # OP_12, OP_13
    block = CheckedBlock(read_header(951_658, raw[:HEADER_SIZE]), raw, main, "merkle")
    candidates = [
        candidate.txindex for candidate in Scanner([watch(b"", None, "any")], main).scan(block).candidates
    ]
    assert (len(scripts), len(candidates)) == (211, 2)
    assert sorted([0, *runes, *candidates]) == [txindex for txindex, _ in scripts]


class OneBlock:
    """A source of a single block."""

    def __init__(self, network: Network, block_id: int, raw: bytes, prevouts: dict[str, list[Any]]) -> None:
        self.network = network
        self._block = read_header(block_id, raw[:80])
        self._raw = raw
        self._prevouts = prevouts

    def tip(self) -> Tip:
        """Return the block."""
        return Tip(self._block.block_id, self._block.hash)

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the block or of its parent."""
        return {0: self._block.hash, -1: self._block.prev_hash}[block_id - self._block.block_id]

    def headers_after(self, block_id: int, block_hash: str) -> list[Block]:
        """Return the block's header after its parent."""
        return [self._block] if block_hash == self._block.prev_hash else []

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Return False: no block is invalid."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Return the block's bytes."""
        return self._raw

    def spent_outputs(self, block_hash: str, transactions: Mapping[int, str]) -> dict[int, list[SpentOutput]]:
        """Return the recorded outputs that the transactions spend, by their outpoints."""
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
        """Return at once, as no block will come."""

    def wake(self) -> None:
        """Do nothing, as there is no wait to end."""

    def close(self) -> None:
        """Do nothing, as there is nothing to release."""


def test_senders_of_a_real_block(database_url: str, query: Query) -> None:
    """The senders and fees of testnet3's block 1,087,400, an app's first block, are right in the tables."""
    raw = shared("testnet3/1087400.blk").read_bytes()
    prevouts = json.loads(shared("testnet3/1087400.prevouts.json").read_text())
    testnet = network("testnet3")
    source = OneBlock(testnet, 1_087_400, raw, prevouts)
    app = app_for_every_transaction("all", first_block_id=1_087_400)
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
