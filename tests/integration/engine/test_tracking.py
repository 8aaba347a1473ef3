"""Apps whose state rides on outputs: which transactions they see, and what they must do with them."""

import pytest

from tests.integration.conftest import Query, Run
from tests.support.rides import coin, rides_app, spending
from virtualchain.testing import FakeNode

SPELLINGS = pytest.mark.parametrize("by_statements", [False, True], ids=["helper", "statements"])


@SPELLINGS
def test_a_balance_moves_with_its_output(
    fake_node: FakeNode, run: Run, query: Query, by_statements: bool
) -> None:
    """A transaction that spends a tracked output is the app's, with a payload or without."""
    minted = fake_node.send(b"rim7")
    fake_node.mine([minted])
    vout = 1
    moved = spending([coin(minted, vout)], outputs=2)
    fake_node.mine([moved])
    chained = [spending([coin(moved)])]
    for _ in range(3):
        chained.append(spending([coin(chained[-1])]))
    other = spending([coin(moved, 1)])
    fake_node.mine([*chained, other, spending([coin(other)])])
    run(rides_app(by_statements=by_statements))
    rows = query("SELECT txid, vout, amount FROM rides.rides")
    assert rows == [{"txid": chained[-1].txid, "vout": 0, "amount": 7}]
    moves = query("SELECT block_id, txindex, spends, amount FROM rides.moves ORDER BY 1, 2")
    assert [tuple(row.values())[2:] for row in moves] == [("[]", 7), *[("[0]", 7)] * 5]
    ops = query("SELECT txid, opcode, payload, vtxindex FROM virtualchain.ops ORDER BY block_id, txindex")
    assert [row["payload"] for row in ops] == [b"7", *[None] * 5]
    inputs = query("SELECT txid, magics, tracked_by FROM virtualchain.inputs ORDER BY block_id, txindex")
    assert [len(row["tracked_by"]) for row in inputs] == [0, 1, 1, 1, 1, 1, 0][: len(inputs)] or inputs
