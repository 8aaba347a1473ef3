"""Search: what in a deployment has exactly this name, number, hash, address or key."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from virtualchain.reading.catalog import Column, Projection, projections
from virtualchain.reading.journal import is_hash
from virtualchain.reading.views import HIGHEST
from virtualchain.store.sql import queries

_Q = queries("search")
_VIEWS = queries("views")

_LONGEST: Final = 300
"""Characters of a text that is looked for."""
_MOST_COLUMNS: Final = 60
"""The most columns that are searched."""
_MOST_ROWS: Final = 5
"""The most rows that are listed for a column."""
_TEXTS: Final = ("text", "character varying", "character", "name")
_INTEGERS: Final = {"smallint": 15, "integer": 31, "bigint": 63}
"""Integer types, and how many bits their numbers have."""
_ADDRESS = re.compile(
    r"[A-Za-z0-9]{1,83}1[02-9ac-hj-np-zAC-HJ-NP-Z]{8,80}|[1-9A-HJ-NP-Za-km-z]{25,36}", re.ASCII
)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that fits the text.

    `kind` is block, transaction, consensus, address, row, rows, app or table; `path` and `parameters` are
    those of its page: for a row, `parameters` is its key; for rows, a filter.
    """

    kind: str
    app: str | None
    label: str
    path: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)


def search(connection: psycopg.Connection, text: str) -> list[Hit]:
    """Return what fits a text: all of it, but for parts of the names of apps and tables.

    It finds blocks by height or hash, transactions by id, or by an address that they spend from or pay to
    (among the last inputs), blocks by an app's consensus hash, and rows by a value of a column that an index
    begins with. A text that fits nothing, whatever it is, is not an error.
    """
    sought = text.strip()
    if not sought or len(sought) > _LONGEST or "\0" in sought or not _is_encodable(sought):
        return []
    tables = projections(connection)
    return [
        *_in_log(connection, sought),
        *_in_tables(connection, tables, sought),
        *_at_address(connection, sought),
        *_named(tables, sought),
    ]


def _in_log(connection: psycopg.Connection, text: str) -> Iterator[Hit]:
    is_height = re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) and int(text) <= HIGHEST
    parameters = {
        "height": int(text) if is_height else None,
        "hash": text.lower() if is_hash(text) else None,
        "consensus_hash": text.lower() if re.fullmatch(r"[0-9A-Fa-f]{32}", text, re.ASCII) else None,
        "name": text.lower(),
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_Q["log"], parameters).fetchall():
            yield _hit(**row)


def _hit(kind: str, app: str | None, block_id: int | None, text: str | None) -> Hit:
    match kind:
        case "block":
            return Hit(kind, None, f"block {block_id}", ("blocks", str(block_id)))
        case "transaction":
            place = f"in block {block_id}" if block_id is not None else "pending"
            return Hit(kind, app, f"transaction {text} {place}", ("tx", str(text)))
        case "consensus":
            return Hit(kind, app, f"consensus hash of {app} at block {block_id}", ("blocks", str(block_id)))
        case _:
            return Hit("app", app, f"app {app}", ("apps", str(app)))


def _in_tables(connection: psycopg.Connection, tables: Sequence[Projection], text: str) -> Iterator[Hit]:
    """Look for rows by the columns that an index begins with, in one statement."""
    places = [
        (table, table.column(name))
        for table in tables
        for name in dict.fromkeys((table.key[0], *table.indexed))
        if _fits(table.column(name), text)
    ][:_MOST_COLUMNS]
    if not places:
        return
    parts = [
        sql.SQL(_Q["rows"]).format(
            place=sql.Literal(place),
            names=sql.Literal(list(table.key)),
            texts=sql.SQL(", ").join(
                sql.SQL("format('%s', {})").format(sql.Identifier("r", name)) for name in table.key
            ),
            view=table.view,
            column=sql.Identifier("r", column.name),
            text=sql.SQL(f"${place + 1}"),
            limit=sql.Literal(_MOST_ROWS + 1),
        )
        for place, (table, column) in enumerate(places)
    ]
    statement = sql.SQL(" UNION ALL ").join(parts)
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        rows = cursor.execute(statement, [column.literal(text) for _, column in places]).fetchall()
    by_place: dict[int, list[dict[str, str]]] = {}
    for place, key in rows:
        by_place.setdefault(place, []).append(key)
    for place, keys in by_place.items():
        table, column = places[place]
        path = ("apps", table.app, "tables", table.name)
        if len(keys) > _MOST_ROWS:
            label = f"rows of {table.app}.{table.name} with this {column.name}"
            yield Hit("rows", table.app, label, path, {f"filter.{column.name}": f"eq.{text}"})
            continue
        for key in keys:
            shown = ", ".join(f"{name}={value}" for name, value in key.items())
            yield Hit("row", table.app, f"{table.app}.{table.name} {shown}", (*path, "row"), key)


def _fits(column: Column, text: str) -> bool:
    """Return whether the text may be a value of the column's type."""
    match column.base:
        case base if base in _TEXTS:
            return True
        case base if base in _INTEGERS:
            return (
                re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII) is not None
                and abs(int(text)) < 2 ** _INTEGERS[base]
            )
        case "numeric":
            return re.fullmatch(r"-?[0-9]{1,100}(\.[0-9]{1,100})?", text, re.ASCII) is not None
        case "bytea":
            return re.fullmatch(r"(\\x)?([0-9A-Fa-f]{2})+", text, re.ASCII) is not None
        case "uuid":
            return _UUID.fullmatch(text) is not None
    return False


def _at_address(connection: psycopg.Connection, text: str) -> list[Hit]:
    """Look for an address among the last inputs."""
    if not _ADDRESS.fullmatch(text):
        return []
    try:
        with connection.transaction():
            row = connection.execute(_VIEWS["script_of"], {"address": text}).fetchone()
    except psycopg.DataError:  # its checksum is wrong
        return []
    script: Any = None if row is None else row[0]
    parameters = {"script": script, "address": text.lower() if text.isupper() else text}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_Q["address"], parameters).fetchall()
    return [
        Hit("address", None, f"transaction {row['txid']} in block {row['block_id']}", ("tx", row["txid"]))
        for row in rows
    ]


def _named(tables: Sequence[Projection], text: str) -> list[Hit]:
    return [
        Hit("table", table.app, f"table {table.app}.{table.name}", ("apps", table.app, "tables", table.name))
        for table in tables
        if text.lower() in (table.name.lower(), f"{table.app}.{table.name}".lower())
    ]


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
