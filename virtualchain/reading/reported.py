"""The metrics as the database has them: what the writer reported last, and how old that is."""

from typing import Final

import psycopg

from virtualchain.metrics import SILENT_AFTER, Sample
from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.store.sql import queries

_Q = queries("metrics")
_UP: Final = "virtualchain_up"


def samples(connection: psycopg.Connection) -> list[Sample]:
    """Return all samples; before the first start, only that no writer runs, and the database's size.

    On a standby a writer counts as running if it has reported within a minute.
    """
    last = views.last_start(connection)
    rows = connection.execute(_Q["samples"]).fetchall()
    others = [Sample(name, value, labels) for name, value, labels in rows if name != _UP]
    if last is not None and last["age"] is not None:
        others.append(Sample("virtualchain_report_age_seconds", last["age"]))
    return [Sample(_UP, float(_is_up(connection, last))), *others, Sample(_SIZE, float(size(connection)))]


_SIZE: Final = "virtualchain_database_size_bytes"


def size(connection: psycopg.Connection) -> int:
    """Return the size of the database in bytes."""
    row = connection.execute(_Q["size"]).fetchone()
    assert row is not None, "the function returns a value"
    return int(row[0])


def rates(connection: psycopg.Connection) -> Json | None:
    """Return blocks, ops and rejections a second of the last minute that the writer reported of.

    Keys: blocks, ops, rejections, and seconds, over which they are averaged. None before the second report.
    """
    row = connection.execute(_Q["rates"]).fetchone()
    return None if row is None else dict(zip(("seconds", "blocks", "ops", "rejections"), row, strict=True))


def _is_up(connection: psycopg.Connection, last: Json | None) -> bool:
    if not views.is_standby(connection):
        return views.writer(connection) is not None
    return last is not None and last["stopped_at"] is None and (last["age"] or 0.0) <= SILENT_AFTER
