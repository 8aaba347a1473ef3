"""Create a checkpoint of an app as of a block, from one read-only transaction."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.audit.fault import Fault, refuse_damage
from virtualchain.audit.log import audited_builds, check_log
from virtualchain.audit.tables import check_state
from virtualchain.audit.tape import check_tape
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.archive import Member, Writer
from virtualchain.checkpoint.chunks import Cutter
from virtualchain.checkpoint.digests import computed_root
from virtualchain.checkpoint.manifest import NAME, SNAPSHOTS, STATE, Content, Manifest, Table
from virtualchain.checkpoint.rows import RowDigest
from virtualchain.checkpoint.signing import sign
from virtualchain.consensus.state_hash import digest_number
from virtualchain.errors import DamagedTables, UsageError
from virtualchain.model import Json
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.sql import queries

_Q = queries("checkpoint")


def create(
    connection: psycopg.Connection,
    app: str,
    file: Path,
    *,
    block_id: int | None = None,
    keys: Iterable[Path] = (),
    in_chunks: bool = False,
    is_audited: bool = False,
) -> Manifest:
    """Write a checkpoint of an app at a block (default: its last) to a file; return its manifest.

    `connection` must be in a repeatable-read transaction. `keys` are files with the private keys to sign
    with. With `in_chunks` the manifest names the chunks of each member, for publishing. The same state yields
    the same bytes on every node. The app's rows, their history and its digests are compared with each other
    first, unless that `is_audited` in this transaction already. Raises UsageError for a block at which the
    app cannot be shown, or if it is not known which blocks wrote its rows, DamagedTables if they do not fit.
    """
    row = _one(connection, "live_app", {"app": app})
    if row is None:
        raise UsageError(f"app {app} has taken no block here: there is nothing to create a checkpoint of")
    at = _block(row, block_id)
    place = {"app": app, "build": row["build"], "block_id": at}
    digests = _one(connection, "digests", place)
    if digests is None or digests["state_hash"] is None:
        raise UsageError(f"app {app} has no state hash at block {at}: a checkpoint could not be verified")
    if digests["block_hash"] is None:
        raise UsageError(f"block {at} is not on the tape: create the checkpoint once block {at + 1} is taken")
    tables = projections(connection, build_schema(row["schema"], row["build"]))
    saved = _one(connection, "saved_file", place)
    if tables and row["has_unknown_blocks"]:
        raise UsageError(
            f"app {app} began with a checkpoint of the first format, so this database does not know "
            "which block wrote each row: create the checkpoint on another node, or apply a new one here first"
        )
    faults = check_tape(connection, at, at) if is_audited else _faults(connection, app, at)
    refuse_damage(faults, f"app {app} is damaged, so no checkpoint was created")
    blocks = range(row["first_block_id"], at + 1)
    with archive.writing(file) as writer:
        members = {
            SNAPSHOTS: _write(writer, SNAPSHOTS, copy_snapshots(connection, place), in_chunks=in_chunks)
        }
        rows, described = RowDigest(blocks), []
        if saved is not None:
            members[STATE] = _write(
                writer, STATE, [bytes(saved["content"])], counts=False, in_chunks=in_chunks
            )
        else:
            for number, projection in enumerate(tables, 1):
                member = _member(number, projection.name)
                table = Table(projection.name, projection.columns, projection.key, member)
                with _opened(writer, member, in_chunks=in_chunks) as output:
                    count = rows.add(table, copy_rows(connection, projection, at), output.write_lines)
                members[member] = output.content(count)
                described.append(table)
        computed = members[STATE].sha256 if saved is not None else digest_number(rows.number)
        if computed != digests["state_hash"]:
            raise DamagedTables(
                f"app {app} is damaged: its state hash at block {at} is {digests['state_hash']}, but its "
                f"rows have {computed}; `virtualchain verify` shows more"
            )
        manifest = Manifest(
            app=app,
            version=row["version"],
            fingerprint=row["fingerprint"],
            network=row["network"],
            genesis_hash=row["genesis_hash"],
            block_id=at,
            block_hash=digests["block_hash"],
            consensus_hash=digests["consensus_hash"],
            state_hash=digests["state_hash"],
            state_root=None,
            first_block_id=row["first_block_id"],
            members=members,
            tables=tuple(described),
        )
        if saved is None:
            manifest = replace(manifest, state_root=computed_root(manifest, rows.tables))
        if keys := list(keys):
            manifest = manifest.with_signatures(sign(manifest.signed_bytes(), keys))
        _write(writer, NAME, [manifest.to_bytes()])
    return manifest


def position(connection: psycopg.Connection, app: str) -> tuple[int, int]:
    """Return the last block of an app, and the first at which it can still be shown.

    Raises UsageError if it has taken none.
    """
    row = _one(connection, "live_app", {"app": app})
    if row is None or row["block_id"] is None:
        raise UsageError(f"app {app} has taken no block here: there is nothing to create a checkpoint of")
    return row["block_id"], max(row["history_from"], row["base_block_id"], 0)


def _faults(connection: psycopg.Connection, app: str, block_id: int) -> Iterator[Fault]:
    """Yield what is wrong with an app's log and state, or with the block that a checkpoint is to show."""
    yield from check_tape(connection, block_id, block_id)
    for build in audited_builds(connection):
        if build.app == app and build.is_live:
            yield from check_log(connection, build)
            yield from check_state(connection, build)


def copy_rows(connection: psycopg.Connection, projection: Projection, block_id: int) -> Iterator[bytes]:
    """Yield the rows of a projection as of a block, in the order of their keys' texts, as lines of COPY.

    The last column is the block that wrote the row.
    """
    statement = sql.SQL(_Q["copy_rows"]).format(
        columns=_names(projection.columns),
        order=projection.order(),
        table=projection.table,
        history=projection.history,
        block_id=sql.Literal(block_id),
    )
    yield from _copy_lines(connection, statement)


def copy_loaded(connection: psycopg.Connection, projection: Projection) -> Iterator[bytes]:
    """Yield the rows of a projection as `copy_rows` does, as they are stored: in any order."""
    connection.execute(_Q["scan_in_order"])
    statement = sql.SQL(_Q["copy_loaded"]).format(columns=_names(projection.columns), table=projection.table)
    yield from _copy_lines(connection, statement)


def copy_snapshots(connection: psycopg.Connection, place: Json) -> Iterator[bytes]:
    """Yield a build's digests up to a block, as lines of COPY; `place` has app, build and block_id."""
    literals = {name: sql.Literal(value) for name, value in place.items()}
    yield from _copy_lines(connection, sql.SQL(_Q["copy_snapshots"]).format(**literals))


def _block(row: Json, block_id: int | None) -> int:
    """Return the requested block, by default the last one, if the app can be shown there."""
    last, oldest = row["block_id"], max(row["history_from"], row["base_block_id"], 0)
    at: int | None = last if block_id is None else block_id
    if last is None or at is None or at > last:
        position = "has taken no block yet" if last is None else f"is at block {last}"
        raise UsageError(
            f"app {row['app']} {position}: a checkpoint can show it there or at an earlier block"
        )
    if at < oldest:
        raise UsageError(f"the history of app {row['app']} reaches back to block {oldest}, not to block {at}")
    return at


def _copy_lines(connection: psycopg.Connection, statement: sql.Composed) -> Iterator[bytes]:
    with connection.cursor().copy(statement) as copy:
        for line in copy:
            yield bytes(line)


def _write(
    writer: Writer, name: str, pieces: Iterable[bytes], *, counts: bool = True, in_chunks: bool = False
) -> Content:
    """Write a member of lines, or of pieces that do not count as rows."""
    rows = 0
    with _opened(writer, name, in_chunks=in_chunks) as output:
        for piece in pieces:
            output.write(piece)
            rows += 1
    return output.content(rows if counts else 0)


class _Output:
    """A member that is being written, and cut into chunks if it is to be published."""

    def __init__(self, member: Member, *, in_chunks: bool) -> None:
        self._member = member
        self._cutter = Cutter() if in_chunks else None

    def write(self, row: bytes) -> None:
        self._member.write(row)
        if self._cutter is not None:
            self._cutter.add(row)

    def write_lines(self, lines: bytes) -> None:
        self._member.write(lines)
        if self._cutter is not None:
            for row in lines[:-1].split(b"\n"):
                self._cutter.add(row + b"\n")

    def content(self, rows: int) -> Content:
        chunks = None if self._cutter is None else self._cutter.chunks()
        return Content(**asdict(self._member.written()), rows=rows, chunks=chunks)


@contextmanager
def _opened(writer: Writer, name: str, *, in_chunks: bool) -> Iterator[_Output]:
    with writer.member(name) as member:
        yield _Output(member, in_chunks=in_chunks)


def _member(number: int, table: str) -> str:
    """Name the member of a table so that it is a safe file name, whatever the name of the table."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in table)
    return f"projections/{number}.{plain}"


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _one(connection: psycopg.Connection, query: str, parameters: Json) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        # Binary, because a large state as text would exceed what the server sends in one field.
        return cursor.execute(_Q[query], parameters, binary=True).fetchone()
