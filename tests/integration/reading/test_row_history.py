"""The versions of a row: virtualchain.row_history, compared with the views as of each block."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.integration.reading.test_old_snapshots import refused
from tests.integration.reading.test_readers import grant
from tests.support.moving import an_app, story
from tests.support.row_versions import history_of, versions_by_key
from virtualchain import App, StateEngine, State
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

KEYS = {"owners": "name", "marks": "place"}
ODD = '''
    CREATE DOMAIN positive AS numeric NOT NULL CHECK (VALUE > 0);
    CREATE TYPE color AS ENUM ('red', 'green');
    CREATE TABLE "it's %s {a}" (
        "its" positive, "row" color, b bytea, "key" jsonb, at timestamptz, since positive,
        PRIMARY KEY ("its", "row", b, "key", at)
    );
'''


def odd() -> App:
    """Make an app whose projection has a key of many types, under names that queries use themselves."""
    app = App("odd", magic=b"od", projections=ODD)

    def commit(op: dict[str, Any], state: State) -> None:
        state.table("it's %s {a}").put({
            "its": "1.50", "row": "green", "b": b"\x00\xff", "key": {"a": 1}, "at": "2020-02-03T04:05:06Z",
            "since": op["n"],
        })  # fmt: skip

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
        with StateEngine(an_app("short"), database=url, source=node.url, confirmations=0, history=20) as engine:
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
    """After forks, rows that were born again have all their lives, and blocks that changed nothing count for none."""
    lives = 0
    for table, column in KEYS.items():
        expected = versions_by_key(connection, f"whole.{table}", [column], deployment[1])
        assert len(expected) > 5
        for (key,), versions in expected.items():
            found = history_of(connection, "whole", table, {column: key})
            assert found == versions, (table, key)
            ends = [until for _, until, _ in versions[1:]]
            lives += sum(end != began for end, (began, _, _) in zip(ends, versions, strict=False))
    assert lives > 3
