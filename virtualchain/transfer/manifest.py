"""The manifest of an export: what it is of, which blocks it holds, and the digest of each file.

It is written last, so a folder without one holds no whole export.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from virtualchain.bitcoin.networks import NETWORKS
from virtualchain.errors import DamagedExport, UsageError
from virtualchain.model import Json
from virtualchain.store.tape import Covered
from virtualchain.transfer.columns import Column

FORMAT: Final = "virtualchain-export-1"
NAME: Final = "manifest.json"
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class End:
    """The first or the last block of an export."""

    block_id: int
    hash: str


@dataclass(frozen=True, slots=True)
class File:
    """One file of an export."""

    name: str
    rows: int
    size: int
    """Bytes."""
    sha256: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export holds.

    `network` and `genesis_hash` are None for a deployment that follows no chain yet, `first` and `last` where
    there is no block. `apps` say where each app stood at the last block.
    """

    version: str
    """Of the virtualchain that exported."""
    network: str | None
    genesis_hash: str | None
    first: End | None
    last: End | None
    coverage: tuple[Covered, ...]
    apps: tuple[Json, ...]
    files: tuple[File, ...]

    def file(self, table: str) -> File | None:
        """Give the file that a table was written to."""
        found = (file for file in self.files if file.name.rpartition(".")[0] == table)
        return next(found, None)

    def as_dict(self) -> Json:
        """Give what the manifest's file holds."""
        blocks = None
        if self.first is not None and self.last is not None:
            blocks = {
                name: {"block_id": end.block_id, "hash": end.hash}
                for name, end in (("first", self.first), ("last", self.last))
            }
        return {
            "format": FORMAT,
            "virtualchain": self.version,
            "network": self.network,
            "genesis_hash": self.genesis_hash,
            "blocks": blocks,
            "coverage": [
                {
                    "magic": row.magic.hex(),
                    "rule": row.rule,
                    "from_block": row.from_block,
                    "until_block": row.until_block,
                }
                for row in self.coverage
            ],
            "apps": list(self.apps),
            "files": [_file_dict(file) for file in self.files],
        }


def write_manifest(folder: Path, manifest: Manifest) -> str:
    """Write the manifest behind all other files; give its SHA-256."""
    content = (json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False) + "\n").encode()
    with (folder / f"{NAME}.part").open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    (folder / f"{NAME}.part").rename(folder / NAME)
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.

    Raises UsageError where there is none or one of another format, DamagedExport where it cannot be right.
    """
    path = folder / NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): give the folder of a whole export, made by "
            "`virtualchain export`, which writes this file last"
        ) from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedExport(f"{path} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise UsageError(f"{path} has the format {found!r}, and this virtualchain reads {FORMAT} alone")
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DamagedExport(f"{path} is damaged: {what}") from error


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its digest; raises DamagedExport, which names the first that differs."""
    for file in manifest.files:
        path = folder / file.name
        try:
            if not path.is_file():
                raise DamagedExport(f"{path} is missing, and {folder / NAME} names it")
            size, digest = path.stat().st_size, sha256_of(path)
        except OSError as error:
            raise DamagedExport(f"{path} cannot be read: {error.strerror}") from error
        if (size, digest) != (file.size, file.sha256):
            raise DamagedExport(
                f"{path} is not the file that was exported: it has {size:,} bytes and the SHA-256 {digest}, "
                f"and {folder / NAME} says {file.size:,} bytes and {file.sha256}; copy it again"
            )


def sha256_of(path: Path) -> str:
    """Give the SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_dict(file: File) -> Json:
    columns: list[Json] = [{"name": column.name, "type": column.type} for column in file.columns]
    if file.name.endswith(".parquet"):
        columns = [
            {**described, "parquet": column.kind}
            for described, column in zip(columns, file.columns, strict=True)
        ]
    return {
        "name": file.name,
        "rows": file.rows,
        "bytes": file.size,
        "sha256": file.sha256,
        "columns": columns,
    }


def _read(document: Json) -> Manifest:
    network, genesis = document["network"], document["genesis_hash"]
    known = NETWORKS.get(network) if isinstance(network, str) else None
    if (network is not None and known is None) or genesis != (known and known.genesis_hash):
        raise ValueError(f"there is no network {network!r} with the genesis block {genesis!r}")
    blocks = document["blocks"]
    first, last = (None, None) if blocks is None else (_end(blocks["first"]), _end(blocks["last"]))
    if first and last and (network is None or first.block_id > last.block_id):
        raise ValueError(f"it cannot hold blocks {first.block_id} to {last.block_id} of {network!r}")
    files = tuple(map(_file, _of(document["files"], list)))
    if len({file.name for file in files}) < len(files):
        raise ValueError("two files have one name")
    return Manifest(
        version=_of(document["virtualchain"], str),
        network=network,
        genesis_hash=genesis,
        first=first,
        last=last,
        coverage=tuple(map(_covered, _of(document["coverage"], list))),
        apps=tuple(dict(_object(app)) for app in _of(document["apps"], list)),
        files=files,
    )


def _end(item: Json) -> End:
    return End(_height(item["block_id"]), _hex(item["hash"], 32))


def _covered(item: Json) -> Covered:
    until = item["until_block"]
    row = Covered(
        magic=bytes.fromhex(_of(item["magic"], str)),
        rule=_of(item["rule"], str),
        from_block=_height(item["from_block"]),
        until_block=None if until is None else _height(until),
    )
    if "\0" in row.rule or (row.until_block is not None and row.until_block < row.from_block):
        raise ValueError(
            f"nothing can be searched by {row.rule!r} from {row.from_block} to {row.until_block}"
        )
    return row


def _file(item: Json) -> File:
    name = _of(item["name"], str)
    # A name that leads elsewhere would have us read what is nobody's export.
    if Path(name).name != name or name.startswith(".") or "\0" in name or name == NAME:
        raise ValueError(f"{name!r} is no file's name")
    return File(
        name=name,
        rows=_of(item["rows"], int),
        size=_of(item["bytes"], int),
        sha256=_hex(item["sha256"], 32),
        columns=tuple(_column(_object(column)) for column in _of(item["columns"], list)),
    )


def _column(item: Json) -> Column:
    return Column(_of(item["name"], str), _of(item["type"], str), _of(item.get("parquet", ""), str))


def _object(value: Any) -> Json:  # noqa: ANN401 - whatever the JSON holds
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:40]!r} stands where an object should")  # noqa: TRY004 - damage, not a bug
    return value


def _of(value: Any, kind: type[_Value]) -> _Value:  # noqa: ANN401 - whatever the JSON holds
    if type(value) is not kind:
        raise ValueError(f"{str(value)[:40]!r} stands where it should say something else")
    return value


def _height(value: Any) -> int:  # noqa: ANN401 - whatever the JSON holds
    if not 0 <= _of(value, int) < 2**31:
        raise ValueError(f"{value} is no block's height")
    return int(value)


def _hex(value: Any, size: int) -> str:  # noqa: ANN401 - whatever the JSON holds
    text = _of(value, str)
    if len(text) != 2 * size or bytes.fromhex(text).hex() != text:
        raise ValueError(f"{text[:80]!r} is no hash")
    return text
