"""Make a checkpoint: an app as of a block, out of one read-only transaction."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.checkpoint import archive
from virtualchain.checkpoint.archive import Writer
from virtualchain.checkpoint.manifest import NAME, SNAPSHOTS, STATE, Content, Manifest, Table
from virtualchain.checkpoint.rows import Rows
from virtualchain.checkpoint.signing import sign
from virtualchain.consensus.state_hash import digest_number
from virtualchain.errors import StoreError, UsageError
from virtualchain.model import Json
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.sql import queries

_Q = queries("checkpoint")
_ADVICE: Final = "derive its tables anew first: `virtualchain replay {app}`"


def create(
    connection: psycopg.Connection,
    app: str,
    file: Path,
    *,
    block_id: int | None = None,
    keys: Iterable[Path] = (),
) -> Manifest:
    """Write a checkpoint of an app at a block (default: its last) to a file; give its manifest.

    `connection` must be within one repeatable-read transaction. `keys` are files with private keys that
    sign. The same state gives the same bytes on every node. Raises UsageError for a block that the app cannot
    be shown at, StoreError where its rows are not those of its state hash.
    """
    row = _one(connection, "live_app", {"app": app})
    if row is None:
        raise UsageError(f"app {app} has taken no block here: there is nothing to make a checkpoint of")
    at = _block(row, block_id)
    place = {"app": app, "build": row["build"], "block_id": at}
    digests = _one(connection, "digests", place)
    if digests is None or digests["state_hash"] is None:
        raise UsageError(f"app {app} has no state hash at block {at}: a checkpoint could not be checked")
    if digests["block_hash"] is None:
        raise UsageError(f"block {at} is not on the tape: make the checkpoint once block {at + 1} is taken")
    tables = projections(connection, build_schema(row["schema"], row["build"]))
    saved = _one(connection, "saved_file", place)
    with archive.writing(file) as writer:
        members = {SNAPSHOTS: _write(writer, SNAPSHOTS, copy_snapshots(connection, place))}
        rows, contents = Rows(), []
        if saved is not None:
            members[STATE] = _write(writer, STATE, [bytes(saved["content"])], counts=False)
        else:
            for number, projection in enumerate(tables, 1):
                table = Table(projection.name, projection.columns, _member(number, projection.name))
                lines = rows.take(table.name, len(table.columns), copy_rows(connection, projection, at))
                members[table.member] = _write(writer, table.member, lines)
                contents.append(table)
        found = members[STATE].sha256 if saved is not None else digest_number(rows.number)
        if found != digests["state_hash"]:
            raise StoreError(
                f"app {app} is damaged: its state hash at block {at} is {digests['state_hash']}, and its "
                f"rows have {found}; {_ADVICE.format(app=app)}"
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
            first_block_id=row["first_block_id"],
            members=members,
            tables=tuple(contents),
        )
        manifest = sign(manifest, keys) if (keys := list(keys)) else manifest
        _write(writer, NAME, [manifest.to_bytes()])
    return manifest


def copy_rows(connection: psycopg.Connection, projection: Projection, block_id: int) -> Iterator[bytes]:
    """Give the rows of a projection as of a block, as lines of COPY, by key."""
    statement = sql.SQL(_Q["copy_rows"]).format(
        columns=_names(projection.columns),
        key=_names(projection.key),
        table=projection.table,
        history=projection.history,
        block_id=sql.Literal(block_id),
    )
    yield from _copied(connection, statement)


def copy_snapshots(connection: psycopg.Connection, place: Json) -> Iterator[bytes]:
    """Give a build's digests up to a block, as lines of COPY; `place` has app, build, block_id."""
    literals = {name: sql.Literal(value) for name, value in place.items()}
    yield from _copied(connection, sql.SQL(_Q["copy_snapshots"]).format(**literals))


def _block(row: Json, block_id: int | None) -> int:
    """Give the block that is wanted, if the app can be shown there."""
    last, oldest = row["block_id"], max(row["history_from"], row["base_block_id"], 0)
    at: int | None = last if block_id is None else block_id
    if last is None or at is None or at > last:
        stands = "has taken no block yet" if last is None else f"stands at block {last}"
        raise UsageError(f"app {row['app']} {stands}: a checkpoint shows it there, or at an earlier block")
    if at < oldest:
        raise UsageError(
            f"the history of app {row['app']} reaches back to block {oldest}, and not to block {at}"
        )
    return at


def _copied(connection: psycopg.Connection, statement: sql.Composed) -> Iterator[bytes]:
    with connection.cursor().copy(statement) as copy:
        for line in copy:
            yield bytes(line)


def _write(writer: Writer, name: str, pieces: Iterable[bytes], *, counts: bool = True) -> Content:
    rows = 0
    with writer.member(name) as member:
        for piece in pieces:
            member.write(piece)
            rows += 1
    return Content(**asdict(member.written()), rows=rows if counts else 0)


def _member(number: int, table: str) -> str:
    """Name the member of a table so that it is a harmless file name, whatever the table is called."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in table)
    return f"projections/{number}.{plain}"


def _names(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _one(connection: psycopg.Connection, query: str, wanted: Json) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_Q[query], wanted).fetchone()
