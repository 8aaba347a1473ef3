"""The digests of apps, compared with those that others expect."""

from collections.abc import Mapping, Sequence

import psycopg

from virtualchain.engine.expectations import Expectations
from virtualchain.model import Expected, Json
from virtualchain.reading import views


def compare_digests(
    connection: psycopg.Connection, rows: Sequence[Json], expected: Mapping[str, Sequence[Expected]]
) -> None:
    """Compare apps' digests with those that are expected, by app; put what differs into `unexpected`.

    `rows` are those of `views.apps`. Without a difference, what the writer found stays.
    """
    for row in rows:
        expectations = Expectations(expected.get(row["name"], ()))
        digests = views.digests_at(connection, row["name"], expectations.until(views.HIGHEST))
        mismatches = filter(None, map(expectations.mismatch, digests))
        row["unexpected"] = next(mismatches, row["unexpected"])
