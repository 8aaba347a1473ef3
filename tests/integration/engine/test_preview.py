"""Previews say what happens to an input in the next block, and leave no trace."""

from collections.abc import Callable

import pytest

from tests.integration.conftest import Query, Run
from virtualchain.app.declarations import read_contract
from virtualchain.engine.foreseeing import Verdict
from virtualchain.engine.preview import preview_transactions
from virtualchain.examples.notary import app as notary
from virtualchain.testing import FakeNode
from virtualchain.testing.transactions import Tx

Foresee = Callable[..., list[Verdict]]
DOCUMENT = "ab" * 32


@pytest.fixture
def foresee(database_url: str, fake_node: FakeNode) -> Foresee:
    """Return a function that judges transactions on top of what the fake node's chain has."""

    def judge(app: object, *txs: Tx) -> list[Verdict]:
        spent = {}
        raws: list[bytes] = []
        for tx in txs:
            funding = tx.funding
            if funding is not None and funding.raw not in raws:
                raws.append(funding.raw)
            raws.append(tx.raw)
        return preview_transactions(database_url, read_contract(app), raws, spent=spent)

    return judge


def outcome(query: Query, app: str, tx: Tx) -> tuple[str, str | None]:
    """Return what became of a transaction."""
    rows = query(
        "SELECT 'accepted' AS verdict, NULL AS reason FROM virtualchain.ops WHERE app = %s AND txid = %s "
        "UNION ALL SELECT 'refused', reason FROM virtualchain.rejections WHERE app = %s AND txid = %s",
        [app, tx.txid] * 2,
    )
    (row,) = rows
    return row["verdict"], row["reason"]


def test_a_claim_is_foreseen(fake_node: FakeNode, run: Run, query: Query, foresee: Foresee) -> None:
    """What a preview says is what happens, and it leaves nothing behind."""
    fake_node.mine()
    run(notary)
    tx = fake_node.send(notary.build_input("claim", sha256=DOCUMENT))
    before = query("SELECT count(*) FROM pg_class")
    (verdict,) = foresee(notary, tx)
    assert verdict.is_accepted
    assert [change.as_dict()["action"] for change in verdict.changes] == ["insert"]
    assert query("SELECT count(*) FROM pg_class") == before
    fake_node.mine([tx])
    run(notary)
    changes = query('SELECT "table", action, key, old, new FROM virtualchain.changes')
    assert [change.as_dict() for change in verdict.changes] == changes
