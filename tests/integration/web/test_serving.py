"""Who the server reads as, which answers it keeps, and what every request passes first."""

import json
import re
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.serving import served
from virtualchain import __version__
from virtualchain.errors import StoreError, UsageError
from virtualchain.examples import notary
from virtualchain.store.database import connect_migrator
from virtualchain.store.roles import grant_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.web.gate import parse_rate
from virtualchain.web.login import reader_url
from virtualchain.web.serving import listen

Run = Callable[..., int]


class Answer(NamedTuple):
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes


def get(base: str, path: str, **headers: str) -> Answer:
    """Ask for a path; underscores in the names of headers stand for hyphens."""
    connection = HTTPConnection(urlsplit(base).netloc, timeout=20)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


class TestLogin:
    """The server's sessions can only read, whatever URL it was given."""

    def test_an_owner_becomes_a_reader(self, run: Run, database_url: str) -> None:
        """No statement leads back to the owner's rights, and a second start changes nothing."""
        run(notary.app)
        url = reader_url(database_url)
        assert conninfo_to_dict(url)["user"] != conninfo_to_dict(database_url)["user"]
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute("SELECT name FROM virtualchain.apps").fetchall() == [("notary",)]
            connection.execute("SELECT * FROM notary.documents")
            for forbidden in (
                "SELECT * FROM vc.blocks",
                "CREATE TABLE public.mine ()",
                "SELECT set_config('role', 'none', false), query_to_xml('TABLE vc.blocks', true, true, '')",
                "SELECT pg_read_file('PG_VERSION')",
            ):
                with pytest.raises(
                    (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
                ):
                    connection.execute(forbidden.encode())
        with psycopg.connect(database_url, autocommit=True) as connection:
            before = (
                connection.execute("SELECT oid, rolpassword FROM pg_authid ORDER BY oid").fetchall()
                if is_superuser(connection)
                else None
            )
            assert reader_url(database_url) == url
            if before is not None:
                assert (
                    connection.execute("SELECT oid, rolpassword FROM pg_authid ORDER BY oid").fetchall()
                    == before
                )

    def test_a_reader_is_taken_as_it_is(self, run: Run, database_url: str) -> None:
        """An operator who grants a reader decides what the server sees."""
        run(notary.app)
        connection = connect_migrator(database_url)
        with connection.transaction():
            name = f"reader_of_{connection.info.dbname}"
            reader = grant_reader(connection, name, [], login=True)
        connection.close()
        url = make_conninfo(database_url, user=name, password=reader.password)
        assert reader_url(url) == url

    def test_a_database_without_a_deployment(self, empty_database_url: str) -> None:
        """The message says what is missing."""
        with pytest.raises(StoreError, match="virtualchain migrate"):
            reader_url(empty_database_url)


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Return whether the session may read the roles' passwords."""
    return connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (
        True,
    )


class TestKeptAnswers:
    """An answer is kept until the deployment changes, and never longer."""

    def test_a_new_block_is_shown(self, run: Run, database_url: str, fake_node: FakeNode) -> None:
        """A client that has the answer is not sent it again; after a block, and after a rollback, it is."""
        tip = run(notary.app)
        with served(database_url) as base:
            first = get(base, "/")
            assert first.status == 200
            tag = first.headers["etag"]
            assert get(base, "/", If_None_Match=f'"other", {tag}').status == 304
            assert get(base, "/").body == first.body
            fake_node.mine()
            run(notary.app)
            time.sleep(0.15)
            second = get(base, "/", If_None_Match=tag)
            assert (second.status, second.headers["etag"] != tag) == (200, True)
            fake_node.reorg(2)
            run(notary.app)
            time.sleep(0.15)
            third = get(base, "/", If_None_Match=second.headers["etag"])
            assert third.status == 200
            assert fake_node.height == tip + 2

    def test_an_error_is_not_kept(self, run: Run, database_url: str) -> None:
        """What is not there now may be there after the next block."""
        run(notary.app)
        with served(database_url) as base:
            missing = get(base, "/apps/nothing")
            assert missing.status == 404
            assert "etag" not in missing.headers


class TestGate:
    """What may not pass is answered at once."""

    def test_a_name_that_leads_here(self, run: Run, database_url: str) -> None:
        """A page elsewhere cannot have a browser on this machine read for it under a name of its own."""
        run(notary.app)
        with served(database_url, hosts={"localhost", "127.0.0.1"}) as base:
            port = urlsplit(base).port
            assert get(base, "/", Host=f"localhost:{port}").status == 200
            for name in (
                "evil.example",
                f"evil.example:{port}",
                "",
                "localhost.evil.example",
                "[",
                "127.0.0.1@evil",
            ):
                assert get(base, "/", Host=name).status in {400, 421}, name

    def test_a_rate(self, run: Run, database_url: str) -> None:
        """Who asks too often learns when to come back; in the API from a problem that programs read."""
        run(notary.app)
        with served(database_url, rate=parse_rate("3/minute")) as base:
            statuses = [get(base, "/").status for _ in range(4)]
            refused = get(base, "/api/v1/apps")
            probes = [get(base, path).status for path in ("/health", "/ready", "/metrics")]
        assert statuses == [200, 200, 200, 429]
        assert probes == [200, 503, 404], "monitors are not limited"
        assert refused.headers["content-type"] == "application/problem+json"
        assert json.loads(refused.body)["status"] == 429
        assert "retry-after" in refused.headers

    def test_a_rate_that_is_none(self) -> None:
        """A mistake is noticed at the start."""
        with pytest.raises(UsageError, match="1000/second"):
            parse_rate("often")

    def test_policy(self, run: Run, database_url: str) -> None:
        """Every answer, also an error, forbids what a page does not need."""
        run(notary.app)
        with served(database_url) as base:
            for path in ("/", "/nothing", "/static/style.css", "/api/v1/nothing"):
                answer = get(base, path)
                assert answer.headers["content-security-policy"].startswith("default-src 'none'"), path
                assert answer.headers["x-content-type-options"] == "nosniff"

    def test_other_origins(self, run: Run, database_url: str) -> None:
        """Pages of other origins read nothing unless they are named, and then the API only."""
        run(notary.app)
        allowed = "access-control-allow-origin"
        with served(database_url) as base:
            assert allowed not in get(base, "/api/v1/apps", Origin="https://a.example").headers
        with served(database_url, origins={"https://a.example"}) as base:
            assert (
                get(base, "/api/v1/apps", Origin="https://a.example").headers[allowed] == "https://a.example"
            )
            assert allowed not in get(base, "/api/v1/apps", Origin="https://b.example").headers
            assert allowed not in get(base, "/", Origin="https://a.example").headers


class TestFaults:
    """The server outlives what it reads."""

    def test_the_database_goes_and_comes_back(
        self, run: Run, database_url: str, database_server: DatabaseServer
    ) -> None:
        """Sessions that were ended are replaced; meanwhile the answer is a status, not an exception."""
        run(notary.app)
        with served(database_url) as base:
            assert get(base, "/").status == 200
            with psycopg.connect(reader_url(database_url), autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND usename = current_user "
                    "AND pid <> pg_backend_pid()"
                )
            time.sleep(0.2)
            assert get(base, "/").status == 200

    def test_the_deployment_is_made_again(
        self, run: Run, database_url: str, database_server: DatabaseServer
    ) -> None:
        """A database of the same name, without the grants of the one before, is read after another login."""
        run(notary.app)
        with served(database_url) as base:
            before = get(base, "/")
            name = conninfo_to_dict(database_url)["dbname"]
            with psycopg.connect(database_server.url, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        sql.Identifier(str(name)), sql.Identifier(database_server.template())
                    )
                )
            deadline = time.monotonic() + 20
            while (after := get(base, "/")).status != 200 and time.monotonic() < deadline:
                time.sleep(0.3)
        assert (before.status, after.status) == (200, 200)
        assert b"notary" in before.body
        assert b"notary" not in after.body

    def test_where_the_database_is_stays_here(self, empty_database_url: str) -> None:
        """Visitors learn what is missing, and neither address nor user."""
        parameters = conninfo_to_dict(empty_database_url)
        with served(empty_database_url) as base:
            answers = [get(base, "/"), get(base, "/api/v1/apps")]
        away = make_conninfo(empty_database_url, port=1)
        with served(away) as base:
            answers += [get(base, "/"), get(base, "/api/v1/apps")]
        assert [answer.status for answer in answers] == [503] * 4
        for answer in answers:
            for secret in ("postgresql://", str(parameters["user"]), str(parameters["port"])):
                own = b"virtualchain|" + re.escape(__version__).encode()
                assert secret.encode() not in re.sub(own, b"", answer.body)


def test_answers_are_sent_at_once() -> None:
    """Asyncio turns Nagle's algorithm off for sockets whose protocol is named: else an answer takes 40 ms."""
    with listen("127.0.0.1", 0) as opened:
        assert opened.proto == socket.IPPROTO_TCP
