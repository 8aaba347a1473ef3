"""Rows in which senders and outputs were stored are upgraded to what they can be computed from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.support.old_schema import upgrade_to
from tests.unit.bitcoin.building import push, transaction
from virtualchain.bitcoin.block import Candidate, Scan, inputs
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.spending import UNCHECKED_BLOCKS, stands_for
from virtualchain.bitcoin.transaction import read_transaction
from virtualchain.consensus.hashing import hash160
from virtualchain.errors import StoreError
from virtualchain.model import Input, SpentOutput
from virtualchain.store.migrate import migrate
from virtualchain.store.patience import Session
from virtualchain.store.tape import Tape
from virtualchain.testing.blocks import genesis_block
from virtualchain.testing.database import DatabaseServer, other_version
from virtualchain.testing.hostile import hostile_senders, unsigned_transaction

REGTEST = network("regtest")
KEY = b"\2" + bytes(32)
P2PKH = b"\x76\xa9\x14" + hash160(KEY) + b"\x88\xac"
VIEW = (
    "SELECT txindex, txid, magics, senders, outputs, fee, raw, evidence FROM virtualchain.inputs ORDER BY 1"
)
INSERT = """
    INSERT INTO vc.inputs (block_id, txindex, txid, raw, magics, senders, outputs, fee, evidence)
    VALUES (0, %s, decode(%s, 'hex'), %s, %s, %s, %s, %s, %s)
"""


def as_input(txindex: int, raw: bytes, spent: Sequence[SpentOutput]) -> Input:
    """Make an input, in a block whose transactions nobody checks."""
    block = replace(read_header(0, genesis_block(REGTEST)[:80]), hash=next(iter(UNCHECKED_BLOCKS)))
    candidate = Candidate(txindex, read_transaction(raw, REGTEST), raw, (b"id",))
    return inputs(Scan(block, (candidate,), REGTEST), {txindex: spent})[0]


@pytest.fixture(scope="module")
def items() -> list[Input]:
    """Make inputs: hostile ones, large ones, and some whose keys no function of the database can find."""
    carrier = [(0, op_return(b"id!x")), (546, P2PKH), (0, b"")]
    made = [
        (unsigned_transaction(n, each, carrier).raw, [spending.spent for spending in each])
        for n, each in enumerate(hostile_senders().values())
    ]
    swapped = transaction(script_sigs=[push(KEY) + push(b"s" * 9) + b"\x7c"] * 3)
    wrong = transaction(script_sigs=[push(KEY), b""], witnesses=[[], [KEY, b"\3" + bytes(32)]])
    multisig = b"\x51" + push(KEY) * 3 + b"\x53\xae"
    many = transaction(script_sigs=[b""] * 600)
    made += [
        (swapped, [SpentOutput(1, P2PKH), SpentOutput(0, b"\x51"), SpentOutput(2, P2PKH)]),
        (wrong, [SpentOutput(1, b"\xa9\x14" + bytes(20) + b"\x87"), SpentOutput(1, b"\0\x14" + bytes(20))]),
        (
            many,
            [SpentOutput(n, [b"\x61" * 4_999, multisig, b"\x61" * 5_001, b"a"][n % 4]) for n in range(600)],
        ),
        (transaction(*[P2PKH] * 3_000), [SpentOutput(21_000_000 * 10**8, b"\x61" * 9_000)]),
    ]
    return [as_input(n, raw, spent) for n, (raw, spent) in enumerate(made, 1)]


@pytest.fixture(scope="module", params=["same", "other"])
def server(request: pytest.FixtureRequest, database_server: DatabaseServer) -> Iterator[DatabaseServer]:
    """Return the server, then one of another version."""
    if request.param == "same":
        yield database_server
        return
    with other_version(database_server) as other:
        if other is None:
            pytest.skip("no other version of PostgreSQL is installed")
        yield other


@pytest.fixture
def old_url(server: DatabaseServer, items: list[Input]) -> Iterator[str]:
    """Make a database with the former schema, and with the inputs."""
    url = server.create()
    upgrade_to(url, "0009")
    with Session.connect(url) as connection:
        chain = (REGTEST.name, bytes.fromhex(REGTEST.genesis_hash))
        connection.execute("INSERT INTO vc.deployment (network, genesis_hash) VALUES (%s, %s)", chain)
        connection.execute(
            "INSERT INTO vc.blocks "
            "VALUES (0, sha256('0'), sha256('-1'), decode(repeat('00', 80), 'hex'), now(), 0)"
        )
        for item in items:
            senders = [sender.as_dict() for sender in item.senders]
            outputs = [output.as_dict() for output in item.outputs]
            insert(connection, item, senders, outputs)
    yield url
    server.drop(url)


def insert(connection: psycopg.Connection, item: Input, senders: list[Any], outputs: list[Any]) -> None:
    """Insert a row as the former version did."""
    place = (item.txindex, item.txid, item.raw, list(item.magics))
    connection.execute(INSERT, [*place, json.dumps(senders), json.dumps(outputs), item.fee, item.evidence])


def uncapped(script: str, long: Sequence[bytes]) -> str:
    """Return the long script that a kept one stands for, if it does."""
    return next((each.hex() for each in long if stands_for(bytes.fromhex(script), each)), script)


def shown(url: str) -> list[tuple[Any, ...]]:
    """Read the view."""
    with psycopg.connect(url) as connection:
        return connection.execute(VIEW).fetchall()


def read(url: str) -> list[Input]:
    """Read the tape."""
    with Session.connect(url) as connection:
        return list(Tape(connection).inputs(0, 0, [b"id"]))


def unusual(url: str) -> list[dict[int, tuple[str, ...]]]:
    """Read the unusual keys."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT unusual_keys FROM vc.inputs ORDER BY txindex").fetchall()
    return [{int(n): tuple(keys) for n, keys in value.items()} for (value,) in rows]


def test_the_view_is_as_before(old_url: str, items: list[Input]) -> None:
    """No value of any row changes, and the tape has what a new sync would write."""
    assert sum(bool(item.unusual_keys) for item in items) == 2
    before = shown(old_url)
    assert len(before) == len(items) > 10
    migrate(old_url)
    assert shown(old_url) == before
    assert read(old_url) == items
    assert unusual(old_url) == [dict(item.unusual_keys) for item in items]


def test_rows_of_the_first_version_are_completed(old_url: str, items: list[Input]) -> None:
    """What was stored without hash types, and with long scripts, is what a fresh sync would store."""
    after = {row[0]: row for row in shown(old_url)}
    long = [b"\x61" * size for size in (4_999, 5_001, 9_000)]
    with psycopg.connect(old_url) as connection:
        connection.execute("UPDATE vc.inputs SET evidence = NULL")
        for item in items:
            senders = [
                {key: value for key, value in sender.as_dict().items() if key != "sighash"}
                | {"script_pubkey": uncapped(sender.script_pubkey, long)}
                for sender in item.senders
            ]
            connection.execute(
                "UPDATE vc.inputs SET senders = %s WHERE txindex = %s", [json.dumps(senders), item.txindex]
            )
    assert all(script.hex() in str(shown(old_url)) for script in long)
    migrate(old_url)
    assert read(old_url) == [replace(item, evidence=None) for item in items]
    assert {row[0]: row for row in shown(old_url)} == {n: (*row[:-1], None) for n, row in after.items()}


def test_a_damaged_row_is_named(old_url: str) -> None:
    """An upgrade that meets a row which it cannot read says which, and changes nothing."""
    with psycopg.connect(old_url) as connection:
        connection.execute("UPDATE vc.inputs SET raw = 'xxxxxx' WHERE txindex = 3")
    before = shown(old_url)
    with pytest.raises(StoreError, match="transaction 3 of block 0 is damaged"):
        migrate(old_url)
    assert shown(old_url) == before
