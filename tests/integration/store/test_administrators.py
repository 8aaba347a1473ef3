"""Whatever an administrator sets, a deployment has the same hashes, or a line says how to mend it."""

import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.support import representative
from tests.support.tables import deployment
from virtualchain import StateEngine, watch
from virtualchain.audit.verify import verify
from virtualchain.errors import StoreError
from virtualchain.reading import views
from virtualchain.store.database import (
    connect_builder,
    connect_deliverer,
    connect_foreseer,
    connect_migrator,
    connect_reader,
    connect_writer,
)
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.store.sql import queries
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer, installations

PAGE = Path(__file__).parents[3] / "docs" / "database.md"
WRITING: dict[str, Callable[[str], psycopg.Connection]] = {
    "writer": connect_writer,
    "builder": lambda url: connect_builder(url, "an app:1"),
    "preview": connect_foreseer,
    "webhooks": connect_deliverer,
    "migration": connect_migrator,
}
TEXTS = {
    "application_name": "x",
    "client_encoding": "LATIN1",
    "DateStyle": "SQL, DMY",
    "default_text_search_config": "pg_catalog.english",
    "lc_messages": "de_DE.UTF-8",
    "lc_monetary": "de_DE.UTF-8",
    "lc_numeric": "de_DE.UTF-8",
    "lc_time": "de_DE.UTF-8",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "search_path": "theirs, pg_temp, pg_catalog",
    "TimeZone": "Asia/Tokyo",
    "timezone_abbreviations": "Australia",
    "wal_consistency_checking": "all",
}
"""Hostile values of settings that are texts."""
SHORT = "1000"
"""Milliseconds of each timeout: less than a migration may take, and more than it takes to pin it."""
LARGE = 100_000
"""The largest number: much more memory than that would have to be cleared for each statement."""
UNTRIED = {
    "debug_print_parse": "fills the server's log",
    "debug_print_plan": "fills the server's log",
    "debug_print_raw_parse": "fills the server's log",
    "debug_print_rewritten": "fills the server's log",
    "debug_discard_caches": "makes everything a hundred times as slow",
    "ignore_checksum_failure": "is refused",
    "jit_dump_bitcode": "fills the server's folder",
    "post_auth_delay": "is a pause before each session",
    "session_replication_role": "is refused",
    "zero_damaged_pages": "is refused",
}
SETTABLE = """SELECT name, vartype, min_val, max_val, enumvals, setting FROM pg_settings
    WHERE context IN ('user', 'superuser') ORDER BY name"""
SET_HERE = """SELECT cardinality(setconfig) FROM pg_db_role_setting WHERE setrole <> 0
    AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class Server:
    """A server, and what only its superuser may do."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.databases = DatabaseServer(server.url, prefix="administered")
        self.configuration = server.folder / "data" / "postgresql.conf"
        self.host = {"port": server._port(), "password": server._password("postgres")}

    @contextmanager
    def superuser(self, url: str | None = None) -> Iterator[psycopg.Connection]:
        """Connect to a database as superuser."""
        name = "postgres" if url is None else urlsplit(url).path[1:]
        with closing(self._server.connect_superuser(name)) as connection:
            yield connection

    def superuser_url(self, url: str) -> str:
        """Return the URL of a database for the superuser."""
        login = f"postgres:{self.host['password']}@127.0.0.1:{self.host['port']}"
        return urlsplit(url)._replace(netloc=login).geturl()

    def set(self, url: str, settings: Mapping[str, str]) -> None:
        """Set defaults of our role in a database, as far as the server takes them."""
        with self.superuser() as connection:
            for name, text in settings.items():
                value = sql.SQL(text) if name == "search_path" else sql.Literal(text)
                statement = sql.SQL("ALTER ROLE virtualchain IN DATABASE {} SET {} TO {}").format(
                    sql.Identifier(urlsplit(url).path[1:]),
                    sql.SQL(".").join(map(sql.Identifier, name.split("."))),
                    value,
                )
                with suppress(psycopg.Error):  # a locale that this machine does not have, for example
                    connection.execute(statement)

    def count(self, url: str) -> int:
        """Count the settings that our role has in a database."""
        with self.superuser(url) as connection:
            row = connection.execute(SET_HERE).fetchone()
        assert row
        return int(row[0])

    def extremes(self, *, high: bool) -> dict[str, str]:
        """Return an unusual value for each setting that a role can have."""
        with self.superuser() as connection:
            connection.execute("LOAD 'plpgsql'")
            rows = connection.execute(SETTABLE).fetchall()
        extremes = {name: _extreme(name, *row, high=high) for name, *row in rows if name not in UNTRIED}
        return {name: value for name, value in extremes.items() if value is not None}


def _extreme(
    name: str, kind: str, least: str, most: str, words: list[str] | None, now: str, *, high: bool
) -> str | None:
    """Return an unusual value of a setting; None if there is none."""
    if name.endswith("_timeout") and name not in {"wal_sender_timeout", "wal_receiver_timeout"}:
        return SHORT
    match kind:
        case "bool":
            return "off" if now == "on" else "on"
        case "enum":
            others = [word for word in words or () if word != now]
            return others[-1 if high else 0] if others else None
        case "integer" | "real":
            return f"{min(float(most), LARGE):g}" if high else least
    return TEXTS.get(name)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[int, Server]]:
    """Run a server of the oldest and of the newest version that are installed."""
    with ExitStack() as stack:
        started = {}
        installed = installations()
        for version in sorted({min(installed), max(installed)}):
            folder = Path(tempfile.mkdtemp(prefix="virtualchain-tests-"))
            stack.callback(shutil.rmtree, folder)
            folder.chmod(0o711)
            server = EmbeddedServer(folder / "postgresql", binaries=installed[version], durable=False)
            stack.callback(server.stop)
            server.start()
            started[version] = Server(server)
        yield started


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[FakeNode, FakeNode]]:
    """Run two nodes, whose chains fork."""
    with FakeNode() as first, FakeNode() as second:
        for node, blocks in ((first, range(5)), (second, (*range(3), *range(7, 11)))):
            for block in blocks:
                numbers = [1 + block * 3 + place for place in range(3)]
                node.mine([node.send(b"reo%d %d %s" % (n, n % 6, "äÄzZ_"[n % 5].encode())) for n in numbers])
        yield first, second


def course(server: Server, url: str, nodes: tuple[FakeNode, FakeNode]) -> dict[str, Any]:
    """Migrate, take blocks, undo some, take others, verify and read; return every table and what was read."""
    migrate(url)
    for node in nodes:
        with StateEngine(representative.app(), database=url, source=node.url, confirmations=0) as engine:
            engine.build()
    assert verify(url).faults == []
    with views.snapshot(url) as connection:
        ops = list(views.ops(connection, views.Selection()))
        rows = list(views.query(connection, "SELECT * FROM entries ORDER BY id")[1])
    with watch(url, from_block=103) as events:
        event = next(events)
    return {**deployment(server.superuser_url(url)), "read": (ops, rows, event.block_id, str(event))}


@pytest.fixture(scope="module")
def undisturbed(servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode]) -> dict[str, Any]:
    """Return the tables of a deployment in a database without settings of its own."""
    _, server = min(servers.items())
    return course(server, server.databases.create(), nodes)


def test_no_setting_that_a_role_can_have_changes_a_result(
    servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode], undisturbed: dict[str, Any]
) -> None:
    """With every setting at an extreme, tables and what readers see are the same, or the setting is named."""

    def differing(server: Server, settings: dict[str, str]) -> list[str]:
        """Return the settings that alone make a difference."""
        url = server.databases.create()
        server.set(url, settings)
        try:
            outcome: object = course(server, url, nodes)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a difference
            outcome = error
        if outcome == undisturbed:
            return []
        if len(settings) == 1:
            return [f"{settings}: {outcome if isinstance(outcome, Exception) else 'other tables'}"]
        items = list(settings.items())
        halves = items[: len(items) // 2], items[len(items) // 2 :]
        return [fault for half in halves for fault in differing(server, dict(half))] or ["several at once"]

    for (version, server), high in itertools.product(servers.items(), (False, True)):
        settings = server.extremes(high=high)
        url = server.databases.create()
        server.set(url, settings)
        assert server.count(url) > 150, version
        assert differing(server, settings) == []


def documented() -> dict[str, tuple[str, str]]:
    """Read the table of pinned settings: value, and which sessions pin it."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## What it pins")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\S+)` \| `(?:([^`]+)|)` ?\| (.*) \|$", section, re.MULTILINE)
    return {name: (value, sessions) for name, value, sessions in rows}


def test_each_session_has_the_settings_that_the_page_lists(servers: dict[int, Server]) -> None:
    """Every kind of session pins what docs/database.md says, and nothing is pinned that it does not list."""
    refused = re.findall(r"\('(\w+)', '(\w+)', '", queries("fitness")["harmful_settings"])
    assert len(refused) == 3
    for name, value in refused:
        assert f"\n| `{name} = {value}` |" in PAGE.read_text(encoding="utf-8")
    pinned = documented()
    text = "".join(queries("database")[name] for name in ("pin_settings", "pin_writing", "pin_keepalives"))
    assert set(re.findall(r"\('([\w.]+)', '", text)) == set(pinned)
    for version, server in servers.items():
        url = server.databases.create()
        server.set(url, {"jit": "on", **server.extremes(high=True)})
        server.set(url, {"virtualchain.as_of": "7", "virtualchain.block_id": "8"})
        for kind, connect in {**WRITING, "reader": connect_reader}.items():
            with closing(connect(url)) as connection:
                for name, (expected, sessions) in pinned.items():
                    reads_otherwise = kind == "reader" and sessions.startswith("those that write")
                    is_unknown = name == "transaction_timeout" and version < 17
                    if (
                        reads_otherwise or is_unknown or name.startswith("tcp_")
                    ):  # whose value is the system's
                        continue
                    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                    assert row == (expected,), (kind, name)


@pytest.mark.parametrize("way", ["database", "role", "all roles", "system", "file", "url", "environment"])
def test_it_does_not_matter_where_a_setting_is_made(
    servers: dict[int, Server], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A pinned setting has its value, and a refused one its line, wherever it was set; the line mends it."""
    _, server = max(servers.items())
    url = server.databases.create()
    name = urlsplit(url).path[1:]
    commands = {
        "database": f"ALTER DATABASE {name}",
        "role": "ALTER ROLE virtualchain",
        "all roles": "ALTER ROLE ALL",
        "system": "ALTER SYSTEM",
    }
    bad = url
    with server.superuser() as admin:
        if way in commands:
            for setting in ("DateStyle TO 'SQL, DMY'", "zero_damaged_pages TO on"):
                admin.execute(f"{commands[way]} SET {setting}".encode())
        elif way == "file":
            with server.configuration.open("a", encoding="utf-8") as file:
                file.write("zero_damaged_pages = on\nDateStyle = 'SQL, DMY'\n")
        else:  # only a superuser may set these
            options = "-c zero_damaged_pages=on -c DateStyle=German"
            bad = server.superuser_url(url)
            if way == "url":
                bad += "?options=" + options.replace(" ", "%20").replace("=", "%3D")
            else:
                monkeypatch.setenv("PGOPTIONS", options)
        admin.execute("SELECT pg_reload_conf()")
        try:
            with closing(connect_reader(bad)) as reader:
                assert reader.execute("SHOW DateStyle").fetchone() == ("ISO, MDY",)
            with pytest.raises(
                StoreError, match=r"zero_damaged_pages is on, set .*, which empties"
            ) as refused:
                connect_writer(bad)
            command = str(refused.value).rpartition("have a superuser run ")[2]
            if way in commands:
                admin.execute(command.partition(",")[0].encode())
                assert command.startswith(f"{commands[way]} RESET zero_damaged_pages")
            else:
                expected = {"file": "remove it from postgresql.conf"}.get(way, "take zero_damaged_pages out")
                assert expected in command
        finally:
            for command in commands.values():
                admin.execute(f"{command} RESET ALL".encode())
            if way == "file":
                lines = server.configuration.read_text(encoding="utf-8").splitlines()[:-2]
                server.configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
            admin.execute("SELECT pg_reload_conf()")


def run_all(connection: psycopg.Connection, statements: str) -> None:
    """Run statements of an administrator."""
    connection.execute(statements.encode())


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        ("ALTER TABLE vc.ops ENABLE ROW LEVEL SECURITY", r"table vc\.ops has row security"),
        (
            "ALTER TABLE representative__1.marks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            r"table representative__1\.marks has row security",
        ),
        (
            'ALTER DEFAULT PRIVILEGES FOR ROLE virtualchain GRANT ALL ON TABLES TO "a stranger"',
            'give .*INSERT.* to "a stranger" on the tables that virtualchain makes',
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE virtualchain IN SCHEMA vc GRANT SELECT ON TABLES TO PUBLIC",
            "give SELECT to PUBLIC on the tables that virtualchain makes in schema vc",
        ),
        (
            "ALTER DEFAULT PRIVILEGES FOR ROLE virtualchain GRANT CREATE ON SCHEMAS TO PUBLIC",
            "give CREATE to PUBLIC on the schemas",
        ),
        (
            'ALTER DEFAULT PRIVILEGES FOR ROLE virtualchain GRANT USAGE ON SEQUENCES TO "a stranger"',
            'give USAGE to "a stranger" on the sequences',
        ),
    ],
)
def test_what_cannot_be_pinned_is_refused(
    servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode], statements: str, fault: str
) -> None:
    """No session that writes starts; readers do; and the command in the line mends it."""
    for server in servers.values():
        url = _deployed(server, nodes)
        with server.superuser(url) as admin:
            run_all(admin, statements)
            try:
                for connect in WRITING.values():
                    with pytest.raises(StoreError, match=fault) as refused:
                        connect(url)
                connect_reader(url).close()
            finally:
                run_all(admin, str(refused.value).rpartition("have a superuser run ")[2])
        for connect in WRITING.values():
            connect(url).close()


_DEPLOYED: dict[Server, str] = {}


def _deployed(server: Server, nodes: tuple[FakeNode, FakeNode]) -> str:
    """Return the URL of a deployment, which is made once for each server."""
    if server not in _DEPLOYED:
        _DEPLOYED[server] = server.databases.create()
        course(server, _DEPLOYED[server], nodes)
        with server.superuser() as admin:
            run_all(admin, 'CREATE ROLE "a stranger"')
    return _DEPLOYED[server]


def test_reading_privileges_for_a_named_role_are_left(
    servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode]
) -> None:
    """A role that reads everything, for a backup, is the administrator's choice."""
    _, server = max(servers.items())
    url = _deployed(server, nodes)
    with server.superuser(url) as admin:
        defaults = "ALTER DEFAULT PRIVILEGES FOR ROLE virtualchain "
        for kind, right in (("TABLES", "SELECT"), ("SCHEMAS", "USAGE"), ("SEQUENCES", "SELECT")):
            run_all(admin, f'{defaults} GRANT {right} ON {kind} TO "a stranger"')
        connect_writer(url).close()
        for kind in ("TABLES", "SCHEMAS", "SEQUENCES"):
            run_all(admin, f'{defaults} REVOKE ALL ON {kind} FROM "a stranger"')


def test_row_security_while_a_writer_runs_hides_nothing(
    servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode]
) -> None:
    """A statement that a policy would affect fails, instead of seeing fewer rows."""
    _, server = max(servers.items())
    url = _deployed(server, nodes)
    with server.superuser(url) as admin, closing(connect_writer(url)) as writer:
        run_all(admin, "ALTER TABLE vc.blocks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            writer.execute("SELECT count(*) FROM vc.blocks")
        run_all(admin, "ALTER TABLE vc.blocks DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY")


WATCHED = """
    CREATE SCHEMA theirs;
    CREATE FUNCTION theirs.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE WARNING 'seen: %', tg_tag; END $$;
    CREATE EVENT TRIGGER watched ON ddl_command_end EXECUTE FUNCTION theirs.watch();
    CREATE EVENT TRIGGER dropped ON sql_drop EXECUTE FUNCTION theirs.watch();
    CREATE FUNCTION theirs.encode(bytea, text) RETURNS text LANGUAGE sql RETURN 'fooled';
    CREATE FUNCTION theirs.equal(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN false;
    CREATE OPERATOR theirs.= (LEFTARG = text, RIGHTARG = text, FUNCTION = theirs.equal);
"""
FORBIDDING = """
    CREATE FUNCTION theirs.forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no changes on Fridays'; END $$;
    CREATE EVENT TRIGGER "on Fridays" ON ddl_command_end EXECUTE FUNCTION theirs.forbid();
"""


def test_what_an_administrator_installs_does_not_disturb(
    servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode], undisturbed: dict[str, Any]
) -> None:
    """Event triggers, a publication of all tables, libraries, another role and foreign functions do not."""
    for version, server in servers.items():
        url = server.databases.create()
        name = urlsplit(url).path[1:]
        with server.superuser(url) as admin:
            run_all(admin, WATCHED)
            run_all(admin, f"CREATE ROLE boss CREATEROLE; GRANT ALL ON DATABASE {name} TO boss")
            run_all(admin, "GRANT boss TO virtualchain; GRANT USAGE ON SCHEMA theirs TO PUBLIC")
        settings = {"search_path": "theirs, pg_catalog", "role": "boss"}
        if (installations()[version].parent / "lib" / "auto_explain.so").exists():
            settings |= {"session_preload_libraries": "auto_explain", "client_min_messages": "debug5"}
            settings |= {"auto_explain.log_min_duration": "0", "auto_explain.log_analyze": "on"}
        if version >= 16:
            settings["createrole_self_grant"] = "set, inherit"
        server.set(url, settings)
        migrate(url)
        with server.superuser(url) as admin:
            run_all(admin, "CREATE PUBLICATION everything FOR ALL TABLES")
        assert course(server, url, nodes) == undisturbed
        with server.superuser(url) as admin:
            owner = admin.execute(
                "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'vc'"
            ).fetchall()
            assert owner == [("boss",)]


def test_a_publication_that_keeps_a_migration_from_writing_is_named(servers: dict[int, Server]) -> None:
    """Tables have their replica identities only after the migration: the line names the publication."""
    _, server = max(servers.items())
    url = server.databases.create()
    with server.superuser(url) as admin:
        run_all(admin, 'CREATE PUBLICATION "all of it" FOR ALL TABLES')
        with pytest.raises(StoreError, match='DROP PUBLICATION "all of it", and create it again') as refused:
            migrate(url)
        assert "\n" not in str(refused.value)
        run_all(admin, 'DROP PUBLICATION "all of it"')
        migrate(url)


def test_an_event_trigger_that_forbids_changes_is_named(
    servers: dict[int, Server], nodes: tuple[FakeNode, FakeNode]
) -> None:
    """A migration, and the start of a new app, name the trigger and the command that disables it."""
    for server in servers.values():
        empty, url = server.databases.create(), server.databases.create()
        migrate(url)

        def start(url: str) -> None:
            StateEngine(representative.app(), database=url, source=nodes[0].url, confirmations=0).close()

        for place, change in ((empty, migrate), (url, start)):
            with server.superuser(place) as admin:
                run_all(admin, f"CREATE SCHEMA theirs; {FORBIDDING}")
                with pytest.raises(StoreError, match="no changes on Fridays") as refused:
                    change(place)
                assert "\n" not in str(refused.value)
                command = re.search(r"ALTER EVENT TRIGGER .* DISABLE", str(refused.value))
                assert command
                run_all(admin, command[0])
            change(place)
