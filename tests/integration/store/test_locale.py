"""A deployment begins only in a database whose locale is C, on the oldest and the newest PostgreSQL."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import psycopg
import pytest
from psycopg import sql

from tests.integration.store.test_postgresql_versions import running
from tests.support.servers import value
from virtualchain import StateEngine
from virtualchain.errors import StoreError
from virtualchain.examples import notary
from virtualchain.store.database import connect_reader, other_locale
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.store.patience import Patience
from virtualchain.store.revision import current, head
from virtualchain.testing import FakeNode
from virtualchain.testing.database import installations

OTHERS = {
    "ICU": "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'",
    "ICU root": "LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C'",
    "builtin C.UTF-8": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
    "builtin PG_UNICODE_FAST": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST' LOCALE 'C'",
    "builtin C, other ctype": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    "libc C.UTF-8": "LOCALE_PROVIDER libc LOCALE 'C.UTF-8'",
    "libc, other ctype": "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    "libc, other collation": "LOCALE_PROVIDER libc LC_COLLATE 'C.UTF-8' LC_CTYPE 'C'",
    "libc en_US": "LOCALE_PROVIDER libc LOCALE 'en_US.UTF-8'",
}
SUITABLE = {
    "libc C": "LOCALE_PROVIDER libc LOCALE 'C'",
    "libc POSIX": "LOCALE_PROVIDER libc LOCALE 'POSIX'",
    "libc, both": "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'POSIX'",
    "builtin C": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C' LOCALE 'C'",
}
OLDER: tuple[type[psycopg.Error], ...] = (
    psycopg.errors.FeatureNotSupported,  # without ICU
    psycopg.errors.UndefinedObject,
    psycopg.errors.SyntaxError,  # no BUILTIN_LOCALE before 17
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.WrongObjectType,  # the machine does not have the locale
    psycopg.errors.InvalidObjectDefinition,
)
"""How a server refuses a locale that it does not have."""


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, EmbeddedServer]]:
    """Run a server of each version."""
    with ExitStack() as stack:
        yield {
            version: stack.enter_context(running(binaries)) for version, binaries in installations().items()
        }


Create = Callable[[EmbeddedServer, str], str | None]


@pytest.fixture
def create(servers: dict[int, EmbeddedServer]) -> Iterator[Create]:
    """Return a function that makes a database and returns its URL; None if the server cannot make it."""

    def make(server: EmbeddedServer, options: str) -> str | None:
        with closing(server._connect()) as superuser:
            superuser.execute("DROP DATABASE IF EXISTS tried WITH (FORCE)")
            try:
                statement = f"CREATE DATABASE tried OWNER virtualchain {options}"
                superuser.execute(statement.encode())
            except OLDER:
                return None
        return server.url_for("tried")

    yield make
    for server in servers.values():
        with closing(server._connect()) as superuser:
            superuser.execute("DROP DATABASE IF EXISTS tried WITH (FORCE)")


def test_another_locale_is_refused_at_the_first_start(
    servers: dict[int, EmbeddedServer], create: Create
) -> None:
    """Nothing is made, and the line in the message makes a database that is accepted."""
    tried = set()
    for version, server in servers.items():
        for case, options in OTHERS.items():
            url = create(server, f"{options} ENCODING 'UTF8' TEMPLATE template0")
            if url is None:
                continue
            tried.add(case)
            with pytest.raises(StoreError, match="has another locale than C") as refused:
                migrate(url)
            assert value(url, "SELECT to_regnamespace('vc')") is None, (version, case)
            line = re.search(r"CREATE DATABASE name (.*)", str(refused.value))
            assert line is not None
            good = create(server, line[1])
            assert good is not None
            assert migrate(good) == head()
    assert {"libc C.UTF-8", "libc, other ctype", "libc, other collation"} <= tried
    assert 15 not in servers or "ICU" in tried
    assert max(servers) < 17 or {"builtin C.UTF-8", "builtin C, other ctype"} <= tried


def test_every_spelling_of_c_is_accepted(servers: dict[int, EmbeddedServer], create: Create) -> None:
    """POSIX is another name of C, and the builtin C is the same."""
    tried = set()
    for version, server in servers.items():
        for case, options in SUITABLE.items():
            url = create(server, f"{options} ENCODING 'UTF8' TEMPLATE template0")
            if url is not None:
                tried.add((version, case))
                assert migrate(url) == head(), (version, case)
    assert len(tried) == sum(3 + (version >= 17) for version in servers)


def test_a_template_with_another_locale(servers: dict[int, EmbeddedServer], create: Create) -> None:
    """A database that takes its locale from template1 is refused; ours do not take it from there."""
    for server in servers.values():
        with closing(server._connect()) as superuser:
            superuser.execute("ALTER DATABASE template1 IS_TEMPLATE false")
            superuser.execute("DROP DATABASE template1")
            superuser.execute("CREATE DATABASE template1 TEMPLATE template0 LOCALE 'C.UTF-8'")
            superuser.execute("ALTER DATABASE template1 IS_TEMPLATE true")
            superuser.execute("DROP DATABASE virtualchain")
        url = create(server, "")
        assert url is not None
        with (
            FakeNode() as node,
            pytest.raises(StoreError, match="has another locale than C"),
            StateEngine(notary.app, database=url, source=node.url, confirmations=0),
        ):
            pass
        assert migrate(server.start()) == head()


def test_a_deployment_in_another_locale_keeps_running(
    servers: dict[int, EmbeddedServer], create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made before the rule: it is upgraded and used, and each start names its locale."""
    for server in servers.values():
        url = create(server, "LOCALE_PROVIDER libc LOCALE 'C.UTF-8' ENCODING 'UTF8' TEMPLATE template0")
        assert url is not None
        with monkeypatch.context() as before:
            before.setattr("virtualchain.store.migrate.require_c_locale", lambda *_: None)
            migrate(url)
        reports: list[str] = []
        assert migrate(url, Patience(reports.append)) == head()
        assert len(reports) == 1
        assert "has another locale than C (libc, LC_COLLATE C.UTF-8, LC_CTYPE C.UTF-8)" in reports[0]
        with FakeNode() as node:
            node.mine([node.send(b"stoone")])
            with StateEngine(notary.app, database=url, source=node.url, confirmations=0) as engine:
                assert engine.build() == node.height
        with closing(connect_reader(url)) as reader:
            assert current(reader) == head()
            assert other_locale(reader) == "libc, LC_COLLATE C.UTF-8, LC_CTYPE C.UTF-8"


VALUES = """
    SELECT lower('ÀÉ Z'), upper('àé z'), initcap('élan vital'),
        'é' ~ '^[[:alpha:]]$', 'É' ILIKE 'é', 'é' ~* 'É',
        (SELECT string_agg(v::text, ' ' ORDER BY v) FROM unnest(ARRAY['{"a": 1}', '{"B": 1}', '{"é": 1}',
            '{"Z": 2}', '{"_": 1}', '"é"', '"b"', '"A"']::jsonb[]) AS v),
        (SELECT string_agg(v, ' ' ORDER BY v) FROM unnest(ARRAY['é', 'b', 'Z', 'a', '€', '_', '10', '9']) v)
"""
"""What depends on the locale."""


def test_values_are_the_same_on_every_version(servers: dict[int, EmbeddedServer]) -> None:
    """With the locale C, letters beyond ASCII have no case, and text and jsonb compare in byte order."""
    results = set()
    for server in servers.values():
        with closing(connect_reader(server.url)) as reader:
            results.add(reader.execute(VALUES.encode()).fetchone())
    documents = '"A" "b" "é" {"B": 1} {"Z": 2} {"_": 1} {"a": 1} {"é": 1}'
    texts = "10 9 Z _ a b é €"
    assert results == {("ÀÉ z", "àé Z", "éLan Vital", False, False, False, documents, texts)}


def test_icu_collations_are_refused_in_projections(servers: dict[int, EmbeddedServer]) -> None:
    """A table in a suitable database may not use a collation of ICU, where the server has it."""
    from virtualchain.errors import InvalidApp
    from virtualchain.store.database import connect_writer
    from virtualchain.store.projections import install

    tried = 0
    for server in servers.values():
        migrate(server.url)
        with closing(connect_writer(server.url)) as writer:
            for ddl in (
                'CREATE TABLE t (a text COLLATE "en-x-icu" PRIMARY KEY)',
                'CREATE TABLE t (a text PRIMARY KEY); CREATE INDEX ON t (lower(a COLLATE "und-x-icu"))',
                """CREATE TABLE t (a text PRIMARY KEY CHECK (a COLLATE "de-x-icu" < 'x'))""",
                'CREATE DOMAIN d AS text COLLATE "en-US-x-icu"; CREATE TABLE t (a d COLLATE "C" PRIMARY KEY)',
            ):
                with suppress(psycopg.Rollback), writer.transaction():
                    with pytest.raises(InvalidApp) as refused:
                        install(writer, "keep", "keep", "1", ddl)
                    raise psycopg.Rollback
                if "does not exist" not in str(refused.value):
                    tried += 1
                    assert 'has another collation than C: add COLLATE "C"' in str(refused.value)
    assert 15 not in servers or tried >= 4


def test_the_test_kit_makes_suitable_databases(database_url: str, empty_database_url: str) -> None:
    """Whatever the test server's locale, databases of the fixtures have the locale C."""
    for url in (database_url, empty_database_url):
        with closing(connect_reader(url)) as reader:
            assert other_locale(reader) is None
            assert reader.execute(sql.SQL("SHOW server_encoding")).fetchone() == ("UTF8",)
