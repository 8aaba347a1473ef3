"""The queries and file names in docs/names.md are right."""

import re
from pathlib import Path
from typing import Any

from tests.support.names_chain import ALICE, BOB, NamesChain, names_chain

DOCS = Path(__file__).parents[3] / "docs" / "names.md"
PARTS = ("judecn.id", "440000", "16EMaNw3pkn3v6f2BgnSSs53zAKH4Q8YJg")


def documented_queries() -> list[str]:
    """Return the SQL statements of the page, in order."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    return [statement.strip() for block in blocks for statement in block.split(";") if statement.strip()]


def ask(chain: NamesChain, statement: str, *values: str) -> list[dict[str, Any]]:
    """Run a statement for another name, height and address, and look 10 blocks ahead instead of 1,000."""
    for part, value in zip(PARTS, values, strict=False):
        statement = statement.replace(part, value)
    return chain.query(statement.replace("+ 1000", "+ 10"))


def test_the_page_s_queries_return_what_it_says(database_url: str) -> None:
    """Owner, expiry, history, an owner's names, the namespaces, the preorders and the rejections."""
    with names_chain(database_url) as chain:
        chain.open_namespace(lifetime=30)
        chain.own("one.test", "two.test")
        registered = chain.height
        chain.mine_accepted(chain.update("one.test"))
        chain.mine_accepted(
            chain.transfer("one.test"), chain.revoke("two.test"), chain.preorder("three.test")
        )
        chain.mine(chain.register("one.test", BOB))
        owner, expiring, history, events, owned, namespaces, preorders, rejections = (
            ask(chain, query, "one.test", str(registered + 1), BOB.address) for query in documented_queries()
        )
        end = registered + 31
        assert [(row["owner"], row["expires_at"]) for row in owner] == [(BOB.address, end)]
        assert expiring == []
        assert [(row["op"], row["owner"], row["since"]) for row in history] == [
            ("+", ALICE.address, registered + 1)
        ]
        assert [row["op"] for row in events] == [":", "+", ">>"]
        assert [row["name"] for row in owned] == ["one.test"]
        assert [(row["namespace_id"], row["names"]) for row in namespaces] == [("test", 2)]
        assert [(row["op"], row["count"]) for row in preorders] == [("?", 1)]
        assert [row["reason"] for row in rejections] == ["no fee was paid"]
        assert chain.height < end - 10
        chain.mine_to(end - 10)
        assert [row["name"] for row in ask(chain, documented_queries()[1])] == ["one.test", "two.test"]
        chain.mine_to(end - 1)
        assert len(ask(chain, documented_queries()[1])) == 2
        chain.mine()
        assert (
            ask(chain, documented_queries()[1])
            == ask(chain, documented_queries()[4], "", "", BOB.address)
            == []
        )


def test_every_operation_s_file_is_in_the_page() -> None:
    """The page's table names each file that holds an operation, and no other."""
    documented = set(re.findall(r"`(\w+\.py)` \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    folder = DOCS.parents[1] / "virtualchain" / "examples" / "names"
    actual = {
        path.name for path in folder.glob("*.py") if "\n    opcode = b" in path.read_text(encoding="utf-8")
    }
    assert documented == actual
