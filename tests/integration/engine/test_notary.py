"""The notary end to end: from blocks on a node to rows in PostgreSQL."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.integration.conftest import Rows
from virtualchain.bitcoin.script import op_return
from virtualchain.examples.notary import app
from virtualchain.model import SpentOutput
from virtualchain.testing import FakeNode, key
from virtualchain.testing.hostile import Spending, unsigned_transaction
from virtualchain.testing.transactions import KEY_KINDS, Key, Tx

DOCUMENT = hashlib.sha256(b"a document").digest()

Query = Callable[..., Rows]
Run = Callable[..., int]


def p2wpkh(name: str) -> str:
    """Return the address of a named key."""
    return key(name).address("regtest")


def documents(query: Query) -> Rows:
    """Read the projection as an analyst would."""
    return query("SELECT owner, claimed_at, revoked FROM notary.documents")


def reasons(query: Query) -> list[tuple[Any, ...]]:
    """Read the recorded rejections in order."""
    return [
        (row["block_id"], row["step"], row["reason"])
        for row in query("SELECT * FROM virtualchain.rejections ORDER BY block_id, txindex")
    ]


def test_first_claim_in_a_block_wins(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Of two claims in one block, the earlier transaction's is accepted and the other rejected at check."""
    claims = [fake_node.send(b"ntc" + DOCUMENT, sender=name) for name in ("alice", "bob")]
    fake_node.mine(claims)
    height = run(app)
    assert documents(query) == [{"owner": p2wpkh("alice"), "claimed_at": height, "revoked": False}]
    assert reasons(query) == [(height, "check", f"claimed in block {height}")]


def test_transfer_and_revoke_follow_the_owner(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Only the owner can transfer a document, and only the new owner can then revoke the claim."""
    fake_node.mine([fake_node.send(b"ntc" + DOCUMENT, sender="alice")])
    fake_node.mine([fake_node.send(b"ntt" + DOCUMENT, sender="eve", to=[("eve", 1000)])])
    fake_node.mine([fake_node.send(b"ntt" + DOCUMENT, sender="alice", to=[("bob", 1000)])])
    fake_node.mine([fake_node.send(b"ntr" + DOCUMENT, sender="alice")])
    last = run(app)
    assert [row["owner"] for row in documents(query)] == [p2wpkh("bob")]
    assert reasons(query) == [
        (last - 2, "check", f"the document belongs to {p2wpkh('alice')}"),
        (last, "check", f"the document belongs to {p2wpkh('bob')}"),
    ]
    fake_node.mine([fake_node.send(b"ntr" + DOCUMENT, sender="bob")])
    fake_node.mine([fake_node.send(b"ntc" + DOCUMENT, sender="carol")])
    run(app)
    assert [row["revoked"] for row in documents(query)] == [True]
    assert reasons(query)[-1][2].startswith("claimed in block")


def test_malformed_payloads_are_rejected_at_parse(fake_node: FakeNode, run: Run, query: Query) -> None:
    """A payload that is not a SHA-256 is recorded as rejected; an unknown opcode makes only an input."""
    fake_node.mine([fake_node.send(b"ntc" + b"short"), fake_node.send(b"ntz" + DOCUMENT)])
    height = run(app)
    assert documents(query) == []
    assert reasons(query) == [(height, "parse", "not parsed")]
    assert [row["count"] for row in query("SELECT count(*) FROM virtualchain.inputs")] == [2]


def test_ops_carry_what_was_committed(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The log has an op's position, payload, fields and canonical bytes."""
    sent = fake_node.send(b"ntc" + DOCUMENT, sender="alice")
    fake_node.mine([sent])
    height = run(app)
    (op,) = query("SELECT * FROM virtualchain.ops")
    sender = p2wpkh("alice")
    assert (op["app"], op["block_id"], op["vtxindex"], op["txid"]) == ("notary", height, 0, sent.txid)
    assert (op["opcode"], op["payload"]) == (b"c", DOCUMENT)
    assert op["fields"] == {"sha256": DOCUMENT.hex(), "sender": sender}
    assert op["canonical"] == [f"c:64:{DOCUMENT.hex()},{len(sender)}:{sender}".encode()]


def sent_by(owner: Key, hash_type: int, outputs: Sequence[tuple[int, bytes]]) -> Tx:
    """Make a transaction of an owner whose signature has a hash type."""
    signature = bytes.fromhex("3006020101020101") + bytes([hash_type])
    spent = SpentOutput(100_000, owner.script_pubkey)
    return unsigned_transaction(hash_type, [Spending(spent, witness=(signature, owner.public_key))], outputs)


@pytest.mark.parametrize("hash_type", [2, 3, 0x81, 0x82, 0x83])
def test_what_others_may_have_appended_is_rejected(
    fake_node: FakeNode, run: Run, query: Query, hash_type: int
) -> None:
    """A signature for a part of a transaction is no consent to the payload beside it."""
    alice = key("alice")
    fake_node.mine([fake_node.send(b"ntc" + DOCUMENT, sender="alice")])
    fake_node.mine([sent_by(alice, hash_type, [(0, op_return(b"ntr" + DOCUMENT))])])
    last = run(app)
    assert [row["revoked"] for row in documents(query)] == [False]
    assert reasons(query) == [(last, "parse", "the sender did not sign the whole transaction")]
    [row] = query("SELECT senders, evidence FROM virtualchain.inputs WHERE block_id = %s", [last])
    assert row["evidence"] == "node"
    assert [len(sender["sighash"]) for sender in row["senders"]] == [1]


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_whole_signature_of_any_kind_is_accepted(
    fake_node: FakeNode, run: Run, query: Query, kind: str
) -> None:
    """Owners of all kinds of address can claim and transfer."""
    owner, heir = key("alice", kind), key("heir", kind)
    fake_node.mine([fake_node.send(b"ntc" + DOCUMENT, sender=owner)])
    fake_node.mine([fake_node.send(b"ntt" + DOCUMENT, sender=owner, to=[(heir, 1000)])])
    run(app)
    assert [row["owner"] for row in documents(query)] == [heir.address("regtest")]


@pytest.mark.parametrize(
    "script", [bytes.fromhex("51024e73"), b"\x52\x20" + bytes(32)], ids=["anchor", "later"]
)
def test_a_recipient_without_an_owner_is_rejected(
    fake_node: FakeNode, run: Run, query: Query, script: bytes
) -> None:
    """Anybody spends an anchor, and today any later segwit output: a document is not given away to them."""
    alice = key("alice")
    fake_node.mine([fake_node.send(b"ntc" + DOCUMENT, sender="alice")])
    outputs = [(0, op_return(b"ntt" + DOCUMENT)), (500, script), (500, key("bob").script_pubkey)]
    fake_node.mine([sent_by(alice, 1, outputs)])
    run(app)
    assert [row["owner"] for row in documents(query)] == [p2wpkh("alice")]
    assert "has no owner" in reasons(query)[-1][2]
