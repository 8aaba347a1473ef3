"""The loader of named SQL, and the form of every query file."""

import re

import pytest

from virtualchain.errors import StoreError
from virtualchain.store.sql import _parse, migrations_root, queries, sql_root


def test_statements_are_found_by_name_without_comment_and_semicolon() -> None:
    """A block's name maps to its statement alone, with any line breaks and comments inside it."""
    text = "-- name: one\n-- First.\nSELECT 1;\n\n-- name: two\n-- Second.\nSELECT\n    2 -- two\n;\n"
    assert _parse(text, "x.sql") == {"one": "SELECT 1", "two": "SELECT\n    2 -- two"}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;",
        "-- name: one\nSELECT 1;",
        "-- name: one\n-- Described.\n",
        "-- name: one\n-- Described.\n-- name: two\n-- Described.\nSELECT 2;",
        "-- name: one\n-- Described.\nSELECT 1;\n-- name: one\n-- Again.\nSELECT 1;",
        "-- name: one two\n-- Described.\nSELECT 1;",
    ],
)
def test_file_that_is_not_blocks_is_refused(text: str) -> None:
    """Statements without name or description, names without statement, and double names are errors."""
    with pytest.raises(StoreError, match=r"^x\.sql: "):
        _parse(text, "x.sql")


def test_every_query_file_can_be_read() -> None:
    """All queries of the project follow the form."""
    files = sorted(path.stem for path in (sql_root() / "queries").glob("*.sql"))
    assert "database" in files
    assert all(queries(name) for name in files)


def test_missing_file_is_a_clear_error() -> None:
    """The error names the file that an installation is missing."""
    with pytest.raises(StoreError, match=r"nothing\.sql cannot be read .*reinstall virtualchain"):
        queries("nothing")


def test_roots_exist() -> None:
    """SQL and migrations are found in a checkout as well as in a wheel."""
    assert (sql_root() / "queries").is_dir()
    assert (migrations_root() / "env.py").is_file()


def test_an_apps_pins_are_among_the_sessions() -> None:
    """What is set again around an app's callbacks has the values that the session was given."""
    again = re.findall(r"set_config\('(\w+)', '([^']*)', true\)", queries("log")["pins"])
    session = re.findall(r"\('([\w.]+)', '([^']*)'\)", queries("database")["pin_settings"])
    assert len(again) == 6
    assert set(again) < set(session)
