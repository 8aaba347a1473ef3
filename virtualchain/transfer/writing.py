"""Files of rows, written as the rows come: no table has to fit into memory."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import psycopg
from psycopg import sql

from virtualchain.errors import UsageError
from virtualchain.store.sql import queries
from virtualchain.transfer.columns import Column, columns_of, copy_types
from virtualchain.transfer.manifest import File, sha256_of
from virtualchain.transfer.tables import Table

_Q = queries("transfer")
Format = Literal["parquet", "csv"]
_GROUP_ROWS: Final = 20_000
_GROUP_BYTES: Final = 16_000_000
"""A group of rows is written when it has either; so much is in memory at once."""
_CELL: Final = 16
"""Bytes that a value of fixed size counts for."""


def require(form: Format) -> None:
    """Raise UsageError where the library for a format is not installed."""
    if form == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401, PLC0415 - an extra, wanted for Parquet only
        except ImportError as error:
            raise UsageError(
                f"Parquet needs pyarrow ({error}): pip install 'virtualchain[export]', or use --format csv"
            ) from error


def write_table(connection: psycopg.Connection, table: Table, folder: Path, form: Format) -> File:
    """Write a table to a file in `folder`: under another name first, so that no half file has its name."""
    path = folder / f"{table.stem}.{form}"
    part = path.with_name(f"{path.name}.part")
    columns = columns_of(connection, table.query, may_be_odd=table.is_view and form == "parquet")
    with part.open("wb") as file:
        write = _write_csv if form == "csv" else _write_parquet
        rows = write(connection, table.query, columns, file)
        file.flush()
        os.fsync(file.fileno())
    digest = sha256_of(part)
    part.rename(path)
    return File(path.name, rows, path.stat().st_size, digest, columns)


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
    import pyarrow as pa  # noqa: PLC0415 - an extra, wanted for Parquet only
    from pyarrow import parquet  # noqa: PLC0415 - the same

    schema = pa.schema([(column.name, arrow_type(column.kind)) for column in columns])
    with (
        connection.cursor() as cursor,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
        cursor.copy(sql.SQL(_Q["to_rows"]).format(query=query)) as copy,
    ):
        copy.set_types(copy_types(columns))
        count = 0
        for rows in _groups(copy.rows()):
            values = zip(*rows, strict=True) if columns else ()
            arrays = [
                pa.array(column.values(cells), field.type)
                for column, field, cells in zip(columns, schema, values, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(rows)
        return count


def arrow_type(kind: str) -> Any:  # noqa: ANN401 - pyarrow has no type hints
    """Give Arrow's type by the name that a manifest has for it."""
    import pyarrow as pa  # noqa: PLC0415 - an extra, wanted for Parquet only

    if kind.startswith("list<"):
        return pa.list_(arrow_type(kind[5:-1]))
    if kind.startswith("timestamp"):
        return pa.timestamp("us", "UTC" if "UTC" in kind else None)
    return pa.type_for_alias(kind)


def _groups(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Cut rows into groups that are neither long nor heavy."""
    group: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        group.append(row)
        size += sum(map(_size, row))
        if len(group) == _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list) else _CELL
