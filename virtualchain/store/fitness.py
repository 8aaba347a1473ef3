"""What an administrator can set that would make a writer's results wrong: it is refused, with what mends it.

Most settings are pinned by each session, see `pin_settings` and `pin_writing`. Those here are a superuser's,
or belong to a table or a role. `docs/database.md` lists both.
"""

import psycopg

from virtualchain.errors import StoreError
from virtualchain.store.sql import queries

_Q = queries("fitness")
_REFUSED = ("harmful_settings", "open_defaults")


def refuse_unsafe(connection: psycopg.Connection, where: str) -> None:
    """Raise StoreError if something in the database at `where` could make results wrong, or open to others.

    The message names it, the place that sets it, and the command that mends it.
    """
    for query in _REFUSED:
        _refuse(connection, query, where)
    row = connection.execute(_Q["has_apps"]).fetchone()
    if row and row[0]:
        _refuse(connection, "hidden_rows", where)


def _refuse(connection: psycopg.Connection, query: str, where: str) -> None:
    row = connection.execute(_Q[query]).fetchone()
    if row is not None:
        fault, command = row
        raise StoreError(f"the database {where} cannot be used: {fault}; have a superuser run {command}")


def advice_on(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """Return what to do about a change that was refused, in another session; empty if that is not known."""
    if isinstance(error, psycopg.errors.ObjectNotInPrerequisiteState):
        row = connection.execute(_Q["publication"]).fetchone()
        if row is not None:
            return (
                f" (it is published by {row[0]}, before it has a replica identity: have a superuser run "
                f"DROP PUBLICATION {row[0]}, and create it again when this is done)"
            )
    row = connection.execute(_Q["event_trigger"], {"context": error.diag.context or ""}).fetchone()
    if row is None:
        return ""
    name, function = row
    return (
        f" (so says the event trigger {name}, by its function {function}: to go on, have a superuser run "
        f"ALTER EVENT TRIGGER {name} DISABLE)"
    )
