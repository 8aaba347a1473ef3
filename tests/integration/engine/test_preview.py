"""Previews say what happens to an input in the next block, and leave no trace."""

from tests.integration.conftest import Query, Run
from tests.support.foreseeing import Foreseeing
from virtualchain.examples.notary import app as notary
from virtualchain.testing import FakeNode

DOCUMENT = "ab" * 32


def test_a_claim_is_foreseen(fake_node: FakeNode, run: Run, query: Query, foresee: Foreseeing) -> None:
    """What a preview says is what happens, and it leaves nothing behind."""
    fake_node.mine()
    run(notary)
    tx = fake_node.send(notary.build_input("claim", sha256=DOCUMENT))
    before = query("SELECT count(*) FROM pg_class")
    (verdict,) = foresee(notary, [tx])
    assert verdict.is_accepted
    assert [change.as_dict()["action"] for change in verdict.changes] == ["insert"]
    assert query("SELECT count(*) FROM pg_class") == before
    fake_node.mine([tx])
    run(notary)
    changes = query('SELECT "table", action, key, old, new FROM virtualchain.changes')
    assert [change.as_dict() for change in verdict.changes] == changes
