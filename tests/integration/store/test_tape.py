"""Inputs come back from the tape as they were put there; exports of an earlier version are accepted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from virtualchain.audit.checking import read_exported_input
from virtualchain.bitcoin.block import Scanner, inputs
from virtualchain.bitcoin.gate import CheckedBlock
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.payload import watch
from virtualchain.bitcoin.script import op_return
from virtualchain.bitcoin.spending import is_substitute
from virtualchain.errors import MalformedBlock
from virtualchain.model import Input, ScannedBlock, SpentOutput, SpentOutputs
from virtualchain.store import block_transaction
from virtualchain.store import tape as module
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.migrate import migrate
from virtualchain.store.patience import Session
from virtualchain.store.tape import Tape
from virtualchain.testing import ChainBuilder
from virtualchain.testing.hostile import Spending, spend_from, unsigned_transaction

REGTEST = network("regtest")
LONG = b"\x61" * 9_000


@pytest.fixture(scope="module")
def scanned() -> ScannedBlock:
    """Make a block with three inputs, of which one spends a long script."""
    chain = ChainBuilder(premine=3)
    carrier = [(0, op_return(b"id!x"))]
    spendings = [
        [spend_from("alice")],
        [spend_from("bob"), Spending(SpentOutput(7, LONG))],
        [spend_from("eve")],
    ]
    chain.mine([unsigned_transaction(n, each, carrier) for n, each in enumerate(spendings)])
    stored = chain.tree.chain[-1]
    block = CheckedBlock(stored.block, stored.raw, REGTEST, "merkle")
    scan = Scanner([watch(b"id", None, "x")], REGTEST).scan(block)
    spent = {n: [spending.spent for spending in each] for n, each in enumerate(spendings, 1)}
    return ScannedBlock(stored.block, inputs(scan, SpentOutputs(spent, "undo")))


@pytest.fixture
def tape(empty_database_url: str, scanned: ScannedBlock) -> Iterator[Tape]:
    """Return a tape with that block."""
    migrate(empty_database_url)
    with Session.connect(empty_database_url, autocommit=True) as connection:
        filled = Tape(connection)
        filled.bind(REGTEST.name, REGTEST.genesis_hash)
        BlockTransaction(connection, scanned.block, scanned.inputs, is_new=True).commit()
        yield filled


def old_sender(sender: dict[str, Any]) -> dict[str, Any]:
    """Return a sender as the first version stored it."""
    script = LONG.hex() if is_substitute(bytes.fromhex(sender["script_pubkey"])) else sender["script_pubkey"]
    return {key: value for key, value in sender.items() if key != "sighash"} | {"script_pubkey": script}


def test_inputs_come_back_as_they_were(tape: Tape, scanned: ScannedBlock) -> None:
    """Everything is there, with what shows that it is right."""
    assert tuple(tape.inputs(0, 9, [b"id"])) == scanned.inputs
    assert {item.evidence for item in scanned.inputs} == {"undo"}
    assert [len(sender.script_pubkey) for sender in scanned.inputs[1].senders] == [44, 78]


def test_an_input_is_decoded_when_it_is_looked_at(tape: Tape) -> None:
    """Reading the tape takes no time for what nobody asks for."""
    tape._connection.execute("UPDATE vc.inputs SET raw = substr(raw, 1, 20), spent = 'x'")
    item = next(tape.inputs(0, 9, [b"id"]))
    with pytest.raises(MalformedBlock, match="ends too early"):
        len(item.senders)
    with pytest.raises(MalformedBlock, match="ends too early"):
        len(item.outputs)


def test_the_view_shows_what_callbacks_get(tape: Tape, scanned: ScannedBlock) -> None:
    """The view's senders and outputs are those that callbacks get."""
    rows = tape._connection.execute(
        "SELECT senders, outputs FROM virtualchain.inputs ORDER BY txindex"
    ).fetchall()
    assert rows == [
        (
            [sender.as_dict() for sender in item.senders],
            [output.as_dict() for output in item.outputs],
        )
        for item in scanned.inputs
    ]


def test_exports_of_an_earlier_version_are_accepted(scanned: ScannedBlock) -> None:
    """Their senders are completed; whatever else differs is refused."""

    def row(item: Input, change: dict[str, Any]) -> tuple[Any, ...]:
        senders = [old_sender(sender.as_dict()) | change for sender in item.senders]
        outputs = [output.as_dict() for output in item.outputs]
        place = (item.block_id, item.txindex, item.txid, list(item.magics))
        return (*place, json.dumps(senders), json.dumps(outputs), item.fee, item.raw, None, [])

    blocks = {scanned.block.block_id: scanned.block}
    for item in scanned.inputs:
        assert read_exported_input(row(item, {}), blocks, REGTEST) == replace(item, evidence="export")
        with pytest.raises(ValueError, match=r"senders|cannot spend"):
            read_exported_input(row(item, {"addresses": ["someone's"]}), blocks, REGTEST)


@pytest.mark.parametrize(("allowed", "expected"), [(10**9, 20), (1, 4), (0, 4)])
def test_a_stretch_ends_before_too_many_bytes(
    tape: Tape, monkeypatch: pytest.MonkeyPatch, allowed: int, expected: int
) -> None:
    """A stretch has at least its first block, and no more if that may be large already."""
    monkeypatch.setattr(module, "_ALLOWED", allowed)
    assert tape.stretch(4, 20, [b"id"]) == expected
    assert tape.stretch(3, 20, [b"id"]) == (20 if allowed > 1 else 3)
    assert tape.stretch(5, 20, [b"id"]) == 20
    assert tape.stretch(4, 20, [b"no"]) == 20


def test_many_inputs_are_sent_in_batches(
    tape: Tape, scanned: ScannedBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However inputs are divided, each is kept."""
    tape._connection.execute("DELETE FROM vc.inputs")
    monkeypatch.setattr(block_transaction, "_BATCH", 1)
    with BlockTransaction(tape._connection, scanned.block, scanned.inputs) as transaction:
        transaction.commit()
    assert tuple(tape.inputs(0, 9, [b"id"])) == scanned.inputs
