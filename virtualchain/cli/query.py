"""The command `sql`: one statement of the user's, read only."""

import sys

import click

from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_rows
from virtualchain.cli.read import open_reading
from virtualchain.errors import UsageError


@click.command(cls=Command)
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@pass_given
def sql(given: Given, query: str, as_csv: bool) -> None:
    """Ask the database one SQL statement.

    It runs in a read-only transaction. Names without a schema mean the apps' tables, then the views of schema
    virtualchain: blocks, inputs, ops, rejections, snapshots, apps. With - as QUERY it is read from standard
    input.
    """
    from virtualchain.store import reading

    as_json = given.settings.json and not as_csv
    statement = sys.stdin.read() if query == "-" else query
    if not statement.strip():
        raise UsageError('there is no statement: give one, as in virtualchain sql "SELECT * FROM blocks"')
    with open_reading(given) as connection:
        columns, rows = reading.query(connection, statement)
        if columns or as_json:
            write_rows(columns, rows, as_json=as_json, as_csv=as_csv)
