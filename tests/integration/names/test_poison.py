"""Hostile transactions never halt the name registry."""

from collections.abc import Iterator, Sequence

import pytest

from tests.support.names_chain import ALICE, BOB, IMPORTER, NamesChain, names_chain
from virtualchain.examples.names import app, make_app, regtest
from virtualchain.examples.names.params import MAINNET
from virtualchain.examples.names.reading import BURN_SCRIPT
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


@pytest.fixture
def chain(database_url: str) -> Iterator[NamesChain]:
    """Give a registry without anything in it."""
    with names_chain(database_url) as opened:
        yield opened


def test_the_catalogue_of_hostile_transactions(database_url: str) -> None:
    """The network itself, started lower than it was, refuses every case as it is read or judged."""
    report = check_poison(app, SAMPLES, database_url=database_url)
    assert report.refused > 1000


class Spends:
    """Lets a chain's source say what hostile transactions spend, as it is said beside them."""

    def __init__(self, chain: NamesChain) -> None:
        self._chain = chain
        self._told: dict[bytes, Sequence[SpentOutput]] = {}
        self._guess = chain._source._spent
        chain._source._spent = self  # type: ignore[method-assign, assignment]

    def __call__(self, raw: bytes) -> Sequence[SpentOutput]:
        """Say what a transaction spends."""
        return self._told.get(raw) or self._guess(raw)

    def add(self, tx: Tx) -> bytes:
        """Learn what a transaction spends."""
        self._told[tx.raw] = tx.spends
        return tx.raw


def test_hostile_forms_of_rightful_operations(chain: NamesChain) -> None:
    """On a registry with names in it, by senders and to recipients that it takes: some are even accepted."""
    chain.open_namespace()
    chain.own("name.test", "more.test")
    chain.do(chain.preorder_namespace("open", fee=4 * 10**8))
    chain.do(chain.reveal("open"), chain.preorder_namespace("late"), chain.preorder("next.test"))
    chain.do(chain.import_name("name.open"))
    burn = (10**6, bytes.fromhex(BURN_SCRIPT))
    good = [
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
    spends, number, cases = Spends(chain), 10_000, []
    senders = hostile_senders()
    for raw, sender in good:
        start = raw.index(b"id", 60)
        payload = raw[start : start + raw[start - 1]]
        paid = [(1, BOB.script), (1, IMPORTER.script), burn]
        carrier = (0, op_return(payload))
        forms: list[tuple[Sequence[Spending], list[tuple[int, bytes]]]] = [
            ([sender.spend()], [(0, op_return(payload[:3] + body)), *paid[:2]])
            for _, body in mutations(payload[3:])
        ]
        forms += [(spendings, [carrier, *paid]) for spendings in senders.values()]
        forms += [
            ([sender.spend()], [*outputs, *paid]) for _, outputs in hostile_outputs(carrier[1], payload)
        ]
        for spendings, outputs in forms:
            number += 1
            tx = unsigned_transaction(number, spendings, outputs)
            told = tx.spends if spendings in senders.values() else ()
            cases.append(spends.add(Tx(tx.raw, tx.txid, spends=told)))
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


def test_a_key_that_is_none_imports_nothing(chain: NamesChain) -> None:
    """33 bytes that are no point on the curve have an address, but no children."""
    from tests.support.names_chain import Person

    class Nobody(Person):
        @property
        def public_key(self) -> bytes:
            return b"\x02" + b"\xff" * 32

    nobody = Nobody("nobody")
    chain.do(chain.preorder_namespace(to=nobody))
    chain.do(chain.reveal(to=nobody))
    (reason,) = chain.mine(chain.import_name("name.test", nobody))
    assert reason is not None
    assert reason.startswith("the sender's public key is none")


def test_regtest_and_mainnet_are_apps_of_their_own() -> None:
    """They differ in what they declare, so neither goes on with the other's tables."""
    assert app.version != make_app(regtest()).version
    assert (app.name, app.first_block_id) == ("names", 373601)
