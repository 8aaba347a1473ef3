"""The manifest of an export: its deployment, its range of blocks, and the digest of each file.

It is written last, so a folder without one does not hold a complete export.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.networks import network as find_network
from virtualchain.errors import DamagedExport, UsageError, quoted
from virtualchain.model import Json
from virtualchain.store.tape import Covered
from virtualchain.transfer.tables import Column

FORMAT: Final = "virtualchain-export-1"
NAME: Final = "manifest.json"
_LARGEST: Final = 2**24
"""Bytes: a longer manifest is refused."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class BlockRef:
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

    `network` and `genesis_hash` are None for a deployment that follows no chain yet; `first` and `last` are
    None if there is no block. `apps` are the apps' digests as of the last block.
    """

    version: str
    """The version of virtualchain that exported."""
    network: str | None
    genesis_hash: str | None
    first: BlockRef | None
    last: BlockRef | None
    coverage: tuple[Covered, ...]
    apps: tuple[Json, ...]
    files: tuple[File, ...]

    def file(self, table: str) -> File | None:
        """Return the file that holds a table."""
        return next((file for file in self.files if file.name.rpartition(".")[0] == table), None)

    def as_dict(self) -> Json:
        """Return the manifest as its JSON document."""
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
    """Write the manifest, after all other files; return its SHA-256."""
    content = (json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False) + "\n").encode()
    with (folder / f"{NAME}.part").open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    (folder / f"{NAME}.part").rename(folder / NAME)
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.

    Raises UsageError if there is none or its format is another one, DamagedExport if it is invalid.
    """
    path = folder / NAME
    if path.exists() and not path.is_file():  # reading a pipe or a device might never end
        raise DamagedExport(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}): name the folder of a complete export; "
            "`virtualchain export` writes this file last"
        ) from error
    if len(content) > _LARGEST:
        raise DamagedExport(f"{path} has more than {_LARGEST:,} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedExport(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        form = document.get("format") if isinstance(document, dict) else None
        raise UsageError(
            f"{path} has the format {quoted(form)}; this version of virtualchain reads only {FORMAT}"
        )
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DamagedExport(f"{path} is damaged: {reason}") from error


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with its digest; raises DamagedExport for the first that differs."""
    for file in manifest.files:
        path = folder / file.name
        try:
            if not path.is_file():
                raise DamagedExport(f"{path} is missing, but {folder / NAME} names it")
            size, digest = path.stat().st_size, sha256_of(path)
        except OSError as error:
            raise DamagedExport(f"{path} cannot be read: {error.strerror}") from error
        if (size, digest) != (file.size, file.sha256):
            raise DamagedExport(
                f"{path} is not the file that was exported: it has {size:,} bytes and the SHA-256 {digest}, "
                f"but {folder / NAME} says {file.size:,} bytes and {file.sha256}; copy it again"
            )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_dict(file: File) -> Json:
    columns: list[Json] = [{"name": column.name, "type": column.type} for column in file.columns]
    if file.name.endswith(".parquet"):
        columns = [
            {**described, "parquet": column.parquet_type}
            for described, column in zip(columns, file.columns, strict=True)
        ]
    return {
        "name": file.name,
        "rows": file.rows,
        "bytes": file.size,
        "sha256": file.sha256,
        "columns": columns,
    }


def _network(name: object) -> Network | None:
    """Find a network by its name, as this file states it; None if there is none."""
    try:
        known = find_network(name) if isinstance(name, str) else None
    except UsageError:
        return None
    return known if known is not None and known.name == name else None


def _read(document: Json) -> Manifest:
    network, genesis = document["network"], document["genesis_hash"]
    known = _network(network)
    if (network is not None and known is None) or genesis != (known and known.genesis_hash):
        raise ValueError(f"there is no network {quoted(network)} with the genesis block {quoted(genesis)}")
    blocks = document["blocks"]
    first = None if blocks is None else _block_ref(blocks["first"])
    last = None if blocks is None else _block_ref(blocks["last"])
    if first and last and (network is None or first.block_id > last.block_id):
        raise ValueError(f"it cannot hold blocks {first.block_id} to {last.block_id} of {quoted(network)}")
    files = tuple(map(_file, _typed(document["files"], list)))
    if len({file.name for file in files}) < len(files):
        raise ValueError("two files have the same name")
    return Manifest(
        version=_typed(document["virtualchain"], str),
        network=network,
        genesis_hash=genesis,
        first=first,
        last=last,
        coverage=tuple(map(_covered, _typed(document["coverage"], list))),
        apps=tuple(dict(_object(app)) for app in _typed(document["apps"], list)),
        files=files,
    )


def _block_ref(item: Json) -> BlockRef:
    return BlockRef(_height(item["block_id"]), _hex(item["hash"], 32))


def _covered(item: Json) -> Covered:
    until = item["until_block"]
    row = Covered(
        magic=bytes.fromhex(_typed(item["magic"], str)),
        rule=_typed(item["rule"], str),
        from_block=_height(item["from_block"]),
        until_block=None if until is None else _height(until),
    )
    if "\0" in row.rule or (row.until_block is not None and row.until_block < row.from_block):
        raise ValueError(
            f"no search by {quoted(row.rule)} can cover blocks {row.from_block} to {row.until_block}"
        )
    return row


def _file(item: Json) -> File:
    name = _typed(item["name"], str)
    # A name with a path in it could make an import read any file.
    if Path(name).name != name or name.startswith(".") or "\0" in name or name == NAME:
        raise ValueError(f"{quoted(name)} is not a file name")
    return File(
        name=name,
        rows=_typed(item["rows"], int),
        size=_typed(item["bytes"], int),
        sha256=_hex(item["sha256"], 32),
        columns=tuple(_column(_object(column)) for column in _typed(item["columns"], list)),
    )


def _column(item: Json) -> Column:
    return Column(_typed(item["name"], str), _typed(item["type"], str), _typed(item.get("parquet", ""), str))


def _object(value: Any) -> Json:  # noqa: ANN401 - whatever the JSON holds
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(str(value))} is not an object")  # noqa: TRY004 - damage, not a bug
    return value


def _typed(value: Any, kind: type[_Value]) -> _Value:  # noqa: ANN401 - whatever the JSON holds
    if type(value) is not kind:
        raise ValueError(f"{quoted(str(value))} is not of type {kind.__name__}")
    return value


def _height(value: Any) -> int:  # noqa: ANN401 - whatever the JSON holds
    if not 0 <= _typed(value, int) < 2**31:
        raise ValueError(f"{value} is not a block height")
    return int(value)


def _hex(value: Any, size: int) -> str:  # noqa: ANN401 - whatever the JSON holds
    text = _typed(value, str)
    if len(text) != 2 * size or bytes.fromhex(text).hex() != text:
        raise ValueError(f"{quoted(text)} is not a hash")
    return text
