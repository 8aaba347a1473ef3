"""What a fake node knows of unspent outputs and of unconfirmed funding, as a real node has it."""

from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import preview
from virtualchain.examples.notary import app as notary
from virtualchain.testing import FakeNode, key

DOCUMENT = "ab" * 32


@pytest.mark.parametrize("kind", ["p2pkh", "p2wpkh", "p2tr"])
@pytest.mark.parametrize("on_top", [0, 2])
def test_an_app_author_previews_what_a_fake_node_signed(
    kind: str, on_top: int, fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """Coins of the faucet may be unconfirmed, in a block on top, or in the tape."""
    fake_node.mine()
    run(notary)
    places: dict[str, Any] = {"database": database_url, "bitcoin": fake_node.url}
    alice = key("alice", kind)
    fake_node.mine([fake_node.send(notary.build_input("claim", sha256="cd" * 32), alice)], n=1 + on_top)
    for document in (DOCUMENT, "ef" * 32, "cd" * 32):
        tx = fake_node.send(notary.build_input("claim", sha256=document), alice)
        verdict = preview(notary, tx=tx.raw, **places)
        assert verdict.is_accepted == (document != "cd" * 32)
    stranger = fake_node.send(notary.build_input("claim", sha256=DOCUMENT), key("a stranger", kind))
    verdict = preview(notary, tx=stranger.raw, **places)
    fake_node.mine([stranger])
    run(notary)
    changes = query(
        'SELECT "table", action, key, old, new FROM virtualchain.changes WHERE block_id = %s',
        [fake_node.height],
    )
    assert [change.as_dict() for change in verdict.changes] == changes
    with pytest.raises(Exception, match="may be spent already"):
        preview(notary, tx=stranger.raw, **places)
