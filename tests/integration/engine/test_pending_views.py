"""The views of what is pending, whatever the tables and the reader's session are like."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from tests.integration.engine.test_pending import following
from tests.support import key_kinds
from tests.support.traffic import fund, make, send
from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import open_source
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.upgrade import upgrade
from virtualchain.testing.bitcoind import Bitcoind

OTHER = """SET bytea_output = escape; SET "TimeZone" = 'Asia/Tokyo'; SET "DateStyle" = 'SQL, DMY';
    SET "IntervalStyle" = 'sql_standard'; SET extra_float_digits = -15"""
COUNT = b"SELECT count(*) AS n, count(*) FILTER (WHERE block_id IS NULL) AS free FROM virtualchain.pending"


def contents(url: str, views: list[str], settings: str = "") -> dict[str, list[Any]]:
    """Return the rows of views of the same columns, in a session with other settings."""
    with psycopg.connect(url) as connection:
        connection.execute(settings.encode())
        return {
            view.removesuffix("_pending"): sorted(
                row[0] for row in connection.execute(f"SELECT v::text FROM {view} AS v".encode()).fetchall()
            )
            for view in views
        }


@pytest.mark.parametrize("settings", ["", OTHER], ids=["as they are", "others"])
def test_keys_of_every_kind(
    settings: str, bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """The rows as they would be are those that come to be, for readers with any settings."""
    node = bitcoind_factory()
    coins = fund(node, 24)
    dice = Random(5)
    views = [f"kinds.{name}" for name in [*key_kinds.KINDS, "pairs"]]
    pending = [f"{view}_pending" for view in views]
    with following(key_kinds.app(), database_url, node, k=0) as reader:
        for _ in range(3):
            for _ in range(8):
                send(node, make([coins.pop()], 1000, payload=b"kio%d" % dice.randrange(10**6)))
            reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 8, "free": 8}])
            foreseen = contents(database_url, pending, settings)
            order = reader.rows("SELECT txid FROM virtualchain.pending ORDER BY place")
            node.rpc("generateblock", "raw(51)", [row["txid"] for row in order])
            reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 0, "free": 0}])
            assert foreseen == contents(database_url, views, settings)
            assert contents(database_url, pending, settings) == contents(database_url, views, settings)


def put_in_place(url: str, app: App, node: Bitcoind, folder: Path) -> None:
    """Upgrade an app."""
    options = Options(state_folder=folder)
    assert upgrade(url, read_contract(app), lambda: open_source(node.url), options, Listener()) is not None


def test_a_table_with_the_name_of_a_pending_view(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, tmp_path: Path
) -> None:
    """It keeps its name, also if an upgrade brings it, whatever the columns are called."""
    node = bitcoind_factory()
    coins = fund(node, 2)

    def made(version: str, tables: list[str]) -> App:
        app = App(
            "xs",
            magic=b"xs",
            version=version,
            projections="".join(
                f'CREATE TABLE {name} (changed text PRIMARY KEY, "row" integer, its text, content text, app text);'
                for name in tables
            ),
        )

        def commit(op: dict[str, Any], state: Any) -> None:
            for name in tables:
                state.table(name).put({"changed": op["text"], "row": 1, "its": "i", "app": "a"})

        app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
        return app

    names = """SELECT relname FROM pg_class WHERE relnamespace = 'xs'::regnamespace ORDER BY 1"""
    with following(made("1", ["x", "y"]), database_url, node, k=0) as reader:
        send(node, make([coins.pop()], 1000, payload=b"xsohello"))
        reader.wait(lambda: len(reader.rows("SELECT FROM xs.x_pending")) == 1)
        assert [row["relname"] for row in reader.rows(names)] == ["x", "x_pending", "y", "y_pending"]
    put_in_place(database_url, made("2", ["x", "x_pending"]), node, tmp_path)
    with following(made("2", ["x", "x_pending"]), database_url, node, k=0) as reader:
        reader.wait(lambda: len(reader.rows("SELECT FROM xs.x_pending_pending")) == 1)
        assert reader.rows("SELECT FROM xs.x_pending") == []
        assert [row["relname"] for row in reader.rows(names)] == ["x", "x_pending", "x_pending_pending"]


def test_a_view_of_a_user_on_a_pending_view_survives_an_upgrade(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, tmp_path: Path
) -> None:
    """As one on the view of a projection does, as long as the columns remain."""
    node = bitcoind_factory()
    coins = fund(node, 1)

    def made(version: str, column: str) -> App:
        app = App(
            "xs",
            magic=b"xs",
            version=version,
            projections=f"CREATE TABLE x (text text PRIMARY KEY{column}); CREATE TABLE y (n text PRIMARY KEY{column})",
        )
        app.add(
            b"o",
            parse=lambda payload: {"text": payload.decode()},
            commit=lambda op, state: state.table("x").put({"text": op["text"] + version}),
        )
        return app

    with following(made("1", ""), database_url, node, k=0) as reader:
        send(node, make([coins.pop()], 1000, payload=b"xsohello"))
        reader.wait(lambda: len(reader.rows("SELECT FROM xs.x_pending")) == 1)
        reader.connection.execute("CREATE VIEW public.mine AS SELECT p.text FROM xs.x_pending AS p")
    put_in_place(database_url, made("2", ", more integer"), node, tmp_path)
    with following(made("2", ", more integer"), database_url, node, k=0) as reader:
        reader.wait(lambda: reader.rows("SELECT * FROM public.mine") == [{"text": "hello2"}])
        assert reader.rows("SELECT more FROM xs.x_pending") == [{"more": None}]
        reader.connection.execute("DROP VIEW public.mine")
    put_in_place(database_url, made("3", ", less text"), node, tmp_path)
    with following(made("3", ", less text"), database_url, node, k=0) as reader:
        reader.wait(lambda: reader.rows("SELECT * FROM xs.x_pending") == [{"text": "hello3", "less": None}])
