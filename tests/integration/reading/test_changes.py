"""What a block did: virtualchain.changes, held against the tables before and behind each block."""

import json
from collections.abc import Callable
from typing import Any

import psycopg

from tests.integration.conftest import Rows
from tests.support.moving import an_app, story
from virtualchain.testing import FakeNode

Query = Callable[..., Rows]
Run = Callable[..., int]

KEYS = {"owners": "name", "marks": "place"}


def shown(url: str, app: str, table: str, block: int) -> dict[Any, Any]:
    """Give the rows of a table as of a block, by key."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
        rows = connection.execute(f"SELECT to_jsonb(t) FROM {app}.{table} AS t".encode()).fetchall()
    return {row[KEYS[table]]: row for (row,) in rows}


def differences(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, tuple[str, Any, Any]]:
    """Give what came, went and changed, by key."""
    keys = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    action = {True: {True: "update", False: "delete"}, False: {True: "insert"}}
    return {key: (action[key in before][key in after], before.get(key), after.get(key)) for key in keys}


def test_each_block_tells_what_it_did(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """Inserts, updates, deletes; keys that change go and come; what a block undid itself is not told."""
    story(fake_node, 3, 40)
    run(an_app("one"), an_app("two"), history=None)
    seen: set[str] = set()
    for block in range(102, fake_node.height + 1):
        changes = query("SELECT * FROM virtualchain.changes WHERE block_id = %s", [block])
        for app in ("one", "two"):
            for table, key in KEYS.items():
                expected = differences(
                    shown(database_url, app, table, block - 1), shown(database_url, app, table, block)
                )
                rows = [row for row in changes if (row["app"], row["table"]) == (app, table)]
                told = {row["key"][key]: (row["action"], row["old"], row["new"]) for row in rows}
                assert len(told) == len(rows), "each row is told once"
                assert told == expected, (block, app, table)
                seen |= {action for action, _, _ in told.values()}
    assert seen == {"insert", "update", "delete"}
    everything = query("SELECT count(*) AS n FROM virtualchain.changes")[0]["n"]
    assert everything == query(
        "SELECT count(*) AS n FROM generate_series(102, 200) AS b JOIN virtualchain.changes USING (block_id)"
        .replace("AS b JOIN", "AS b (block_id) JOIN")
    )[0]["n"]  # fmt: skip
    assert "since_block" not in json.dumps(query("SELECT old, new FROM virtualchain.changes"))


def test_below_the_kept_history_nothing_is_told(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The first block that is told is the one above history_from."""
    story(fake_node, 3, 40)
    run(an_app(), history=10)
    [row] = query("SELECT history_from AS lowest FROM virtualchain.apps")
    assert row["lowest"] > 110
    told = {row["block_id"] for row in query("SELECT block_id FROM virtualchain.changes")}
    assert min(told) > row["lowest"]
    assert query("SELECT * FROM virtualchain.changes WHERE block_id = 105") == []


def test_changes_follow_the_live_build_and_forget_what_was_rolled_back(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """An app that is derived anew has another build: the view's name stays, and tells of that one."""
    story(fake_node, 3, 30)
    run(an_app(), history=5)
    fake_node.reorg(12)
    run(an_app(), history=5)
    assert query("SELECT build FROM virtualchain.apps") == [{"build": "2"}]
    assert query("SELECT * FROM virtualchain.changes WHERE block_id > %s", [fake_node.height - 13]) == []
    story(fake_node, 4, 4)
    run(an_app(), history=5)
    assert query("SELECT * FROM virtualchain.changes WHERE block_id > %s", [fake_node.height - 4])


def test_a_block_is_found_without_a_look_at_the_others(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The conditions on app, table and block reach the places where the changes are made of."""
    story(fake_node, 3, 40)
    run(an_app("one"), an_app("two"), history=None)
    plan = query(
        """EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM virtualchain.changes
        WHERE app = 'one' AND "table" = 'marks' AND block_id = 120"""
    )[0]["QUERY PLAN"]
    calls = [node for node in walk(plan[0]["Plan"]) if node["Node Type"] == "Function Scan"]
    assert [node["Actual Loops"] for node in calls] in ([1], [0])
    assert "120" in json.dumps([node.get("Index Cond") for node in walk(plan[0]["Plan"])])


def walk(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Give a plan's node and all below it."""
    return [node, *(item for child in node.get("Plans", ()) for item in walk(child))]
