"""Write a deployment's tape, its log and its views to files, with a manifest of their digests.

All files show the database as of one moment, whatever a writer does meanwhile.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from virtualchain.errors import UsageError
from virtualchain.reading.views import HIGHEST, snapshot
from virtualchain.store.sql import queries
from virtualchain.store.tape import Covered, Tape
from virtualchain.transfer.manifest import End, File, Manifest, write_manifest
from virtualchain.transfer.tables import DEFAULT, LOWEST, tables
from virtualchain.transfer.writing import Format, require, write_table

_Q = queries("transfer")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and the SHA-256 of the manifest, which stands for all of it."""

    manifest: Manifest
    sha256: str


def export(
    url: str,
    folder: Path,
    *,
    form: Format = "parquet",
    what: Sequence[str] = DEFAULT,
    first: int | None = None,
    last: int | None = None,
    on_file: Callable[[File], None] | None = None,
) -> Exported:
    """Export a deployment into a new or empty folder.

    `what` are names of tables (`tape`, `ops`, `rejections`, `snapshots`, `schema.view`, `all`); `first` and
    `last` narrow those of the log to a stretch of blocks. `on_file` is told of each file that is whole.

    Raises UsageError for what there is not and for a folder that is in use, StoreError where the database
    fails. Then nothing stays of what was written.
    """
    require(form)
    lowest, highest = LOWEST if first is None else first, HIGHEST if last is None else last
    with snapshot(url) as connection, ExitStack() as undo:
        wanted = tables(connection, what, lowest, highest)
        described = _describe(connection, lowest, highest, is_narrowed=(first, last) != (None, None))
        with _told_of(folder):
            _make(folder, undo)
            files = []
            for table in wanted:
                for ending in (form, f"{form}.part"):
                    undo.callback((folder / f"{table.stem}.{ending}").unlink, missing_ok=True)
                files.append(write_table(connection, table, folder, form))
                if on_file is not None:
                    on_file(files[-1])
            manifest = described(tuple(files))
            digest = write_manifest(folder, manifest)
            undo.pop_all()
    return Exported(manifest, digest)


@contextmanager
def _told_of(folder: Path) -> Iterator[None]:
    """Take a folder that cannot be written to for a mistake; a full disk is told by whoever is outermost."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise UsageError(
            f"{error.filename or folder} cannot be written: {error.strerror}: choose another folder"
        ) from error


def _make(folder: Path, undo: ExitStack) -> None:
    """Make the folder, unless it is there and empty."""
    if not folder.exists():
        folder.mkdir(parents=True)
        undo.callback(folder.rmdir)
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: an export goes into a folder of its own")


def _describe(
    connection: psycopg.Connection, lowest: int, highest: int, *, is_narrowed: bool
) -> Callable[[tuple[File, ...]], Manifest]:
    """Give what makes the manifest, once there are files."""
    tape = Tape(connection)
    bound, tip = tape.deployment(), tape.tip()
    ends = [
        End(*row) for row in connection.execute(_Q["ends"], {"first": lowest, "last": highest}).fetchall()
    ]
    if is_narrowed and not ends:
        there = "it has none at all" if tip is None else f"it has blocks {_bottom(tape)} to {tip.block_id}"
        raise UsageError(f"the tape has no blocks from {max(lowest, 0)} to {highest}: {there}")
    with connection.cursor(row_factory=dict_row) as cursor:
        apps = tuple(cursor.execute(_Q["apps"], {"last": highest}))
    coverage: tuple[Covered, ...] = ()
    if ends:
        coverage = narrowed(tape.coverage(), ends[0].block_id, ends[-1].block_id)

    def describe(files: tuple[File, ...]) -> Manifest:
        return Manifest(
            version=version("virtualchain"),
            network=bound and bound[0],
            genesis_hash=bound and bound[1],
            first=ends[0] if ends else None,
            last=ends[-1] if ends else None,
            coverage=coverage,
            apps=apps,
            files=files,
        )

    return describe


def narrowed(coverage: Sequence[Covered], first: int, last: int) -> tuple[Covered, ...]:
    """Give what was searched from block `first` to `last`; what goes on behind `last` has an open end."""
    found = []
    for row in coverage:
        start, until = max(row.from_block, first), row.until_block
        if start <= last and (until is None or start <= until):
            goes_on = until is None or until > last
            found.append(Covered(row.magic, row.rule, start, None if goes_on else until))
    return tuple(found)


def _bottom(tape: Tape) -> int | None:
    bottom = tape.bottom()
    return None if bottom is None else bottom.block_id
