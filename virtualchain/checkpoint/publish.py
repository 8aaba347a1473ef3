"""Keep a folder of checkpoints for any web server.

Whoever downloads meanwhile never sees half of a publication: chunks come first, then manifests, then the
index, each under its name only once it is complete. What neither this index nor the one before it names is
removed last.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final

import psycopg

from virtualchain.checkpoint import archive
from virtualchain.checkpoint.create import create, position
from virtualchain.checkpoint.manifest import Manifest
from virtualchain.checkpoint.publication import (
    INDEX,
    Entry,
    check_manifest,
    chunk_path,
    manifest_path,
    read_index,
    write_index,
)
from virtualchain.checkpoint.signing import sign
from virtualchain.errors import InvalidCheckpoint, UsageError
from virtualchain.store.sql import queries

_Q = queries("checkpoint")
_DRAFT: Final = ".draft"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Published:
    """What the folder serves of an app, and what came and went."""

    entries: tuple[Entry, ...]
    added: int
    """Checkpoints that came."""
    new_bytes: int
    """Bytes of the chunks that were not in the folder before."""
    removed: int
    """Files that nobody needs any more."""
    missed: tuple[int, ...]
    """Blocks whose checkpoints should be there, which the app's history does not reach any more."""
    oldest: int
    """The first block that it reaches."""


def publish(
    connection: psycopg.Connection,
    app: str,
    folder: Path,
    *,
    every: int = 10_000,
    keep: int = 3,
    keys: Iterable[Path] = (),
) -> Published:
    """Bring the checkpoints of an app in a folder up to date.

    The folder holds the one of the app's last block, and of the last `keep` blocks whose height is a multiple
    of `every`. Those that it lacks are made from the app's history, as far as that reaches. `connection` must
    be in a repeatable-read transaction. Raises what `create` raises, and UsageError if the folder cannot be
    written or is in use.
    """
    with _alone(folder):
        former = _read(folder)
        last, oldest = position(connection, app)
        regulars = set(_regulars(connection, app, last, every, keep))
        keys = tuple(keys)
        signers = {item.public_key for item in sign(b"", keys)}
        usable = {}
        for entry in former:
            manifest = _published(folder, entry) if entry.app == app else None
            if manifest is not None and _is_current(connection, manifest, signers):
                usable[entry.block_id] = entry
        blocks = {at for at in (*regulars, last) if at >= oldest}
        added, new_bytes = 0, 0
        for at in sorted(blocks - usable.keys()):
            manifest, size = _add(connection, app, folder, at, keys, is_audited=added > 0)
            usable[at] = Entry.of(manifest)
            added += 1
            new_bytes += size
        missed = regulars - usable.keys()
        multiples = sorted(at for at in usable if at % every == 0)
        kept = {*(multiples[-keep:] if keep else []), last}
        mine = [entry for at, entry in usable.items() if at in kept]
        entries = [*(entry for entry in former if entry.app != app), *mine]
        content = write_index(entries)
        removed = 0
        if content != write_index(former) or not (folder / INDEX).exists():
            _replace(folder / INDEX, content)
            removed = _clean(folder, [*former, *entries])
    entries_of_app = tuple(sorted(mine, key=lambda entry: entry.block_id))
    return Published(entries_of_app, added, new_bytes, removed, tuple(sorted(missed)), oldest)


def _regulars(connection: psycopg.Connection, app: str, last: int, every: int, most: int) -> Iterator[int]:
    """Yield the last multiples at which the app has all digests; not block 0: nothing is saved before."""
    for block_id in islice(range(last - last % every, 0, -every), most):
        row = connection.execute(_Q["digests_of_live"], {"app": app, "block_id": block_id}).fetchone()
        if row is None or None in row:
            return
        yield block_id


def _is_current(connection: psycopg.Connection, manifest: Manifest, signers: set[str]) -> bool:
    """Whether a published checkpoint is what would be created now: of this code, branch and signers."""
    place = {"app": manifest.app, "block_id": manifest.block_id}
    row = connection.execute(_Q["digests_of_live"], place).fetchone()
    actual = (
        *(manifest.version, manifest.fingerprint, manifest.block_hash),
        *(manifest.consensus_hash, manifest.state_hash),
    )
    return row == actual and signers == {item.public_key for item in manifest.signatures}


def _add(
    connection: psycopg.Connection,
    app: str,
    folder: Path,
    at: int,
    keys: Sequence[Path],
    *,
    is_audited: bool,
) -> tuple[Manifest, int]:
    """Add a checkpoint's chunks and manifest; return it, and how many bytes of chunks are new."""
    draft = folder / _DRAFT
    new_bytes = 0
    try:
        manifest = create(
            connection, app, draft, block_id=at, keys=keys, in_chunks=True, is_audited=is_audited
        )
        with archive.reading(draft) as reader:
            for name in manifest.ordered_members:
                offset = 0
                for chunk in manifest.members[name].chunks or ():
                    path = folder / chunk_path(chunk.sha256)
                    if not (path.exists() and path.stat().st_size == chunk.size):
                        _replace(path, reader.stretch(name, offset, chunk.size))
                        new_bytes += chunk.size
                    offset += chunk.size
    finally:
        draft.unlink(missing_ok=True)
    content = manifest.to_bytes()
    _replace(folder / manifest_path(sha256(content).hexdigest()), content)
    return manifest, new_bytes


def _read(folder: Path) -> list[Entry]:
    try:
        return read_index((folder / INDEX).read_bytes())
    except FileNotFoundError:
        return []
    except InvalidCheckpoint as error:
        raise UsageError(f"{folder / INDEX}: {error}: move it away to begin with a new one") from error


def _published(folder: Path, entry: Entry) -> Manifest | None:
    """Return the manifest of a checkpoint in the folder; None if it or a chunk is missing."""
    try:
        manifest = check_manifest((folder / manifest_path(entry.manifest)).read_bytes(), entry)
        for path, size in _chunks(manifest).items():
            if (folder / path).stat().st_size != size:
                return None
    except (FileNotFoundError, InvalidCheckpoint):
        return None
    return manifest


def _chunks(manifest: Manifest) -> dict[str, int]:
    return {
        chunk_path(chunk.sha256): chunk.size
        for member in manifest.members.values()
        for chunk in member.chunks or ()
    }


def _clean(folder: Path, entries: Iterable[Entry]) -> int:
    """Remove the files that no checkpoint among `entries` needs; return how many."""
    needed: set[str] = set()
    for entry in entries:
        path = manifest_path(entry.manifest)
        needed.add(path)
        with suppress(FileNotFoundError, InvalidCheckpoint):
            needed |= _chunks(check_manifest((folder / path).read_bytes(), entry)).keys()
    removed = 0
    for kind in ("chunks", "manifests"):
        for file in (folder / kind).iterdir():
            if f"{kind}/{file.name}" not in needed:
                file.unlink()
                removed += 1
    return removed


def _replace(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all, so that it outlasts a loss of power."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other publications out of the folder, which is made if it does not exist."""
    try:
        for path in (folder / "chunks", folder / "manifests"):
            path.mkdir(parents=True, exist_ok=True)
        with (folder / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"another process publishes in {folder}: wait until it ends") from error
            yield
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
