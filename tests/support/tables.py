"""What a deployment's database holds, as text that two databases can be compared by."""

import psycopg
from psycopg import sql

_ALL = sql.SQL("true")

_TABLES = """
    SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2
"""


def tables(url: str, *, versions: bool = False) -> dict[str, list[str]]:
    """Give every table of a database, the engine's and the apps', as sorted lists of rows.

    With `versions`, each row comes with its place and the transaction that wrote it: a row that was
    written anew, with the same values, is another one then.
    """
    row = sql.SQL("format('%s %s %s', t.ctid, t.xmin, t)" if versions else "format('%s', t)")
    with psycopg.connect(url) as connection:
        names = connection.execute(_TABLES).fetchall()
        return {f"{schema}.{name}": _rows(connection, row, schema, name) for schema, name in names}


_BUILDS = "SELECT name, schema, build, is_live, history_from FROM vc.apps"
_UNLIKE = ("vc.alembic_version", "vc.reorgs", "vc.published", "vc.readers")
"""What two deployments that came to the same may differ in."""
_BY_AGE = {"_history": "until_block", "_births": "since_block"}
"""Twins of projections, and the column that says what is pruned."""


def deployment(url: str, floor: int | None = None) -> dict[str, list[str]]:
    """Give all that must be the same in two deployments of the same apps on the same chain, row by row.

    The name of a build counts for nothing, and no build may be there that is not live. History counts above
    `floor` (default: above what was pruned): how far back it goes depends on where a deployment has been.
    """
    found: dict[str, list[str]] = {}
    with psycopg.connect(url) as connection:
        names = connection.execute(_TABLES).fetchall()
        for schema, name in names:
            if schema == "vc" and f"vc.{name}" not in _UNLIKE:
                row = sql.SQL("(to_jsonb(t) - 'build' - 'history_from')::text")
                found[f"vc.{name}"] = _rows(connection, row, schema, name)
        for app, schema, build, is_live, history_from in connection.execute(_BUILDS.encode()).fetchall():
            assert is_live, f"build {build} of app {app} was left behind"
            for place, name in names:
                if place == f"{schema}__{build}":
                    aged = next((column for end, column in _BY_AGE.items() if name.endswith(end)), None)
                    where: sql.Composable = _ALL
                    if aged is not None:
                        oldest = sql.Literal(history_from if floor is None else floor)
                        where = sql.SQL("t.{} > {}").format(sql.Identifier(aged), oldest)
                    rows = _rows(connection, sql.SQL("format('%s', t)"), place, name, where)
                    found[f"{schema}.{name}"] = rows
    return found


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
