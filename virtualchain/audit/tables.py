"""Check the state of a build: rows and their history against state hashes, or saved files against theirs.

The number under the state hash after a block is the product of the rows then, so it can be computed from the
rows as of the oldest block that history brings back, and led on block by block through what each block wrote
and replaced. A wrong row shows at the block that wrote it. Of rows that are older than history it shows only
that one of them is wrong: which one, only deriving the app again can tell.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final

import psycopg
from psycopg import sql

from virtualchain.audit.fault import Fault, OnProgress, ignore
from virtualchain.audit.log import HIGHEST, LOWEST, AuditedBuild
from virtualchain.consensus.state_hash import EMPTY, digest_number, row_element, update_number
from virtualchain.store.projections import Projection, build_schema, projections
from virtualchain.store.sql import queries

_Q = queries("audit")
_BATCH: Final = 1000
"""Rows fetched at once, and multiplied before the number is reduced again."""
_NAMED: Final = 20
"""How many keys of a block are named."""
_ALWAYS: Final = 2**31 - 1
"""A block above all others: the rows as of it are the current ones."""
_SILENT: Final = "its state hash is another one than before, but no row changed"


def check_state(
    connection: psycopg.Connection, build: AuditedBuild, on_progress: OnProgress = ignore
) -> Iterator[Fault]:
    """Yield what is wrong with a build's projections, their history and triggers, or with its saved files.

    Must run in a transaction.
    """
    audit = _TableAudit(connection, build, on_progress)
    if audit.tables:
        yield from audit.run()
    else:
        yield from _check_files(connection, build, LOWEST, HIGHEST)


def check_changes(
    connection: psycopg.Connection,
    build: AuditedBuild,
    first: int,
    last: int,
    on_progress: OnProgress = ignore,
) -> Iterator[Fault]:
    """Yield what is wrong with what blocks `first` to `last` did to a build's state, as history shows it.

    What they changed is found by the record of it, so the cost does not depend on how much there is in all.
    Must run in a transaction.
    """
    audit = _TableAudit(connection, build, on_progress, first, last)
    if audit.tables:
        yield from audit.run_stretch()
    else:
        yield from _check_files(connection, build, first, last)


def check_current_rows(connection: psycopg.Connection, build: AuditedBuild) -> Iterator[Fault]:
    """Yield a fault if a build's projections, as they are now, do not have its last state hash."""
    tables = projections(connection, build_schema(build.schema, build.build))
    number = number_of_rows(connection, tables, _ALWAYS)
    place = {**build.place, "block_id": _ALWAYS}
    row = connection.execute(_Q["state_number_at"], place).fetchone()
    recorded = EMPTY if row is None else bytes(row[0])
    if tables and number != recorded:
        yield build.fault(
            f"its rows have the state hash {digest_number(number)}, but its last digests say "
            f"{digest_number(recorded)}"
        )


def number_of_rows(
    connection: psycopg.Connection,
    tables: Sequence[Projection],
    block_id: int,
    on_progress: OnProgress = ignore,
) -> bytes:
    """Compute the number under the state hash from the rows as of a block that history brings back."""
    number, rows = EMPTY, 0
    for table in tables:
        statement = sql.SQL(_Q["rows_at"]).format(
            texts=table.texts(), table=table.table, history=table.history, block_id=sql.Literal(block_id)
        )
        with connection.cursor("audited_rows") as cursor:
            cursor.itersize = _BATCH
            for batch in _batches(cursor.execute(statement)):
                number = update_number(number, [row_element(table.name, columns) for (columns,) in batch], ())
                rows += len(batch)
                on_progress(f"{rows:,} rows")
    return number


class _TableAudit:
    """Walks through the changes of a build's projections, from the oldest block that history brings back."""

    def __init__(
        self,
        connection: psycopg.Connection,
        build: AuditedBuild,
        on_progress: OnProgress,
        first: int = LOWEST,
        last: int = HIGHEST,
    ) -> None:
        self._connection = connection
        self._build = build
        self._on_progress = on_progress
        self.tables = projections(connection, build_schema(build.schema, build.build))
        self._oldest = max(build.history_from, first - 1)
        self._last = min(last, build.base_block_id if build.block_id is None else build.block_id)

    def run(self) -> Iterator[Fault]:
        """Check all rows, and all of the history."""
        yield from self._check_triggers()
        with _numbers(self._connection, self._build, self._oldest, self._last) as numbers:
            yield from self._check_rows(numbers)
            yield from self._check_changes(numbers, "changes_after")
        yield from self._check_births()
        yield from self._check_beyond()

    def run_stretch(self) -> Iterator[Fault]:
        """Check what the blocks of a stretch did, as far as history shows it."""
        yield from self._check_triggers()
        with _numbers(self._connection, self._build, self._oldest, self._last) as numbers:
            yield from self._check_changes(numbers, "changes_between")

    def _check_rows(self, numbers: "_Numbers") -> Iterator[Fault]:
        """Compute the number from the rows as of the oldest block that history shows."""
        build, app = self._build, self._build.app
        number = number_of_rows(
            self._connection, self.tables, self._oldest, lambda text: self._on_progress(f"{app}: {text}")
        )
        if number != numbers.now:
            yield build.fault(
                f"its rows as of block {self._oldest}, the oldest that history shows, have the state hash "
                f"{digest_number(number)}, but its digests say {digest_number(numbers.now)}: a row that was "
                "written up to then is wrong, missing or too many: `virtualchain verify --deep` finds it",
                table=self.tables[0].name if len(self.tables) == 1 else None,
            )

    def _check_changes(self, numbers: "_Numbers", query: str) -> Iterator[Fault]:
        """Compute the number after each later block from what it changed, and compare it with the log."""
        build = self._build
        changes: Iterable[tuple[int, int, bool, list[str | None]]] = self._changes(query)
        for block_id, group in groupby(changes, lambda change: change[0]):
            if block_id > self._last:
                break
            for silent in numbers.until(block_id - 1):
                yield build.fault(_SILENT, block_id=silent)
            yield from self._check_block(numbers, block_id, [change[1:] for change in group])
        for silent in numbers.until(self._last):
            yield build.fault(_SILENT, block_id=silent)

    def _check_triggers(self) -> Iterator[Fault]:
        place = {
            "tables": build_schema(self._build.schema, self._build.build),
            "names": [table.name for table in self.tables],
        }
        for table, trigger in self._connection.execute(_Q["missing_triggers"], place).fetchall():
            yield self._build.fault(f"it has no trigger {trigger} that fires", table=table)

    def _changes(self, query: str) -> Iterator[tuple[int, int, bool, list[str | None]]]:
        parts = (
            sql.SQL(_Q[query]).format(**self._parts(table), index=sql.Literal(index))
            for index, table in enumerate(self.tables)
        )
        statement = sql.SQL(_Q["all_changes"]).format(changes=sql.SQL("\nUNION ALL\n").join(parts))
        with self._connection.cursor("audited_changes") as cursor:
            cursor.itersize = _BATCH
            yield from cursor.execute(statement)

    def _check_block(
        self, numbers: "_Numbers", block_id: int, changes: Sequence[tuple[int, bool, list[str | None]]]
    ) -> Iterator[Fault]:
        """Check that a block's changes lead from the number before it to its own."""
        came, went = (
            [
                row_element(self.tables[index].name, columns)
                for index, is_new, columns in changes
                if is_new is kind
            ]
            for kind in (True, False)
        )
        computed = update_number(numbers.now, came, went)
        recorded = numbers.after(block_id)
        self._on_progress(f"{self._build.app}: changes of block {block_id:,} of {self._last:,}")
        if computed == recorded:
            return
        places = {(index, tuple(self._key(index, columns).items())) for index, _, columns in changes}
        vanished = self._vanished(block_id)
        named = vanished or sorted(places, key=str)
        tables = {index for index, _ in named}
        yield self._build.fault(
            f"the rows that it wrote, replaced and removed do not lead to its state hash"
            f"{self._listed(named) if len(named) > 1 else ''}",
            block_id=block_id,
            table=self.tables[tables.pop()].name if len(tables) == 1 else None,
            key=dict(named[0][1]) if len(named) == 1 else None,
        )

    def _listed(self, places: Sequence[tuple[int, tuple[tuple[str, str | None], ...]]]) -> str:
        """List keys of which one is that of the wrong row."""
        shown = [
            f"{self.tables[index].name} ({', '.join(f'{name}={value}' for name, value in key)})"
            for index, key in places[:_NAMED]
        ]
        rest = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
        return f"; it is one of {', '.join(shown)}{rest}"

    def _vanished(self, block_id: int) -> list[tuple[int, tuple[tuple[str, str | None], ...]]]:
        """Return the keys that a block recorded as written, and that have no row of it."""
        places = []
        for index, table in enumerate(self.tables):
            statement = sql.SQL(_Q["vanished"]).format(
                **{**self._parts(table), "block_id": sql.Literal(block_id)},
                limit=sql.Literal(_NAMED),
            )
            rows = self._connection.execute(statement).fetchall()
            places += [(index, tuple(zip(table.key, row[0], strict=True))) for row in rows]
        return places

    def _check_births(self) -> Iterator[Fault]:
        """Find rows that a block is said to have written, of which it left no record."""
        for table in self.tables:
            statement = sql.SQL(_Q["unborn"]).format(**self._parts(table), limit=sql.Literal(_NAMED))
            for block_id, key in self._connection.execute(statement).fetchall():
                if block_id <= self._last:
                    yield self._build.fault(
                        "there is no record that the block wrote this row: a rollback would leave it",
                        table=table.name,
                        key=dict(zip(table.key, key, strict=True)),
                        block_id=block_id,
                    )

    def _check_beyond(self) -> Iterator[Fault]:
        for table in self.tables:
            parts = {**self._parts(table), "block_id": sql.Literal(self._last)}
            statement = sql.SQL(_Q["beyond"]).format(**parts, limit=sql.Literal(_NAMED))
            for (block_id,) in self._connection.execute(statement).fetchall():
                yield self._build.fault(
                    f"the table has rows of it, but the app's last block is {self._last}",
                    table=table.name,
                    block_id=block_id,
                )

    def _key(self, index: int, columns: Sequence[str | None]) -> Mapping[str, str | None]:
        table = self.tables[index]
        return {name: columns[table.columns.index(name)] for name in table.key}

    def _parts(self, table: Projection) -> dict[str, sql.Composable]:
        same_key = (
            sql.SQL("r.{column} = b.{column}").format(column=sql.Identifier(name)) for name in table.key
        )
        return {
            "table": table.table,
            "history": table.history,
            "births": table.births,
            "key": sql.SQL(", ").join(map(sql.Identifier, table.key)),
            "texts": table.texts(),
            "key_texts": table.key_texts("b"),
            "same_key": sql.SQL(" AND ").join(same_key),
            "block_id": sql.Literal(self._oldest),
            "last": sql.Literal(self._last),
        }


@contextmanager
def _numbers(
    connection: psycopg.Connection, build: AuditedBuild, oldest: int, last: int
) -> Iterator["_Numbers"]:
    place = {**build.place, "block_id": oldest, "last": last}
    row = connection.execute(_Q["state_number_at"], place).fetchone()
    with connection.cursor("audited_numbers") as cursor:
        yield _Numbers(
            EMPTY if row is None else bytes(row[0]), iter(cursor.execute(_Q["state_numbers"], place))
        )


class _Numbers:
    """The numbers under a build's state hashes, as the log has them, in the order of blocks."""

    def __init__(self, number: bytes, changed: Iterator[tuple[int, bytes]]) -> None:
        self.now = number
        """The number after the last block that was asked for."""
        self._changed = changed
        self._next = next(changed, None)

    def until(self, block_id: int) -> Iterator[int]:
        """Advance to a block; yield those up to it that changed the number."""
        while self._next is not None and self._next[0] <= block_id:
            changed_by, number = self._next
            if bytes(number) != self.now:
                yield changed_by
            self.now = bytes(number)
            self._next = next(self._changed, None)

    def after(self, block_id: int) -> bytes:
        """Advance to a block, and return the number after it."""
        for _ in self.until(block_id):
            pass
        return self.now


def _check_files(
    connection: psycopg.Connection, build: AuditedBuild, first: int, last: int
) -> Iterator[Fault]:
    """Check what an app with a state of its own saved in a range of blocks, as far as files are kept."""
    place = {**build.place, "base": build.base_block_id, "first": first, "last": last}
    wrong = set()
    for block_id, digest, state_hash in connection.execute(_Q["state_files"], place).fetchall():
        if digest != state_hash:
            wrong.add(block_id)
            message = (
                f"a file with the digest {digest} was saved after it, but its state hash is {state_hash}"
            )
            yield build.fault(message, table="state_files", block_id=block_id)
    if wrong:
        return  # the blocks after a wrong file differ as well
    for (block_id,) in connection.execute(_Q["states_without_file"], place).fetchall():
        yield build.fault("its state hash is not that of the file that was saved last", block_id=block_id)


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
