"""The queries and file names in docs/runes.md are right."""

import re
from pathlib import Path
from typing import Any

from tests.support.runes_chain import (
    ETCHING,
    OP_RETURN,
    TAPROOT,
    TERMS,
    Spent,
    commit,
    fresh_coin,
    owner,
    runestone,
    txid_of,
)
from tests.support.runes_engine import RunesChain, runes_chain
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.script import classify
from virtualchain.examples.runes.names import number_of

DOCS = Path(__file__).parents[3] / "docs" / "runes.md"
PARTS = (
    "UNCOMMON•GOODS",
    "UNCOMMONGOODS",
    "bc1p…",
    "2bb85f4b004be6da54f766c17c1e855187327112c231ef2ff35ebad0ea67c69e",
    "850000",
)
ANN, BOB = owner("ann"), owner("bob")
NAME = "AAAAAAAAAAAAAAB"


def address(script: bytes) -> str:
    """Return a script's address."""
    return classify(script, network("regtest"))[1][0]


def documented_queries() -> list[str]:
    """Return the SQL statements of the page, in order."""
    return re.findall(r"```sql\n(.*?);\n```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


def ask(chain: RunesChain, statement: str, *values: str) -> list[dict[str, Any]]:
    """Run a statement for other values than the page's."""
    for part, value in zip(PARTS, values, strict=True):
        statement = statement.replace(part, value)
    return chain.query(statement.replace("%", "%%"))


def test_the_page_s_queries_return_what_it_says(database_url: str) -> None:
    """Rune, holders, an address, a transaction and its problems, supply, movements and open mints."""
    with runes_chain(database_url) as chain:
        etching = chain.tx(
            [commit(number_of(NAME), fresh_coin(90, TAPROOT))],
            runestone(
                [(0, 0, 300, 2)],
                flags=ETCHING | TERMS,
                rune=number_of(NAME),
                spacers=1,
                divisibility=2,
                premine=1000,
                cap=3,
                amount=50,
                offset_end=100,
            ),
            ANN,
            BOB,
        )
        etched = chain.mine(etching)
        mint = chain.tx([Spent(fresh_coin(90))], runestone(mint=(etched, 1)), BOB)
        bare = chain.tx([Spent(fresh_coin(90))], runestone(mint=(etched, 1)), b"\x51")
        chain.mine(mint, bare)
        coins = chain.coins(etching, etched)
        burning = chain.tx(
            [Spent(coins[1])],
            runestone([(etched, 1, 100, 1)], mint=(etched, 9), flags=ETCHING, rune=5),
            OP_RETURN,
            ANN,
        )
        chain.mine(burning)
        values = ("A•AAAAAAAAAAAAAB", NAME, address(ANN), txid_of(burning), str(etched))
        rune, holders, largest, held, did, problems, supply, moves, open_mints = (
            ask(chain, query, *values) for query in documented_queries()
        )
        assert [(row["id"], row["supply"], row["burned"], row["mints"]) for row in rune] == [
            (f"{etched}:1", 1100, 100, 2)
        ]
        assert [(row["address"], row["amount"]) for row in holders] == [
            (address(ANN), 6),
            (address(BOB), 3),
            *sorted([(address(BOB), 0.5), (None, 0.5)], key=lambda row: row[0] != holders[2]["address"]),
        ]
        assert [(row["address"], row["amount"], row["outputs"]) for row in largest] == [
            (address(ANN), 600, 1),
            (address(BOB), 350, 2),
        ]
        assert [(row["spaced_name"], row["amount"]) for row in held] == [("A•AAAAAAAAAAAAAB", 600)]
        assert [(row["kind"], row["amount"], row["vin"], row["vout"]) for row in did] == [
            ("spent", 700, 0, None),
            ("transferred", 600, None, 2),
            ("burned", 100, None, 1),
        ]
        assert [row["mint_problem"] for row in problems] == ["there is no such rune"]
        assert problems[0]["etching_problem"].startswith("names are free from ")
        assert [(row["made"], row["burned"]) for row in supply] == [(1000, 0)]
        assert [(row["kind"], row["amount"]) for row in moves] == [
            ("transferred", 700),
            ("spent", 700),
            ("transferred", 600),
        ]
        assert [(row["id"], row["mints_left"]) for row in open_mints] == [(f"{etched}:1", 1)]
        for _ in range(100):
            chain.mine()
        assert ask(chain, documented_queries()[-1], *values) == []


def test_the_holders_of_an_earlier_block(database_url: str) -> None:
    """With `virtualchain.as_of`, the tables are as they were."""
    with runes_chain(database_url) as chain:
        etching = chain.tx([Spent(fresh_coin(90))], runestone(flags=ETCHING, premine=9), ANN)
        height = chain.mine(etching)
        chain.mine(chain.tx([Spent(chain.coins(etching, height)[1])], BOB))
        assert [row["address"] for row in chain.query("SELECT address FROM runes.outputs")] == [address(BOB)]
        chain.query("SELECT set_config('virtualchain.as_of', %s, false)", str(height))
        assert [row["address"] for row in chain.query("SELECT address FROM runes.outputs")] == [address(ANN)]


def test_every_file_of_the_example_is_in_the_page() -> None:
    """The page names each file of the package, and no other."""
    documented = set(re.findall(r"`([\w/]+\.py)`", DOCS.read_text(encoding="utf-8")))
    folder = DOCS.parents[1] / "virtualchain" / "examples" / "runes"
    actual = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
    assert {name for name in documented if "/" not in name} == actual
    assert {"conformance/vectors.py", "conformance/scenario.py"} <= documented


def test_tables_and_columns_have_comments(database_url: str) -> None:
    """Each table and each column says what it is."""
    with runes_chain(database_url) as chain:
        chain.mine()
        missing = chain.query(
            "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
            "WHERE c.relnamespace = 'runes'::regnamespace AND a.attnum > 0 "
            "AND col_description(c.oid, a.attnum) IS NULL"
        )
        assert missing == []
