"""What must hold of an app's projections, checked when they are installed (house.md, Tables).

Rollback, replay and equal tables on every node rest on it. Each check is a query that gives complaints.
"""

import psycopg
from psycopg import sql

from virtualchain.store.sql import queries

_Q = queries("checks")
_PART = sql.SQL(_Q["expressions"])


def complaints(connection: psycopg.Connection, schema: str, tables: str, ddl: str) -> list[str]:
    """Give what is wrong with the tables that `ddl` just made in the schema `tables`, in this transaction.

    `schema` is the app's. The search path must be `tables`: names are given as seen from there.
    """
    wanted = {"schema": schema, "tables": tables, "ddl": ddl}
    found: list[str] = []
    for name, query in _Q.items():
        if name != "expressions":
            statement = sql.SQL(query).format(expressions=_PART)
            found += [complaint for (complaint,) in connection.execute(statement, wanted)]
    return found
