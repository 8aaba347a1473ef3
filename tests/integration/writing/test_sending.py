"""Inputs are sent through a real node's wallet, and become what was foreseen."""

import base64
import json
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.integration.writing.conftest import World, document, order
from virtualchain import App, Rejected, send
from virtualchain.bitcoin.transaction import read_inputs, read_outputs
from virtualchain.errors import InputRefused, NodeUnavailable, UsageError
from virtualchain.examples.names import make_app
from virtualchain.examples.names.params import regtest
from virtualchain.examples.notary import app as notary
from virtualchain.examples.runes import app as runes
from virtualchain.writing.psbt import read_signed
from virtualchain.writing.sending import BURN_SCRIPT, InputSender
from virtualchain.writing.wallet import Fee, script_of

pytestmark = pytest.mark.node

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
        return state.is_fresh(op["seen"]) or Rejected("the consensus hash is stale")

    def commit(self, op: Any, state: Any) -> None:
        """Count it."""
        state.table("votes").add(op["choice"], n=1)


def owner(world: World, sha256: str) -> str | None:
    """Return who owns a document."""
    with psycopg.connect(world.url) as connection:
        row = connection.execute("SELECT owner FROM notary.documents WHERE sha256 = %s", [sha256]).fetchone()
    return None if row is None else row[0]


def mempool(world: World) -> list[str]:
    """Return the ids of the node's unconfirmed transactions."""
    return list(world.node.rpc("getrawmempool"))


@pytest.mark.parametrize("kind", ["legacy", "p2sh-segwit", "bech32", "bech32m"])
def test_a_claim_by_each_kind_of_sender_is_accepted(world: World, kind: str) -> None:
    """The preview's changes are what happens, and the change returns to the sender."""
    address = world.paid_address(kind)
    sent = world.send(sha256=document(kind), sender=address)
    assert (sent.status, sent.sender) == ("sent", address)
    assert sent.verdict is not None
    assert sent.verdict.is_accepted
    outputs = world.node.rpc("getrawtransaction", sent.txid, True)["vout"]
    assert [output["scriptPubKey"].get("address") for output in outputs] == [None, address]
    world.mine()
    assert owner(world, document(kind)) == address
    with psycopg.connect(world.url) as connection:
        changes = connection.execute(
            'SELECT "table", action, key, old, new FROM virtualchain.changes WHERE key = %s',
            [Jsonb({"sha256": document(kind)})],
        ).fetchall()
    assert [tuple(change.as_dict().values()) for change in sent.verdict.changes] == changes


def test_outputs_are_in_the_order_that_was_asked_for(world: World) -> None:
    """The payload's comes first, then the payments, the burn, and the change: or it is where it was put."""
    there, elsewhere = world.address(), world.address("legacy")
    sender = world.sender()
    options = {"to": [(there, 70_000), (elsewhere, 60_000), (there, 50_000)], "burn": 40_000}
    for change_at, expected in (
        (None, [0, 70_000, 60_000, 50_000, 40_000]),
        (2, [0, 70_000, None, 60_000, 50_000, 40_000]),
        (0, [None, 0, 70_000, 60_000, 50_000, 40_000]),
    ):
        sent = sender.send(
            order(sender, "claim", sha256=document(f"order {change_at}"), change_at=change_at, **options),
            dry_run=True,
        )
        _, outputs = read_outputs(sent.raw)
        values = [output.value if output.value <= 70_000 else None for output in outputs]
        assert values[: len(expected)] == expected
        assert len(values) == 6
        assert BURN_SCRIPT in {output.script_pubkey for output in outputs}
    assert sent.status == "checked"
    assert sent.txid not in mempool(world)


def test_what_the_app_would_refuse_is_not_sent_unless_anyway(world: World) -> None:
    """A revocation by somebody who does not own the document is sent only on demand, and then rejected."""
    world.send(sha256=document("owned"), sender=world.paid_address())
    world.mine()
    other = world.paid_address()
    before = mempool(world)
    with pytest.raises(InputRefused, match="would refuse r at check: the document belongs to"):
        world.send("revoke", sha256=document("owned"), sender=other)
    assert mempool(world) == before
    sender = world.sender(anyway=True)
    sent = sender.send(order(sender, "revoke", sha256=document("owned"), sender=other))
    assert "would refuse" in world.remarks[-1]
    assert sent.txid in mempool(world)
    world.mine()


def test_inputs_of_one_sender_keep_their_order(world: World) -> None:
    """A transfer right after its claim spends the claim's change, so that it comes after it."""
    address, to = world.paid_address(), world.address()
    largest = world.node.rpc("sendtoaddress", address, "3", wallet="payer")
    world.mine()
    claim = world.send(sha256=document("ordered"), sender=address)
    assert read_inputs(claim.raw)[0].txid == largest
    transfer = world.send("transfer", sha256=document("ordered"), sender=address, to=[(to, 1000)])
    assert read_inputs(transfer.raw)[0].txid == claim.txid
    with pytest.raises(InputRefused, match="claimed in block"):  # the wallet's own unconfirmed claim
        world.send(sha256=document("ordered"))
    world.mine()
    assert owner(world, document("ordered")) == to


def test_the_current_consensus_hash_is_passed(world: World) -> None:
    """An encoder that asks for it gets the last block's; one that is stale is refused before it is sent."""
    world.sync(notary, votes)
    sent = world.send("vote", app=votes, choice=3)
    assert sent.verdict is not None
    assert sent.verdict.is_accepted
    with pytest.raises(InputRefused, match=r"stale.*leave consensus_hash out"):
        world.send("vote", app=votes, choice=3, consensus_hash="00" * 16)
    world.mine(syncs=False)
    world.sync(notary, votes)
    with psycopg.connect(world.url) as connection:
        assert connection.execute("SELECT choice, n FROM votes.votes").fetchall() == [(3, 1)]


def test_a_name_is_preordered_with_a_burn(world: World) -> None:
    """The names' rules find the fee that is burned, the sender's key and a fresh consensus hash."""
    names = make_app(regtest(first_block=5))
    world.sync(notary, names)
    sender = world.paid_address("legacy", "2")
    options = {"preorder_hash": "ab" * 20, "burn": 40_000_000, "sender": sender}
    with pytest.raises(InputRefused, match=r"would refuse . at check: no fee was paid"):
        world.send("namespace_preorder", app=names, preorder_hash="ab" * 20, sender=sender)
    with pytest.raises(InputRefused, match="at parse: the sender is witness_v0_keyhash"):
        world.send("namespace_preorder", app=names, **(options | {"sender": world.paid_address()}))
    sent = world.send("namespace_preorder", app=names, **options)
    world.mine(syncs=False)
    world.sync(notary, names)
    with psycopg.connect(world.url) as connection:
        rows = connection.execute("SELECT txid, op_fee FROM names.preorders").fetchall()
    assert rows == [(sent.txid, 40_000_000)]


def test_a_runestone_is_sent(world: World) -> None:
    """Its output is what the runes' payload rule writes, and no push after OP_RETURN."""
    sender = world.sender(runes, anyway=True)
    sent = sender.send(order(sender, "", mint="840000:1", pointer=1))
    first = world.node.rpc("getrawtransaction", sent.txid, True)["vout"][0]
    assert first["scriptPubKey"]["hex"].startswith("6a5d")
    world.mine()


def test_a_psbt_is_signed_elsewhere_and_broadcast(world: World) -> None:
    """A wallet without keys makes it, the preview judges it, and what comes back is sent, in any form."""
    watching = world.wallet("watching", True, True)
    descriptors = world.node.rpc("listdescriptors", wallet="payer")["descriptors"]
    world.node.rpc(
        "importdescriptors",
        [
            {key: item[key] for key in ("desc", "active", "internal", "range") if key in item}
            | {"timestamp": 0}
            for item in descriptors
        ],
        wallet=watching,
    )
    address = world.paid_address("bech32m")
    sender = world.sender(wallet="watching")
    claim = order(sender, "claim", sha256=document("psbt"), sender=address)
    with pytest.raises(UsageError, match="has no private keys, it only watches"):
        sender.send(claim)
    sent, psbt = sender.unsigned(claim)
    assert sent.status == "unsigned"
    assert sent.verdict is not None
    assert sent.verdict.is_accepted
    assert not any(item.witness for item in read_inputs(sent.raw))
    with pytest.raises(UsageError, match="no complete signatures yet for its input 0"):
        read_signed(sender.source, psbt)
    for garbage in (b"", b"hello", b"psbt\xff", base64.b64encode(b"psbt\xff\x01"), psbt[:-30]):
        with pytest.raises(UsageError):
            read_signed(sender.source, garbage)
    signed = world.node.rpc("walletprocesspsbt", base64.b64encode(psbt).decode(), wallet="payer")["psbt"]
    final = world.node.rpc("finalizepsbt", signed)["hex"]
    raws = {
        read_signed(sender.source, data)
        for data in (signed.encode(), base64.b64decode(signed), f"{final}\n".encode())
    }
    assert raws == {bytes.fromhex(final)}
    done = sender.broadcast(raws.pop())
    assert (done.status, done.txid, done.fee) == ("sent", sent.txid, sent.fee)
    again = sender.broadcast(done.raw)  # what the node has is not sent again
    assert (again.status, again.txid) == ("sent", sent.txid)
    world.mine()
    assert owner(world, document("psbt")) == address
    assert sender.broadcast(done.raw).status == "sent"


def test_a_transaction_of_nothing_is_not_broadcast(world: World) -> None:
    """One that carries no input of the app is refused."""
    sender = world.sender()
    txid = world.node.rpc("sendtoaddress", world.address(), "1", wallet="payer")
    raw = bytes.fromhex(world.node.rpc("getrawtransaction", txid))
    with pytest.raises(UsageError, match="is nothing to app notary"):
        sender.broadcast(raw)


def test_an_input_replaces_an_unconfirmed_one(world: World) -> None:
    """It spends the same coins, first the sender's, and pays more; what is confirmed cannot be replaced."""
    address = world.paid_address()
    first = world.send(sha256=document("replaced"), sender=address)
    below = world.send(sha256=document("below"), sender=address)
    assert read_inputs(below.raw)[0].txid == first.txid
    for name in ("replaced", "below"):  # what goes with the first one does not count
        sender = world.sender()
        sender.send(order(sender, "claim", sha256=document(name), replaces=first.txid), dry_run=True)
    second = world.send(sha256=document("replacing"), replaces=first.txid)
    assert second.sender == address
    assert second.fee_rate is not None
    assert first.fee_rate is not None
    assert second.fee_rate > first.fee_rate
    assert (first.txid in mempool(world), second.txid in mempool(world)) == (False, True)
    sender = world.sender(fee=Fee(first.fee_rate))
    with pytest.raises(UsageError, match="not pay enough more"):
        sender.send(order(sender, "claim", sha256=document("cheap"), replaces=second.txid))
    world.mine()
    assert owner(world, document("replacing")) == address
    with pytest.raises(UsageError, match="nothing can replace it"):
        world.send(sha256=document("late"), replaces=second.txid)


def test_coins_that_are_named_are_spent_first(world: World) -> None:
    """In their order, whatever else the wallet adds."""
    addresses = [world.paid_address() for _ in range(3)]
    listed = world.node.rpc("listunspent", 1, 9999999, addresses, wallet="payer")
    coins = [(item["txid"], item["vout"]) for item in listed]
    payments = [(world.address(), 10 * 10**8)]
    sent = world.send(sha256=document("coins"), coins=coins, to=payments)
    inputs = [(item.txid, item.vout) for item in read_inputs(sent.raw)]
    assert (inputs[:3], len(inputs) > 3) == (coins, True)
    assert sent.sender == listed[0]["address"]
    world.mine()


def test_the_function_sends(world: World) -> None:
    """`virtualchain.send` does it from Python, and waits."""
    address = world.paid_address()
    options: dict[str, Any] = {"database": world.url, "bitcoin": world.node.url, "wallet": "payer"}
    sent = send(
        notary, "claim", {"sha256": document("python")}, sender=address, to={address: "0.001"}, **options
    )
    assert sent.status == "sent"
    waiting = send(
        notary, "revoke", sha256=document("python"), sender=address, wait=True, timeout=0, **options
    )
    assert (waiting.status, waiting.exit_code) == ("waiting", 6)
    assert json.dumps(waiting.as_dict(), default=str)
    wrongs: list[dict[str, Any]] = [
        {"to": {address: 0.001}},
        {"fee_rate": 1, "target": 2},
        {"fee_rate": "0"},
        {"max_fee": "1x"},
    ]
    for wrong in wrongs:
        with pytest.raises(UsageError):
            send(notary, "claim", sha256=document("wrong"), **options, **wrong)
    world.mine()


def test_an_input_is_never_sent_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the answer is lost, the node is asked for the transaction; only its bytes are sent again."""
    monkeypatch.setattr("virtualchain.writing.sending._PAUSES", (0.0, 0.0, 0.0))
    for loses_question in (False, True):
        sender = world.sender()
        handed: list[object] = []
        rpc = sender.source.rpc
        ask = rpc.call_once

        def call_once(method: str, *parameters: object) -> Any:
            if method != "sendrawtransaction":
                return ask(method, *parameters)  # noqa: B023 - used in this round
            handed.append(parameters[0])  # noqa: B023
            if len(handed) == 1 and loses_question:  # noqa: B023
                raise NodeUnavailable("the question is lost")
            ask(method, *parameters)  # noqa: B023
            if len(handed) == 1:  # noqa: B023
                raise NodeUnavailable("the answer is lost")
            return None

        monkeypatch.setattr(rpc, "call_once", call_once)
        sent = sender.send(order(sender, "claim", sha256=document(f"once {loses_question}")))
        assert sent.txid in mempool(world)
        assert set(handed) == {sent.raw.hex()}
        assert len(handed) == 1 + loses_question


def test_an_unknown_outcome_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the node does not answer any more, the error names the transaction to look for."""
    monkeypatch.setattr("virtualchain.writing.sending._PAUSES", (0.0, 0.0))
    sender = world.sender()
    ask = sender.source.rpc.call_once

    def call_once(method: str, *parameters: object) -> Any:
        if method == "sendrawtransaction":
            raise NodeUnavailable("nothing arrives")
        return ask(method, *parameters)

    monkeypatch.setattr(sender.source.rpc, "call_once", call_once)
    with pytest.raises(NodeUnavailable, match=r"not known whether it has transaction [0-9a-f]{64}"):
        sender.send(order(sender, "claim", sha256=document("lost")))


def test_scripts_of_addresses_are_the_node_s(world: World) -> None:
    """Each kind of address is paid with its own script."""
    sender: InputSender = world.sender()
    for kind in ("legacy", "p2sh-segwit", "bech32", "bech32m"):
        address = world.address(kind)
        expected = world.node.rpc("getaddressinfo", address, wallet="payer")["scriptPubKey"]
        assert script_of(sender.source, address).hex() == expected
