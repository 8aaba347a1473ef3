"""The example `points`: rules in SQL files, with the tables and reasons that they lead to."""

import pytest

from tests.integration.conftest import Query, Run
from virtualchain.examples.points import app
from virtualchain.testing import FakeNode, check_determinism, check_poison, determinism

ISSUE = app.build_input("issue", name="gold", amount=100)
PASS = app.build_input("transfer", name="gold", amount=60)
SAMPLES = [
    ISSUE,
    PASS,
    app.build_input("transfer", name="gold", amount=0),
    app.build_input("issue", name="a", amount=0),
]


def test_points_are_issued_and_passed_on(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The first to issue a name has all of them; nobody passes on more than they have."""
    fake_node.mine([fake_node.send(ISSUE, sender="alice"), fake_node.send(ISSUE, sender="bob")])
    fake_node.mine(
        [
            fake_node.send(PASS, sender="alice", to=[("bob", 1000)]),
            fake_node.send(PASS, sender="alice", to=[("bob", 1000)]),
            fake_node.send(PASS, sender="bob", to=[("bob", 1000)]),
            fake_node.send(app.build_input("issue", name="", amount=5), sender="carol"),
            fake_node.send(b"ptt\5go", sender="alice"),
        ]
    )
    run(app)
    balances = query("SELECT balance FROM points.balances WHERE name = 'gold' ORDER BY balance")
    assert [row["balance"] for row in balances] == [40, 60]
    assert [row["amount"] for row in query("SELECT amount FROM points.points")] == [100]
    assert [
        tuple(row.values())
        for row in query("SELECT step, reason FROM virtualchain.rejections ORDER BY block_id, txindex")
    ] == [
        ("check", "there are points of that name"),
        ("check", "the sender has too few points"),
        ("check", "a name has at least one byte"),
        ("parse", "field 'name': 3 bytes are missing"),
    ]


def test_no_input_halts_it(database_url: str) -> None:
    """Hostile payloads are rejections."""
    check_poison(app, samples=SAMPLES, database_url=database_url)


def test_it_depends_on_values_alone(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines with other plans, heaps and hash seeds agree; statements in SQL can be sent to them."""
    monkeypatch.setattr(determinism, "_MOST_CASES", 60)
    report = check_determinism(app, samples=SAMPLES, database_url=database_url, seconds=0)
    assert report.accepted
    assert len(report.machines) > 1
