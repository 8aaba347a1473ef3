"""A transaction is followed until the app has decided, or until no block can have it any more."""

from threading import Thread

import pytest

from tests.integration.writing.conftest import World, document, order
from virtualchain import App
from virtualchain.errors import Halted, MissingData, NodeUnavailable
from virtualchain.examples.notary import app as notary
from virtualchain.writing.orders import Sent
from virtualchain.writing.sending import InputSender
from virtualchain.writing.waiting import Wait

pytestmark = pytest.mark.node


def waiting(world: World, sender: InputSender, sent: Sent) -> Wait:
    """Return what follows a transaction that was just sent."""
    tip = sender.source.tip()
    return Wait(sent, sender.contract, sender.source, world.url, began=tip, say=world.remarks.append)


def claimed(world: World, name: str) -> tuple[InputSender, Sent, Wait]:
    """Send a claim, and return what follows it."""
    sender = world.sender()
    sent = sender.send(order(sender, "claim", sha256=document(name)))
    return sender, sent, waiting(world, sender, sent)


def test_it_says_what_happens_meanwhile(world: World) -> None:
    """First it is in the mempool, then in a block, which somebody must process, then it is accepted."""
    _, sent, wait = claimed(world, "meanwhile")
    world.remarks.clear()
    assert wait.until_decided(0).status == "waiting"
    assert "is in the mempool of" in world.remarks[-1]
    world.mine(syncs=False)
    assert wait.until_decided(0).status == "waiting"
    assert f"is in block {sent.block_id}, with 0 of 0 blocks on top; no process writes" in world.remarks[-1]
    assert wait.until_decided(0).status == "waiting"
    assert len(world.remarks) == 2
    world.sync()
    assert wait.until_decided(0).status == "accepted"


def test_it_waits_while_others_work(world: World) -> None:
    """A wait ends with the block that the app takes."""
    _, sent, wait = claimed(world, "others")
    other = Thread(target=world.mine)
    other.start()
    assert wait.until_decided(30).status == "accepted"
    other.join()
    assert sent.block_id == world.node.rpc("getblockcount")


def test_a_refusal_has_step_and_reason(world: World) -> None:
    """What the app says in `rejections` is what the wait returns."""
    sender = world.sender(anyway=True)
    sent = sender.send(order(sender, "revoke", sha256=document("nobody's")))
    wait = waiting(world, sender, sent)
    world.mine()
    done = wait.until_decided(10)
    assert (done.status, done.step, done.reason) == ("refused", "check", "nobody claimed this document")
    assert done.exit_code == 1


def test_a_replaced_input(world: World) -> None:
    """The wait names what took its place, in the mempool or in a block."""
    for is_mined in (False, True):
        sender, sent, wait = claimed(world, f"replaced {is_mined}")
        other = world.send(sha256=document(f"in its place {is_mined}"), replaces=sent.txid)
        if is_mined:
            world.mine()
        done = wait.until_decided(20)
        assert (done.status, done.other_txid) == ("replaced", other.txid)
        assert done.block_id is None
        assert sender.source.tip()
    world.mine()


def test_a_dropped_input(world: World) -> None:
    """A mempool that no longer has it ends the wait; the same bytes can be handed over again."""
    sender, sent, wait = claimed(world, "dropped")
    world.node.restart("-persistmempool=0", "-walletbroadcast=0")
    assert world.node.rpc("getrawmempool") == []
    done = wait.until_decided(30)
    assert done.status == "dropped"
    assert "no longer has it" in str(done.reason)
    assert sender.hand_over(sent).status == "sent"
    assert waiting(world, sender, sent).until_decided(0).status == "waiting"
    world.mine()


def test_a_node_that_is_away_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither silence nor a mempool that is being loaded means that an input is lost."""
    sender, sent, wait = claimed(world, "away")
    ask = sender.source.rpc.call
    looks = iter(range(100))

    def call(method: str, *parameters: object) -> object:
        number = next(looks)
        if number < 2:
            raise NodeUnavailable("the node is restarting")
        if number < 12 and method == "getmempoolentry":
            raise MissingData("not in the mempool yet")
        answer = ask(method, *parameters)
        return answer | {"loaded": False} if method == "getmempoolinfo" and number < 12 else answer

    monkeypatch.setattr(sender.source.rpc, "call", call)
    monkeypatch.setattr("virtualchain.writing.waiting.PAUSE", 0.05)
    world.remarks.clear()
    assert wait.until_decided(2).status == "waiting"
    assert world.remarks[0] == "the node is restarting; trying again"
    assert f"transaction {sent.txid} is in the mempool of" in world.remarks[1]
    world.mine()


def test_a_reorganization_meanwhile(world: World) -> None:
    """If a block leaves the active chain, its input is unconfirmed again; the next block with it counts."""
    _, sent, wait = claimed(world, "reorganized")
    world.mine(syncs=False)
    assert wait.until_decided(0).status == "waiting"
    block_hash = sent.block_hash
    world.node.rpc("invalidateblock", block_hash)
    assert wait.until_decided(0).status == "waiting"
    assert sent.block_id is None
    assert "is no longer active" in world.remarks[-2]
    world.mine(2)
    done = wait.until_decided(10)
    assert done.status == "accepted"
    assert done.block_hash != block_hash


def test_a_reorganization_below_the_block_at_which_it_began(world: World) -> None:
    """The chain is followed down to the fork."""
    _, sent, wait = claimed(world, "deep")
    tip = world.node.rpc("getblockcount")
    world.node.rpc("invalidateblock", world.node.rpc("getblockhash", tip - 2))
    world.mine(5)
    assert wait.until_decided(10).status == "accepted"
    assert sent.block_id == tip - 2


def test_a_wait_that_begins_after_the_fact(world: World) -> None:
    """Without the block at which it was sent, the last hundred are looked into."""
    sender, sent, _ = claimed(world, "before")
    world.mine(3)
    late = Wait(sent, sender.contract, sender.source, world.url)
    assert late.until_decided(0).status == "accepted"


def test_a_halted_app_ends_the_wait(world: World) -> None:
    """The app will not take the block until an operator decides."""

    def fail(op: object, state: object) -> None:
        raise RuntimeError("broken")

    broken = App("broken", magic=b"br")
    broken.add(b"c", parse=lambda payload: {}, encode=lambda: b"", commit=fail)
    world.sync(notary, broken)
    sender = world.sender(broken, anyway=True)
    sent = sender.send(order(sender, "c"))
    wait = waiting(world, sender, sent)
    world.mine(syncs=False)
    world.sync(notary, broken)
    with pytest.raises(Halted, match="app broken is halted below block"):
        wait.until_decided(10)
