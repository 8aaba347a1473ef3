"""The builds of apps: installed, found again, made live, and dropped.

A build is one derivation of an app's state: a schema of tables, and the rows of the log that carry its name.
One build of each app is live: the views show it. Others are made beside it, from the tape, and may take its
place. Everything here runs in the caller's transaction, which `register` and `add_build` must have to
themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from virtualchain.app.contract import Contract
from virtualchain.errors import InvalidApp, UsageError
from virtualchain.store.log import AppLog, Snapshot
from virtualchain.store.projections import build_schema, create_app_schema, drop, install, projections
from virtualchain.store.publish import is_published, publish, unpublish
from virtualchain.store.roles import admit_readers, drop_role, forget_app, provide_role
from virtualchain.store.sql import queries

_Q = queries("builds")
FIRST_BUILD = "1"
_DROP = ("drop_ops", "drop_rejections", "drop_snapshots", "drop_state_files", "drop_checkpoints", "drop_apps")


@dataclass(frozen=True, slots=True)
class Build:
    """A build that is installed, and where it stands."""

    name: str
    """The app's."""
    schema: str
    """That of the app's views."""
    build: str
    is_live: bool
    base_block_id: int
    """The block behind which it began: nothing goes back below it."""
    history_from: int
    """The lowest block that its history can bring back."""
    on_deep_fork: str
    fingerprint: str
    status: str
    keeps_tables: bool
    """Whether it has projections."""
    began_with_checkpoint: bool
    shares_base: bool
    """Whether that checkpoint is of this very chain, and no migration."""
    block_id: int
    """The last block that it was advanced to, or the one before its first."""

    @property
    def is_unfinished(self) -> bool:
        """Whether the engine began it to take the live one's place: it names its builds by numbers."""
        return not self.is_live and self.status == "catching_up" and self.build.isdecimal()

    def stands_above(self, fork_block_id: int) -> bool:
        """Tell whether it has taken a block above the fork."""
        return self.block_id > max(fork_block_id, self.base_block_id)

    @property
    def reaches(self) -> int:
        """The lowest block that it can be brought back to: 0 where it began there, as nothing was before."""
        pruned = self.keeps_tables and self.history_from > self.base_block_id
        return self.history_from if pruned or self.began_with_checkpoint else 0

    @property
    def tables(self) -> str:
        """The schema of its tables."""
        return build_schema(self.schema, self.build)


def builds(connection: psycopg.Connection) -> list[Build]:
    """Give every build of every app, by name."""
    with connection.cursor(row_factory=class_row(Build)) as cursor:
        return cursor.execute(_Q["builds"]).fetchall()


def register(connection: psycopg.Connection, contract: Contract, rule: str) -> tuple[str, Contract]:
    """Install the app, or check that it is the one that was installed; give its live build.

    With it comes the contract as this deployment runs it: it begins where the build began. Raises InvalidApp
    for projections that cannot be kept, UsageError where the installed app declared something else.
    """
    app = contract.name
    found = _row(connection, "live_app", {"app": app})
    if found is None:
        make_room(connection, contract)
        add_build(connection, contract, rule, FIRST_BUILD, is_live=True)
        made = projections(connection, build_schema(contract.schema, FIRST_BUILD))
        publish(connection, app, contract.schema, made)
        return FIRST_BUILD, contract
    if found["fingerprint"] != contract.fingerprint():
        raise UsageError(
            f"app {app} was installed as version {found['version']} and now declares other rules or "
            f"projections (version {contract.version}): go on with the old ones, or let "
            f"`virtualchain replay {app} --into NAME` make a build of the new ones, and "
            f"`virtualchain swap {app} NAME` put it in place"
        )
    tables = build_schema(found["schema"], found["build"])
    # Asked each time: the database may have come from another server, or have another name by now.
    own_role = provide_role(connection, found["schema"], tables, projections(connection, tables))
    place = {"app": app, "build": found["build"]}
    connection.execute(_Q["set_own_role"], {**place, "own_role": own_role})
    return found["build"], as_begun(connection, contract, found["build"])


def make_room(connection: psycopg.Connection, contract: Contract) -> None:
    """Make the schema of the views of an app that is not installed; InvalidApp where another has it."""
    owner = connection.execute(_Q["schema_owner"], {"schema": contract.schema}).fetchone()
    if owner is not None:
        raise InvalidApp(
            f"app {contract.name} would have the schema {contract.schema}, as app {owner[0]} has"
        )
    create_app_schema(connection, contract.name, contract.schema)


def live_build(connection: psycopg.Connection, app: str) -> str | None:
    """Give the build of an app that the views show; None where it is not installed."""
    row = _row(connection, "live_app", {"app": app})
    return None if row is None else str(row["build"])


def as_begun(connection: psycopg.Connection, contract: Contract, build: str) -> Contract:
    """Give the contract as a build runs it: one that began with a checkpoint has its hash to start from."""
    row = _row(connection, "checkpoint", {"app": contract.name, "build": build})
    if row is None:
        return contract
    return replace(
        contract,
        first_block_id=row["first_block_id"],
        initial_snapshots={row["block_id"]: row["consensus_hash"]},
        behind=None if row["is_migration"] else row["block_hash"],
    )


def add_build(
    connection: psycopg.Connection, contract: Contract, rule: str, build: str, *, is_live: bool = False
) -> None:
    """Install a build of an app, at its beginning."""
    install_build(connection, contract, rule, build, contract.fingerprint(), is_live=is_live)
    log = AppLog(connection, contract.name, build)
    for block_id, consensus_hash in contract.initial_snapshots.items():
        log.add_snapshot(Snapshot(block_id, None, consensus_hash, None))


def install_build(
    connection: psycopg.Connection,
    contract: Contract,
    rule: str,
    build: str,
    fingerprint: str,
    *,
    is_live: bool = False,
) -> None:
    """Install a build of an app without any snapshot; `contract` says where it begins.

    `fingerprint` is that of the app as it declares itself, which may begin elsewhere.
    """
    made = install(connection, contract.name, contract.schema, build, contract.projections)
    connection.execute(
        _Q["add_build"],
        {
            "app": contract.name,
            "version": contract.version,
            "fingerprint": fingerprint,
            "schema": contract.schema,
            "build": build,
            "magics": list(contract.magics),
            "rule": rule,
            "first_block_id": contract.first_block_id,
            "valid_window": contract.window,
            "confirmations": contract.confirmations,
            "own_role": provide_role(connection, contract.schema, build_schema(contract.schema, build), made),
            "status": "running" if is_live else "catching_up",
            "is_live": is_live,
            "base_block_id": contract.start - 1,
        },
    )


def set_on_deep_fork(connection: psycopg.Connection, app: str, policy: str) -> None:
    """Say what happens to the deployment when blocks that this app has taken are replaced."""
    connection.execute(_Q["set_on_deep_fork"], {"app": app, "on_deep_fork": policy})


def next_build(connection: psycopg.Connection, app: str) -> str:
    """Give a name that no build of an app has: the next number."""
    numbers = [int(row.build) for row in builds(connection) if row.name == app and row.build.isdecimal()]
    return str(max(numbers, default=0) + 1)


def give_way_soon(connection: psycopg.Connection) -> None:
    """Let the transaction fail within a second where somebody reads what it is to change."""
    connection.execute(_Q["give_way_soon"])


def make_live(connection: psycopg.Connection, app: str, build: str) -> None:
    """Let the views of an app show this build in place of the one that they show."""
    row = next(row for row in builds(connection) if (row.name, row.build) == (app, build))
    connection.execute(_Q["retire"], {"app": app})
    connection.execute(_Q["make_live"], {"app": app, "build": build})
    publish(connection, app, row.schema, projections(connection, row.tables))


def renew(connection: psycopg.Connection) -> None:
    """Bring the views of all apps to what this version of the code makes; lock none that is that."""
    for row in builds(connection):
        if row.is_live:
            made = projections(connection, row.tables)
            if not is_published(connection, row.name, row.schema, made):
                publish(connection, row.name, row.schema, made)
    admit_readers(connection)


def drop_build(connection: psycopg.Connection, app: str, build: str) -> None:
    """Remove a build that is not live: its tables, and its rows of the log."""
    row = next(row for row in builds(connection) if (row.name, row.build) == (app, build))
    assert not row.is_live, "the views show this build"
    drop(connection, row.tables)
    for query in _DROP:
        connection.execute(_Q[query], {"app": app, "build": build})


def remove_app(connection: psycopg.Connection, app: str) -> None:
    """Remove an app with all its builds, its views and its role.

    Raises psycopg.errors.DependentObjectsStillExist where something of others depends on its views.
    """
    rows = [row for row in builds(connection) if row.name == app]
    unpublish(connection, rows[0].schema)
    connection.execute(_Q["retire"], {"app": app})
    for row in rows:
        drop_build(connection, app, row.build)
    drop_role(connection, rows[0].schema)
    forget_app(connection, app)


def _row(connection: psycopg.Connection, query: str, place: Mapping[str, object]) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_Q[query], place).fetchone()
