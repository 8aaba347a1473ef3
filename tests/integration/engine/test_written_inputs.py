"""Inputs that apps write are accepted when they are mined, and say what they were written from."""

import hashlib
from collections.abc import Callable
from typing import Any

from tests.integration.conftest import Rows
from virtualchain import App, Rejected, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.app.encoding import write_input
from virtualchain.examples.notary import app as notary
from virtualchain.testing import FakeNode, check_determinism, key

Query = Callable[..., Rows]
Run = Callable[..., int]
DOCUMENT = hashlib.sha256(b"a document").hexdigest()

votes = App("votes", magic=b"vo", projections="CREATE TABLE votes (choice integer PRIMARY KEY, n integer)")


@votes.opcode(b"v", fields=["seen", "choice"])
class Vote:
    """A vote by somebody who saw a recent block."""

    def parse(self, payload: bytes) -> Any:
        """Read a consensus hash and a choice."""
        return {"seen": payload[:16].hex(), "choice": payload[16]}

    def encode(self, choice: int, consensus_hash: str) -> bytes:
        """Write them."""
        return bytes.fromhex(consensus_hash) + bytes([choice])

    def check(self, op: Any, state: Any) -> Any:
        """Require a fresh hash."""
        return state.is_fresh(op["seen"]) or Rejected("stale")

    def commit(self, op: Any, state: Any) -> None:
        """Count it."""
        state.table("votes").add(op["choice"], n=1)


def test_the_notary_s_inputs_are_accepted(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A claim, a transfer and a revocation, written from the document's hash alone."""
    for opcode, sender, to in (("claim", "alice", []), ("transfer", "alice", ["bob"]), ("revoke", "bob", [])):
        payload = notary.build_input(opcode, sha256=DOCUMENT)
        tx = fake_node.send(payload, sender=sender, to=[(name, 1000) for name in to])
        assert notary.build_output(payload) in tx.raw
        fake_node.mine([tx])
    run(notary)
    assert query("SELECT sha256, owner, revoked FROM notary.documents") == [
        {"sha256": DOCUMENT, "owner": key("bob").address("regtest"), "revoked": True}
    ]
    assert query("SELECT * FROM virtualchain.rejections") == []


def test_an_input_with_the_current_consensus_hash_is_fresh(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """Its encoder is passed the hash that the engine has; one that it never had is stale."""
    contract = read_contract(votes)
    with StateEngine(votes, database=database_url, source=fake_node.url, confirmations=0) as engine:
        last = engine.build()
        fresh = engine.get_consensus_at(last)
        payloads = [write_input(contract, b"v", {"choice": 7}, consensus_hash=fresh)]
        payloads.append(votes.build_input("vote", choice=8, consensus_hash="00" * 16))
        fake_node.mine([fake_node.send(payload) for payload in payloads])
        engine.build()
    assert query("SELECT * FROM votes.votes") == [{"choice": 7, "n": 1}]
    assert [row["reason"] for row in query("SELECT reason FROM virtualchain.rejections")] == ["stale"]


def test_an_app_that_writes_runs_on_other_machines(database_url: str) -> None:
    """Encoders that only the test has travel with an app to other processes, as those of the examples do."""
    local = App("local", magic=b"lo")
    local.add(
        b"a",
        parse=lambda payload: {"text": payload.hex()},
        encode=lambda text: bytes.fromhex(text),  # noqa: PLW0108 - what travels is a function of the test's
    )
    check_determinism(
        local, samples=[local.build_input("a", text="ab")], database_url=database_url, seconds=1
    )
