"""An app with columns of many types and hostile names, in rows with nulls, duplicates and odd values."""

import random
from typing import Any

from tests.support.unguarded import unguarded
from virtualchain import App, State

NAMES = (
    *(
        "order",
        "limit",
        "as_of",
        "select",
        "after",
        "or",
        "offset",
        "filter.t",
        'a"b',
        "%s",
        "%(x)s",
        "{x}",
        "a,b",
    ),
    *("a.desc", "größe", "r", "c0", "row", "place", "size", "x" * 63),
)
"""Columns that are called as something else is."""

_LIST = ", ".join('"' + name.replace('"', '""') + '" integer' for name in NAMES)
TABLES = f"""
    CREATE TYPE mood AS ENUM ('sad', 'fine', 'Glad');
    CREATE DOMAIN whole AS numeric CHECK (VALUE = trunc(VALUE));
    CREATE DOMAIN counted AS whole;
    CREATE TABLE many (
        kind text, number numeric, t text, v varchar(20), c char(5), small smallint NOT NULL, big numeric,
        n counted, b bytea, j jsonb, js json, at timestamptz, on_day date, span interval, flag boolean,
        mood mood, tags text[], u uuid, r1 int4range,
        PRIMARY KEY (number, kind)
    );
    COMMENT ON TABLE many IS 'Many types.';
    COMMENT ON COLUMN many.t IS 'A text, or none.';
    CREATE INDEX ON many (t);
    CREATE TABLE empty (id integer PRIMARY KEY);
    CREATE TABLE wide (id integer PRIMARY KEY, content text NOT NULL);
    CREATE TABLE named (id integer PRIMARY KEY, {_LIST});
"""
ROWS = 60
"""Rows of `many`."""
_TEXTS = (
    "",
    "a",
    "A",
    "b",
    "B",
    "ab",
    "é",
    "É",
    "ß",
    "表",
    "a b",
    "a,b",
    "%",
    "\\",
    "'",
    '"',
    "a\n",
    "\U0001f600",
)
_NUMBERS = (
    "0",
    "1",
    "1.0",
    "1.00",
    "-1",
    "0.1",
    "1e30",
    "-1e-30",
    "NaN",
    "Infinity",
    "-Infinity",
    "12345678901234567890",
)


def make_rows(seed: int = 1) -> list[dict[str, str | None]]:
    """Make the rows of `many`, as texts: values are equal to others, and most columns have nulls."""
    chance = random.Random(seed)
    pick = chance.choice
    rows: dict[tuple[str, str], dict[str, str | None]] = {}
    while len(rows) < ROWS:
        kind, number = pick(_TEXTS), pick(("1", "1.5", "2", "10", "NaN", "-3"))
        row: dict[str, str | None] = {
            "kind": kind,
            "number": number,
            "t": pick(_TEXTS),
            "v": pick(_TEXTS),
            "c": pick(("a", "a  ", "B", "b", "")),
            "big": pick(_NUMBERS),
            "n": pick(("1", "2", "10", "100000000000000000000")),
            "b": pick(("\\x", "\\x00", "\\x00ff", "\\xff", "\\x5c7830")),
            "j": pick(('{"a": 1}', '{"a": 1.0}', "[]", "1", '"x"', "null")),
            "js": pick(('{"a": 1}', "[]")),
            "at": pick(
                (
                    "2020-01-01T00:00:00Z",
                    "2020-01-01T00:00:00.000001Z",
                    "infinity",
                    "-infinity",
                    "0044-03-15 BC",
                )
            ),
            "on_day": pick(("2020-01-01", "infinity", "1999-12-31")),
            "span": pick(("P1D", "PT24H", "P1M", "PT0.5S")),
            "flag": pick(("t", "f")),
            "mood": pick(("sad", "fine", "Glad")),
            "tags": pick(("{}", "{a,NULL}", '{"a,b"}', "{b}")),
            "u": pick(("00000000-0000-0000-0000-000000000001", "ffffffff-ffff-ffff-ffff-ffffffffffff")),
            "r1": pick(("empty", "[1,3)", "(,5)")),
        }
        nullable = [name for name in row if name not in ("kind", "number")]
        row |= {name: None for name in nullable if chance.random() < 0.2}
        rows[kind, number] = row | {"small": str(chance.randrange(4))}
    return list(rows.values())


def an_app(name: str = "types") -> App:
    """Make the app; its one op fills the tables."""
    app = App(name, magic=b"ty", projections=TABLES)

    def commit(op: dict[str, Any], state: State) -> None:
        cursor = unguarded(state)
        for row in make_rows():
            columns = ", ".join(row)
            cursor.execute(
                f"INSERT INTO many ({columns}) VALUES ({', '.join(['%s'] * len(row))})", list(row.values())
            )
        for number in range(1, 8):
            cursor.execute("INSERT INTO wide VALUES (%s, repeat('x', 1000000))", [number])
            cursor.execute(
                f"INSERT INTO named SELECT {', '.join(['%s'] * (len(NAMES) + 1))}",
                [number] * (len(NAMES) + 1),
            )

    app.add(b"o", parse=lambda payload: {"do": payload.decode()}, commit=commit)
    return app
