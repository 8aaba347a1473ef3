"""What a block did: virtualchain.changes, compared with the tables before and after each block."""

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
    """Return the rows of a table as of a block, by key."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
        rows = connection.execute(f"SELECT to_jsonb(t) FROM {app}.{table} AS t".encode()).fetchall()
    return {row[KEYS[table]]: row for (row,) in rows}


def differences(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, tuple[str, Any, Any]]:
    """Return the rows that were inserted, deleted and updated, by key."""
    keys = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    action = {True: {True: "update", False: "delete"}, False: {True: "insert"}}
    return {key: (action[key in before][key in after], before.get(key), after.get(key)) for key in keys}


def test_each_block_has_its_changes(fake_node: FakeNode, run: Run, query: Query, database_url: str) -> None:
    """Changes are the difference of the tables, so what a block undid itself is not among them."""
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
                recorded = {row["key"][key]: (row["action"], row["old"], row["new"]) for row in rows}
                assert len(recorded) == len(rows), "each row has one change"
                assert recorded == expected, (block, app, table)
                seen |= {action for action, _, _ in recorded.values()}
    assert seen == {"insert", "update", "delete"}
    everything = query("SELECT count(*) AS n FROM virtualchain.changes")[0]["n"]
    assert everything == query(
        "SELECT count(*) AS n FROM generate_series(102, 200) AS b JOIN virtualchain.changes USING (block_id)"
        .replace("AS b JOIN", "AS b (block_id) JOIN")
    )[0]["n"]  # fmt: skip
    assert "since_block" not in json.dumps(query("SELECT old, new FROM virtualchain.changes"))


def test_below_the_kept_history_there_are_no_changes(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The first block with changes is above history_from."""
    story(fake_node, 3, 40)
    run(an_app(), history=10)
    [row] = query("SELECT history_from AS lowest FROM virtualchain.apps")
    assert row["lowest"] > 110
    recorded = {row["block_id"] for row in query("SELECT block_id FROM virtualchain.changes")}
    assert min(recorded) > row["lowest"]
    assert query("SELECT * FROM virtualchain.changes WHERE block_id = 105") == []


def test_changes_follow_the_live_build_and_forget_what_was_rolled_back(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """After an app was rebuilt, the view has the changes of its new build."""
    story(fake_node, 3, 30)
    run(an_app(), history=5)
    fake_node.reorg(12)
    run(an_app(), history=5)
    assert query("SELECT build FROM virtualchain.apps") == [{"build": "2"}]
    assert query("SELECT * FROM virtualchain.changes WHERE block_id > %s", [fake_node.height - 13]) == []
    story(fake_node, 4, 4)
    run(an_app(), history=5)
    assert query("SELECT * FROM virtualchain.changes WHERE block_id > %s", [fake_node.height - 4])


def test_a_block_is_read_without_the_others(fake_node: FakeNode, run: Run, query: Query) -> None:
    """The conditions on app, table and block are applied where changes are computed."""
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
    """Return a plan's node and all nodes below it."""
    return [node, *(item for child in node.get("Plans", ()) for item in walk(child))]
