"""The views of what is pending, whatever the tables and the reader's session are like."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from tests.integration.engine.test_pending import following
from tests.support import key_kinds
from tests.support.traffic import fund, make, mine, send
from virtualchain import App, Rejected
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import open_source
from virtualchain.engine import pending
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
    foreseen_views = [f"{view}_pending" for view in views]
    with following(key_kinds.app(), database_url, node, k=0) as reader:
        for _ in range(3):
            for _ in range(8):
                send(node, make([coins.pop()], 1000, payload=b"kio%d" % dice.randrange(10**6)))
            reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 8, "free": 8}])
            foreseen = contents(database_url, foreseen_views, settings)
            order = reader.rows("SELECT txid FROM virtualchain.pending ORDER BY place")
            node.rpc("generateblock", "raw(51)", [row["txid"] for row in order])
            reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 0, "free": 0}])
            assert foreseen == contents(database_url, views, settings)
            assert contents(database_url, foreseen_views, settings) == contents(database_url, views, settings)


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
                f'CREATE TABLE {name} (changed text PRIMARY KEY, "row" integer, its text, app text);'
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
        reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 1, "free": 1}])
        assert len(reader.rows("SELECT FROM xs.x_pending")) == 1
        assert [row["relname"] for row in reader.rows(names)] == ["x", "x_pending", "y", "y_pending"]
    put_in_place(database_url, made("2", ["x", "x_pending"]), node, tmp_path)
    with following(made("2", ["x", "x_pending"]), database_url, node, k=0) as reader:
        reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 1, "free": 1}])
        assert len(reader.rows("SELECT FROM xs.x_pending_pending")) == 1
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
            projections="".join(f"CREATE TABLE {name} (text text PRIMARY KEY{column});" for name in "xy"),
        )
        app.add(
            b"o",
            parse=lambda payload: {"text": payload.decode()},
            commit=lambda op, state: state.table("x").put({"text": op["text"] + version}),
        )
        return app

    with following(made("1", ""), database_url, node, k=0) as reader:
        send(node, make([coins.pop()], 1000, payload=b"xsohello"))
        reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 1, "free": 1}])
        reader.connection.execute("CREATE VIEW public.mine AS SELECT p.text FROM xs.x_pending AS p")
    put_in_place(database_url, made("2", ", more integer"), node, tmp_path)
    with following(made("2", ", more integer"), database_url, node, k=0) as reader:
        reader.wait(lambda: reader.rows("SELECT * FROM public.mine") == [{"text": "hello2"}])
        assert reader.rows("SELECT more FROM xs.x_pending") == [{"more": None}]
        reader.connection.execute("DROP VIEW public.mine")
    put_in_place(database_url, made("3", ", less text"), node, tmp_path)
    with following(made("3", ", less text"), database_url, node, k=0) as reader:
        reader.wait(lambda: reader.rows("SELECT * FROM xs.x_pending") == [{"text": "hello3", "less": None}])


def test_what_jsonb_cannot_hold_does_not_end_the_writer(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """A column of type json may hold what jsonb refuses, and reasons what no text holds."""
    node = bitcoind_factory()
    coins = fund(node, 5)
    made = App("js", magic=b"js", projections="CREATE TABLE docs (id text PRIMARY KEY, doc json)")

    def commit(op: dict[str, Any], state: Any) -> None:
        state.execute(f"INSERT INTO docs (id, doc) VALUES (%s, '{op['text']}')", [op["text"]])

    def check(op: dict[str, Any], state: Any) -> Any:
        return Rejected(f"a\0b \ud800 {op['text']}") if op["text"].startswith("no") else True

    made.add(b"o", parse=lambda payload: {"text": payload.decode()}, check=check, commit=commit)
    count = COUNT.decode()
    with following(made, database_url, node, k=0) as reader:
        for payload in (b"jsono \0", b"jsono", b"jso\xff", b'jso{"a":1}'):
            send(node, make([coins.pop()], 1000, payload=payload))
        reader.wait(lambda: reader.rows(count) == [{"n": 4, "free": 4}])
        assert reader.rows("SELECT doc FROM js.docs_pending") == [{"doc": {"a": 1}}]
        send(node, make([coins.pop()], 1000, payload=b'jso{"a":"\\u0000"}'))
        reader.wait(lambda: reader.rows(count) == [{"n": 5, "free": 5}])
        rows = reader.rows("SELECT DISTINCT verdict, reason FROM virtualchain.pending")
        assert [row["verdict"] for row in rows] == ["unjudged"]
        assert "cannot be shown: 22P05" in rows[0]["reason"]
        mine(node)
        reader.wait(lambda: reader.rows(count) == [{"n": 0, "free": 0}])
        assert len(reader.rows("SELECT FROM js.docs_pending")) == 2


def test_many_and_large_inputs(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written piece by piece, and those that would fill several blocks are not judged."""
    node = bitcoind_factory()
    sent = [make([coin], 1000, payload=b"bgo%d" % n) for n, coin in enumerate(fund(node, 9))]
    monkeypatch.setattr(pending, "_AT_ONCE", 1_000)
    monkeypatch.setattr(pending, "MOST_BYTES", 3 * len(sent[0].raw))
    made = App("big", magic=b"bg", projections="CREATE TABLE big (n integer PRIMARY KEY, text text)")
    made.add(
        b"o",
        parse=lambda payload: {"text": payload.decode()},
        commit=lambda op, state: state.table("big").put({"n": int(op["text"][:1]), "text": op["text"]}),
    )
    with following(made, database_url, node, k=0) as reader:
        for made_one in sent:
            send(node, made_one)
        reader.wait(lambda: reader.rows(COUNT.decode()) == [{"n": 9, "free": 9}])
        verdicts = reader.rows("SELECT verdict FROM virtualchain.pending ORDER BY place")
        assert [row["verdict"] for row in verdicts] == 3 * ["accepted"] + 6 * ["unjudged"]
        assert len(reader.rows("SELECT FROM big.big_pending")) == 3
