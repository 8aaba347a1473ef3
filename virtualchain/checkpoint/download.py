"""Download a published checkpoint into a file like that of `create`, and go on after an interruption.

The index and the manifest come first. Signatures, sizes and the space on the disk are checked before any
chunk. Each chunk is written to its place in the file once its digest is right, so after an interruption the
file itself shows what is still missing.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import platformdirs

from virtualchain.checkpoint import archive, publication
from virtualchain.checkpoint.manifest import LONGEST, NAME, Chunk, Manifest
from virtualchain.checkpoint.publication import Entry
from virtualchain.checkpoint.signing import check_signatures
from virtualchain.checkpoint.web import Folder
from virtualchain.errors import InvalidCheckpoint, InvalidSignature, UsageError

_AT_ONCE: Final = 4
"""Chunks that are downloaded at the same time."""
_SPARE: Final = 2**26
"""Bytes that stay free on the disk."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk, and where it is: for messages, and in the file."""

    member: str
    number: int
    offset: int
    place: int
    chunk: Chunk


def is_url(text: str) -> bool:
    """Whether a checkpoint is named by a URL instead of a file."""
    return "://" in text


def cache_folder() -> Path:
    """Return the folder for downloads."""
    return platformdirs.user_cache_path("virtualchain", appauthor=False) / "checkpoints"


def index(folder: Folder) -> list[Entry]:
    """Read what a folder has; raises DownloadFailed and InvalidCheckpoint."""
    with _named(folder):
        return publication.read_index(folder.read(publication.INDEX, publication.LONGEST, fresh=True))


@contextmanager
def downloaded(
    folder: Folder,
    entry: Entry,
    *,
    trusted: tuple[str, ...] = (),
    cache: Path | None = None,
    keeps: bool = False,
    on_bytes: Callable[[int, int], None] = lambda _done, _of: None,
    may_continue: Callable[[], bool] = lambda: True,
) -> Iterator[Path | None]:
    """Download a checkpoint, and yield its file; None if it ended early.

    The file is removed if nothing fails, unless the caller `keeps` it for the next command. What has arrived
    stays in `cache` until then. If keys are trusted, one of them must have signed. Calls `on_bytes` with the
    bytes so far and of the whole file. Raises InvalidCheckpoint, which names wrong bytes by member, chunk and
    offset, DownloadFailed, and UsageError if the disk has no space for the file.
    """
    cache = cache or cache_folder()
    with _named(folder):
        content = folder.read(publication.manifest_path(entry.manifest), LONGEST)
        manifest = publication.check_manifest(content, entry)
        try:
            check_signatures(manifest.signed_bytes(), manifest.signatures, trusted)
        except InvalidSignature as error:
            raise InvalidCheckpoint(str(error)) from error
    path = cache / f"{entry.manifest}.checkpoint"
    with ExitStack() as opened:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(path.open("r+b" if path.exists() else "x+b")).fileno()
            _lock(file, path)
            _check_space(path, entry.size)
            with _named(folder):
                is_complete = _fill(folder, manifest, file, on_bytes, may_continue)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        yield path if is_complete else None
        if is_complete and not keeps:
            path.unlink(missing_ok=True)


def _fill(
    folder: Folder,
    manifest: Manifest,
    file: int,
    on_bytes: Callable[[int, int], None],
    may_continue: Callable[[], bool],
) -> bool:
    """Write every part of a checkpoint's file that it does not have yet; return whether it is complete."""
    sizes = publication.sizes(manifest)
    places, total = archive.layout(sizes)
    before = os.fstat(file).st_size
    os.ftruncate(file, total)
    for name, size in sizes.items():
        header, length = archive.header(name, size)
        os.pwrite(file, header, places[name] - length)
    os.pwrite(file, manifest.to_bytes(), places[NAME])
    pieces = _pieces(manifest, places)
    done, running = 0, set[Future[int]]()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            while running or done < sum(sizes.values()) - sizes[NAME]:
                while len(running) < 2 * _AT_ONCE and (piece := next(pieces, None)) is not None:
                    running.add(pool.submit(_bring, folder, piece, file, before))
                ended, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                done += sum(future.result() for future in ended)
                on_bytes(done, total)
                if not may_continue():
                    return False
        finally:
            if running:
                folder.end()
                pool.shutdown(cancel_futures=True)
    os.fsync(file)
    return True


def _pieces(manifest: Manifest, places: dict[str, int]) -> Iterator[_Piece]:
    for name in manifest.ordered_members:
        offset = 0
        for number, chunk in enumerate(manifest.members[name].chunks or (), 1):
            yield _Piece(name, number, offset, places[name] + offset, chunk)
            offset += chunk.size


def _bring(folder: Folder, piece: _Piece, file: int, before: int) -> int:
    """Download one chunk unless the file has it, up to `before`; return its size."""
    size, digest = piece.chunk.size, piece.chunk.sha256
    if piece.place < before and sha256(os.pread(file, size, piece.place)).hexdigest() == digest:
        return size
    path = publication.chunk_path(digest)
    for fresh in (False, True):
        content = folder.read(path, size, size=size, fresh=fresh)
        if sha256(content).hexdigest() == digest:
            os.pwrite(file, content, piece.place)
            return size
    raise InvalidCheckpoint(
        f"chunk {piece.number} of its member {piece.member}, from byte {piece.offset} to "
        f"{piece.offset + size - 1}, has other bytes than its manifest names, twice: {path}"
    )


def _check_space(path: Path, size: int) -> None:
    """Raise UsageError if the disk has less space than a file still needs."""
    missing = size - path.stat().st_blocks * 512
    free = shutil.disk_usage(path.parent).free
    if missing + _SPARE > free:
        raise UsageError(
            f"the checkpoint has {size:,} bytes, but {path.parent} has {free:,} bytes left: free some, or "
            "set XDG_CACHE_HOME to a folder on another disk"
        )


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"another process downloads {path}: wait until it ends") from error


@contextmanager
def _named(folder: Folder) -> Iterator[None]:
    """Begin the messages about a checkpoint with where it is from."""
    try:
        yield
    except InvalidCheckpoint as error:
        raise InvalidCheckpoint(f"{folder.name}: {error}") from error
