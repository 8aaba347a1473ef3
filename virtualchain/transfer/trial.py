"""Try an untrusted export: its tape, advanced in a database of its own, must lead to hashes that are trusted.

Whoever made the export may have left out, added or changed anything. An app's consensus hash commits to all
ops that it accepted, so an export that leads to the right one has them all, and no other.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.audit.nodes import compare_nodes
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import Offline
from virtualchain.engine.coverage import gaps
from virtualchain.engine.engine import StateEngine
from virtualchain.engine.options import Progress, ignore
from virtualchain.errors import AppHalted, DamagedExport, StoreError, UsageError
from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.store.builds import builds
from virtualchain.store.database import connect_migrator, redact
from virtualchain.store.roles import drop_role
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape
from virtualchain.transfer.files import SNAPSHOT_COLUMNS, read_rows
from virtualchain.transfer.importing import Imported, OnBlock, import_tape
from virtualchain.transfer.manifest import read_manifest

_DATABASE = queries("database")
_Q = queries("transfer")
_PREFIX: Final = "virtualchain_trial_"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an export leads an app to."""

    app: str
    trusted: str
    block_id: int | None
    """The last block that the app took; None if it took none."""
    consensus_hash: str | None
    reason: str | None
    """Why the export is not accepted, with the first block that differs as far as that is known."""

    @property
    def is_accepted(self) -> bool:
        """Whether the app arrived at the trusted hash at the export's last block."""
        return self.reason is None


def try_import(
    url: str,
    folder: Path,
    apps: Sequence[object],
    trusted: Mapping[str, str],
    *,
    ours: str | None = None,
    on_block: OnBlock | None = None,
    on_catch_up: Callable[[Progress], None] = ignore,
) -> tuple[Imported, list[Outcome]]:
    """Import an export into a new database on the server of `url`, and advance the apps that are trusted.

    `trusted` has each app's consensus hash at the export's last block. The database is dropped afterwards. If
    an app arrives at another hash, the export's own digests and the deployment at `ours`, if there is one,
    show from which block on. Raises what `import_tape` raises, and StoreError if the server does not let us
    create a database.
    """
    chosen = [app for app in apps if read_contract(app).name in trusted]
    with _new_database(url) as trial, tempfile.TemporaryDirectory() as states:
        imported = import_tape(trial, folder, on_block=on_block)
        if imported.network is None or imported.last is None:
            return imported, [
                Outcome(name, trusted[name], None, None, "the export has no block")
                for name in sorted(trusted)
            ]
        trials = _Trial(trial, folder, imported, ours)
        outcomes = [
            trials.run(app, trusted[read_contract(app).name], Path(states), on_catch_up) for app in chosen
        ]
    return imported, outcomes


class _Trial:
    """The apps that advance along an imported tape, one by one, so that none keeps another from its end."""

    def __init__(self, url: str, folder: Path, imported: Imported, ours: str | None) -> None:
        assert imported.network is not None, "there are blocks"
        self._url = url
        self._folder = folder
        self._last = imported.last
        self._network = network(imported.network)
        self._ours = ours

    def run(
        self, app: object, trusted: str, states: Path, on_catch_up: Callable[[Progress], None]
    ) -> Outcome:
        """Advance an app to the end of the tape, and compare its consensus hash."""
        contract = read_contract(app).on(self._network.name)
        reason = self._unsearched(contract)
        if reason is not None:
            return Outcome(contract.name, trusted, None, None, reason)
        source = Offline(self._network)
        try:
            with StateEngine(
                app,
                database=self._url,
                source=source,
                confirmations=contract.confirmations or 0,
                state_folder=states,
                on_catch_up=on_catch_up,
            ) as engine:
                engine.build()
        except AppHalted as error:
            reason = str(error)
        with views.snapshot(self._url) as connection:
            [row] = views.apps(connection, [contract.name])
            hashes = dict(connection.execute(_Q["hashes_of_app"], {"app": contract.name}).fetchall())
        block_id, consensus_hash = row["block_id"], row["consensus_hash"]
        if reason is None and (block_id, consensus_hash) != (self._last, trusted):
            reason = self._reason(contract, trusted, block_id, consensus_hash, hashes)
        return Outcome(contract.name, trusted, block_id, consensus_hash, reason)

    def _unsearched(self, contract: Contract) -> str | None:
        """Describe blocks of the export that were not searched for an app, or are not in it."""
        with views.snapshot(self._url) as connection:
            unsearched = gaps(Tape(connection), contract)
        if not unsearched:
            return None
        return (
            f"the export does not have what app {contract.name} needs of blocks {unsearched[0][0]} to "
            f"{unsearched[0][1]}: they are not in it, or were not searched for its inputs"
        )

    def _reason(
        self,
        contract: Contract,
        trusted: str,
        block_id: int | None,
        consensus_hash: str | None,
        hashes: Mapping[int, str],
    ) -> str:
        """Describe where an app arrived instead, and the first block that differs as far as it is known."""
        if block_id is None:
            return f"its first block, {contract.start}, is above the export's last one, {self._last}"
        parts = [f"it leads to {consensus_hash} at block {block_id}"]
        elsewhere = next((at for at, value in hashes.items() if value == trusted), None)
        if elsewhere is not None:
            parts.append(f"the trusted hash is that of block {elsewhere}")
        claimed = self._first_claim(contract.name, hashes)
        if claimed is not None:
            parts.append(f"the digests in the export are others from block {claimed} on")
        parts.extend(self._against_ours(contract.name))
        return "; ".join(parts)

    def _first_claim(self, app: str, hashes: Mapping[int, str]) -> int | None:
        """Return the first block of which the export states another hash than its tape leads to."""
        manifest = read_manifest(self._folder)
        file = manifest.file("snapshots")
        if file is None:
            return None
        claims: list[int] = []
        with suppress(DamagedExport):
            rows = read_rows(self._folder / file.name, file, SNAPSHOT_COLUMNS)
            for name, block_id, _, _, claimed, _ in rows:
                if name == app and hashes.get(block_id, claimed) != claimed:
                    claims.append(block_id)
        return min(claims, default=None)

    def _against_ours(self, app: str) -> Iterator[str]:
        """Describe the first block at which our own deployment has something else."""
        if self._ours is None:
            return
        with suppress(UsageError, StoreError):
            divergence = compare_nodes(self._ours, self._url, [app]).divergence
            if divergence is None:
                yield "this node has the same, as far as both go"
            else:
                at = "" if divergence.txid is None else f", transaction {divergence.txid}"
                yield (
                    f"it differs from this node first at block {divergence.block_id}{at}: "
                    f"{divergence.message} (there is the export)"
                )


@contextmanager
def _new_database(url: str) -> Iterator[str]:
    """Create a database beside one, and drop it afterwards with the roles that apps get in it."""
    name = f"{_PREFIX}{secrets.token_hex(8)}"
    own = make_conninfo(url, dbname=name)
    try:
        _run(url, "create_database", name)
    except psycopg.Error as error:
        raise StoreError(
            f"the server of {redact(url)} does not let us create a database for the trial: "
            f"{error.diag.message_primary or error}; use the embedded server, or a role with CREATEDB"
        ) from error
    try:
        yield own
    finally:
        with suppress(StoreError, psycopg.Error):
            _drop_roles(own)
        _run(url, "drop_database", name)


def _drop_roles(url: str) -> None:
    """Drop the roles of apps, which would outlive their database."""
    with closing(connect_migrator(url)) as connection:
        for build in builds(connection):
            drop_role(connection, build.schema)
        connection.commit()


def _run(url: str, query: str, name: str) -> None:
    with closing(connect_migrator(url)) as connection:
        connection.autocommit = True
        connection.execute(sql.SQL(_DATABASE[query]).format(name=sql.Identifier(name)))


def outcome_json(outcome: Outcome) -> Json:
    """Return what `verify --import --json` prints of an app."""
    return {
        "name": outcome.app,
        "block_id": outcome.block_id,
        "consensus_hash": outcome.consensus_hash,
        "trusted": outcome.trusted,
        "accepted": outcome.is_accepted,
        "reason": outcome.reason,
    }
