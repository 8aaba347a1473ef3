"""The versions of a row: virtualchain.row_history, compared with the views as of each block."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.integration.reading.test_readers import grant
from tests.support.moving import an_app, story
from tests.support.row_versions import Version, history_of, versions_by_key
from tests.support.unguarded import run_step
from virtualchain import App, State, StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

KEYS = {"owners": "name", "marks": "place"}
ODD = """
    CREATE DOMAIN positive AS numeric NOT NULL CHECK (VALUE > 0);
    CREATE TYPE color AS ENUM ('red', 'green');
    CREATE TABLE "it's %s {a}" (
        "its" positive, "row" color, b bytea, "key" jsonb, at timestamptz, since positive,
        PRIMARY KEY ("its", "row", b, "key", at)
    );
"""

ODD_ROW = """
    INSERT INTO "it's %%s {a}" AS row
    VALUES (1.50, 'green', '\\x00ff', '{"a": 1}', '2020-02-03T04:05:06Z', %(n)s)
    ON CONFLICT ("its", "row", b, "key", at) DO UPDATE SET since = EXCLUDED.since
"""


def odd() -> App:
    """Make an app whose projection has a key of many types, under names that queries use themselves."""
    app = App("odd", magic=b"od", projections=ODD)

    def commit(op: dict[str, Any], state: State) -> None:
        run_step(state, ODD_ROW, {"n": op["n"]})

    app.add(b"o", parse=lambda payload: {"n": int(payload)}, commit=commit)
    return app


@pytest.fixture(scope="module")
def deployment(database_server: DatabaseServer) -> Iterator[tuple[str, range]]:
    """Return a deployment with forks in its history, and its blocks.

    It has the app `whole`, which keeps all history, and `short` and `odd`.
    """
    url = database_server.clone()
    with FakeNode() as node:
        for seed in range(6):
            story(node, seed, 15)
            with StateEngine(
                an_app("whole"), odd(), database=url, source=node.url, confirmations=0, history=None
            ) as engine:
                engine.build()
            node.reorg(1 + seed)
        for n in (1, 2, 2, 3):
            node.mine([node.send(b"odo%d" % n)])
        with StateEngine(
            an_app("whole"), odd(), database=url, source=node.url, confirmations=0, history=None
        ) as engine:
            engine.build()
        with StateEngine(
            an_app("short"), database=url, source=node.url, confirmations=0, history=20
        ) as engine:
            engine.build()
        yield url, range(101, node.height + 1)
    database_server.drop(url)


@pytest.fixture
def connection(deployment: tuple[str, range]) -> Iterator[psycopg.Connection[Any]]:
    """Return a session in it."""
    with psycopg.connect(deployment[0], autocommit=True) as opened:
        yield opened


def test_every_row_has_the_versions_that_the_views_show(
    deployment: tuple[str, range], connection: psycopg.Connection[Any]
) -> None:
    """After forks, rows that were born again have all their lives; blocks that changed nothing have none."""
    lives = 0
    for table, column in KEYS.items():
        expected = versions_by_key(connection, f"whole.{table}", [column], deployment[1])
        assert len(expected) > 5
        for (key,), versions in expected.items():
            assert history_of(connection, "whole", table, {column: key}) == versions, (table, key)
            ends = [until for _, until, _ in versions[1:]]
            lives += sum(end != began for end, (began, _, _) in zip(ends, versions, strict=False))
    assert lives > 3


def test_pages(connection: psycopg.Connection[Any]) -> None:
    """With `below` and `most`, versions are returned page by page, and are the same ones."""
    rows = connection.execute("SELECT name FROM whole.owners").fetchall()
    names = [name for (name,) in rows]
    name = max(names, key=lambda each: len(history_of(connection, "whole", "owners", {"name": each})))
    whole = history_of(connection, "whole", "owners", {"name": name})
    assert len(whole) > 4
    for size in (1, 2, 3, len(whole)):
        pages: list[Version] = []
        while page := history_of(
            connection, "whole", "owners", {"name": name}, pages[-1][0] if pages else None, size
        ):
            assert len(page) <= size
            pages += page
        assert pages == whole
    assert history_of(connection, "whole", "owners", {"name": name}, None, 0) == []


def test_as_of_a_block(deployment: tuple[str, range], connection: psycopg.Connection[Any]) -> None:
    """As of a block, a row has the versions that it had then, and the last one is valid."""
    blocks = deployment[1]
    for block in blocks[::15]:
        expected = versions_by_key(connection, "whole.marks", ["place"], range(blocks[0], block + 1))
        with connection.transaction():
            connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(block)])
            for (place,), versions in expected.items():
                assert history_of(connection, "whole", "marks", {"place": place}) == versions
    with connection.transaction(force_rollback=True):
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(blocks[-1] + 1)])
        with pytest.raises(psycopg.Error, match=f"block {blocks[-1] + 1} is not here") as caught:
            history_of(connection, "whole", "marks", {"place": 1})
    assert caught.value.sqlstate == "VC004"


def test_a_pruned_beginning(deployment: tuple[str, range], connection: psycopg.Connection[Any]) -> None:
    """Versions that ended by history_from are gone; what is older than that shows in from_block."""
    [lowest] = connection.execute(
        "SELECT history_from FROM virtualchain.apps WHERE name = 'short'"
    ).fetchall()[0]
    assert lowest > deployment[1][0] + 20
    cut = 0
    for table, column in KEYS.items():
        for (key,), versions in versions_by_key(
            connection, f"whole.{table}", [column], deployment[1]
        ).items():
            kept = [each for each in versions if each[1] is None or each[1] > lowest]
            recorded = history_of(connection, "short", table, {column: key})
            if kept and kept[-1][0] <= lowest:  # it may count from a later block that wrote it as it was
                assert recorded[-1][0] in range(kept[-1][0], lowest + 1)
                recorded[-1] = (kept[-1][0], *recorded[-1][1:])
                cut += kept != versions
            assert recorded == kept
    assert cut > 0


def test_keys_are_compared_as_values(connection: psycopg.Connection[Any]) -> None:
    """However a key is written, it names its row; names of columns and tables may be anything."""
    [(key,)] = connection.execute("""
        SELECT key FROM virtualchain.changes WHERE app = 'odd' AND action = 'insert'
    """).fetchall()
    versions = history_of(connection, "odd", "it's %s {a}", key)
    assert [row["since"] for _, _, row in versions] == [3, 2, 1]
    assert versions[0][1] is None
    assert versions[1][0] == versions[0][0] - 2, "the block that wrote 2 again did not change the row"
    other = {**key, "its": "1.5000", "at": "2020-02-03 05:06:06+01:01", "unknown": None}
    assert other != key
    assert history_of(connection, "odd", "it's %s {a}", other) == versions
    assert history_of(connection, "odd", "it's %s {a}", {**key, "row": "red"}) == []
    assert history_of(connection, "whole", "marks", {}) == []
    with pytest.raises(psycopg.DataError, match='invalid input syntax for type integer: "one"'):
        history_of(connection, "whole", "marks", {"place": "one"})
    for app, table in (("nobody", "marks"), ("whole", "nothing"), ("whole__1", "marks")):
        assert history_of(connection, app, table, {"place": 1}) == []


def test_settings_of_the_session_do_not_matter(
    deployment: tuple[str, range], connection: psycopg.Connection[Any]
) -> None:
    """Bytes and times are written alike in every session."""
    [(key,)] = connection.execute("SELECT key FROM virtualchain.changes WHERE app = 'odd' LIMIT 1").fetchall()
    expected = history_of(connection, "odd", "it's %s {a}", key)
    with psycopg.connect(
        deployment[0], options="-c bytea_output=escape -c TimeZone=Asia/Tokyo -c DateStyle=German"
    ) as other:
        assert history_of(other, "odd", "it's %s {a}", key) == expected


def test_a_reader_sees_only_its_apps(
    deployment: tuple[str, range], connection: psycopg.Connection[Any]
) -> None:
    """A role that may not read an app's views gets no row of it; it sees the writer's report."""
    url = deployment[0]
    role = f"{urlsplit(url).path[1:]}:one"
    parts = urlsplit(url)
    made = grant(url, role, "short", login=True)
    mine = parts._replace(
        netloc=f"{quote(role, safe='')}:{made.password}@{parts.netloc.rpartition('@')[2]}"
    ).geturl()
    with psycopg.connect(mine, autocommit=True) as reader:
        key = {"place": 1}
        assert history_of(reader, "short", "marks", key) == history_of(connection, "short", "marks", key)
        assert history_of(connection, "whole", "marks", key) != []
        assert history_of(reader, "whole", "marks", key) == []
        reader.execute("SELECT * FROM virtualchain.writer")
        reader.execute("SELECT * FROM virtualchain.progress")
