"""One side of a comparison of two deployments: its views, which a reader's role may read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.store.sql import queries

_Q = queries("nodes")
SIDES: Final = ("here", "there")
"""The names of our own node and of the other one."""


class Side:
    """One node's views, as they are at one moment."""

    def __init__(self, connection: psycopg.Connection, url: str) -> None:
        self._connection = connection
        self._url = url
        views.exact_json(connection)

    def rows(
        self, query: str, parts: Mapping[str, sql.Composable] | None = None, **values: object
    ) -> list[Json]:
        """Return the rows of a named query."""
        with self._reporting(), self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_composed(query, parts), values).fetchall()

    def value(self, query: str, **values: object) -> Any:  # noqa: ANN401 - whatever the query returns
        """Return the first value of a named query; None without a row."""
        with self._reporting():
            row = self._connection.execute(_Q[query], values).fetchone()
        return None if row is None else row[0]

    def each(
        self, query: str, parts: Mapping[str, sql.Composable], **values: object
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a named query as the server computes them."""
        with self._reporting(), self._connection.cursor("nodes", row_factory=tuple_row) as cursor:
            cursor.itersize = 10
            yield from cursor.execute(_composed(query, parts), values)

    def show(self, block_id: int | None) -> None:
        """Have the views of apps show their rows as of a block, or as they are now."""
        with self._reporting():
            as_of = "" if block_id is None else str(block_id)
            self._connection.execute(queries("views")["as_of"], {"as_of": as_of})

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Name the database that failed: there are two."""
        try:
            yield
        except psycopg.Error as error:
            raise views.failure(self._connection, self._url, error) from error


@contextmanager
def opened(url: str) -> Iterator[Side]:
    """Open the views of a deployment, and end reading them."""
    with views.snapshot(url) as connection:
        yield Side(connection, url)


def _composed(query: str, parts: Mapping[str, sql.Composable] | None) -> sql.Composed:
    return sql.SQL(_Q[query]).format(**(parts or {}))
