"""The writer's digests are the same whatever settings the database and the role have."""

from collections.abc import Callable
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.support import representative
from tests.support.servers import value
from tests.support.state_hashes import state_hash_of_rows
from virtualchain.store.database import connect_reader
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode

Run = Callable[..., int]

HOSTILE = {
    "array_nulls": "off",
    "bytea_output": "escape",
    "check_function_bodies": "off",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "DateStyle": "SQL, DMY",
    "default_text_search_config": "pg_catalog.english",
    "default_toast_compression": "lz4",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "enable_hashjoin": "off",
    "enable_indexscan": "off",
    "extra_float_digits": "-15",
    "gin_fuzzy_search_limit": "1",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "1000",
    "IntervalStyle": "sql_standard",
    "lc_monetary": "en_US.UTF-8",
    "lc_numeric": "de_DE.UTF-8",
    "lc_time": "de_DE.UTF-8",
    "lock_timeout": "1",
    "quote_all_identifiers": "on",
    "row_security": "off",
    "search_path": "theirs, pg_catalog",
    "standard_conforming_strings": "off",
    "statement_timeout": "500",
    "TimeZone": "Asia/Tokyo",
    "timezone_abbreviations": "Australia",
    "transform_null_equals": "on",
    "xmlbinary": "hex",
    "xmloption": "document",
}


def alter(url: str, target: str, settings: dict[str, str]) -> None:
    """Set defaults of a database (DATABASE), or of our role in it (ROLE), if the server accepts them."""
    name = sql.Identifier(urlsplit(url).path[1:])
    kinds = {
        "DATABASE": sql.SQL("ALTER DATABASE {name}").format(name=name),
        "ROLE": sql.SQL("ALTER ROLE CURRENT_USER IN DATABASE {name}").format(name=name),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        for setting, text in settings.items():
            literal = sql.Literal(text) if setting != "search_path" else sql.SQL("theirs, pg_catalog")
            statement = sql.SQL("{} SET {} TO {}").format(kinds[target], sql.Identifier(setting), literal)
            try:
                connection.execute("SET default_transaction_read_only TO off")
                connection.execute(statement)
            except psycopg.errors.InvalidParameterValue:
                # A locale that this machine does not have, or a compression that the server does not support.
                assert setting.startswith("lc_") or setting == "default_toast_compression"


def digests(url: str) -> list[tuple[object, ...]]:
    """Read an app's snapshots, whatever the session's defaults."""
    with closing(connect_reader(url)) as connection:
        return connection.execute(
            "SELECT block_id, ops_hash, consensus_hash, state_hash FROM virtualchain.snapshots ORDER BY 1"
        ).fetchall()


@pytest.mark.parametrize("target", ["DATABASE", "ROLE"])
def test_digests_are_the_same(
    fake_node: FakeNode, run: Run, database_url: str, empty_database_url: str, target: str
) -> None:
    """A hostile database makes no difference, from the first migration to the last block."""
    representative.feed(fake_node)
    run(representative.app())
    alter(empty_database_url, target, HOSTILE)
    migrate(empty_database_url)
    run(representative.app(), database=empty_database_url)
    expected = digests(database_url)
    assert digests(empty_database_url) == expected
    assert expected[-1][3] == state_hash_of_rows(empty_database_url, "representative")
    assert len({row[3] for row in expected}) > 8
    statement = "SELECT told FROM representative.entries ORDER BY id LIMIT 1"
    assert value(empty_database_url, statement) == value(database_url, statement)


def test_foreign_functions_do_not_replace_those_of_postgresql(
    fake_node: FakeNode, run: Run, empty_database_url: str, database_url: str
) -> None:
    """The engine does not call a function `encode` in a schema that the database puts first on the path."""
    fake = "CREATE FUNCTION theirs.encode(bytea, text) RETURNS text LANGUAGE sql RETURN 'fooled'"
    representative.feed(fake_node)
    for url in (database_url, empty_database_url):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA theirs")
            connection.execute(fake.encode())
    alter(empty_database_url, "DATABASE", {"search_path": "theirs, pg_catalog"})
    migrate(empty_database_url)
    for url in (database_url, empty_database_url):
        run(representative.app(), database=url)
    assert digests(empty_database_url) == digests(database_url)
