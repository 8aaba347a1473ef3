"""Inputs are sent through a real node's wallet, and become what was foreseen."""

import hashlib

import pytest

from tests.integration.writing.conftest import World
from virtualchain.errors import InputRefused
from virtualchain.writing.waiting import Wait

pytestmark = pytest.mark.node


def document(text: str) -> str:
    """Return a document's hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_claim_is_sent_and_accepted(world: World) -> None:
    """What is sent is in the node's mempool, and accepted once it is mined."""
    sent = world.send(sha256=document("first"))
    assert sent.status == "sent"
    assert sent.verdict is not None
    assert sent.verdict.is_accepted
    assert world.node.rpc("getmempoolentry", sent.txid)
    sender = world.sender()
    began = sender.source.tip()
    world.mine()
    done = Wait(sent, sender.contract, sender.source, world.url, began=began).until_decided(10)
    assert (done.status, done.block_id) == ("accepted", began.block_id + 1)


def test_what_the_app_would_refuse_is_not_sent(world: World) -> None:
    """A revocation by somebody who does not own the document is refused before it is sent."""
    world.send(sha256=document("second"))
    world.mine()
    with pytest.raises(InputRefused, match="would refuse r at check: the document belongs to"):
        world.send("revoke", sha256=document("second"), sender=world.paid_address("legacy"))
    assert world.node.rpc("getrawmempool") == []
