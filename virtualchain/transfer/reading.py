"""Read the tape's files back: their rows, in order, as values of the types that were exported."""

import csv
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from virtualchain.errors import DamagedExport
from virtualchain.transfer.columns import TEXT, TIME
from virtualchain.transfer.manifest import File
from virtualchain.transfer.writing import arrow_type, require

Row = tuple[Any, ...]
BLOCKS: Final = (
    ("block_id", "int32"),
    ("hash", TEXT),
    ("prev_hash", TEXT),
    ("time", TIME),
    ("chainwork", TEXT),
    ("header", "binary"),
)
INPUTS: Final = (
    ("block_id", "int32"),
    ("txindex", "int32"),
    ("txid", TEXT),
    ("magics", "list<binary>"),
    ("senders", TEXT),
    ("outputs", TEXT),
    ("fee", "int64"),
    ("raw", "binary"),
)
_BATCH: Final = 256
"""Rows that are taken out of a Parquet file at once: one may weigh megabytes."""
_BYTES = re.compile(r"\\x((?:[0-9a-f]{2})*)")
_LIST = re.compile(r'\{(?:"\\\\x(?:[0-9a-f]{2})*"(?:,"\\\\x(?:[0-9a-f]{2})*")*)?\}')
_ITEM = re.compile(r"\\\\x([0-9a-f]*)")


def rows_of(path: Path, file: File, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    """Give a file's rows, values in the order of `columns`; none of them is None.

    Raises DamagedExport, which names the file and the row, where it holds something else or another number of
    rows than its manifest says, UsageError where the library for its format is not installed.
    """
    read = _FORMATS.get(path.suffix)
    if read is None:
        raise DamagedExport(f"{path} is neither a .parquet nor a .csv file")
    count = 0
    try:
        for count, row in enumerate(read(path, columns), 1):  # noqa: B007 - the last one counts
            yield row
    except (ValueError, OSError, csv.Error, ArithmeticError) as error:
        said = " ".join(str(error).split())
        raise DamagedExport(f"{path} cannot be read behind row {count}: {said}") from error
    if count != file.rows:
        raise DamagedExport(f"{path} has {count} rows, and its manifest says {file.rows}")


def _parquet_rows(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    require("parquet")
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - an extra, wanted for Parquet only

    try:
        with parquet.ParquetFile(path) as file:
            found = [(field.name, field.type) for field in file.schema_arrow]
            if found != [(name, arrow_type(kind)) for name, kind in columns]:
                raise ValueError(f"its columns are {', '.join(f'{name} {kind}' for name, kind in found)}")
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if None in row or any(isinstance(value, list) and None in value for value in row):
                        raise ValueError("a value is missing")
                    yield row
    except ArrowException as error:  # not all of them are ValueErrors
        raise ValueError(str(error)) from error


def _csv_rows(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # a transaction may take megabytes
    names, kinds = [name for name, _ in columns], [kind for _, kind in columns]
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file, strict=True)
        found = next(lines, [])
        if found != names:
            raise ValueError(f"its columns are {', '.join(found)}")
        for line in lines:
            if len(line) != len(kinds):
                raise ValueError(f"the next one has {len(line)} values, and there are {len(kinds)} columns")
            yield tuple(_PARSERS[kind](text) for kind, text in zip(kinds, line, strict=True))


def _number(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,19}", text):
        raise ValueError(f"{text[:40]!r} is no number")
    return int(text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _bytes(text: str) -> bytes:
    found = _BYTES.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no bytes")
    return bytes.fromhex(found[1])


def _list(text: str) -> list[bytes]:
    if not _LIST.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no list of bytes")
    return [bytes.fromhex(item) for item in _ITEM.findall(text)]


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "int32": _number,
    "int64": _number,
    TEXT: str,
    TIME: _time,
    "binary": _bytes,
    "list<binary>": _list,
}
_FORMATS: Final[Mapping[str, Callable[[Path, Sequence[tuple[str, str]]], Iterator[Row]]]] = {
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
}
