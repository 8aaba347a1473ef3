"""The envelopes of mainnet's block 951,658, and a chain of our own on a real node."""

import hashlib
from typing import Any

import pytest

from tests.integration.conftest import Query
from tests.integration.engine.test_real_blocks import OneBlock
from tests.support.inscriptions import Coin, address, coin, envelope, leaf, spend
from tests.support.shared_data import shared
from virtualchain import StateEngine
from virtualchain.bitcoin.block import read_transaction, split_transactions
from virtualchain.bitcoin.networks import network
from virtualchain.examples.inscriptions import app
from virtualchain.testing.bitcoind import Bitcoind

MAIN = network("mainnet")
START = bytes.fromhex("0063036f7264")


def pushes_after(raw: bytes, at: int) -> list[bytes]:
    """Read pushes up to an OP_ENDIF, for the few opcodes that the block's envelopes use."""
    pushes = []
    while raw[at] != 0x68:
        size, width = raw[at], 0
        if size == 0x51:  # OP_1
            pushes.append(b"\1")
            at += 1
            continue
        assert size <= 0x4D
        if size >= 0x4C:
            width = size - 0x4B
            size = int.from_bytes(raw[at + 1 : at + 1 + width], "little")
        at += 1 + width
        pushes.append(raw[at : at + size])
        at += size
    return pushes


def test_the_envelopes_of_a_real_block(
    database_url: str, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All 86, as a search of the bytes finds them; what their transactions spend has made-up values."""
    raw = shared("mainnet/951658.blk").read_bytes()
    transactions = [read_transaction(each, MAIN) for each in split_transactions(raw)]
    prevouts: dict[str, list[Any]] = {}
    for tx in transactions[1:]:
        paid = sum(output.value for output in tx.paid)
        prevouts |= {f"{each.txid}:{each.vout}": [paid + 1, "51"] for each in tx.inputs}
    for tx in transactions:
        for vout, output in enumerate(tx.paid):
            prevouts[f"{tx.txid}:{vout}"] = [output.value, output.script_pubkey.hex()]
    monkeypatch.setattr(app, "first_block_id", 951_658)
    source = OneBlock(MAIN, 951_658, raw, prevouts)
    with StateEngine(app, database=database_url, source=source, confirmations=0) as engine:
        assert engine.build() == 951_658
    rows = query("SELECT * FROM inscriptions.inscriptions ORDER BY txindex, number")
    expected = []
    for txindex, each in enumerate(split_transactions(raw)):
        at, number = each.find(START), 0
        while at >= 0:
            pushes = pushes_after(each, at + len(START))
            body = pushes.index(b"")
            assert pushes[0] == b"\1"
            digest = hashlib.sha256(b"".join(pushes[body + 1 :])).hexdigest()
            expected.append((f"{transactions[txindex].txid}i{number}", pushes[1], digest))
            at, number = each.find(START, at + 1), number + 1
    assert len(expected) == raw.count(START) == 86
    assert [(row["id"], row["content_type"], row["body_sha256"]) for row in rows] == expected
    assert {row["content_type_text"] for row in rows} == {"text/plain", "text/plain;charset=utf-8"}
    bitmap = hashlib.sha256(b"951658.bitmap").hexdigest()
    bitmaps = [
        (row["txindex"], row["number"], row["pointer"]) for row in rows if row["body_sha256"] == bitmap
    ]
    assert bitmaps == [(50, 0, None), (292, 1, 200)]
    assert [row["body_size"] for row in rows if row["txindex"] == 292] == [130, 13]
    places = query("SELECT inscription, vout, position FROM inscriptions.moves WHERE txindex = 292")
    tx = transactions[292]
    assert tx.paid[0].value > 200
    assert sorted((row["inscription"], row["vout"], row["position"]) for row in places) == [
        (f"{tx.txid}i0", 0, 0),
        (f"{tx.txid}i1", 0, 200),
    ]
    assert query("SELECT count(*) FROM virtualchain.rejections") == [{"count": 0}]


@pytest.mark.node
def test_a_real_node_takes_and_undoes_inscriptions(
    bitcoind: Bitcoind, database_url: str, query: Query
) -> None:
    """Revealed and moved in one block, then the block is replaced by one without the move."""
    script = leaf(envelope(b"\1", b"text/plain", b"", b"hello"))
    pays = Coin("", 0, 0, script).pays

    def last() -> list[dict[str, Any]]:
        with StateEngine(app, database=database_url, source=bitcoind.url, confirmations=0) as engine:
            engine.build()
        return query("SELECT inscription, txid, owner FROM inscriptions.locations")

    mine_to = bitcoind.rpc("decodescript", pays.hex())["address"]
    first, *_ = bitcoind.rpc("generatetoaddress", 101, mine_to)  # a coinbase can be spent after 100 blocks
    coinbase = bitcoind.rpc("getblock", first, 2)["tx"][0]
    value = round(coinbase["vout"][0]["value"] * 10**8)
    revealed = spend([Coin(coinbase["txid"], 0, value, script)], ("alice", value - 1_000))
    moved = spend([coin(revealed, 0, "alice")], ("bob", value - 2_000))
    block = bitcoind.rpc("generateblock", mine_to, [revealed.raw.hex(), moved.raw.hex()])["hash"]
    inscription = f"{revealed.txid}i0"
    assert last() == [{"inscription": inscription, "txid": moved.txid, "owner": address("bob")}]
    bitcoind.rpc("invalidateblock", block)
    bitcoind.rpc("generateblock", mine_to, [revealed.raw.hex()])
    bitcoind.rpc("generateblock", mine_to, [])
    assert last() == [{"inscription": inscription, "txid": revealed.txid, "owner": address("alice")}]
