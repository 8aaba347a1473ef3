"""What else is done with a deployment that shows pending inputs: readers, other servers, other apps."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from tests.integration.conftest import Query
from tests.integration.engine.test_opaque_state import Forgetful, Ledger
from tests.integration.engine.test_pending import Reader, following, tokens
from tests.integration.engine.test_pending_views import put_in_place
from tests.support.traffic import fund, make, mine, send
from virtualchain import App, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Options
from virtualchain.engine.versions import build_beside, drop, remove, swap
from virtualchain.store.database import connect_migrator
from virtualchain.store.roles import grant_reader
from virtualchain.testing.bitcoind import Bitcoind
from virtualchain.testing.database import DatabaseServer, other_version

ALL = "SELECT app, verdict, changes IS NULL AS is_hidden FROM virtualchain.pending ORDER BY app"


def session_of(url: str, role: str, *apps: str) -> psycopg.Connection:
    """Open a session of a reader of some apps."""
    with connect_migrator(url) as connection:
        password = grant_reader(connection, role, apps or None, login=True).password
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    own = parts._replace(netloc=f"{quote(role, safe='')}:{password}@{place}").geturl()
    return psycopg.connect(own, autocommit=True)


def other(name: str) -> App:
    """Make an app that takes the same inputs as `tokens`, into a table of its own."""
    app = App(name, magic=b"le", projections="CREATE TABLE o (text text PRIMARY KEY)")
    app.add(
        b"a",
        parse=lambda payload: {"text": payload.decode()},
        commit=lambda op, state: state.table("o").put({"text": op["text"]}),
    )
    return app


def test_readers_see_the_changes_of_their_apps_alone(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str
) -> None:
    """Also one that was there before the views, of two apps in one deployment; and an app can be removed."""
    node = bitcoind_factory()
    coins = fund(node, 2)
    role = urlsplit(database_url).path[1:]
    apps = tokens(), other("other")
    settings: dict[str, Any] = {"database": database_url, "source": node.url, "confirmations": 1}
    with StateEngine(*apps, **settings) as engine:
        engine.build()
    early = session_of(database_url, f"{role}:early", "letters")
    with following(apps, database_url, node) as reader:
        send(node, make([coins.pop()], 1000, payload=b"leax"))
        reader.wait(lambda: len(reader.rows(ALL)) == 2)
        late = session_of(database_url, f"{role}:late", "other")
        everything = session_of(database_url, f"{role}:all")
        for session, hidden in ((early, (False, True)), (late, (True, False)), (everything, (False, False))):
            shown = session.execute(ALL.encode()).fetchall()
            assert shown == [("letters", "accepted", hidden[0]), ("other", "accepted", hidden[1])]
            for view, is_hidden in zip(("letters.letters", "other.o"), hidden, strict=True):
                query = f"SELECT count(*) FROM {view}_pending".encode()
                if is_hidden:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        session.execute(query)
                else:
                    assert session.execute(query).fetchone() == (1,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("SELECT FROM vc.pending_rows")
            session.close()
    remove(database_url, "letters")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT schema, name FROM vc.pending_views").fetchall()
        assert rows == [("other", "o_pending")]
    with following([apps[1]], database_url, node) as reader:
        reader.wait(lambda: [row["app"] for row in reader.rows(ALL)] == ["other"])


def test_another_server(
    bitcoind_factory: Callable[..., Bitcoind], database_server: DatabaseServer, database_url: str
) -> None:
    """The oldest PostgreSQL shows the same as the newest."""
    node = bitcoind_factory()
    coins = fund(node, 4)
    with other_version(database_server) as server:
        if server is None:
            pytest.skip("only one version of PostgreSQL is installed")
        with following(tokens(), database_url, node) as one, following(tokens(), server.clone(), node) as two:
            for payload in (b"leax", b"leax", b"lea7", b"lea!"):
                send(node, make([coins.pop()], 1000, payload=payload))

            def shown(reader: Reader) -> Any:
                columns = "txid, place, verdict, step, changes, fee_rate"
                return reader.rows(f"SELECT {columns} FROM virtualchain.pending"), reader.letters()

            count = "SELECT FROM virtualchain.pending"
            two.wait(lambda: len(two.rows(count)) == 4)
            one.wait(lambda: len(one.rows(count)) == 4 and shown(one) == shown(two))
            mine(node)
            two.wait(lambda: two.rows("SELECT FROM virtualchain.pending WHERE block_id IS NULL") == [])
            one.wait(lambda: shown(one) == shown(two))
            assert len(shown(one)[0]) == 4


def test_an_app_with_a_state_of_its_own(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, tmp_path: Path
) -> None:
    """Its inputs are judged on what it saved, and its own state does not change."""
    node = bitcoind_factory()
    coins = fund(node, 8)
    app = Ledger()
    verdicts = "SELECT verdict, reason FROM virtualchain.pending ORDER BY place"
    with following([app], database_url, node, k=0, state_folder=tmp_path) as reader:
        for _ in range(4):
            send(node, make([coins.pop()], 1000, payload=b"lg+a"))
        reader.wait(lambda: len(reader.rows(verdicts)) == 4)
        rows = reader.rows(verdicts)
        assert [row["verdict"] for row in rows] == [*(3 * ["accepted"]), "refused"]
        mine(node)
        reader.wait(lambda: reader.rows(verdicts) == [])
        send(node, make([coins.pop()], 1000, payload=b"lg+a"))
        send(node, make([coins.pop()], 900, payload=b"lg+b"))
        reader.wait(lambda: [row["verdict"] for row in reader.rows(verdicts)] == ["refused", "accepted"])
        mine(node)
        reader.wait(lambda: reader.rows(verdicts) == [])
    with psycopg.connect(database_url) as connection:
        ops = connection.execute("SELECT fields FROM virtualchain.ops ORDER BY block_id, vtxindex").fetchall()
    assert [(fields["text"], fields["count"]) for (fields,) in ops] == [
        ("a", 1),
        ("a", 2),
        ("a", 3),
        ("b", 1),
    ]


def test_an_app_that_cannot_load_its_state(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, tmp_path: Path
) -> None:
    """Nobody can judge on top of it, which is said; it and the others go on."""
    node = bitcoind_factory()
    coins = fund(node, 3)
    verdicts = "SELECT app, verdict, reason FROM virtualchain.pending ORDER BY place"
    with following([Forgetful(), tokens()], database_url, node, k=0, state_folder=tmp_path) as reader:
        send(node, make([coins.pop()], 1000, payload=b"leax"))
        send(node, make([coins.pop()], 1000, payload=b"lg+a"))
        reader.wait(lambda: len(reader.rows(verdicts)) == 2)
        rows = {row["app"]: row for row in reader.rows(verdicts)}
        assert (rows["ledger"]["verdict"], rows["letters"]["verdict"]) == ("unjudged", "accepted")
        assert "cannot load" in rows["ledger"]["reason"]
        mine(node)
        reader.wait(lambda: reader.rows(verdicts) == [])
        send(node, make([coins.pop()], 1000, payload=b"lg+a"))
        reader.wait(lambda: len(reader.rows(verdicts)) == 1)
    with psycopg.connect(database_url) as connection:
        counted = connection.execute("SELECT fields FROM virtualchain.ops WHERE app = 'ledger'").fetchall()
    assert [fields["count"] for (fields,) in counted] == [1]


def test_whoever_writes_next_removes_what_a_killed_writer_noted(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, query: Query
) -> None:
    """Also a rollback, say, which never looks at unconfirmed transactions."""
    node = bitcoind_factory()
    coins = fund(node, 1)
    with following(tokens(), database_url, node) as reader:
        send(node, make([coins.pop()], 1000, payload=b"leax"))
        reader.wait(lambda: len(reader.rows(ALL)) == 1)
        with psycopg.connect(database_url) as connection:  # as if it were killed now
            for name in ("pending", "pending_rows", "pending_state"):
                connection.execute(f"CREATE TABLE kept_{name} AS SELECT * FROM vc.{name}".encode())
    with psycopg.connect(database_url) as connection:
        for name in ("pending", "pending_rows", "pending_state"):
            connection.execute(f"INSERT INTO vc.{name} SELECT * FROM kept_{name}".encode())
    assert len(query(ALL)) == 1
    with closing(Deployment(database_url, [], None, Options())):
        assert query(ALL) == []


def test_a_writer_survives_the_swap_and_drop_of_its_build(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, tmp_path: Path
) -> None:
    """The app is left alone, and what is pending for the others is shown."""
    node = bitcoind_factory()
    coins = fund(node, 6)
    apps = [tokens(), other("other")]
    with following(apps, database_url, node, state_folder=tmp_path) as reader:
        send(node, make([coins.pop()], 1000, payload=b"leax"))
        reader.wait(lambda: len(reader.rows(ALL)) == 2)
        build_beside(database_url, read_contract(tokens(by_statements=True)), "v2")
        swap(database_url, "letters", "v2")
        send(node, make([coins.pop()], 1000, payload=b"leay"))
        reader.wait(lambda: [row["app"] for row in reader.rows(ALL)].count("other") == 2)
        drop(database_url, "letters", "1")
        send(node, make([coins.pop()], 1000, payload=b"leaz"))
        reader.wait(lambda: [row["app"] for row in reader.rows(ALL)].count("other") == 3)
        mine(node, 2)
        send(node, make([coins.pop()], 1000, payload=b"le" + b"a0"))
        reader.wait(lambda: [row["app"] for row in reader.rows(ALL)] == ["other"])
        assert len(reader.rows("SELECT FROM other.o_pending")) == 4


def test_a_halted_app_has_nothing_pending(
    bitcoind_factory: Callable[..., Bitcoind], database_url: str, tmp_path: Path
) -> None:
    """The others have; and when it may continue, its inputs are shown again."""
    node = bitcoind_factory()
    coins = fund(node, 5)
    apps = [tokens(), other("other")]
    with following(apps, database_url, node, state_folder=tmp_path) as reader:
        send(node, make([coins.pop()], 1000, payload=b"lea!"))
        reader.wait(lambda: [row["verdict"] for row in reader.rows(ALL)] == ["halts", "accepted"])
        mine(node, 2)
        halted = "SELECT FROM virtualchain.apps WHERE status = 'halted'"
        reader.wait(lambda: len(reader.rows(halted)) == 1 and reader.rows(ALL) == [])
        send(node, make([coins.pop()], 1000, payload=b"leax"))
        reader.wait(lambda: [row["app"] for row in reader.rows(ALL)] == ["other"])
        assert reader.rows("SELECT FROM letters.letters_pending") == []
    fixed = other("letters")
    put_in_place(database_url, fixed, node, tmp_path)
    with following([fixed, apps[1]], database_url, node, state_folder=tmp_path) as reader:
        reader.wait(lambda: [row["app"] for row in reader.rows(ALL)] == ["letters", "other"])
        assert reader.rows("SELECT * FROM letters.o_pending ORDER BY 1") == [{"text": "!"}, {"text": "x"}]
