"""The command `sql`: one statement of the user's, or psql's prompt; read only, either way."""

import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

import click

from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_rows
from virtualchain.cli.read import open_reading
from virtualchain.errors import StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT: Final = 60.0
"""Seconds that a query may take unless told otherwise."""


@click.command(cls=Command)
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option("--as-of", metavar="BLOCK", help="Show that block, by height or hash, in every table and view.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=1_000_000),
    metavar="SECONDS",
    help="End a query that takes longer; 0 lets it run. Default: 60, and at the prompt 0.",
)
@pass_given
def sql(given: Given, query: str | None, as_csv: bool, as_of: str | None, timeout: float | None) -> None:
    """Ask the database one SQL statement; without QUERY, open psql on it.

    Either way it only reads. Names without a schema mean the apps' tables, then the views of schema
    virtualchain: blocks, inputs, ops, rejections, snapshots, apps, changes. With - as QUERY it is read from
    standard input.
    """
    from virtualchain.reading import views

    if query is None:
        _check_prompt(given, as_csv=as_csv)
        _open_prompt(given, as_of, timeout)
    as_json = given.settings.json and not as_csv
    statement = sys.stdin.read() if query == "-" else query
    if not statement.strip():
        raise UsageError('there is no statement: give one, as in virtualchain sql "SELECT * FROM blocks"')
    with open_reading(given) as connection:
        limit = _TIMEOUT if timeout is None else timeout or None
        columns, rows = views.query(connection, statement, as_of=as_of, timeout=limit)
        if columns or as_json:
            write_rows(columns, rows, as_json=as_json, as_csv=as_csv)


def _check_prompt(given: Given, *, as_csv: bool) -> None:
    """Refuse a prompt that nobody would see, or whose form it cannot have."""
    if given.settings.json or as_csv:
        raise UsageError(
            "--json and --csv need a statement: give it as QUERY, or - to read it from standard input"
        )
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "there is no terminal for a prompt: give a statement as QUERY, or - to read one from here"
        )


def _open_prompt(given: Given, as_of: str | None, timeout: float | None) -> NoReturn:
    """Become psql on the deployment's database."""
    from virtualchain.reading import views
    from virtualchain.store.database import resolve

    program = _psql()
    with open_reading(given) as connection:  # what is wrong with the database is told in our words
        path = views.search_path(connection)
    settings = {"search_path": path}
    if as_of is not None:
        settings["virtualchain.as_of"] = as_of
    if timeout is not None:
        settings["statement_timeout"] = str(int(timeout * 1000))
    environment = psql_environment(resolve(given.settings.database), settings)
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what it becomes would, too
    os.execve(program, [program], {**os.environ, **environment})  # noqa: S606 - psql, where PATH says it is


def _psql() -> str:
    """Find psql: the system's, else the one beside the embedded server's programs."""
    from virtualchain.store.embedded.installation import find_binaries

    if found := shutil.which("psql"):
        return found
    with suppress(UsageError, StoreError):
        program = find_binaries(None, None) / "psql"
        if program.is_file():
            return str(program)
    raise UsageError(
        "psql is not installed: install PostgreSQL's client, or give another one the URL of --database, "
        "or of the embedded server, which `virtualchain db url` prints"
    )


def psql_environment(url: str, settings: "Mapping[str, str]") -> dict[str, str]:
    """Give the variables that lead psql to a database, read only, with these settings.

    Everybody on the machine can read a command line, and the URL may hold a password. What libpq has no
    variable for, such as keepalives, psql does without.
    """
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict

    given = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    ours = {"default_transaction_read_only": "on", **settings}
    # In libpq's options, a space ends an argument.
    escaped = (f"{name}={value}".replace("\\", "\\\\").replace(" ", "\\ ") for name, value in ours.items())
    theirs = given.get("options") or os.environ.get("PGOPTIONS") or ""
    given["options"] = " ".join([theirs, *(f"-c {item}" for item in escaped)]).strip()
    variables = {
        option.keyword.decode(): option.envvar.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar
    }
    return {variables[key]: value for key, value in given.items() if key in variables}
