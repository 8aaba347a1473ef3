"""The revision of a database's schema, compared with the one that this version of the code needs.

Alembic is not needed for that, and takes longer to import than most commands to read.
"""

from functools import cache

import psycopg

from virtualchain.errors import StoreError
from virtualchain.store.sql import migrations_root, queries

_Q = queries("migrate")


@cache
def known() -> tuple[str, ...]:
    """Return the revisions that this version of the code knows, oldest first, from the migrations' names."""
    files = (migrations_root() / "versions").glob("[0-9]*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def head() -> str:
    """Return the revision that this version of the code needs."""
    return known()[-1]


def current(connection: psycopg.Connection) -> str | None:
    """Return the revision of the database; None if it has no virtualchain schema yet.

    Raises psycopg.errors.InsufficientPrivilege for a reader of a schema that does not know it itself.
    """
    query = "own_revision" if _is_so(connection, "has_own_revision") else "revision"
    if query == "revision" and not _is_so(connection, "has_revision"):
        return None
    row = connection.execute(_Q[query]).fetchone()
    return None if row is None else str(row[0])


def refuse_newer(revision: str | None) -> None:
    """Raise StoreError if the database's revision is unknown to this version of the code."""
    if revision is not None and revision not in known():
        raise StoreError(
            f"the database's schema ({revision}) is newer than this virtualchain ({head()}): "
            "upgrade virtualchain, or use another database"
        )


def refuse_other(connection: psycopg.Connection) -> None:
    """Raise StoreError unless the schema is the one that this version of the code reads."""
    try:
        revision = current(connection)
    except psycopg.errors.InsufficientPrivilege:
        revision = None
    else:
        refuse_newer(revision)
    if revision != head():
        name = "" if revision is None else f" ({revision})"
        raise StoreError(
            f"the database's schema{name} is older than this virtualchain ({head()}): have its owner "
            "run `virtualchain migrate`, or any command that writes"
        )


def _is_so(connection: psycopg.Connection, query: str) -> bool:
    row = connection.execute(_Q[query]).fetchone()
    return bool(row and row[0])
