"""Tables and columns of any name: history, views, changes, watch, digests and files treat them alike."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.conftest import Rows
from tests.support.tables import deployment
from tests.support.unguarded import run_step
from virtualchain import App, BlockEvent, State, watch
from virtualchain.app.declarations import read_contract
from virtualchain.audit.verify import verify
from virtualchain.checkpoint.apply import apply
from virtualchain.checkpoint.create import create
from virtualchain.engine.options import Options
from virtualchain.engine.versions import build_beside, swap
from virtualchain.reading.views import snapshot
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer.exporting import export

Query = Callable[..., Rows]
Run = Callable[..., int]

INTERNAL = """
    r b row row_ rows old new key app apps block blocks block_id era era_ text texts content went came born
    action table projection query reader app_schema name names index columns column place is_new changes
    change value values excluded virtualchain vc public tg_op tg_relid tg_argv history births first last limit
    other fork raw tape a h t n s c kept
""".split()
RESERVED = """
    select from where user order group all primary current_user null true false default check end case using
    array analyze constraint foreign references unique window with returning lateral session_user only both
""".split()
ODD = (
    *('a"b', "a'b", "a%b", "%s", "%(x)s", "%%", "{x}", "{}", "{{", "$1", "a\\b", "a b", "A", "Key", "größe"),
    *("表", "1a", "a.b", "a;b", "a\nb", "--", "/*", ",", "(", ":x", "?", "x" * 54, '""', "'", " "),
)
NAMES = list(dict.fromkeys([*INTERNAL, *RESERVED, *ODD]))
_WIDTH = 8
TABLES = [NAMES[place : place + _WIDTH] for place in range(0, len(NAMES) - _WIDTH + 1, 5)]
"""The columns of each table: it is named by the first one, which is also its key together with the second."""


def quoted(name: str) -> str:
    """Write an identifier as SQL, as psycopg takes it with parameters."""
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


DDL = "\n".join(
    f"CREATE TABLE {quoted(key)} ({quoted(key)} integer, {quoted(second)} integer, "
    f"{''.join(f'{quoted(name)} numeric, ' for name in rest)}PRIMARY KEY ({quoted(key)}, {quoted(second)}));"
    for key, second, *rest in TABLES
).replace("%%", "%")


def statement(do: str, key: str, second: str, *rest: str) -> str:
    """Write what an op does to one of the tables."""
    values = ", ".join(f"{name} = %(value)s::numeric" for name in rest)
    return {
        "add": f"INSERT INTO {key} VALUES (1, 1{', 1.0' * len(rest)}), (7, 7{', NULL' * len(rest)})",
        "scale": f"UPDATE {key} SET {values.replace('%(value)s', '1.00')} WHERE {key}.{key} = 1",
        "key": f"UPDATE {key} SET {second} = 2 WHERE {key}.{key} = 1",
        "same": f"UPDATE {key} SET {rest[0]} = {rest[0]}",
        "remove": f"DELETE FROM {key} WHERE {key}.{key} = 7",
    }[do]


STEPS = ("add", "scale", "key", "same", "remove")


def an_app() -> App:
    """Make an app with these tables; an op does the same to each."""
    app = App("odd", magic=b"od", projections=DDL)

    def commit(op: dict[str, Any], state: State) -> None:
        for columns in TABLES:
            run_step(state, statement(op["do"], *map(quoted, columns)), {"value": 1})

    app.add(b"o", parse=lambda payload: {"do": payload.decode()}, commit=commit)
    return app


def test_every_name_works(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    database_server: DatabaseServer,
    tmp_path: Path,
) -> None:
    """Each table has the same changes, a fork is undone, and all ways out of the database take them along."""
    for step in STEPS:
        fake_node.mine([fake_node.send(b"odo" + step.encode())])
    first = fake_node.height - len(STEPS) + 1
    run(an_app())
    check_changes(query, first)
    nets = query("SELECT * FROM virtualchain.net_changes(%s, %s)", [first, first + 2])
    assert sorted(row["table"] for row in nets) == sorted(columns[0] for columns in TABLES for _ in range(2))
    assert all(
        len(row[side] or row[other]) == _WIDTH
        for row in nets
        for side, other in (("old", "new"), ("new", "old"))
    )
    fake_node.reorg(3)
    run(an_app())
    assert query("SELECT count(*) AS n FROM virtualchain.changes WHERE block_id > %s", [first + 3]) == [
        {"n": 0}
    ]
    fake_node.mine([fake_node.send(b"odokey")])
    fake_node.mine([fake_node.send(b"odoremove")])
    last = run(an_app())

    with watch(database_url, from_block=first) as events:
        seen = list(itertools.islice(events, last - first + 1))
    blocks = [event for event in seen if isinstance(event, BlockEvent)]
    assert [len(block.changes) / len(TABLES) for block in blocks] == [2, 1, 0, 0, 0, 0, 2, 1]
    options = Options(state_folder=tmp_path)
    assert verify(database_url, [read_contract(an_app())], deep=True, options=options).faults == []
    for form in ("csv", "parquet"):
        done = export(database_url, tmp_path / form, form=form, what=["all"])
        assert len(done.manifest.files) == len(TABLES) + 5
    with snapshot(database_url) as connection:
        create(connection, "odd", tmp_path / "file")
    other = database_server.clone()
    try:
        assert apply(other, tmp_path / "file", [read_contract(an_app())]) is not None
        assert rows(other) == rows(database_url)
    finally:
        database_server.drop(other)
    build_beside(database_url, read_contract(an_app()), "v2", options)
    swap(database_url, "odd", "v2")
    assert verify(database_url).faults == []


def rows(url: str) -> dict[str, list[str]]:
    """Read the rows of all tables, without their history."""
    dump = deployment(url)
    return {f"odd.{columns[0]}": dump[f"odd.{columns[0]}"] for columns in TABLES}


def check_changes(query: Query, first: int) -> None:
    """Compare the changes of each block and table with what its statement did."""
    expected = [["insert"] * 2, ["update"], ["delete", "insert"], [], ["delete"]]
    changes: dict[tuple[int, str], list[str]] = {
        (row["block_id"], row["table"]): row["actions"]
        for row in query(
            """SELECT block_id, "table", array_agg(action ORDER BY action) AS actions
            FROM virtualchain.changes GROUP BY 1, 2"""
        )
    }
    for place, actions in enumerate(expected):
        for columns in TABLES:
            assert changes.get((first + place, columns[0]), []) == actions, columns
    [change] = query(
        """SELECT key, old::text, new::text FROM virtualchain.changes
        WHERE "table" = 'r' AND block_id = %s""",
        [first + 1],
    )
    assert change["key"] == {"r": 1, "b": 1}
    assert '"old": 1.0,' in change["old"]
    assert '"old": 1.00,' in change["new"]
