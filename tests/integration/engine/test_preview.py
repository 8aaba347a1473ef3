"""Previews say what happens to an input in the next block, and leave no trace."""

import pytest

from tests.integration.conftest import Query, Run
from tests.support.foreseeing import Foreseeing
from virtualchain import App
from virtualchain.engine.preview import preview
from virtualchain.errors import AppHalted, UsageError
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


@pytest.mark.parametrize("tx", ["", "zz", "00", "é", b"", b"\xff" * 100, "02" * 3, "ff" * 5000])
def test_what_is_not_a_transaction_is_refused(
    tx: bytes | str, fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """In one line, whatever it is."""
    fake_node.mine()
    run(notary)
    with pytest.raises(UsageError, match="that is not a transaction in hex"):
        preview(notary, tx=tx, database=database_url)


def test_a_transaction_that_is_nothing_to_the_app_is_refused(
    fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """It has no input of the app."""
    fake_node.mine()
    run(notary)
    with pytest.raises(UsageError, match="nothing to app notary"):
        preview(notary, tx=fake_node.send(b"other").raw, database=database_url)


def test_an_amount_that_no_output_can_hold_is_refused(
    fake_node: FakeNode, run: Run, database_url: str
) -> None:
    """The network says how much there can be."""
    fake_node.mine()
    run(notary)
    outputs = [(21_000_001 * 10**8, b"\x51")]
    with pytest.raises(UsageError, match=r"21000001\.00000000 BTC is more than there can be"):
        preview(notary, "claim", sha256=DOCUMENT, outputs=outputs, database=database_url)


def test_what_would_halt_the_app_halts_nothing(
    fake_node: FakeNode, run: Run, query: Query, foresee: Foreseeing
) -> None:
    """The error says what would happen, and the app runs on."""
    app = App("brittle", magic=b"br")
    app.add(b"x", parse=lambda payload: {"share": 1 // len(payload)})
    fake_node.mine()
    run(app)
    with pytest.raises(AppHalted, match=r"nothing has happened, but in a block it would: .*ZeroDiv"):
        foresee(app, [fake_node.send(b"brx")])
    assert query("SELECT status, error FROM virtualchain.apps") == [{"status": "running", "error": None}]
