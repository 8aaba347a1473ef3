"""Hostile transactions never halt the name registry."""

from collections.abc import Sequence

import pytest

from tests.support.names_chain import ALICE, BOB, IMPORTER, KeyHolder, NamesChain
from virtualchain.examples.names import app, make_app, regtest
from virtualchain.examples.names.params import BURN_SCRIPT, MAINNET
from virtualchain.model import SpentOutput
from virtualchain.testing import Tx, check_poison, op_return
from virtualchain.testing.hostile import (
    Spending,
    hostile_bodies,
    hostile_outputs,
    hostile_senders,
    mutations,
    unsigned_transaction,
)

SNAPSHOT = bytes.fromhex(MAINNET.initial_snapshots[373600])
SAMPLES = [
    b"id*" + bytes(20) + SNAPSHOT,
    b"id?" + bytes(20) + SNAPSHOT,
    b"id&" + bytes(4) + b"\x01\x01" + b"\x11" * 9 + b"\0\1test",
    b"id!.test",
    b"id:name.test",
    b"id;name.test",
    b"id+" + bytes(36),
    b"id>>" + bytes(16) + SNAPSHOT,
    b"id~name.test",
    b"id#" + bytes(20),
]


def test_hostile_transactions(database_url: str) -> None:
    """The mainnet app, started at a lower height, refuses every case at parse or check."""
    with pytest.warns(UserWarning, match="never accepts the samples"):
        report = check_poison(app, SAMPLES, database_url=database_url)
    assert report.refused > 1000


class SpentOutputs:
    """Makes a chain's source report the outputs that hostile transactions declare to spend."""

    def __init__(self, chain: NamesChain) -> None:
        self._declared: dict[bytes, Sequence[SpentOutput]] = {}
        self._inferred = chain._source.spent_of
        chain._source.spent_of = self  # type: ignore[method-assign, assignment]

    def __call__(self, raw: bytes) -> Sequence[SpentOutput]:
        """Return the outputs that a transaction spends."""
        return self._declared.get(raw) or self._inferred(raw)

    def add(self, tx: Tx) -> bytes:
        """Record the outputs that a transaction declares to spend; return it raw."""
        self._declared[tx.raw] = tx.spends
        return tx.raw


def test_hostile_variants_of_valid_operations(chain: NamesChain) -> None:
    """With names in the registry and valid senders and recipients, none halts it; some are accepted."""
    chain.open_namespace()
    chain.own("name.test", "more.test")
    chain.mine_accepted(chain.preorder_namespace("open", fee=4 * 10**8))
    chain.mine_accepted(chain.reveal("open"), chain.preorder_namespace("late"), chain.preorder("next.test"))
    chain.mine_accepted(chain.import_name("name.open"))
    burn = (10**6, bytes.fromhex(BURN_SCRIPT))
    valid = [
        (chain.register("next.test"), ALICE),
        (chain.register("name.test", fee=10**6), ALICE),
        (chain.preorder("last.test"), ALICE),
        (chain.update("name.test"), ALICE),
        (chain.transfer("more.test"), ALICE),
        (chain.revoke("more.test"), ALICE),
        (chain.import_name("name.open", IMPORTER), IMPORTER),
        (chain.ready("open"), IMPORTER),
        (chain.reveal("late"), IMPORTER),
        (chain.announce(), ALICE),
    ]
    spent_outputs, number, cases = SpentOutputs(chain), 10_000, []
    senders = hostile_senders()
    for raw, sender in valid:
        start = raw.index(b"id", 60)
        payload = raw[start : start + raw[start - 1]]
        paid = [(1, BOB.script), (1, IMPORTER.script), burn]
        carrier = (0, op_return(payload))
        variants: list[tuple[Sequence[Spending], list[tuple[int, bytes]]]] = [
            ([sender.spend()], [(0, op_return(payload[:3] + body)), *paid[:2]])
            for _, body in mutations(payload[3:])
        ]
        variants += [(spendings, [carrier, *paid]) for spendings in senders.values()]
        variants += [
            ([sender.spend()], [*outputs, *paid]) for _, outputs in hostile_outputs(carrier[1], payload)
        ]
        for spendings, outputs in variants:
            number += 1
            tx = unsigned_transaction(number, spendings, outputs)
            declared = tx.spends if spendings in senders.values() else ()
            cases.append(spent_outputs.add(Tx(tx.raw, tx.txid, spends=declared)))
    for opcode in b"*&!?:;+>~#":
        for _, body in hostile_bodies():
            number += 1
            outputs = [(0, op_return(b"id" + bytes([opcode]) + body)), *paid]
            cases.append(unsigned_transaction(number, [ALICE.spend()], outputs).raw)
    for first in range(0, len(cases), 100):
        chain.mine_unread(*cases[first : first + 100])
    assert chain.engine.get_current_block() == chain.height
    (accepted,) = chain.query("SELECT count(*) FROM virtualchain.ops WHERE block_id > %s", 264)
    (refused,) = chain.query("SELECT count(*) FROM virtualchain.rejections")
    assert accepted["count"] > 10
    assert refused["count"] > 1000


def test_an_invalid_key_cannot_import(chain: NamesChain) -> None:
    """33 bytes that are not a point on the curve have an address, but no child keys."""
    nobody = KeyHolder("02" + "ff" * 32)
    chain.mine_accepted(chain.preorder_namespace(to=nobody))
    chain.mine_accepted(chain.reveal(to=nobody))
    (reason,) = chain.mine(chain.import_name("name.test", nobody))
    assert reason is not None
    assert reason.startswith("the sender's public key is invalid")


def test_regtest_and_mainnet_are_different_apps() -> None:
    """They declare different versions, so neither continues with the other's tables."""
    assert app.version != make_app(regtest()).version
    assert (app.name, app.first_block_id) == ("names", 373601)
