"""Export a deployment's tape, log and views to files, with a manifest of their digests.

All files are read in one transaction, so they show the database at one moment, whatever a writer does.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from virtualchain.audit.fault import Fault, refuse_damage
from virtualchain.audit.log import audited_builds, check_log
from virtualchain.audit.tables import check_current_rows
from virtualchain.audit.tape import check_tape
from virtualchain.errors import UsageError
from virtualchain.reading.views import HIGHEST, snapshot
from virtualchain.store.sql import queries
from virtualchain.store.tape import Covered, Tape
from virtualchain.transfer.files import Format, require_library, write_table
from virtualchain.transfer.manifest import BlockRef, File, Manifest, write_manifest
from virtualchain.transfer.tables import DEFAULT, LOWEST, Table, select_tables

_Q = queries("transfer")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and the SHA-256 of the manifest, which commits to all of it."""

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

    `what` names tables (`tape`, `ops`, `rejections`, `snapshots`, `schema.view`, `all`); `first` and `last`
    limit those of tape and log to a range of blocks. `on_file` is called with each completed file.

    Everything is compared with the digests before it is written. Raises UsageError for unknown tables or
    blocks and for a folder that is in use, DamagedTables if what is to be written does not fit, StoreError if
    the database fails. In any case, everything that was written is removed.
    """
    require_library(form)
    lowest, highest = LOWEST if first is None else first, HIGHEST if last is None else last
    with snapshot(url) as connection, ExitStack() as undo:
        tables = select_tables(connection, what, lowest, highest)
        manifest_of = _describe(connection, lowest, highest, is_limited=(first, last) != (None, None))
        refuse_damage(_faults(connection, tables, lowest, highest), "nothing was exported")
        with _unwritable_is_a_mistake(folder):
            _make(folder, undo)
            files = []
            for table in tables:
                for suffix in (form, f"{form}.part"):
                    undo.callback((folder / f"{table.stem}.{suffix}").unlink, missing_ok=True)
                files.append(write_table(connection, table, folder, form))
                if on_file is not None:
                    on_file(files[-1])
            manifest = manifest_of(tuple(files))
            digest = write_manifest(folder, manifest)
            undo.pop_all()
    return Exported(manifest, digest)


def _faults(
    connection: psycopg.Connection, tables: Sequence[Table], lowest: int, highest: int
) -> Iterator[Fault]:
    """Yield what is wrong with what the tables to be exported show: the tape, the log, or an app's rows."""
    names = {table.name for table in tables}
    if "inputs" in names:
        _refuse_pruned(Tape(connection), lowest)
    if names & {"blocks", "inputs"}:
        yield from check_tape(connection, max(lowest, 0), highest)
    for build in audited_builds(connection):
        if build.is_live and names & {"ops", "rejections", "snapshots"}:
            yield from check_log(connection, build)
        if build.is_live and any(name.startswith(f"{build.schema}.") for name in names):
            yield from check_current_rows(connection, build)


def _refuse_pruned(tape: Tape, lowest: int) -> None:
    until, bottom = tape.pruned_until(), tape.bottom()
    if until is not None and bottom is not None and max(lowest, bottom.block_id) <= until:
        raise UsageError(
            f"the inputs of blocks below {until + 1} were pruned, and a tape without them leads nowhere: "
            f"export it from block {until + 1} on (--from {until + 1}), or from a deployment that has them"
        )


@contextmanager
def _unwritable_is_a_mistake(folder: Path) -> Iterator[None]:
    """Raise UsageError if the folder cannot be written to; the outermost caller reports a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise UsageError(
            f"{error.filename or folder} cannot be written: {error.strerror}: choose another folder"
        ) from error


def _make(folder: Path, undo: ExitStack) -> None:
    """Create the folder, unless it exists and is empty."""
    if not folder.exists():
        folder.mkdir(parents=True)
        undo.callback(folder.rmdir)
    elif any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty: export into a new or empty folder")


def _describe(
    connection: psycopg.Connection, lowest: int, highest: int, *, is_limited: bool
) -> Callable[[tuple[File, ...]], Manifest]:
    """Return a function that makes the manifest once the files are written."""
    tape = Tape(connection)
    bound, tip = tape.deployment(), tape.tip()
    ends = [
        BlockRef(*row)
        for row in connection.execute(_Q["ends"], {"first": lowest, "last": highest}).fetchall()
    ]
    if is_limited and not ends:
        present = "it has none at all" if tip is None else f"it has blocks {_bottom(tape)} to {tip.block_id}"
        raise UsageError(f"the tape has no blocks from {max(lowest, 0)} to {highest}: {present}")
    with connection.cursor(row_factory=dict_row) as cursor:
        apps = tuple(cursor.execute(_Q["apps"], {"last": highest}))
    coverage: tuple[Covered, ...] = ()
    if ends:
        coverage = _coverage_within(tape.coverage(), ends[0].block_id, ends[-1].block_id)

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


def _coverage_within(coverage: Sequence[Covered], first: int, last: int) -> tuple[Covered, ...]:
    """Return the coverage of blocks `first` to `last`; a search that continues above `last` has no end.

    What an app that tracks outputs has covered always ends: it follows from the app's state, not from blocks.
    """
    within = []
    for row in coverage:
        start, until = max(row.from_block, first), row.until_block
        if start <= last and (until is None or start <= until):
            continues = until is None or until > last
            end = last if row.is_tracking else None
            within.append(Covered(row.magic, row.rule, start, end if continues else until))
    return tuple(within)


def _bottom(tape: Tape) -> int | None:
    bottom = tape.bottom()
    return None if bottom is None else bottom.block_id
