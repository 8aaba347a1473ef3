"""The queries in docs/inscriptions.md are right."""

import re
from pathlib import Path
from typing import Any

from tests.integration.conftest import Query, Run
from tests.support.inscriptions import address, coin, envelope, fund, leaf, spend
from virtualchain.examples.inscriptions import app
from virtualchain.testing import FakeNode

PAGE = Path(__file__).parents[3] / "docs" / "inscriptions.md"
EXAMPLE = "6fb976ab49dcec017f1e201e84395983204ae1a7c2abf7ced0a85d692e442799i0"


def test_the_page_s_queries_return_what_it_says(fake_node: FakeNode, run: Run, query: Query) -> None:
    """An address's inscriptions, a block's, the history of one, its children, and those with its body."""
    body = (b"", b"hello")
    first = envelope(b"\1", b"text/plain", *body)
    revealed = spend(fund(fake_node, (leaf(first, name="first"), 1000)), ("alice", 1000))
    fake_node.mine([revealed])
    parent = bytes.fromhex(revealed.txid)[::-1]
    child = leaf(envelope(b"\1", b"text/html", b"\3", parent, *body))
    children = fund(fake_node, (child, 500), (child, 500))
    moved = spend([children[0], coin(revealed, 0, "alice")], ("alice", 500), ("bob", 900))
    claimed = spend([children[1]], ("bob", 400))
    fake_node.mine([moved, claimed])
    burned = spend([coin(moved, 1, "bob")], (b"\x6a", 900))
    fake_node.mine([burned])
    height = run(app)
    inscription = f"{revealed.txid}i0"

    def ask(number: int, **values: str) -> list[dict[str, Any]]:
        statement = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[number]
        for part, value in values.items():
            old = {"owner": "bc1p…", "block": "767430", "inscription": EXAMPLE}[part]
            assert old in statement
            statement = statement.replace(old, value)
        return query(statement)

    child_id, claim_id = f"{moved.txid}i0", f"{claimed.txid}i0"
    [held] = ask(0, owner=address("alice"))
    assert held == {
        "inscription": child_id,
        "content_type_text": "text/html",
        "body_size": 5,
        "txid": moved.txid,
        "vout": 0,
        "position": 0,
    }
    assert [row["inscription"] for row in ask(0, owner=address("bob"))] == [claim_id]
    assert [row["id"] for row in ask(1, block=str(height - 1))] == [child_id, claim_id]
    history = ask(2, inscription=inscription)
    assert [(row["txid"], row["status"], row["owner"]) for row in history] == [
        (revealed.txid, "held", address("alice")),
        (moved.txid, "held", address("bob")),
        (burned.txid, "burned", None),
    ]
    assert ask(3, inscription=inscription) == [{"inscription": child_id, "block_id": height - 1}]
    assert [row["id"] for row in ask(4, inscription=inscription)] == [inscription, child_id, claim_id]
