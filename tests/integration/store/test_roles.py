"""The role of an app: its reducers reach their own tables and nothing else in the database."""

from collections.abc import Callable, Iterator
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.integration.conftest import Rows
from tests.support.row_versions import rows_at
from tests.support.servers import value
from tests.support.unguarded import unguarded
from virtualchain import App, State
from virtualchain.audit.verify import verify
from virtualchain.errors import StoreError
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Query = Callable[..., Rows]
Run = Callable[..., int]
Ask = Callable[[str, State], Any]


def an_app(name: str = "guarded", ask: Ask | None = None) -> App:
    """Make an app with a table; `ask` is what its commit does."""
    ddl = "CREATE TABLE t (id integer PRIMARY KEY, who text NOT NULL)"
    app = App(name, magic=b"st", projections=ddl)

    def commit(op: dict[str, Any], state: State) -> None:
        statement = "INSERT INTO t VALUES (%s, current_user) ON CONFLICT DO NOTHING"
        unguarded(state).execute(statement, [state.block_id])
        if ask is not None:
            ask(op["text"], state)

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    return app


def name_of(url: str) -> str:
    """Return the name of the database in a URL."""
    return urlsplit(url).path[1:]


def admin(server: DatabaseServer, statement: LiteralString, **names: str) -> None:
    """Run a statement as the engine's role, outside any deployment."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        quoted = {key: sql.Identifier(name) for key, name in names.items()}
        connection.execute(sql.SQL(statement).format(**quoted))


@pytest.fixture
def weak_url(database_server: DatabaseServer) -> Iterator[str]:
    """Make an empty database whose owner may not create roles; the URL is the owner's."""
    admin(database_server, "CREATE ROLE weak LOGIN PASSWORD 'weak'; GRANT weak TO CURRENT_USER")
    admin(database_server, "CREATE DATABASE weak OWNER weak")
    place = urlsplit(database_server.url).netloc.rpartition("@")[2]
    url = urlsplit(database_server.url)._replace(netloc=f"weak:weak@{place}", path="/weak").geturl()
    yield url
    admin(database_server, "DROP DATABASE weak WITH (FORCE)")
    admin(database_server, "ALTER ROLE weak CREATEROLE")
    with psycopg.connect(urlsplit(url)._replace(path=urlsplit(database_server.url).path).geturl()) as weak:
        weak.execute('DROP ROLE IF EXISTS "weak:guarded"')
    admin(database_server, "DROP ROLE weak")


def test_reducers_run_under_the_apps_role(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """The session has the app's role during callbacks, even in careful judging, and its own afterwards."""
    fake_node.mine([fake_node.send(b"sto1")])
    fake_node.mine([fake_node.send(b"sto2"), fake_node.send(b"sto99999999999")])
    run(an_app(ask=lambda text, state: state.query("SELECT %s::integer", [int(text)])))
    role = f"{name_of(database_url)}:guarded"
    assert query("SELECT who FROM guarded.t") == [{"who": role}, {"who": role}]
    assert query("SELECT role FROM virtualchain.apps") == [{"role": role}]
    owners = query("SELECT DISTINCT relowner::regrole::text AS owner FROM pg_class WHERE relname ~ '^t(_|$)'")
    assert owners == [{"owner": "virtualchain"}]
    assert query("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role]) == [{"rolcanlogin": False}]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM vc.ops",
        "SELECT FROM vc.snapshots",
        "SELECT FROM virtualchain.blocks",
        "SELECT FROM other__1.t",
        "SELECT FROM other.t",
        "SELECT FROM guarded__1.t_history",
        "INSERT INTO t_births VALUES (0, 0)",
        "DELETE FROM t_history",
        "CREATE TABLE mine (a integer)",
        "ALTER TABLE t DISABLE TRIGGER ALL",
        "TRUNCATE t",
    ],
)
def test_all_else_is_out_of_reach(fake_node: FakeNode, run: Run, query: Query, statement: Any) -> None:
    """Access to anything but the app's own projections fails: the app halts, and the other one continues."""
    fake_node.mine([fake_node.send(b"sto1")])
    run(an_app("other"), an_app(ask=lambda text, state: unguarded(state).execute(statement)))
    halted, running = query("SELECT status, error ->> 'error' AS error FROM virtualchain.apps ORDER BY name")
    assert (halted["status"], running["status"]) == ("halted", "running")
    assert halted["error"].startswith("InsufficientPrivilege: ")
    assert len(query("SELECT FROM other.t")) == 1


def test_without_createrole_the_engine_still_works(
    fake_node: FakeNode, run: Run, weak_url: str, database_server: DatabaseServer
) -> None:
    """Reducers run as the engine, as the app's row shows, until the privilege lets them have a role."""
    seen: list[Any] = []
    app = an_app(ask=lambda text, state: seen.append(state.is_fresh(state.consensus_hash(101) or "")))
    migrate(weak_url)
    fake_node.mine([fake_node.send(b"sto1")])
    run(app, database=weak_url)
    assert value(weak_url, "SELECT string_agg(who, ',') FROM guarded.t") == "weak"
    assert value(weak_url, "SELECT role FROM virtualchain.apps") is None
    admin(database_server, "ALTER ROLE weak CREATEROLE")
    fake_node.mine([fake_node.send(b"sto1")])
    run(app, database=weak_url)
    assert value(weak_url, "SELECT who FROM guarded.t ORDER BY id DESC LIMIT 1") == "weak:guarded"
    assert value(weak_url, "SELECT role FROM virtualchain.apps") == "weak:guarded"
    assert len(seen) == 2


def test_leftover_role_is_used_again(
    fake_node: FakeNode, run: Run, weak_url: str, database_server: DatabaseServer
) -> None:
    """A database recreated under the same name reuses the existing role and grants it the new tables."""
    admin(database_server, "ALTER ROLE weak CREATEROLE CREATEDB")
    fake_node.mine([fake_node.send(b"sto1")])
    for _ in range(2):
        migrate(weak_url)
        run(an_app(), database=weak_url)
        assert value(weak_url, "SELECT who FROM guarded.t") == "weak:guarded"
        admin(database_server, "DROP DATABASE weak WITH (FORCE)")
        admin(database_server, "CREATE DATABASE weak OWNER weak")


def test_foreign_role_is_refused(
    fake_node: FakeNode, run: Run, database_url: str, database_server: DatabaseServer
) -> None:
    """Another role of that name, which may log in, would gain access to the app's tables."""
    admin(database_server, "CREATE ROLE {role} LOGIN", role=f"{name_of(database_url)}:guarded")
    with pytest.raises(StoreError, match=r":guarded is not an app's: .* Rename or drop it"):
        run(an_app())


@pytest.mark.parametrize("name", ["n" * 63, "é" * 31, "pg_chain"])
def test_long_and_reserved_names_are_hashed(
    fake_node: FakeNode, run: Run, database_url: str, database_server: DatabaseServer, name: str
) -> None:
    """Role names have at most 63 bytes and cannot begin with pg_; a renamed database gets a new role."""
    fake_node.mine([fake_node.send(b"sto1")])
    run(an_app())
    admin(database_server, "ALTER DATABASE {old} RENAME TO {new}", old=name_of(database_url), new=name)
    url = urlsplit(database_url)._replace(path=f"/{name}").geturl()
    fake_node.mine([fake_node.send(b"sto1")])
    run(an_app(), database=url)
    role = str(value(url, "SELECT who FROM guarded.t ORDER BY id DESC LIMIT 1"))
    assert len(role) == 16 + len(":guarded")
    assert value(url, "SELECT role FROM virtualchain.apps") == role
    admin(database_server, "ALTER DATABASE {old} RENAME TO {new}", old=name, new=name_of(database_url))
    database_server.drop(database_url)
    admin(database_server, "DROP ROLE {role}", role=role)


def test_the_first_statement_enters_the_role(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """However late it comes, also in a call that is undone; what the engine writes has its history.

    A block without statements never enters the role, and the next one enters it only when it takes that.
    """
    seen: list[tuple[str, str]] = []
    app = App("late", magic=b"st", projections="CREATE TABLE t (id integer PRIMARY KEY, n integer NOT NULL)")

    def commit(op: dict[str, Any], state: State) -> bool | None:
        number, kind = len(op["text"]), op["text"][0]
        row = state.table("t").get(number)
        state.table("t").put({"id": number, "n": 1 if row is None else row["n"] + 1})
        if kind in "us":
            state.execute("UPDATE t SET n = n + 10 WHERE id = %s", [number])
            for setting in ("role", "search_path"):
                [(now,)] = state._connection.execute(f"SHOW {setting}".encode()).fetchall()
                seen.append((setting, now))
        state.table("t").add(number, n=100)
        return False if kind == "u" else None

    app.add(b"o", parse=lambda payload: {"text": payload.decode()}, commit=commit)
    expected, totals = [], {1: 0, 2: 0}
    for texts in ("r", "r s", "r u s r", "rr u ss", "u r", "r r", "s", "rr"):
        fake_node.mine([fake_node.send(b"sto" + text.encode()) for text in texts.split()])
        for text in texts.split():
            totals[len(text)] += {"r": 101, "s": 111, "u": 0}[text[0]]
        expected.append({number: n for number, n in totals.items() if n})
    run(app)
    assert len(set(seen)) == 2
    assert "none" not in dict(seen)["role"]
    with psycopg.connect(database_url) as connection:
        past = [rows_at(connection, "late.t", block_id) for block_id in range(102, 110)]
    assert [{row["id"]: row["n"] for row in rows} for rows in past] == expected
    assert verify(database_url).faults == []
