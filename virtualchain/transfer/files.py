"""The files of an export, in Parquet or CSV: write a table's rows to one, and read the tape's back.

Rows are streamed both ways, so no table has to fit into memory.
"""

import csv
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import psycopg
from psycopg import sql

from virtualchain.errors import DamagedExport, UsageError, quoted
from virtualchain.store.sql import queries
from virtualchain.transfer.manifest import File, sha256_of
from virtualchain.transfer.tables import TEXT, TIME, Column, Table, columns_of, copy_types

_Q = queries("transfer")
Format = Literal["parquet", "csv"]
Row = tuple[Any, ...]

BLOCK_COLUMNS: Final = (
    ("block_id", "int32"),
    ("hash", TEXT),
    ("prev_hash", TEXT),
    ("time", TIME),
    ("chainwork", TEXT),
    ("header", "binary"),
)
INPUT_COLUMNS: Final = (
    ("block_id", "int32"),
    ("txindex", "int32"),
    ("txid", TEXT),
    ("magics", "list<binary>"),
    ("senders", TEXT),
    ("outputs", TEXT),
    ("fee", "int64"),
    ("raw", "binary"),
    ("spent_at", "list<int32>"),
    ("tracked_by", "list<string>"),
)
"""The columns of the tape's files, with Parquet's types."""
FORMER_INPUT_COLUMNS: Final = INPUT_COLUMNS[:-2]
"""The columns of inputs as they were exported before apps could track outputs."""
SNAPSHOT_COLUMNS: Final = (
    ("app", TEXT),
    ("block_id", "int32"),
    ("block_hash", TEXT),
    ("ops_hash", TEXT),
    ("consensus_hash", TEXT),
    ("state_hash", TEXT),
)
"""The columns of the apps' digests."""
_MAY_BE_NULL: Final = frozenset({"spent_at", "block_hash", "ops_hash", "state_hash"})
UNREADABLE: Final = (ValueError, OSError, csv.Error, ArithmeticError)
"""What reading a damaged file raises."""
_GROUP_ROWS: Final = 20_000
_GROUP_BYTES: Final = 16_000_000
"""A row group is written once it reaches either limit; that bounds the memory in use."""
_CELL: Final = 16
"""Bytes that a value of a fixed-size type counts for."""
_BATCH: Final = 256
"""Rows read from a Parquet file at once: a single row may have megabytes."""
_BYTES = re.compile(r"\\x((?:[0-9a-f]{2})*)")
_LIST = re.compile(r'\{(?:"\\\\x(?:[0-9a-f]{2})*"(?:,"\\\\x(?:[0-9a-f]{2})*")*)?\}')
_ITEM = re.compile(r"\\\\x([0-9a-f]*)")
_NUMBERS = re.compile(r"\{(?:[0-9]{1,10}(?:,[0-9]{1,10})*)?\}")
_TEXT = r'(?:(?!(?i:null)[,}])[^ \t\n\r\v\f"\\{},]+|"(?:[^"\\]|\\.)*")'
_TEXTS = re.compile(rf"\{{(?:{_TEXT}(?:,{_TEXT})*)?\}}", re.DOTALL)


def require_library(form: Format) -> None:
    """Raise UsageError if the library for a format is not installed."""
    if form == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401, PLC0415 - an extra, needed for Parquet only
        except ImportError as error:
            raise UsageError(
                f"Parquet needs pyarrow ({error}): pip install 'virtualchain[export]', or use --format csv"
            ) from error


def write_table(connection: psycopg.Connection, table: Table, folder: Path, form: Format) -> File:
    """Write a table to a file in `folder`, which gets its name only once it is complete."""
    path = folder / f"{table.stem}.{form}"
    columns = columns_of(connection, table.query, check_values=table.is_view and form == "parquet")
    write = _write_csv if form == "csv" else _write_parquet
    return write_file(path, columns, lambda file: write(connection, table.query, columns, file))


def write_file(path: Path, columns: tuple[Column, ...], write: Callable[[BinaryIO], int]) -> File:
    """Write a file, which gets its name only once it is complete; `write` returns the number of rows."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        rows = write(file)
        file.flush()
        os.fsync(file.fileno())
    digest = sha256_of(part)
    part.rename(path)
    return File(path.name, rows, path.stat().st_size, digest, columns)


def write_groups(file: BinaryIO, columns: Sequence[Column], groups: Iterable[Any]) -> int:
    """Write Arrow tables as the row groups of a Parquet file; return how many rows they have."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only
    from pyarrow import parquet  # noqa: PLC0415 - the same

    schema = pa.schema([(column.name, arrow_type(column.parquet_type)) for column in columns])
    count = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group)
            count += len(group)
    return count


def tables_of(rows: Iterable[Row], columns: Sequence[Column]) -> Iterator[Any]:
    """Yield rows of what the database returns as Arrow tables, each a row group."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only

    schema = pa.schema([(column.name, arrow_type(column.parquet_type)) for column in columns])
    for group in _groups(rows):
        values = zip(*group, strict=True) if columns else ()
        arrays = [
            pa.array(column.parquet_values(cells), field.type)
            for column, field, cells in zip(columns, schema, values, strict=True)
        ]
        yield pa.Table.from_arrays(arrays, schema=schema)


def read_rows(path: Path, file: File, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    """Yield the rows of a file, their values in the order of `columns`; few may be None.

    Raises DamagedExport, which names the file and the row, if the content is of another form or the number of
    rows is not the manifest's, and UsageError if the library for its format is not installed.
    """
    read = _READERS.get(path.suffix)
    if read is None:
        raise DamagedExport(f"{path} is neither a .parquet nor a .csv file")
    count = 0
    try:
        for count, row in enumerate(read(path, columns), 1):  # noqa: B007 - used after the loop
            yield row
    except UNREADABLE as error:
        raise unreadable(path, count, error) from error
    require_count(path, file, count)


def unreadable(path: Path, count: int, error: Exception) -> DamagedExport:
    """Return the error that reports what made a file unreadable after so many rows, one of `UNREADABLE`."""
    reason = " ".join(str(error).split())
    return DamagedExport(f"{path} cannot be read after row {count}: {reason}")


def require_count(path: Path, file: File, count: int) -> None:
    """Raise DamagedExport unless a file had as many rows as the manifest says."""
    if count != file.rows:
        raise DamagedExport(f"{path} has {count} rows, but its manifest says {file.rows}")


def _write_csv(
    connection: psycopg.Connection, query: sql.Composed, _: Sequence[Column], file: BinaryIO
) -> int:
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL(_Q["to_csv"]).format(query=query)) as copy:
            file.writelines(copy)
        return cursor.rowcount


def _write_parquet(
    connection: psycopg.Connection, query: sql.Composed, columns: Sequence[Column], file: BinaryIO
) -> int:
    with connection.cursor() as cursor, cursor.copy(sql.SQL(_Q["to_rows"]).format(query=query)) as copy:
        copy.set_types(copy_types(columns))
        return write_groups(file, columns, tables_of(copy.rows(), columns))


def arrow_type(parquet_type: str) -> Any:  # noqa: ANN401 - pyarrow has no type hints
    """Return Arrow's type for a Parquet type as manifests name it."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, needed for Parquet only

    if parquet_type.startswith("list<"):
        return pa.list_(arrow_type(parquet_type[5:-1]))
    if parquet_type.startswith("timestamp"):
        return pa.timestamp("us", "UTC" if "UTC" in parquet_type else None)
    return pa.type_for_alias(parquet_type)


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Divide rows into groups that are limited in length and in size."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += row_size(row)
        if is_group(len(group), size):
            yield group
            group, size = [], 0
    if group:
        yield group


def is_group(rows: int, size: int) -> bool:
    """Return whether so many rows, of so many bytes by `row_size`, are a row group."""
    return rows == _GROUP_ROWS or size >= _GROUP_BYTES


def row_size(row: Row) -> int:
    """Return how many bytes a row counts for in a row group."""
    return sum(map(_size, row))


def _size(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list) else _CELL


def parquet_batches(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[Any]:
    """Yield the content of a Parquet file as Arrow's record batches; raises an error of `UNREADABLE`."""
    require_library("parquet")
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - an extra, needed for Parquet only

    try:
        with parquet.ParquetFile(path) as file:
            actual = [(field.name, field.type) for field in file.schema_arrow]
            if actual != [(name, arrow_type(parquet_type)) for name, parquet_type in columns]:
                raise ValueError(f"its columns are {', '.join(f'{name} {kind}' for name, kind in actual)}")
            yield from file.iter_batches(batch_size=_BATCH)
    except ArrowException as error:  # not all of them are ValueErrors
        raise ValueError(str(error)) from error


def rows_of(batch: Any) -> list[Row]:  # noqa: ANN401 - pyarrow has no type hints
    """Return the rows of a record batch; raises an error of `UNREADABLE`."""
    from pyarrow import ArrowException  # noqa: PLC0415 - an extra, needed for Parquet only

    try:
        return list(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    except ArrowException as error:
        raise ValueError(str(error)) from error


def require_values(row: Row, columns: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError if a value of a row is missing that must not be."""
    for (name, _), value in zip(columns, row, strict=True):
        is_missing = value is None and name not in _MAY_BE_NULL
        if is_missing or (isinstance(value, list) and None in value):
            raise ValueError("a value is missing")


def _parquet_rows(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    for batch in parquet_batches(path, columns):
        for row in rows_of(batch):
            require_values(row, columns)
            yield row


def _csv_rows(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a transaction may have megabytes
    names = [name for name, _ in columns]
    parsers = [
        _or_null(_PARSERS[parquet_type]) if name in _MAY_BE_NULL else _PARSERS[parquet_type]
        for name, parquet_type in columns
    ]
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, strict=True)
        header = next(lines, [])
        if header != names:
            raise ValueError(f"its columns are {', '.join(header)}")
        for line in lines:
            if len(line) != len(parsers):
                raise ValueError(f"the next row has {len(line)} values for {len(parsers)} columns")
            yield tuple(parse(text) for parse, text in zip(parsers, line, strict=True))


def _number(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,19}", text):
        raise ValueError(f"{quoted(text)} is not a number")
    return int(text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _bytes(text: str) -> bytes:
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a bytea value")
    return bytes.fromhex(match[1])


def _list(text: str) -> list[bytes]:
    if not _LIST.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not an array of bytea values")
    return [bytes.fromhex(item) for item in _ITEM.findall(text)]


def _numbers(text: str) -> list[int]:
    if not _NUMBERS.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not an array of numbers")
    return [int(item) for item in text[1:-1].split(",") if item]


def _texts(text: str) -> list[str]:
    if not _TEXTS.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not an array of texts")
    items = re.findall(_TEXT, text[1:-1], re.DOTALL)
    return [
        re.sub(r"\\(.)", r"\1", item[1:-1], flags=re.DOTALL) if item.startswith('"') else item
        for item in items
    ]


def _or_null(parse: Callable[[str], object]) -> Callable[[str], object]:
    return lambda text: parse(text) if text else None


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "int32": _number,
    "int64": _number,
    TEXT: str,
    TIME: _time,
    "binary": _bytes,
    "list<binary>": _list,
    "list<int32>": _numbers,
    "list<string>": _texts,
}
_READERS: Final[Mapping[str, Callable[[Path, Sequence[tuple[str, str]]], Iterator[Row]]]] = {
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
}
