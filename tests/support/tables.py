"""The content of a deployment's database, as text that can be compared between two databases."""

import psycopg
from psycopg import sql

_ALL = sql.SQL("true")

_TABLES = """
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2
"""


def tables(url: str, *, versions: bool = False) -> dict[str, list[str]]:
    """Read every table of a database, the engine's and the apps', as sorted lists of rows.

    With `versions`, each row includes its location and the transaction that wrote it, so that a row which was
    rewritten with the same values differs. Without, what differs between sources is left out, and serial
    numbers and epochs of builds. What a writer reports of itself is left out.
    """
    row = sql.SQL(
        "format('%s %s %s', t.ctid, t.xmin, t)"
        if versions
        else "(to_jsonb(t) - '{evidence,branch,serial,epoch}'::text[])::text"
    )
    with psycopg.connect(url) as connection:
        names = connection.execute(_TABLES).fetchall()
        dump = {f"{schema}.{name}": _rows(connection, row, schema, name) for schema, name in names}
    for name in ("vc.writer", "vc.progress"):
        del dump[name]
    if not versions:
        del dump["vc.coinbases"]
    return dump


_BUILDS = "SELECT name, schema, build, is_live, history_from FROM vc.apps"
_MAY_DIFFER = (
    "vc.alembic_version",
    "vc.coinbases",
    "vc.progress",
    "vc.published",
    "vc.readers",
    "vc.reorgs",
    "vc.writer",
)
"""Tables that may differ between two deployments with the same result."""
_OWN_COLUMNS = [
    "build",
    "history_from",
    "code_digest",
    "last_code_digest",
    "serial",
    "epoch",
    "evidence",
    "branch",
]
"""Columns that may differ; the code does if a test makes an app fail at a chosen moment, and what shows that
senders are right depends on the source."""
_PRUNED_BY = {"_history": "until_block", "_births": "since_block"}
"""Suffixes of the tables next to a projection, and the column by which they are pruned."""


def deployment(url: str, floor: int | None = None) -> dict[str, list[str]]:
    """Read all rows that must be the same in two deployments of the same apps on the same chain.

    The name of a build and its code do not matter, and every build must be live. History counts above `floor`
    (default: above what was pruned), because how far back it goes depends on a deployment's past.
    """
    dump: dict[str, list[str]] = {}
    with psycopg.connect(url) as connection:
        names = connection.execute(_TABLES).fetchall()
        for schema, name in names:
            if schema == "vc" and f"vc.{name}" not in _MAY_DIFFER:
                row = sql.SQL("(to_jsonb(t) - {}::text[])::text").format(sql.Literal(_OWN_COLUMNS))
                dump[f"vc.{name}"] = _rows(connection, row, schema, name)
        for app, schema, build, is_live, history_from in connection.execute(_BUILDS.encode()).fetchall():
            assert is_live, f"build {build} of app {app} was left behind"
            for table_schema, name in names:
                if table_schema == f"{schema}__{build}":
                    pruned_by = next(
                        (column for suffix, column in _PRUNED_BY.items() if name.endswith(suffix)), None
                    )
                    where: sql.Composable = _ALL
                    if pruned_by is not None:
                        oldest = sql.Literal(history_from if floor is None else floor)
                        where = sql.SQL("t.{} > {}").format(sql.Identifier(pruned_by), oldest)
                    rows = _rows(connection, sql.SQL("format('%s', t)"), table_schema, name, where)
                    dump[f"{schema}.{name}"] = rows
    return dump


def _rows(
    connection: psycopg.Connection,
    row: sql.Composable,
    schema: str,
    name: str,
    where: sql.Composable = _ALL,
) -> list[str]:
    statement = sql.SQL("SELECT {row} FROM {table} AS t WHERE {where} ORDER BY 1")
    table = sql.Identifier(schema, name)
    return [text for (text,) in connection.execute(statement.format(row=row, table=table, where=where))]
