"""Apply a checkpoint: an app continues from a file instead of its own past.

The whole file is verified before anything changes. Then one transaction makes a build of the app at the
checkpoint's block, which replaces the app's live build if there is one. What the database holds then is read
back and must be the file, byte for byte.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import psycopg
from psycopg import sql

from virtualchain.app.contract import Contract
from virtualchain.checkpoint import archive
from virtualchain.checkpoint.archive import Reader
from virtualchain.checkpoint.create import copy_rows, copy_snapshots
from virtualchain.checkpoint.manifest import SNAPSHOTS, STATE, Manifest
from virtualchain.checkpoint.verify import Verified, snapshots, verify
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import DEFAULTS, QUIET, Listener, Options
from virtualchain.engine.rollback import Prepared, operators_reorg, prepare
from virtualchain.engine.rollback import apply as apply_rollback
from virtualchain.engine.states import loads_files
from virtualchain.errors import BuildChanged, InvalidCheckpoint, UsageError
from virtualchain.reading import views
from virtualchain.store.builds import (
    FIRST_BUILD,
    install_build,
    live_build,
    lock_builds,
    next_build,
    replace_views,
    reserve_schema,
    set_live,
)
from virtualchain.store.failures import is_transient
from virtualchain.store.giving_way import give_way
from virtualchain.store.log import AppLog
from virtualchain.store.migrate import migrate
from virtualchain.store.projections import build_schema, has_long_entry, projections
from virtualchain.store.rollback import NOTHING, Undone, count_replaced
from virtualchain.store.sql import queries
from virtualchain.store.state_files import LARGEST_STATE, StateFiles
from virtualchain.store.tape import Tape

_Q = queries("checkpoint")


@dataclass(frozen=True, slots=True)
class Applied:
    """What an app began with, and what was undone of the tape for it, if anything."""

    manifest: Manifest
    block_id: int
    """The block on this chain after which the app continues."""
    signers: tuple[str, ...]
    build: str
    undone: Undone | None


def apply(
    url: str,
    file: Path,
    contracts: Sequence[Contract],
    *,
    trusted: tuple[str, ...] = (),
    migrates: bool = False,
    begins_after: int | None = None,
    rollback: int | None = None,
    options: Options = DEFAULTS,
    listener: Listener = QUIET,
) -> Applied | None:
    """Start the app of a checkpoint at its block, in the deployment at `url`.

    `contracts` must include the app's. With keys `trusted`, one of them must have signed. With `migrates` the
    app begins on this chain, whatever chain the checkpoint is of: after block `begins_after`, or else after
    that of the checkpoint's height. With `rollback`, every block above that one is undone for all apps in the
    same transaction. Apps whose history does not reach that far then need their contracts, too; if the
    listener ends the work early, nothing is applied and None is returned. Raises InvalidCheckpoint, and
    UsageError if the app or the chain is another one; then nothing has changed.
    """
    if begins_after is not None and not migrates:
        raise UsageError("only an app that migrates to another chain can begin after another block there")
    with archive.reading(file) as reader:
        verified = verify(reader, trusted)
        contract = _contract_for(contracts, verified)
        migrate(url)
        others = [] if rollback is None else _installed(url, contracts, contract)
        with closing(Deployment(url, others, None, options, repairs=contract.name)) as deployment:
            load = _Load(deployment.connection, reader, verified, contract, migrates, begins_after)
            reorg = None if rollback is None else operators_reorg(deployment.tape, rollback)
            _check_chain(deployment.tape, verified.manifest, migrates=migrates, rollback=rollback)
            prepared = None
            if reorg is not None:
                prepared = prepare(deployment, reorg, listener, replaces=contract.name)
                if prepared is None:
                    return None
                deployment.be_durable()
            with deployment.connection.transaction():
                load.install(deployment.tape)
                undone = load.take_over(prepared, listener)
            if prepared is not None:
                deployment.notifier.rollback(prepared.reorg.fork_block_id)
                deployment.reload_after_rollback(prepared.rebuilt)
    return Applied(verified.manifest, load.block_id, verified.signers, load.build, undone)


def _installed(url: str, contracts: Sequence[Contract], contract: Contract) -> list[Contract]:
    """Return the contracts of the other apps that are installed."""
    with views.snapshot(url) as connection:
        names = {row["name"] for row in views.apps(connection)} - {contract.name}
    return [other for other in contracts if other.name in names]


def _contract_for(contracts: Sequence[Contract], verified: Verified) -> Contract:
    """Return the contract of a checkpoint's app.

    Raises UsageError if it is not among `contracts` or its declarations differ from those that the checkpoint
    was created with, InvalidCheckpoint if the checkpoint's content does not fit the app.
    """
    manifest = verified.manifest
    contract = next((item for item in contracts if item.name == manifest.app), None)
    if contract is None:
        named = ", ".join(item.name for item in contracts) or "none"
        raise UsageError(f"the checkpoint is of app {manifest.app}: name it with --app (named: {named})")
    contract = contract.on(manifest.network)
    if contract.version != manifest.version or not _has_fingerprint(contract, manifest.fingerprint):
        raise UsageError(
            f"the checkpoint is of app {manifest.app} version {manifest.version}, but version "
            f"{contract.version} here declares other rules or projections: use the code that the checkpoint "
            "was created with"
        )
    keeps_state = contract.get_state is not None
    if keeps_state != (STATE in manifest.members):
        raise InvalidCheckpoint("it does not hold the kind of state that its app keeps")
    if keeps_state and not loads_files(contract):
        raise UsageError(
            f"app {manifest.app} cannot load a state file: its get_db_state takes no filename, or it has no "
            "db_save"
        )
    as_declared = (manifest.first_block_id, verified.initial) == (
        contract.first_block_id,
        dict(contract.initial_snapshots),
    )
    # An app that migrated to this chain began on it with one hash, at the block of its own checkpoint.
    if not as_declared and list(verified.initial) != [manifest.first_block_id]:
        raise InvalidCheckpoint("its digests do not begin where its app begins")
    return contract


def _has_fingerprint(contract: Contract, fingerprint: str) -> bool:
    """Compare an app with the fingerprint in a checkpoint, which version 0.1.0 may have computed.

    That did not cover the payload rule, so it proves nothing about an app that has one of its own.
    """
    former = contract.former_fingerprint()
    return fingerprint == contract.fingerprint() or (fingerprint == former and not contract.has_own_rule)


def _check_chain(tape: Tape, manifest: Manifest, *, migrates: bool, rollback: int | None) -> None:
    """Raise UsageError if the deployment's chain is not the checkpoint's, as far as the chain stays."""
    bound = tape.deployment()
    at, expected = manifest.block_id, manifest.block_hash
    actual = _remaining_hash(tape, at, rollback)
    if migrates:
        if actual == expected:
            raise UsageError("this deployment is on the checkpoint's own chain: leave out --migrate")
        return
    if bound not in {None, (manifest.network, manifest.genesis_hash)}:
        assert bound is not None, "None is among those"
        raise UsageError(
            f"the checkpoint is of {manifest.network} (genesis {manifest.genesis_hash}), but this database "
            f"follows {bound[0]} (genesis {bound[1]}): with --migrate the app starts on this chain, after "
            f"block {at}"
        )
    if actual not in {None, expected}:
        raise UsageError(
            f"the checkpoint is of block {at} ({expected}), but the tape has another block there ({actual}). "
            "To follow the checkpoint's branch, add --rollback BLOCK, the last block on both branches, "
            "which `virtualchain status` names at a deep fork. With --migrate the app starts on this chain "
            f"instead, after block {at}"
        )


def _remaining_hash(tape: Tape, block_id: int, rollback: int | None) -> str | None:
    """Return the hash of a block, from itself or its child, if the tape has either and keeps it."""
    if rollback is not None and rollback < block_id:
        return None
    for block in tape.blocks(block_id, block_id + 1):
        if block.block_id == block_id:
            return block.hash
        return block.prev_hash if rollback is None or rollback > block_id else None
    return None


class _Load:
    """Loads a verified checkpoint into the database, within a transaction."""

    def __init__(
        self,
        connection: psycopg.Connection,
        reader: Reader,
        verified: Verified,
        contract: Contract,
        migrates: bool,
        begins_after: int | None,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._verified = verified
        self._manifest = manifest = verified.manifest
        self._contract = contract
        self._migrates = migrates
        self.block_id = manifest.block_id if begins_after is None else begins_after
        """The block on this chain after which the app continues."""
        self._contract_from_here = replace(
            contract,
            first_block_id=self.block_id if migrates else manifest.first_block_id,
            initial_snapshots={self.block_id: manifest.consensus_hash},
        )
        self.build = FIRST_BUILD
        self._replaced: str | None = None

    def install(self, tape: Tape) -> None:
        """Install a build at the checkpoint's block, beside the live one if there is one."""
        manifest, contract = self._manifest, self._contract
        live = live_build(self._connection, contract.name)
        self._replaced = None if live is None else live.name
        if tape.deployment() is None and not self._migrates:
            tape.bind(manifest.network, manifest.genesis_hash)
        if live is not None:
            self.build = next_build(self._connection, contract.name)
        else:
            reserve_schema(self._connection, contract)
        install_build(
            self._connection,
            self._contract_from_here,
            self.build,
            contract.fingerprint(),
            is_live=live is None,
        )
        self._load()

    def take_over(self, prepared: Prepared | None, listener: Listener) -> Undone | None:
        """Make the installed build the live one, drop the one before it, and undo what was prepared.

        Raises BuildChanged if another process has swapped in another build meanwhile.
        """
        connection, app = self._connection, self._contract.name
        current = lock_builds(connection, app)
        if self._replaced not in {None, *(row.name for row in current if row.is_live)}:
            raise BuildChanged(f"the views of app {app} show another build now: nothing was applied")
        new = next(row for row in current if row.name == self.build)
        dropped = [row for row in current if row.name != self.build and (row.is_live or row.is_unfinished)]
        undone_here = NOTHING
        for row in dropped:
            if prepared is not None and row.is_live:
                undone_here += count_replaced(connection, row, new, prepared.reorg.fork_block_id)
        replacement = set_live(connection, new, dropped)
        AppLog(connection, app, self.build).set_status("running")
        if prepared is not None:
            return apply_rollback(connection, prepared, listener, [replacement], undone_here)
        give_way(
            connection,
            [app],
            lambda: replace_views(connection, [replacement]),
            listener.on_wait,
            listener.may_continue,
        )
        return None

    @property
    def _tables(self) -> str:
        return build_schema(self._contract.schema, self.build)

    @property
    def _place(self) -> dict[str, object]:
        return {"app": self._manifest.app, "build": self.build, "block_id": self.block_id}

    def _load(self) -> None:
        manifest = self._manifest
        try:
            self._load_rows()
            self._load_state()
            self._load_snapshots()
            if self._verified.state_number is not None:
                number = {**self._place, "state_number": self._verified.state_number}
                self._connection.execute(_Q["set_state_number"], number)
            self._connection.execute(
                _Q["record"],
                {
                    **self._place,
                    "network": manifest.network,
                    "block_hash": manifest.block_hash,
                    "consensus_hash": manifest.consensus_hash,
                    "state_hash": manifest.state_hash,
                    "is_migration": self._migrates,
                    "signers": list(self._verified.signers),
                },
            )
        except psycopg.Error as error:
            if is_transient(error):
                raise
            message = error.diag.message_primary or str(error)
            table = f" (table {error.diag.table_name})" if error.diag.table_name else ""
            raise InvalidCheckpoint(f"the database refuses what it holds: {message}{table}") from error

    def _load_rows(self) -> None:
        """Fill the projections, with the block that wrote each row.

        On another chain that block means nothing: there all rows count as written by the checkpoint's block.
        """
        manifest = self._manifest
        ours = projections(self._connection, self._tables)
        theirs = {table.name: table for table in manifest.tables}
        if STATE not in manifest.members and {item.name: (item.columns, item.key) for item in ours} != {
            table.name: (table.columns, table.key) for table in manifest.tables
        }:
            raise InvalidCheckpoint("its tables are not those of the app")
        self._connection.execute(_Q["begin_load"])
        self._connection.execute(_Q["defer_constraints"])
        for projection in ours:
            if projection.name in theirs:
                names = sql.SQL(", ").join(map(sql.Identifier, projection.columns))
                statement = sql.SQL(_Q["load_rows"]).format(table=projection.table, columns=names)
                with self._connection.cursor().copy(statement) as copy:
                    for line in self._rows(theirs[projection.name].member):
                        copy.write(line)
        self._connection.execute(_Q["check_constraints"])
        self._connection.execute(_Q["end_load"])
        for projection in ours:
            if projection.name in theirs:
                lines = copy_rows(self._connection, projection, self.block_id)
                self._compare_rows(theirs[projection.name].member, lines)
                if has_long_entry(self._connection, projection):
                    raise InvalidCheckpoint(
                        f"a row of its table {projection.name} is too long for an index, so no block wrote it"
                    )

    def _load_state(self) -> None:
        if STATE in self._manifest.members:
            content = self._reader.content(STATE, LARGEST_STATE)
            self._compare(STATE, [content])
            files = StateFiles(self._connection, self._contract.name, self.build, Path())
            files.keep(self.block_id, content)

    def _load_snapshots(self) -> None:
        """Load the whole series, on which later hashes depend; on another chain, only the last hash."""
        manifest = self._manifest
        if self._migrates:
            digests = {"consensus_hash": manifest.consensus_hash, "state_hash": manifest.state_hash}
            self._connection.execute(_Q["begin_at"], {**self._place, **digests})
            return
        place = manifest.app, self.build
        with self._connection.cursor().copy(_Q["load_snapshots"]) as copy:
            for block_id, *hashes in snapshots(self._reader):
                values = [None if text is None else bytes.fromhex(text) for text in hashes]
                copy.write_row((*place, block_id, *values))
        self._compare(SNAPSHOTS, copy_snapshots(self._connection, self._place))

    def _rows(self, member: str) -> Iterator[bytes]:
        """Yield the rows of a table as they are loaded."""
        lines = self._reader.lines(member)
        if not self._migrates:
            return lines
        block = f"\t{self.block_id}\n".encode()
        return (line.rpartition(b"\t")[0] + block for line in lines)

    def _compare_rows(self, member: str, lines: Iterable[bytes]) -> None:
        if self._migrates:
            # What is loaded differs from the file, which may have changed since it was verified.
            self._compare(member, self._reader.lines(member))
            self._compare(member, lines, _digest(self._rows(member)))
        else:
            self._compare(member, lines)

    def _compare(self, member: str, lines: Iterable[bytes], expected: str | None = None) -> None:
        """Compare what the database has now with the member that it came from."""
        if _digest(lines) != (expected or self._manifest.members[member].sha256):
            raise InvalidCheckpoint(f"its member {member} is not written as the database writes these values")


def _digest(lines: Iterable[bytes]) -> str:
    digest = sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()
