"""Rows of projections: filters, orders and pages, over columns of any type and name."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.many_types import NAMES, ROWS, an_app
from virtualchain import StateEngine
from virtualchain.errors import UsageError
from virtualchain.reading.catalog import Projection, projection, projections
from virtualchain.reading.pages import MOST_ROWS
from virtualchain.reading.rows import Query, count, parse_filters, read_json, read_rows
from virtualchain.reading.views import show_block, snapshot
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

Connection = psycopg.Connection[Any]
COLUMNS = (
    *("kind", "number", "t", "v", "c", "small", "big", "n", "b", "j", "at", "on_day", "span", "flag", "mood"),
    *("tags", "u", "r1"),
)
"""Those of `many` that have an order."""


@pytest.fixture(scope="module")
def url(database_server: DatabaseServer) -> Iterator[str]:
    """Return the URL of a deployment with the app of many types."""
    place = database_server.clone()
    with FakeNode() as node:
        node.mine([node.send(b"tyofill")])
        node.mine(n=2)
        with StateEngine(an_app(), database=place, source=node.url, confirmations=0) as engine:
            engine.build()
        yield place
    database_server.drop(place)


@pytest.fixture(scope="module")
def shared(url: str) -> Iterator[Connection]:
    """Return a transaction that reads it."""
    with snapshot(url) as connection:
        yield connection


@pytest.fixture
def connection(shared: Connection) -> Iterator[Connection]:
    """Return the transaction, which is as before after errors."""
    with shared.transaction(force_rollback=True):
        yield shared


def texts(connection: Connection, table: str, *items: tuple[str, str]) -> list[tuple[str | None, ...]]:
    """Read rows by the parameters of a request."""
    shown = projection(connection, "types", table)
    return read_rows(connection, shown, parse_filters(shown, items)).rows


def numbers(connection: Connection, table: str, *items: tuple[str, str]) -> list[int]:
    """Read the first column of rows, sorted."""
    return sorted(int(row[0] or 0) for row in texts(connection, table, *items, ("select", "id")))


orders = st.lists(
    st.tuples(
        st.sampled_from(COLUMNS),
        st.sampled_from(["", ".asc", ".desc"]),
        st.sampled_from(["", ".nullsfirst", ".nullslast"]),
    ),
    max_size=4,
    unique_by=lambda order: order[0],
)


@settings(deadline=None, max_examples=60)
@example(order=[], size=7, as_json=True)
@example(order=[("small", ".desc", "")], size=7, as_json=False)
@example(order=[("kind", ".desc", ""), ("small", ".desc", "")], size=4, as_json=True)
@example(order=[("number", ".desc", ""), ("kind", "", "")], size=4, as_json=False)
@given(order=orders, size=st.integers(3, ROWS + 1), as_json=st.booleans())
def test_pages_are_the_rows_in_order(
    shared: Connection, order: list[tuple[str, str, str]], size: int, as_json: bool
) -> None:
    """In any order and direction, pages of any size have the rows that one ORDER BY has, each once."""
    many = projection(shared, "types", "many")
    descending = bool(order) and order[-1][1] == ".desc"
    asked = {name for name, _, _ in order}
    words = {"": "", ".asc": "ASC", ".desc": "DESC", ".nullsfirst": "NULLS FIRST", ".nullslast": "NULLS LAST"}
    parts = [f"{name} {words[direction]} {words[nulls]}" for name, direction, nulls in order]
    parts += [f"{name} {'DESC' if descending else ''}" for name in many.key if name not in asked]
    statement = f"SELECT kind, format('%s', number) FROM types.many ORDER BY {', '.join(parts)}"
    expected = shared.execute(statement.encode()).fetchall()
    assert len(expected) == ROWS
    items = [("order", ",".join("".join(part) for part in order)), ("limit", str(size))]
    seen: list[tuple[Any, ...]] = []
    cursor: str | None = ""
    while cursor is not None:
        query = parse_filters(many, [*items, ("after", cursor), ("select", "kind,number")])
        if as_json:
            page, cursor = read_json(shared, many, query)
            seen += [(row["kind"], str(row["number"])) for row in json.loads(page)]
        else:
            rows = read_rows(shared, many, query)
            seen += rows.rows
            assert [tuple(key[name] for name in ("kind", "number")) for key in rows.keys] == rows.rows
            cursor = rows.next
    assert seen == expected


@pytest.mark.parametrize("name", COLUMNS)
def test_every_value_is_found_by_its_text(connection: Connection, name: str) -> None:
    """A filter with a value as PostgreSQL writes it has the rows with it, and so has a list of it."""
    many = projection(connection, "types", "many")
    place = [column.name for column in many.columns].index(name)
    rows = read_rows(connection, many, Query(many.columns, limit=MOST_ROWS)).rows
    values = {row[place] for row in rows if row[place] is not None}
    total = 0
    for value in values:
        assert value is not None
        fitting = texts(connection, "many", (name, f"eq.{value}"))
        assert value in {row[place] for row in fitting}
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        assert texts(connection, "many", (name, f'in.("{quoted}")')) == fitting
        total += len(fitting) if len({row[place] for row in fitting}) == 1 else 0
        other = texts(connection, "many", (name, f"neq.{value}"))
        assert len(fitting) + len(other) + len(texts(connection, "many", (name, "is.null"))) == ROWS
        assert texts(connection, "many", (name, f"not.eq.{value}")) == other
    assert total > 0
    assert (
        len(texts(connection, "many", (name, "is.not_null")))
        + len(texts(connection, "many", (name, "not.is.not_null")))
        == ROWS
    )


def test_operators(connection: Connection) -> None:
    """Comparisons, patterns, lists and what contains what are those of SQL."""

    def matches(*items: tuple[str, str]) -> int:
        return len(texts(connection, "many", *items))

    def sql(condition: str) -> int:
        row = connection.execute(f"SELECT count(*) FROM types.many WHERE {condition}".encode()).fetchone()
        assert row is not None
        return int(row[0])

    cases = [
        ("small", "gt.1", "small > 1"), ("small", "gte.1", "small >= 1"), ("small", "lt.1", "small < 1"),
        ("small", "lte.1", "small <= 1"), ("big", "gt.1e3", "big > 1000"), ("big", "eq.NaN", "big = 'NaN'"),
        ("t", "like.a*", "t LIKE 'a%'"), ("t", "ilike.A*", "t ILIKE 'a%'"),
        ("t", "not.like.a*", "t NOT LIKE 'a%'"), ("b", "like.00*", "encode(b, 'hex') LIKE '00%'"),
        ("b", "eq.00ff", "b = '\\x00ff'"), ("big", "like.1*", "big::text LIKE '1%'"),
        ("flag", "is.true", "flag"), ("flag", "is.false", "NOT flag"), ("flag", "is.unknown", "flag IS NULL"),
        ("tags", "cs.{b}", "tags @> '{b}'"), ("j", 'cs.{"a":1}', "j @> '{\"a\":1}'"),
        ("tags", "cd.{b,c}", "tags <@ '{b,c}'"), ("small", "in.(1,3)", "small IN (1, 3)"),
        ("small", "in.()", "false"), ("small", "not.in.(1,3)", "small NOT IN (1, 3)"),
        ("t", 'in.("a,b",,a)', "t IN ('a,b', '', 'a')"), ("at", "gt.2020-01-01", "at > '2020-01-01'"),
        ("mood", "gt.sad", "mood > 'sad'"), ("t", "eq.", "t = ''"),
    ]  # fmt: skip
    seen = set()
    for name, value, condition in cases:
        assert matches((name, value)) == sql(condition), (name, value)
        seen.add(sql(condition))
    assert len(seen) > 5
    assert matches(("small", "gte.1"), ("small", "lt.3"), ("flag", "is.true")) == sql(
        "small IN (1, 2) AND flag"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_column_may_have_any_name(connection: Connection, name: str) -> None:
    """With the prefix a parameter is always a filter; quotes make any name one of select and order."""
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert numbers(connection, "named", (f"filter.{name}", "gte.3")) == [3, 4, 5, 6, 7]
    rows = texts(connection, "named", ("select", f"id,{quoted}"), ("order", f"{quoted}.desc"), ("limit", "2"))
    assert rows == [("7", "7"), ("6", "6")]
    named = projection(connection, "types", "named")
    text, following = read_json(
        connection, named, parse_filters(named, [("select", quoted), ("order", quoted), ("limit", "1")])
    )
    assert json.loads(text) == [{name: 1}]
    assert following is not None
    items = [("select", quoted), ("order", quoted), ("after", following), ("limit", "1")]
    assert json.loads(read_json(connection, named, parse_filters(named, items))[0]) == [{name: 2}]


def test_json_has_all_digits_and_bytes(connection: Connection) -> None:
    """A row in JSON is as to_json writes it."""
    many = projection(connection, "types", "many")
    text, _ = read_json(connection, many, parse_filters(many, [("limit", "1000")]))
    [(expected,)] = connection.execute(
        "SELECT json_agg(row_to_json(m) ORDER BY number, kind)::text FROM types.many AS m"
    ).fetchall()
    assert json.loads(text) == json.loads(expected)
    assert b'"big":1.00,' in text
    assert b'"b":"\\\\x00ff"' in text


def test_a_page_is_not_larger_than_it_may_be(connection: Connection) -> None:
    """Rows of a megabyte come a few at a time, and none is left out."""
    wide = projection(connection, "types", "wide")
    sizes, seen = [], []
    cursor: str | None = ""
    while cursor is not None:
        page = read_rows(connection, wide, parse_filters(wide, [("after", cursor)]))
        sizes.append(len(page.rows))
        seen += [row[0] for row in page.rows]
        cursor = page.next
    assert sizes == [4, 3]
    assert seen == ["1", "2", "3", "4", "5", "6", "7"]
    with pytest.raises(UsageError, match="a value of it has 1000000 characters"):
        read_rows(connection, wide, parse_filters(wide, [("order", "content")]))


def test_rows_are_counted_up_to_a_bound(connection: Connection) -> None:
    """Beyond the bound it only says that there are more."""
    many = projection(connection, "types", "many")
    assert count(connection, many, parse_filters(many, [("limit", "1")])).rows == ROWS
    bounded = count(connection, many, parse_filters(many, []), most=10)
    assert (bounded.rows, bounded.is_more) == (10, True)
    assert count(connection, many, parse_filters(many, [("small", "eq.9")])).rows == 0
    assert texts(connection, "empty") == []


MISTAKES: list[tuple[list[tuple[str, str]], str]] = [
    ([("nix", "eq.1")], "table many has no column 'nix'; it has kind, number"),
    ([("t", "eq")], "the filter of t is not OPERATOR.VALUE: 'eq'; operators are eq, neq"),
    ([("t", "a")], "is not OPERATOR.VALUE"),
    ([("t", "match.^a")], "is not OPERATOR.VALUE"),
    ([("t", "is.maybe")], "after is. comes null"),
    ([("t", "is.true")], "its type is text"),
    ([("small", "eq.x")], 'filter of small: invalid input syntax for type smallint: "x"'),
    ([("small", "eq.99999")], "out of range"),
    ([("at", "eq.yesterdayish")], "filter of at"),
    ([("mood", "eq.angry")], "filter of mood"),
    ([("u", "eq.1")], "filter of u"),
    ([("b", "eq.xyz")], "value of b is not hex"),
    ([("b", "eq.\\xz")], "filter of b"),
    ([("js", "eq.1")], "filter of js"),
    ([("order", "js")], "order by js"),
    ([("j", "eq." + "[" * 9000)], "filter of j: invalid input syntax for type json"),
    ([("t", "eq." + "x" * 20000)], "more than 10000 characters"),
    ([("t", "like.\\")], "the filter of t ends with a backslash"),
    ([("t", "eq.\0")], "NUL byte"),
    ([("t", "eq.\ud800")], "cannot be encoded"),
    ([("t\0", "eq.1")], "NUL byte"),
    ([("t", "in.a,b")], "has no list"),
    ([("t", f"in.({',' * 1000})")], "lists 1001 values, and 1000 is the most"),
    ([("t", "eq.a")] * 51, "51 filters, and 50 is the most"),
    ([("or", "(t.eq.a,t.eq.b)")], "or is not supported"),
    ([("offset", "5")], "offset is not supported"),
    ([("limit", "0")], "limit is not a number from 1 to 1000: '0'"),
    ([("limit", "1001")], "limit is not a number"),
    ([("limit", "٣")], "limit is not a number"),
    ([("limit", "5"), ("limit", "6")], "limit is there twice"),
    ([("select", "nix")], "no column 'nix'"),
    ([("order", "t.down")], "no column 't.down'"),
    ([("order", '"t".down')], "after 't': write .asc or .desc"),
    ([("order", "t.asc.desc")], "after 't': write"),
    ([("after", "x")], "cursor is not one of this list"),
    ([("after", "é")], "cursor is not one of this list"),
    ([("after", "W10")], "cursor is not one of this list"),
    ([("after", base64.urlsafe_b64encode(b"[" * 5000).decode())], "cursor is not one of this list"),
]


@pytest.mark.parametrize(("items", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_named(connection: Connection, items: list[tuple[str, str]], message: str) -> None:
    """What cannot be answered is the asker's mistake, in one line; as JSON and as a count, too."""
    many = projection(connection, "types", "many")
    for read in (read_rows, read_json):
        with pytest.raises(UsageError) as caught, connection.transaction():
            read(connection, many, parse_filters(many, items))
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_cursor_belongs_to_its_table_and_order(connection: Connection) -> None:
    """A cursor of another table or order, or one that was made up, is refused; the right one is not."""
    many, named = (projection(connection, "types", name) for name in ("many", "named"))

    def following(shown: Projection, order: str) -> str:
        cursor = read_rows(connection, shown, parse_filters(shown, [("order", order), ("limit", "2")])).next
        assert cursor is not None
        return cursor

    right = following(many, "small.desc")
    assert texts(connection, "many", ("order", "small.desc"), ("after", right))
    mark = json.loads(base64.urlsafe_b64decode(right + "=="))[0]
    made_up = [
        [mark],
        [mark, "1", None, "1"],
        [mark, "1", "1", 1],
        [mark, "1", "1", "1", "1"],
        {"a": 1},
        [mark, "1", "1", "\0"],
    ]
    forged = [
        base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=") for values in made_up
    ]
    for cursor in (following(many, "small"), following(many, "t.desc"), following(named, "id"), *forged):
        with pytest.raises(UsageError, match="cursor"):
            texts(connection, "many", ("order", "small.desc"), ("after", cursor))
    wrong_type = base64.urlsafe_b64encode(json.dumps([mark, "x", "1", "1"]).encode()).decode()
    with pytest.raises(UsageError, match="the cursor: invalid input syntax"):
        texts(connection, "many", ("order", "small.desc"), ("after", wrong_type))


def test_the_catalog_describes_the_projections(connection: Connection) -> None:
    """Columns have types and comments; a name that is not there is answered with those that are."""
    assert [(item.app, item.name) for item in projections(connection)] == [
        ("types", name) for name in ("empty", "many", "named", "wide")
    ]
    many = projection(connection, "types", "many")
    assert many.key == ("number", "kind")
    assert many.comment == "Many types."
    assert set(many.indexed) == {"number", "t"}
    described = {column.name: (column.type, column.base, column.nullable) for column in many.columns}
    assert described["n"] == ("types__1.counted", "numeric", True)
    assert described["v"] == ("character varying(20)", "character varying", True)
    assert described["small"] == ("smallint", "smallint", False)
    assert many.column("t").comment == "A text, or none."
    for app, name, message in (
        ("types", "nix", "app types has no table 'nix'; it has empty, many, named, wide"),
        ("types", "many_history", "app types has no table"),
        ("nix", "many", "no app nix; it has types"),
        ("types", "a\0", "NUL byte"),
    ):
        with pytest.raises(UsageError, match=message):
            projection(connection, app, name)


def test_rows_are_shown_as_of_a_block(connection: Connection) -> None:
    """Before the op there is no row, whatever the order; a block that is not there is named."""
    many = projection(connection, "types", "many")
    show_block(connection, "101")
    assert (
        read_rows(connection, many, parse_filters(many, [("order", "t.desc"), ("as_of", "101")])).rows == []
    )
    show_block(connection, "102")
    assert len(read_rows(connection, many, parse_filters(many, [])).rows) == ROWS
    show_block(connection, "999")
    with pytest.raises(UsageError, match="block 999 is not here: the blocks here are"):
        read_rows(connection, many, parse_filters(many, []))
