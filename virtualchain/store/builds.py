"""The builds of apps: installed, found again, made live, and dropped.

A build is one derivation of an app's state: a schema of tables, and the rows of the log that carry its name.
One build of each app is live: the views show it. Others are made beside it, from the tape, and may take its
place. Everything here runs in the caller's transaction; `register` and `add_build` need one of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from virtualchain.app.contract import Contract
from virtualchain.errors import InvalidApp, UsageError, quoted
from virtualchain.store.giving_way import short_lock_timeout
from virtualchain.store.log import AppLog
from virtualchain.store.projections import (
    build_schema,
    create_schema,
    drop,
    identify_rows,
    install,
    projections,
    renew_triggers,
)
from virtualchain.store.publish import is_published, publish, unpublish
from virtualchain.store.roles import admit_readers, drop_role, forget_app, provide_role
from virtualchain.store.sql import queries

_Q = queries("builds")
FIRST_BUILD = "1"
_DROP = ("drop_ops", "drop_rejections", "drop_snapshots", "drop_state_files", "drop_checkpoints", "drop_apps")


@dataclass(frozen=True, slots=True)
class Build:
    """An installed build, and how far it has come."""

    app: str
    schema: str
    """That of the app's views."""
    name: str
    """Unique within the app: a number if the engine made it, a word if an operator did."""
    serial: int
    """Never used again, unlike the name."""
    is_live: bool
    rule: str
    """Name of its payload rule."""
    base_block_id: int
    """The block after which it began: nothing goes back below it."""
    history_from: int
    """The lowest block that its history can bring back."""
    on_deep_fork: str
    version: str
    fingerprint: str
    code_digest: str | None
    """Of the code that it began with; None for a build of version 0.1.0 that has not been run since."""
    code_changed: bool
    """Whether other code than that ran it last."""
    status: str
    keeps_tables: bool
    """Whether it has projections."""
    began_with_checkpoint: bool
    shares_base: bool
    """Whether that checkpoint is of this very chain, and not a migration."""
    block_id: int
    """The last block that it was advanced to, or the one before its first."""

    @property
    def warning(self) -> str | None:
        """What is to be said of its code, if anything."""
        return code_warning(self.app, self.version) if self.code_changed else None

    @property
    def not_run_warning(self) -> str | None:
        """What is to be said if the writer does not have its code, because a fork may need that."""
        if not (self.is_live and self.lowest_rollback):
            return None
        return (
            f"app {self.app} is installed here, but its code is not named: it is not advanced, and a fork "
            f"below block {self.lowest_rollback} would stop all apps. Name it with --app, or remove the app "
            f"with `virtualchain remove {self.app}`"
        )

    @property
    def is_unfinished(self) -> bool:
        """Whether the engine began it to replace the live one: the engine names its builds by numbers."""
        return not self.is_live and self.status == "catching_up" and self.name.isdecimal()

    def is_above(self, fork_block_id: int) -> bool:
        """Return whether it has taken a block above the fork."""
        return self.block_id > max(fork_block_id, self.base_block_id)

    @property
    def lowest_rollback(self) -> int:
        """The lowest block that it can be rolled back to; 0 if it can go back to before its first block."""
        is_pruned = self.keeps_tables and self.history_from > self.base_block_id
        return self.history_from if is_pruned or self.began_with_checkpoint else 0

    @property
    def tables(self) -> str:
        """The schema of its tables."""
        return build_schema(self.schema, self.name)


def code_warning(app: str, version: str) -> str:
    """Describe a change of an app's code under one version, and what to do."""
    return (
        f"the code of app {app} changed, but its version {version} did not: give rules that changed a new "
        f"version; `virtualchain replay {app}` shows whether the code judges past blocks as before, and "
        f"`virtualchain upgrade {app}` puts it in place even if it does not"
    )


def builds(connection: psycopg.Connection, app: str | None = None) -> list[Build]:
    """Return every build of every app, or of one app, by name."""
    with connection.cursor(row_factory=class_row(Build)) as cursor:
        rows = cursor.execute(_Q["builds"]).fetchall()
    return [row for row in rows if app in {None, row.app}]


def live_build(connection: psycopg.Connection, app: str) -> Build | None:
    """Return the build of an app that the views show; None if the app is not installed."""
    return next((row for row in builds(connection, app) if row.is_live), None)


def find_build(connection: psycopg.Connection, app: str, name: str) -> Build | None:
    """Return a build of an app by its name; None if there is no such build."""
    return next((row for row in builds(connection, app) if row.name == name), None)


def register(connection: psycopg.Connection, contract: Contract) -> tuple[str, Contract]:
    """Install the app, or check that the installed one is the same; return its live build's name.

    With it comes the contract as this deployment runs it: it begins where the build began. Raises InvalidApp
    for projections that cannot be kept, UsageError if the installed app declared something else, or if it is
    strict about its code and that changed.
    """
    app = contract.name
    live = live_build(connection, app)
    if live is None:
        reserve_schema(connection, contract)
        add_build(connection, contract, FIRST_BUILD, is_live=True)
        made = projections(connection, build_schema(contract.schema, FIRST_BUILD))
        publish(connection, app, contract.schema, made)
        return FIRST_BUILD, contract
    if not is_by(connection, live, contract):
        raise UsageError(_other_rules(connection, live, contract))
    identify(connection, live, contract)
    # Checked at each start: the database may have moved to another server, or have been renamed.
    own_role = provide_role(connection, live.schema, live.tables, projections(connection, live.tables))
    place = {"app": app, "build": live.name}
    connection.execute(_Q["set_own_role"], {**place, "own_role": own_role})
    return live.name, contract_of_build(connection, contract, live.name)


def _other_rules(connection: psycopg.Connection, live: Build, contract: Contract) -> str:
    """Describe what an app declares otherwise than its live build, and what to do."""
    app = contract.name
    row = _row(connection, "declared", {"app": app, "build": live.name})
    assert row is not None, "the build is installed"
    magics = [tuple(map(bytes, row["magics"])), contract.magics]
    changes = [
        f"version {live.version} became {contract.version}" if live.version != contract.version else "",
        f"magic {' became '.join(map(_listed, magics))}" if len(set(magics)) > 1 else "",
        "another payload rule" if live.rule not in {contract.rule, _former_rule(contract)} else "",
        _change("first block", row["first_block_id"], contract.first_block_id),
        _change("window", row["valid_window"], contract.window),
    ]
    what = ", ".join(filter(None, changes)) or "in opcodes, fields, heights, snapshots, limits, or tables"
    version = (
        "" if live.version != contract.version else " Give rules that other nodes run a new version, too."
    )
    return (
        f"app {app} was installed as version {live.version} and now declares other rules or projections "
        f"({what}): `virtualchain upgrade {app}` derives it again by these and puts them in place, at once; "
        f"`virtualchain replay {app} --into NAME` and `virtualchain swap {app} NAME` do so while a writer "
        f"continues with the old ones.{version}"
    )


def _change(what: str, before: int, now: int) -> str:
    return f"{what} {before} became {now}" if before != now else ""


def _listed(magics: tuple[bytes, ...]) -> str:
    return ", ".join(map(quoted, magics))


def is_by(connection: psycopg.Connection, build: Build, contract: Contract) -> bool:
    """Return whether a build was made by the rules that an app declares.

    A fingerprint that version 0.1.0 wrote counts if it would write the same now. It did not cover the payload
    rule; that of a function of the app's was known by the app's name only.
    """
    if (build.fingerprint, build.rule) == (contract.fingerprint(), contract.rule):
        return True
    former_rule = _former_rule(contract) if contract.has_own_rule else contract.rule
    return build.rule == former_rule and build.fingerprint in {
        contract.former_fingerprint(),
        contract.former_fingerprint(_comments(connection, build.tables)),
    }


def identify(connection: psycopg.Connection, build: Build, contract: Contract) -> None:
    """Record which code runs a build now, and in place of what version 0.1.0 recorded what we do.

    Raises UsageError if the app is strict about its code, and the build was begun with other code.
    """
    digest = contract.code_digest()
    if contract.strict_code and build.code_digest not in {None, digest}:
        raise UsageError(
            f"the code of app {build.app} changed, but its version {build.version} did not, and the app "
            "refuses that: run the old code, or give the new code a new version if other nodes run it, and "
            f"put it in place with `virtualchain upgrade {build.app}`"
        )
    place = {"app": build.app, "build": build.name}
    now = {"fingerprint": contract.fingerprint(), "rule": contract.rule, "code_digest": digest}
    connection.execute(_Q["identify"], {**place, **now})
    if contract.tracking is not None:
        tracking = _row(connection, "tracking", place)
        if tracking is not None and tracking["tracking"] != contract.tracking:
            connection.execute(_Q["keep_tracking"], place)
            connection.execute(_Q["retrack"], {**place, "tracking": contract.tracking})
    if build.rule != contract.rule:  # then it has the former name of the same rule
        connection.execute(_Q["rename_searches"], {"rule": contract.rule, "former": build.rule})
        connection.execute(_Q["drop_searches"], {"rule": build.rule})


def _former_rule(contract: Contract) -> str:
    """Return the name that version 0.1.0 gave to an app's own payload rule."""
    return f"app:{contract.name}"


def _comments(connection: psycopg.Connection, tables: str) -> dict[tuple[str, ...], str | None]:
    """Return the comments of a build's tables, by table or by table and column."""
    rows = connection.execute(_Q["comments"], {"tables": tables})
    return {tuple(filter(None, row[:2])): row[2] for row in rows}


def reserve_schema(connection: psycopg.Connection, contract: Contract) -> None:
    """Create the schema of a new app's views; raise InvalidApp if another app has that schema."""
    owner = connection.execute(_Q["schema_owner"], {"schema": contract.schema}).fetchone()
    if owner is not None:
        raise InvalidApp(
            f"app {contract.name} would get the schema {contract.schema}, which app {owner[0]} has"
        )
    create_schema(connection, contract.name, contract.schema)


def contract_of_build(connection: psycopg.Connection, contract: Contract, build: str) -> Contract:
    """Return the contract as a build runs it: one that began with a checkpoint starts from its hash."""
    row = _row(connection, "checkpoint", {"app": contract.name, "build": build})
    if row is None:
        return contract
    return replace(
        contract,
        first_block_id=row["first_block_id"],
        initial_snapshots={row["block_id"]: row["consensus_hash"]},
        base_block_hash=None if row["is_migration"] else row["block_hash"],
    )


def add_build(
    connection: psycopg.Connection, contract: Contract, build: str, *, is_live: bool = False
) -> None:
    """Install a build of an app, at its beginning."""
    install_build(connection, contract, build, contract.fingerprint(), is_live=is_live)
    log = AppLog(connection, contract.name, build)
    for block_id, consensus_hash in contract.initial_snapshots.items():
        log.add_initial(block_id, consensus_hash)


def install_build(
    connection: psycopg.Connection,
    contract: Contract,
    build: str,
    fingerprint: str,
    *,
    is_live: bool = False,
) -> None:
    """Install a build of an app without any snapshot; `contract` says where it begins.

    `fingerprint` is that of the app as it declares itself, which may begin elsewhere.
    """
    made = install(connection, contract.name, contract.schema, build, contract.projections, contract.tracks)
    connection.execute(
        _Q["add_build"],
        {
            "app": contract.name,
            "version": contract.version,
            "fingerprint": fingerprint,
            "schema": contract.schema,
            "build": build,
            "magics": list(contract.magics),
            "rule": contract.rule,
            "code_digest": contract.code_digest(),
            "first_block_id": contract.first_block_id,
            "valid_window": contract.window,
            "confirmations": contract.confirmations,
            "own_role": provide_role(connection, contract.schema, build_schema(contract.schema, build), made),
            "status": "running" if is_live else "catching_up",
            "is_live": is_live,
            "base_block_id": contract.start - 1,
            "tracking": contract.tracking,
        },
    )


def set_on_deep_fork(connection: psycopg.Connection, app: str, policy: str) -> None:
    """Set what happens to the deployment when blocks that this app has taken are replaced."""
    connection.execute(_Q["set_on_deep_fork"], {"app": app, "on_deep_fork": policy})


def next_build(connection: psycopg.Connection, app: str) -> str:
    """Return a name that no build of an app has: the next number."""
    numbers = [int(row.name) for row in builds(connection, app) if row.name.isdecimal()]
    return str(max(numbers, default=0) + 1)


def lock_builds(connection: psycopg.Connection, app: str | None = None) -> list[Build]:
    """Lock all builds of an app, or of all apps, until the transaction ends; return them as they are then.

    This is the one lock that whoever swaps, replaces or drops a build takes first, and after which it reads
    again what it has decided before. Whoever advances a build holds it by `AppLog.hold`, block by block.
    """
    connection.execute(_Q["lock_builds"], {"app": app})
    return builds(connection, app)


def make_live(connection: psycopg.Connection, app: str, build: str) -> None:
    """Point the views of an app at this build.

    Raises psycopg.errors.LockNotAvailable if someone reads them: see `give_way`.
    """
    row = find_build(connection, app, build)
    assert row is not None, f"app {app} has no build {build}"
    replace_views(connection, [set_live(connection, row)])


@dataclass(frozen=True, slots=True)
class Replacement:
    """What remains of replacing builds of an app: its views and tables, which others may be reading."""

    app: str
    shown: Build | None
    """The build that the views are to show; None if they show it already."""
    dropped: Sequence[Build] = ()
    """The builds whose tables are to be removed."""


def set_live(connection: psycopg.Connection, build: Build, dropped: Sequence[Build] = ()) -> Replacement:
    """Record that a build is the live one of its app, and remove others from the log; the views wait."""
    connection.execute(_Q["retire"], {"app": build.app})
    connection.execute(_Q["make_live"], {"app": build.app, "build": build.name})
    return forget_builds(connection, build.app, dropped, build)


def forget_builds(
    connection: psycopg.Connection, app: str, dropped: Sequence[Build], shown: Build | None = None
) -> Replacement:
    """Remove builds that are not live from the log; their tables wait."""
    for build in dropped:
        connection.execute(_Q["keep_tracking"], {"app": app, "build": build.name})
        for query in _DROP:
            connection.execute(_Q[query], {"app": app, "build": build.name})
    return Replacement(app, shown, dropped)


def replace_views(connection: psycopg.Connection, replacements: Sequence[Replacement]) -> None:
    """Let views show the tables of other builds, and remove those of dropped ones.

    This comes last in a transaction, because readers wait from here on until it ends. Raises
    psycopg.errors.LockNotAvailable if someone is reading: see `give_way`.
    """
    with short_lock_timeout(connection):
        for item in replacements:
            if item.shown is not None:
                publish(connection, item.app, item.shown.schema, projections(connection, item.shown.tables))
            for build in item.dropped:
                drop(connection, build.tables)


def refresh_views(connection: psycopg.Connection) -> None:
    """Bring views and triggers of all apps up to date with this version of the code; change no others.

    The search path must be empty.
    """
    for row in builds(connection):
        made = projections(connection, row.tables)
        for projection in made:
            renew_triggers(connection, projection)
        identify_rows(connection, row.tables)
        if row.is_live and not is_published(connection, row.app, row.schema, made):
            live = next(build for build in lock_builds(connection, row.app) if build.is_live)
            publish(connection, live.app, live.schema, projections(connection, live.tables))
    admit_readers(connection)


def drop_build(connection: psycopg.Connection, app: str, build: str) -> None:
    """Remove a build that is not live: its tables, and its rows of the log.

    Raises psycopg.errors.LockNotAvailable if someone reads its tables: see `give_way`.
    """
    row = find_build(connection, app, build)
    assert row is not None, f"app {app} has no build {build}"
    assert not row.is_live, "the views show this build"
    replace_views(connection, [forget_builds(connection, app, [row])])


def remove_app(connection: psycopg.Connection, app: str) -> None:
    """Remove an app with all its builds, its views and its role.

    Raises psycopg.errors.DependentObjectsStillExist if someone else's object depends on its views.
    """
    rows = builds(connection, app)
    with short_lock_timeout(connection):
        unpublish(connection, rows[0].schema)
    connection.execute(_Q["retire"], {"app": app})
    connection.execute(_Q["forget_code"], {"app": app})
    for row in rows:
        drop_build(connection, app, row.name)
    drop_role(connection, rows[0].schema)
    forget_app(connection, app)


def _row(connection: psycopg.Connection, query: str, place: Mapping[str, object]) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_Q[query], place).fetchone()
