"""The example `namecoin`: which scripts are name operations, and what becomes of names."""

import json
from collections.abc import Callable

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Query, Run
from tests.support.shared_data import shared
from tests.unit.bitcoin.building import count
from virtualchain.bitcoin.script import push
from virtualchain.consensus.hashing import hash160
from virtualchain.examples import namecoin
from virtualchain.examples.namecoin import (
    FIRST_UPDATE,
    NEW,
    UPDATE,
    VERSION,
    app,
    name_operation,
    read_script,
)
from virtualchain.testing import FakeNode, Tx
from virtualchain.testing.wire import outpoint, read_transaction, serialize_output

ALICE, BOB = (b"\x76\xa9\x14" + bytes([number]) * 20 + b"\x88\xac" for number in (1, 2))
SALT = b"salt"
Place = tuple[str, int]


def reservation(name: bytes, owner: bytes = ALICE) -> bytes:
    """Write the script that reserves a name."""
    return b"\x51" + push(hash160(SALT + name)) + b"\x6d" + owner


def registration(name: bytes, value: bytes = b"{}", salt: bytes = SALT, owner: bytes = ALICE) -> bytes:
    """Write the script that registers a name."""
    return b"\x52" + push(name) + push(salt) + push(value) + b"\x6d\x6d" + owner


def change(name: bytes, value: bytes = b"", owner: bytes = ALICE) -> bytes:
    """Write the script that updates a name."""
    return b"\x53" + push(name) + push(value) + b"\x6d\x75" + owner


def move(node: FakeNode, spends: list[Place], *scripts: bytes, version: int = VERSION) -> Tx:
    """Make a transaction that spends outputs into these scripts; no node has checked it."""
    if not spends:
        coin = node.send(to=[(b"\x51", 10_000)])
        node.mine([coin])
        spends = [(coin.txid, 0)]
    spent = b"".join(outpoint(*place) + b"\0\xff\xff\xff\xff" for place in spends)
    paid = b"".join(serialize_output(0, script) for script in scripts)
    parts = (version.to_bytes(4, "little"), count(len(spends)), spent, count(len(scripts)), paid, bytes(4))
    raw = b"".join(parts)
    return Tx(raw, read_transaction(raw).txid[::-1].hex())


def test_scripts_are_read_as_namecoin_reads_them() -> None:
    """Recorded scripts, among them ones that miss being an operation by little."""
    for case in json.loads(shared("chains/namecoin/name-scripts.json").read_text())["cases"]:
        expected = case["name_op"]
        operation = read_script(bytes.fromhex(case["script"]))
        assert (operation is None) == (expected is None), case["case"]
        if operation is not None:
            code, arguments, rest = operation
            names = {NEW: ["hash"], FIRST_UPDATE: ["name", "rand", "value"], UPDATE: ["name", "value"]}[code]
            assert [argument.hex() for argument in arguments] == [expected[name] for name in names]
            assert rest.hex() == expected["rest"]


def test_real_transactions_have_the_operations_that_explorers_state() -> None:
    """Each has one, in the output that the explorer names; of another version, none."""
    for tx in json.loads(shared("chains/namecoin/txs.json").read_text()):
        outputs = [{"script_pubkey": output["script"]} for output in tx["vout"]]
        with_name = [vout for vout, output in enumerate(tx["vout"]) if "name_op" in output]
        payload = name_operation(outputs, tx["version"])
        assert (payload is None) == (not with_name or tx["version"] != VERSION)
        if payload is not None:
            assert [payload[1]] == with_name
        assert name_operation(outputs, 2) is None


def test_two_operations_in_one_transaction_are_none() -> None:
    """Namecoin has no such transaction."""
    outputs = [{"script_pubkey": reservation(name).hex()} for name in (b"a", b"b")]
    assert name_operation(outputs, VERSION) is None
    assert name_operation(outputs[:1], VERSION) is not None


NAMES = "SELECT label, name, value, owner, txid, vout, block_id, since FROM namecoin.names ORDER BY name"
REASONS = "SELECT reason FROM virtualchain.rejections WHERE app = 'namecoin' ORDER BY block_id, txindex"
PROBLEMS = """SELECT fields ->> 'problem' AS problem FROM virtualchain.ops
    WHERE app = 'namecoin' AND fields ->> 'problem' IS NOT NULL ORDER BY block_id, txindex"""


def test_a_name_is_reserved_registered_updated_and_sold(
    fake_node: FakeNode, run: Run, query: Query, fresh_index: Callable[..., str]
) -> None:
    """A registration too early loses the reservation; a fork takes a sale back, and a fresh index agrees."""
    early, good = (move(fake_node, [], reservation(name)) for name in (b"d/early", b"d/good"))
    fake_node.mine([early, good])
    reserved = fake_node.height
    fake_node.mine(n=10)
    fake_node.mine([move(fake_node, [(early.txid, 0)], registration(b"d/early"))])  # after 11 blocks
    registered = move(fake_node, [(good.txid, 0)], b"\x51", registration(b"d/good", b'{"ip":"1.2.3.4"}'))
    fake_node.mine([registered])  # after 12
    run(app)
    assert query(PROBLEMS) == [{"problem": "the reservation is younger than 12 blocks"}]
    since = reserved + 12
    row = {
        "label": "d/good",
        "name": b"d/good".hex(),
        "value": b'{"ip":"1.2.3.4"}'.hex(),
        "owner": ALICE.hex(),
        "txid": registered.txid,
        "vout": 1,
        "block_id": since,
        "since": since,
    }
    assert query(NAMES) == [row]
    sold = move(fake_node, [(registered.txid, 1)], change(b"d/good", owner=BOB))
    fake_node.mine([sold])
    run(app)
    after = {"value": "", "owner": BOB.hex(), "txid": sold.txid, "vout": 0, "block_id": since + 1}
    assert query(NAMES) == [{**row, **after}]
    fake_node.reorg(1)
    run(app)
    assert query(NAMES) == [row]
    with psycopg.connect(fresh_index(app), row_factory=dict_row) as other:
        assert other.execute(NAMES).fetchall() == [row]
    assert query(REASONS) == []


def test_what_breaks_the_rules(
    fake_node: FakeNode, run: Run, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name to lose an operation is rejected; else the name is lost. Names expire, and are free."""
    monkeypatch.setattr(namecoin, "EXPIRY", 20)
    scripts = [reservation(name) for name in (b"a", b"a", b"b", b"c")]
    first, second, third, fourth = (move(fake_node, [], script) for script in scripts)
    fake_node.mine([first, second, third, fourth])
    fake_node.mine(n=11)
    name = move(fake_node, [(first.txid, 0)], registration(b"a"))
    fake_node.mine(
        [
            move(fake_node, [(third.txid, 0)], registration(b"b", salt=b"another")),
            name,
            move(fake_node, [(second.txid, 0)], registration(b"a")),
            move(fake_node, [(fourth.txid, 0)], registration(b"c" * 256)),
        ]
    )
    fake_node.mine([move(fake_node, [], change(b"a")), move(fake_node, [], b"\x51\x01\x01\x6d" + ALICE)])
    odd = move(fake_node, [], reservation(b"\0\xff", bytes(9000)))
    fake_node.mine([odd])
    fake_node.mine(n=11)
    fake_node.mine([move(fake_node, [(odd.txid, 0)], registration(b"\0\xff", owner=bytes(9000)))])
    run(app)
    assert query(PROBLEMS) == [
        {"problem": "it spends no reservation of this name"},
        {"problem": "somebody has the name"},
        {"problem": "the name is longer than 255 bytes"},
    ]
    assert query(REASONS) == [
        {"reason": "it spends 0 names and reservations, not one"},
        {"reason": "its argument is not a hash of 20 bytes"},
    ]
    assert [(row["label"], len(row["owner"])) for row in query(NAMES)] == [(None, 18_000), ("a", 50)]
    again = move(fake_node, [], reservation(b"a", BOB))
    fake_node.mine([again])
    fake_node.mine(n=20)
    taken = move(fake_node, [(again.txid, 0)], registration(b"a", owner=BOB))
    late = move(fake_node, [(name.txid, 0)], change(b"a"))
    fake_node.mine([taken, late])
    run(app)
    assert query(PROBLEMS)[3:] == [{"problem": "the name has expired"}]
    assert [row["owner"] for row in query(NAMES) if row["label"]] == [BOB.hex()]
    fake_node.mine([move(fake_node, [(taken.txid, 0)], BOB, version=2)])
    run(app)
    assert [row["label"] for row in query(NAMES)] == [None]
    assert query("SELECT name FROM namecoin.coins") == [{"name": "00ff"}]
