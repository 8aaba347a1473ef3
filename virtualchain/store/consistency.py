"""The look at a database that every start takes: what one transaction wrote must still stand together.

It costs a few index look-ups, however much there is. It meets a restored table, a half-finished copy, rows
written by hand; whether every row is right is for an audit to say.
"""

import psycopg
from psycopg.rows import dict_row

from virtualchain.consensus.state_hash import digest_number
from virtualchain.errors import StoreError
from virtualchain.store.history import History
from virtualchain.store.projections import build_schema, projections
from virtualchain.store.sql import queries

_Q = queries("consistency")


def check_start(connection: psycopg.Connection, mends: str | None = None) -> None:
    """Compare the last snapshot of each app with the tape's blocks and with its tables' newest block.

    The app `mends` is passed over. Raises StoreError, which names the app and what disagrees.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        for place in cursor.execute(_Q["places"]).fetchall():
            if place["name"] != mends and (fault := _fault(connection, place)):
                raise StoreError(
                    f"app {place['name']} is damaged: its last digests are of block {place['block_id']}, "
                    f"{fault}. Restore the database from a backup, or derive the app's tables anew: "
                    f"`virtualchain replay {place['name']}`"
                )


def _fault(connection: psycopg.Connection, place: dict[str, object]) -> str | None:
    if not place["is_on_tape"]:
        return "which is not on the tape"
    tables = build_schema(str(place["schema"]), str(place["build"]))
    newest = History(connection, projections(connection, tables)).newest()
    if newest is not None and newest > int(str(place["block_id"])):
        return f"and its tables are those of block {newest}"
    with connection.cursor(row_factory=dict_row) as cursor:
        wanted = {"app": place["name"], "build": place["build"]}
        row = cursor.execute(_Q["latest_number"], wanted).fetchone()
    assert row is not None, "a query without FROM gives one row"
    if row["state_number"] is not None and digest_number(bytes(row["state_number"])) != row["state_hash"]:
        return "and its state hash is not that of the number kept with it"
    return None
