"""A stretch of blocks judged again, from the live build's own state before it, in a build of its own.

The cost does not depend on how long the chain is: the state is copied as history shows it, and consensus
hashes of earlier blocks are read from the live build's log.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import psycopg
from psycopg import sql

from virtualchain.app.contract import Contract
from virtualchain.engine.coverage import gaps, pruned_note
from virtualchain.engine.machine import Machine
from virtualchain.engine.options import DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.rebuild import advance_to
from virtualchain.engine.states import loads_files
from virtualchain.engine.versions import TEMPORARY, drop_temporary, require_live, require_tape
from virtualchain.errors import BuildChanged, DamagedTables, UsageError
from virtualchain.store.builds import (
    Build,
    contract_of_build,
    find_build,
    install_build,
    is_by,
    lock_builds,
)
from virtualchain.store.database import connect_builder
from virtualchain.store.log import AppLog
from virtualchain.store.projections import projections
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_Q = queries("stretch")
_LOAD = queries("checkpoint")


@contextmanager
def judged_stretch(
    url: str,
    contract: Contract,
    first: int,
    last: int,
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
) -> Iterator[tuple[psycopg.Connection, Build, Build] | None]:
    """Judge blocks `first` to `last` again, into a build of its own, which is dropped afterwards.

    It begins with the rows, or the saved file, that the app's history shows as of the block before. Yields
    what `judged_again` yields, with the other build at `last`; None if the listener ended the work early.
    Raises UsageError, with the reason, if the app cannot be judged again from there; DamagedTables if the
    tape, or the rows as of that block, are damaged; BuildChanged if somebody rolls back, swaps or drops
    meanwhile; AppHalted if a callback fails; WriterBusy.
    """
    app = contract.name
    with closing(connect_builder(url, f"{app}:{TEMPORARY}")) as connection:
        drop_temporary(connection, app)  # of a process that was killed
        live = require_live(connection, app)
        contract = _require_possible(connection, live, contract, first, last)
        here = contract
        if first > contract.start:
            begins_with = AppLog(connection, app, live.name).consensus_at([first - 1])
            if not begins_with:
                raise UsageError(f"its digests of block {first - 1} are missing")
            here = replace(contract, initial_snapshots=begins_with, base_block_hash=None)
        try:
            with connection.transaction():
                lock_builds(connection, app)
                install_build(connection, here, TEMPORARY, contract.fingerprint())
            with connection.transaction():
                connection.execute(queries("builds")["one_moment"])
                try:
                    _fill(connection, require_live(connection, app), here, first - 1)
                except (psycopg.IntegrityError, psycopg.DataError) as error:
                    message = error.diag.message_primary
                    raise DamagedTables(
                        f"its rows as of block {first - 1} do not fit its tables: {message}"
                    ) from error
            own = replace(options.for_database(url), history=None)
            log = _BorrowedLog(connection, app, live.name, first)
            machine = Machine(connection, here, TEMPORARY, own, is_live=False, log=log)
            try:
                if not advance_to(machine, last, listener, beside_writer=True):
                    yield None
                    return
            finally:
                machine.forget_file()
            with connection.transaction():
                connection.execute(queries("builds")["one_moment"])
                now, again = require_live(connection, app), find_build(connection, app, TEMPORARY)
                if again is None or again.block_id != last or now.name != live.name or now.block_id < last:
                    raise BuildChanged(f"blocks of app {app} were rolled back or replaced meanwhile")
                if now.history_from > last:
                    raise UsageError(f"its history was pruned up to block {now.history_from} meanwhile")
                yield connection, now, again
        finally:
            drop_temporary(connection, app)


class _BorrowedLog(AppLog):
    """The log of a build that begins in the middle: hashes of earlier blocks are those of another build."""

    def __init__(self, connection: psycopg.Connection, app: str, lender: str, first: int) -> None:
        super().__init__(connection, app, TEMPORARY)
        self._before = AppLog(connection, app, lender)
        self._first = first

    def consensus_at(self, block_ids: Sequence[int]) -> dict[int, str]:
        """Return the consensus hashes of those of `block_ids` that have one."""
        earlier = [block_id for block_id in block_ids if block_id < self._first]
        later = [block_id for block_id in block_ids if block_id >= self._first]
        return self._before.consensus_at(earlier) | super().consensus_at(later)

    def consensus_hash(self, block_id: int) -> str | None:
        """Return the consensus hash of one block."""
        earlier = block_id < self._first
        return self._before.consensus_hash(block_id) if earlier else super().consensus_hash(block_id)

    def consensus_hashes(self, first: int, last: int) -> list[str]:
        """Return the consensus hashes of a range of blocks, in order."""
        earlier = self._before.consensus_hashes(first, min(self._first - 1, last))
        return earlier + super().consensus_hashes(max(self._first, first), last)

    def is_fresh(self, consensus_hash: str, first: int, last: int) -> bool:
        """Return whether one of a range of blocks has this hash."""
        if self._before.is_fresh(consensus_hash, first, min(self._first - 1, last)):
            return True
        return super().is_fresh(consensus_hash, max(self._first, first), last)

    def newest_blocks(self, hashes: Sequence[str], last: int) -> dict[str, int]:
        """Return the newest block up to `last` that has each of these hashes."""
        earlier = self._before.newest_blocks(hashes, min(self._first - 1, last))
        return earlier | super().newest_blocks(hashes, last)


def _require_possible(
    connection: psycopg.Connection, live: Build, contract: Contract, first: int, last: int
) -> Contract:
    """Return the contract as the live build began; raise UsageError if it cannot judge the stretch again."""
    tape = Tape(connection)
    contract = contract.on(tape.network)
    if not is_by(connection, live, contract):
        raise UsageError("the code that is named declares other rules than those that made its tables")
    contract = contract_of_build(connection, contract, live.name)
    if not live.base_block_id < first <= last <= live.block_id:
        raise UsageError(f"it has not taken blocks {first} to {last}")
    if first - 1 < live.history_from:
        raise UsageError(f"its history shows block {live.history_from} and later ones only")
    require_tape(connection, first, last)
    is_opaque = contract.get_state is not None
    if is_opaque and first > live.base_block_id + 1 and not loads_files(contract):
        raise UsageError("it cannot load the state that it saved")
    unsearched = [gap for gap in gaps(tape, contract) if gap[0] <= last and gap[1] >= first]
    if unsearched:
        lowest = max(first, unsearched[0][0])
        raise UsageError(f"block {lowest} was not searched for what this code needs{pruned_note(tape)}")
    return contract


def _fill(connection: psycopg.Connection, live: Build, contract: Contract, block_id: int) -> None:
    """Copy the live build's state as of a block into the new one; needs a snapshot of one moment."""
    place = {"app": live.app, "build": live.name, "again": TEMPORARY, "block_id": block_id}
    if live.history_from > block_id:
        raise UsageError(f"its history shows block {live.history_from} and later ones only")
    if contract.initial_snapshots:
        connection.execute(_Q["lend_digests"], place)
    if contract.get_state is not None:
        copied = connection.execute(_Q["lend_file"], place).rowcount
        if not copied and block_id > live.base_block_id:
            raise UsageError(f"the state that it saved up to block {block_id} is not kept")
    lent = {table.name: table for table in projections(connection, live.tables)}
    made = find_build(connection, live.app, TEMPORARY)
    assert made is not None, "it was installed"
    connection.execute(_LOAD["begin_load"])
    connection.execute(_LOAD["defer_constraints"])
    for new in projections(connection, made.tables):
        table = lent[new.name]
        statement = sql.SQL(_Q["lend_rows"]).format(
            new=new.table,
            columns=sql.SQL(", ").join(map(sql.Identifier, new.columns)),
            table=table.table,
            history=table.history,
            block_id=sql.Literal(block_id),
        )
        connection.execute(statement)
    connection.execute(_LOAD["check_constraints"])
    connection.execute(_LOAD["end_load"])
