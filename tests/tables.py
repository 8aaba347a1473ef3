"""What a deployment's database holds, as text that two databases can be compared by."""

import psycopg
from psycopg import sql

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
    statement = sql.SQL("SELECT {row} FROM {table} AS t ORDER BY 1")
    with psycopg.connect(url) as connection:
        return {
            f"{schema}.{name}": [
                text
                for (text,) in connection.execute(
                    statement.format(row=row, table=sql.Identifier(schema, name))
                )
            ]
            for schema, name in connection.execute(_TABLES).fetchall()
        }
