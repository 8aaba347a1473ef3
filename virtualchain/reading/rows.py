"""Rows of a projection, filtered, ordered and read page by page.

Filters are written as PostgREST writes them: `owner=eq.alice`, `height=gte.5`, `order=height.desc`. A page
continues after the last row of the one before, which a cursor names by its values, so that the cost of a page
does not depend on its number.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from virtualchain.errors import UsageError, quoted
from virtualchain.reading.catalog import Column, Projection
from virtualchain.reading.mistakes import explained, require_text
from virtualchain.reading.pages import MOST_ROWS, WRONG_CURSOR, decode_cursor, write_cursor
from virtualchain.store.sql import queries

_Q = queries("explorer")

DEFAULT_ROWS: Final = 100
"""Rows of a page, if nothing else is asked for."""
COUNTED: Final = 10_000
"""How many rows are counted at most."""
_MOST_FILTERS: Final = 50
_MOST_VALUES: Final = 1000
"""The most values of an `in` list."""
_LONGEST_VALUE: Final = 10_000
"""Characters of a filter's value, or of one in a cursor."""

_COMPARISONS: Final[dict[str, LiteralString]] = {
    "eq": "{} = {}",
    "neq": "{} <> {}",
    "gt": "{} > {}",
    "gte": "{} >= {}",
    "lt": "{} < {}",
    "lte": "{} <= {}",
    "cs": "{} @> {}",
    "cd": "{} <@ {}",
}
_PATTERNS: Final[dict[str, LiteralString]] = {"like": "{} LIKE {}", "ilike": "{} ILIKE {}"}
_IS: Final[dict[str, LiteralString]] = {
    "null": "{} IS NULL",
    "not_null": "{} IS NOT NULL",
    "true": "{} IS TRUE",
    "false": "{} IS FALSE",
    "unknown": "{} IS UNKNOWN",
}
OPERATORS: Final = (*_COMPARISONS, *_PATTERNS, "in", "is")
"""The operators of filters; `not.` before one negates it."""
_COLUMN_PREFIX: Final = "filter."
"""What makes any parameter a filter, even if the column is called `order`."""
_OURS: Final = ("select", "order", "limit", "after", "as_of")
_UNSUPPORTED: Final = {
    "offset": "pages are read one after the other: the next begins after the cursor of this one",
    "or": "all filters must hold; a query in SQL can ask for more",
    "and": "all filters must hold, so write one parameter for each",
    "not.or": "all filters must hold; a query in SQL can ask for more",
    "not.and": "all filters must hold; a query in SQL can ask for more",
}
_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"([^,]*)|([^,]*))(,|\Z)', re.DOTALL)
"""An item of a list: in quotes, or as it is up to the next comma."""
_SUFFIXES = re.compile(r"(\.(asc|desc|nullsfirst|nullslast))*\Z")
_DIRECTIONS: Final = ("asc", "desc")


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a column; `value` is a tuple for the operator `in`."""

    column: Column
    operator: str
    value: str | tuple[str, ...]
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """A column that rows are ordered by."""

    column: Column
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows and columns of a projection to read, in which order, and after which row."""

    columns: tuple[Column, ...]
    filters: tuple[Filter, ...] = ()
    order: tuple[Order, ...] = ()
    """Without the columns of the primary key that follow, so that no two rows are equal."""
    limit: int = DEFAULT_ROWS
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of rows: their values as PostgreSQL writes them, and their keys."""

    columns: tuple[Column, ...]
    rows: list[tuple[str | None, ...]]
    keys: list[dict[str, str]]
    """For each row its primary key, by column."""
    next: str | None
    """The cursor of the next page; None if this is the last."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows there are; with `is_more`, there are more than that."""

    rows: int
    is_more: bool


def parse_filters(
    projection: Projection,
    items: Iterable[tuple[str, str]],
    *,
    limit: int = DEFAULT_ROWS,
    others: Sequence[str] = (),
) -> Query:
    """Read the parameters of a request as a query of a projection.

    `select`, `order`, `limit` and `after` have their own meaning; `as_of` and the names in `others` are left
    to the caller; all others are filters, `column=operator.value`. `filter.column=…` is always a filter, even
    if the column has one of these names. Raises UsageError, which names what is wrong.
    """
    own: dict[str, str] = {}
    filters: list[Filter] = []
    for name, value in items:
        require_text("a parameter's name", name)
        require_text(f"parameter {quoted(name)}", value)
        if name in others or name == "as_of":
            continue
        if name in _UNSUPPORTED:
            raise UsageError(
                f"{name} is not supported: {_UNSUPPORTED[name]}. "
                f"For a column of that name, write {_COLUMN_PREFIX}{name}"
            )
        if name not in _OURS:
            filters.append(_filter(projection, name.removeprefix(_COLUMN_PREFIX), value))
        elif name in own:
            raise UsageError(f"{name} is there twice")
        elif value:
            own[name] = value
    if len(filters) > _MOST_FILTERS:
        raise UsageError(f"there are {len(filters)} filters, and {_MOST_FILTERS} is the most")
    return Query(
        _selected(projection, own.get("select")),
        tuple(filters),
        _ordered(projection, own.get("order")),
        _limit(own["limit"]) if "limit" in own else limit,
        own.get("after"),
    )


def parameter_of(column: str) -> str:
    """Return the name of the parameter that filters a column."""
    is_other = column in (*_OURS, *_UNSUPPORTED) or column.startswith(_COLUMN_PREFIX)
    return f"{_COLUMN_PREFIX}{column}" if is_other else column


def read_rows(connection: psycopg.Connection, projection: Projection, query: Query) -> Rows:
    """Return a page of rows as texts; raises UsageError if a value or the cursor does not fit."""
    names = [column.name for column in query.columns]
    page = _Page(projection, query)
    output = sql.SQL(", ").join(sql.Identifier(page.number(name)) for name in page.columns)
    rows, following = page.read(connection, output, len(page.columns))
    places = {name: place for place, name in enumerate(page.columns)}
    keys = [{name: row[places[name]] or "" for name in projection.key} for row in rows]
    return Rows(query.columns, [tuple(row[places[name]] for name in names) for row in rows], keys, following)


def read_json(
    connection: psycopg.Connection, projection: Projection, query: Query
) -> tuple[bytes, str | None]:
    """Return a page of rows as an array of JSON objects, as PostgreSQL writes them, and the next cursor."""
    page = _Page(projection, query)
    columns = [
        sql.SQL("{} AS {}").format(sql.Identifier(page.number(column.name)), sql.Identifier(column.name))
        for column in query.columns
    ]
    row = "row"
    while any(column.name == row for column in query.columns):
        row += "_"
    json_row = sql.SQL(_Q["json_row"]).format(
        columns=sql.SQL(", ").join(columns), row=sql.Identifier(row)
    )  # fmt: skip
    cursor_columns = [sql.Identifier(page.number(order.column.name)) for order in page.order]
    output = sql.SQL(", ").join([*cursor_columns, json_row])
    rows, following = page.read(connection, output, len(cursor_columns) + 1, is_json=True)
    return b"[" + b",\n".join((row[-1] or "").encode() for row in rows) + b"]", following


def count(connection: psycopg.Connection, projection: Projection, query: Query, most: int = COUNTED) -> Count:
    """Count the rows that fit the filters, up to a bound, whatever page is read."""
    page = _Page(projection, replace(query, after=None))
    statement = sql.SQL(_Q["count"]).format(
        view=projection.view, conditions=page.conditions, limit=sql.Literal(most + 1)
    )
    [(rows,)] = _run(connection, statement, page.parameters, page.blamed)
    number = int(rows or 0)
    return Count(min(number, most), number > most)


class _Page:
    """The parts of the statement that reads a page."""

    def __init__(self, projection: Projection, query: Query) -> None:
        self._projection = projection
        self._query = query
        self.order = _complete_order(projection, query.order)
        needed = [*(c.name for c in query.columns), *(o.column.name for o in self.order)]
        self.columns = list(dict.fromkeys(needed))
        """The names of the columns that are read: those of the query, and those of the order and key."""
        self.parameters: list[str | None] = []
        conditions = [self._condition(item) for item in query.filters]
        if query.after is not None:
            conditions.append(self._after(self._values(query.after)))
        self.conditions = sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")

    @property
    def blamed(self) -> str:
        """What to name if the database rejects a value."""
        names = dict.fromkeys(item.column.name for item in self._query.filters)
        parts = [f"the filter of {', '.join(names)}"] if names else []
        if self._query.order:
            parts.append(f"order by {', '.join(order.column.name for order in self._query.order)}")
        if self._query.after is not None:
            parts.append("the cursor")
        return ", or ".join(parts) or f"table {self._projection.name}"

    def number(self, name: str) -> str:
        """Return what a column is called inside the statement."""
        return f"c{self.columns.index(name)}"

    def read(
        self, connection: psycopg.Connection, output: sql.Composable, width: int, *, is_json: bool = False
    ) -> tuple[list[tuple[str | None, ...]], str | None]:
        """Return the rows of the page, and the next cursor; `width` is the number of columns of `output`."""
        limit = self._query.limit
        statement = sql.SQL(_Q["page"]).format(
            output=output,
            sizes=self._sizes(),
            columns=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(sql.Identifier("r", name), sql.Identifier(self.number(name)))
                for name in self.columns
            ),
            view=self._projection.view,
            conditions=self.conditions,
            order=self._order_by(sql.Identifier("r", order.column.name) for order in self.order),
            numbers=self._order_by(sql.Identifier(self.number(order.column.name)) for order in self.order),
            limit=sql.Literal(limit + 1),
            rows=sql.Identifier("rows"),
        )
        rows = _run(connection, statement, self.parameters, self.blamed)
        has_more = bool(rows) and int(rows[0][width] or 0) > min(len(rows), limit)
        rows = [row[:width] for row in rows[:limit]]
        if not has_more:
            return rows, None
        places = (
            range(len(self.order)) if is_json else [self.columns.index(o.column.name) for o in self.order]
        )
        return rows, self._cursor([rows[-1][place] for place in places])

    def _order_by(self, columns: Iterable[sql.Composable]) -> sql.Composed:
        parts = []
        for column, order in zip(columns, self.order, strict=True):
            part = sql.SQL("{} DESC" if order.descending else "{}").format(column)
            if order.nulls_first != order.descending:  # else PostgreSQL places nulls so, as its indexes do
                part += sql.SQL(" NULLS FIRST" if order.nulls_first else " NULLS LAST")
            parts.append(part)
        return sql.SQL(", ").join(parts)

    def _sizes(self) -> sql.Composable:
        """Return the size of a row in bytes, as far as it is known without reading long values."""
        texts = ("text", "character varying", "character", "bytea")
        sizes: list[sql.Composable] = [sql.Literal(100)]
        for name in self.columns:
            column = self._projection.column(name)
            if column.is_long:
                size: LiteralString = "octet_length({})" if column.base in texts else "4 * pg_column_size({})"
                sizes.append(
                    sql.SQL("coalesce({}, 0)").format(sql.SQL(size).format(sql.Identifier(self.number(name))))
                )
        return sql.SQL(" + ").join(sizes)

    def _condition(self, item: Filter) -> sql.Composable:
        column: sql.Composable = sql.Identifier("r", item.column.name)
        match item.operator, item.value:
            case "in", tuple() as values:
                listed = [self._parameter(item.column.literal(value)) for value in values]
                condition = (
                    sql.SQL("{} IN ({})").format(column, sql.SQL(", ").join(listed))
                    if listed
                    else sql.SQL("false")
                )
            case "is", str() as value:
                condition = sql.SQL(_IS[value]).format(column)
            case "like" | "ilike" as operator, str() as value:
                text: LiteralString = "encode({}, 'hex')" if item.column.base == "bytea" else "{}::text"
                pattern = self._parameter(value.replace("*", "%"))
                condition = sql.SQL(_PATTERNS[operator]).format(sql.SQL(text).format(column), pattern)
            case operator, str() as value:
                parameter = self._parameter(item.column.literal(value))
                condition = sql.SQL(_COMPARISONS[operator]).format(column, parameter)
            case _:
                raise AssertionError("parse_filters makes no other filters")
        return sql.SQL("NOT ({})").format(condition) if item.is_negated else condition

    def _after(self, values: Sequence[str | None]) -> sql.Composable:
        """Return the condition that a row comes after the one with these values of the order's columns."""
        columns = [sql.Identifier("r", order.column.name) for order in self.order]
        if len({order.descending for order in self.order}) == 1 and not any(
            order.column.nullable for order in self.order
        ):
            # One comparison of rows, which an index answers.
            return sql.SQL("({}) {} ({})").format(
                sql.SQL(", ").join(columns),
                sql.SQL("<" if self.order[0].descending else ">"),
                sql.SQL(", ").join([self._parameter(value) for value in values]),
            )
        condition: sql.Composable = sql.SQL("false")
        for order, column, value in reversed(list(zip(self.order, columns, values, strict=True))):
            sign = sql.SQL("<" if order.descending else ">")
            if value is None:
                later = sql.SQL("{} IS NOT NULL").format(column) if order.nulls_first else sql.SQL("false")
                equal = sql.SQL("{} IS NULL").format(column)
                condition = sql.SQL("({} OR {} AND {})").format(later, equal, condition)
                continue
            parameter = self._parameter(value)
            later = sql.SQL("{} {} {}").format(column, sign, parameter)
            equal = sql.SQL("{} = {}").format(column, parameter)
            if order.column.nullable and not order.nulls_first:
                condition = sql.SQL("({0} OR {1} IS NULL OR {2} AND {3})").format(
                    later, column, equal, condition
                )
            else:
                # The first comparison repeats the others for the index.
                condition = sql.SQL("({0} {1}= {2} AND ({3} OR {4} AND {5}))").format(
                    column, sign, parameter, later, equal, condition
                )
        return condition

    def _parameter(self, value: str | None) -> sql.Composable:
        self.parameters.append(value)
        return sql.SQL("$" + str(len(self.parameters)))

    def _mark(self) -> str:
        """Return a digest of the table and the order, which a cursor belongs to."""
        order = [[item.column.name, item.descending, item.nulls_first] for item in self.order]
        text = json.dumps([self._projection.app, self._projection.name, order])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def _cursor(self, values: Sequence[str | None]) -> str:
        for order, value in zip(self.order, values, strict=True):
            if value is not None and len(value) > _LONGEST_VALUE:
                raise UsageError(
                    f"the rows cannot be read page by page in the order of {order.column.name}: a value "
                    f"of it has {len(value)} characters. Choose another order"
                )
        return write_cursor(self._mark(), *values)

    def _values(self, cursor: str) -> list[str | None]:
        """Return the values of a cursor; raise UsageError if it is not one of this table and order."""
        mark, *values = decode_cursor(cursor) or [None]
        fits = mark == self._mark() and len(values) == len(self.order)
        if not fits or not all(
            isinstance(value, str) or (value is None and order.column.nullable)
            for order, value in zip(self.order, values, strict=True)
        ):
            raise UsageError(WRONG_CURSOR)
        return values


def _run(
    connection: psycopg.Connection, statement: sql.Composed, parameters: Sequence[str | None], blamed: str
) -> list[tuple[str | None, ...]]:
    """Run a statement and return its rows as texts.

    Parameters have numbers, since the names of columns may have percent signs.
    """
    with explained(blamed), psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor.execute(statement, parameters or None)
        result = cursor.pgresult
        assert result is not None, "the statement has been executed"
        return [
            tuple(
                None if value is None else value.decode()
                for value in (result.get_value(row, place) for place in range(result.nfields))
            )
            for row in range(result.ntuples)
        ]


def _complete_order(projection: Projection, order: Sequence[Order]) -> tuple[Order, ...]:
    """Return an order that no two rows share: the key's other columns follow, in the last direction."""
    named = {item.column.name for item in order}
    descending = order[-1].descending if order else False
    rest = [projection.column(name) for name in projection.key if name not in named]
    return (*order, *(Order(column, descending, descending) for column in rest))


def _filter(projection: Projection, name: str, text: str) -> Filter:
    column = projection.column(name)
    is_negated = text.startswith("not.")
    operator, dot, value = text.removeprefix("not.").partition(".")
    if not dot or operator not in OPERATORS:
        raise UsageError(
            f"the filter of {name} is not OPERATOR.VALUE: {quoted(text)}; operators are "
            f"{', '.join(OPERATORS)}, or not. before one"
        )
    if len(value) > _LONGEST_VALUE and operator != "in":
        raise UsageError(f"the filter of {name} has a value of more than {_LONGEST_VALUE} characters")
    if operator == "in":
        return Filter(column, operator, _values_of(name, value), is_negated)
    if operator in _PATTERNS and (len(value) - len(value.rstrip("\\"))) % 2:
        raise UsageError(f"the filter of {name} ends with a backslash, which escapes what follows it")
    if operator == "is":
        if value not in _IS:
            raise UsageError(f"the filter of {name} has is.{quoted(value)}: after is. comes {', '.join(_IS)}")
        if "null" not in value and column.base != "boolean":
            raise UsageError(f"the filter of {name} has is.{value}, but its type is {column.type}")
    return Filter(column, operator, value, is_negated)


def _values_of(name: str, text: str) -> tuple[str, ...]:
    if not (text.startswith("(") and text.endswith(")")):
        raise UsageError(
            f"the filter of {name} has no list: write in.(a,b), and a value with a comma in quotes"
        )
    values = tuple(value for value, _ in _items(text[1:-1]))
    if len(values) > _MOST_VALUES:
        raise UsageError(f"the filter of {name} lists {len(values)} values, and {_MOST_VALUES} is the most")
    return values


def _items(text: str) -> list[tuple[str, str | None]]:
    """Split a list at its commas; what follows an item in quotes is returned beside it, else None is."""
    items: list[tuple[str, str | None]] = []
    place = 0
    while text:
        match = _ITEM.match(text, place)
        assert match is not None, "the last alternative matches anything"
        quoted_item, rest, bare, comma = match.groups()
        if quoted_item is None:
            items.append((bare, None))
        else:
            items.append((re.sub(r"\\(.)", r"\1", quoted_item, flags=re.DOTALL), rest))
        if not comma:
            break
        place = match.end()
    return items


def _selected(projection: Projection, text: str | None) -> tuple[Column, ...]:
    if text is None or text == "*":
        return projection.columns
    return tuple(dict.fromkeys(projection.column(name) for name, _ in _items(text)))


def _ordered(projection: Projection, text: str | None) -> tuple[Order, ...]:
    orders: dict[str, Order] = {}
    for item, rest in _items(text or ""):
        name = item if rest is not None else _SUFFIXES.sub("", item)
        suffixes = rest if rest is not None else item[len(name) :]
        words = suffixes.split(".")[1:]
        if not _SUFFIXES.fullmatch(suffixes) or len(words) != len({word in _DIRECTIONS for word in words}):
            raise UsageError(
                f"order has {quoted(suffixes)} after {quoted(name)}: write .asc or .desc, then perhaps "
                ".nullsfirst or .nullslast"
            )
        descending = "desc" in words
        nulls_first = "nullsfirst" in words or (descending and "nullslast" not in words)
        orders.setdefault(name, Order(projection.column(name), descending, nulls_first))
    return tuple(orders.values())


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not 1 <= int(text) <= MOST_ROWS:
        raise UsageError(f"limit is not a number from 1 to {MOST_ROWS}: {quoted(text)}")
    return int(text)
