"""What commands share: the database, the engine and the deployment that the options describe."""

import time
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from virtualchain.cli.output import say, write_json_line
from virtualchain.errors import (
    DatabaseUnavailable,
    InUse,
    NodeUnavailable,
    StoreError,
    UsageError,
)
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.cli.options import Options
    from virtualchain.cli.process import Signals
    from virtualchain.cli.progress import Reporter
    from virtualchain.engine.deployment import Deployment
    from virtualchain.engine.engine import StateEngine
    from virtualchain.engine.expectations import Expect
    from virtualchain.engine.measures import Measures
    from virtualchain.engine.options import Progress

_PAUSES: Final = (1.0, 2.0, 3.0, 5.0, 10.0)
"""Seconds after each attempt to reach a node and a database that may be starting; the last one repeats."""
_T = TypeVar("_T")


# Reading


def existing_database(options: "Options") -> str:
    """Return the database's URL; starts the embedded server if there is one, and creates none."""
    from virtualchain.store.embedded.server import EmbeddedServer

    if options.settings.database is None and EmbeddedServer().status().address is None:
        raise StoreError(
            "there is no database yet: create one with `virtualchain sync` and an app, or name one with "
            "--database"
        )
    return options.database


@contextmanager
def open_reading(options: "Options") -> "Iterator[psycopg.Connection]":
    """Open a read-only transaction on the existing database."""
    from virtualchain.reading import views

    with views.snapshot(existing_database(options)) as connection:
        yield connection


def chosen_apps(options: "Options", connection: "psycopg.Connection") -> list[str] | None:
    """Return the names of the apps that --app selects, by name or module; None without --app."""
    from virtualchain.reading import views

    selected = options.flags.get("app")
    if not selected:
        return None
    known = [row["name"] for row in views.apps(connection)]
    return [use if use in known else _name_of(use, known) for use in selected]


def _name_of(use: str, known: list[str]) -> str:
    from virtualchain.app.declarations import read_contract
    from virtualchain.loading import load_app

    installed = f"the apps of this database are {', '.join(known)}" if known else "this database has no app"
    try:
        name = read_contract(load_app(use)).name
    except UsageError as error:
        raise UsageError(f"{installed}, and {error}") from error
    if name not in known:
        raise UsageError(f"there is no app {name} here: {installed}")
    return name


def named_app(options: "Options", name: str) -> object:
    """Import an app by its module or file, or find it by its name among those of the settings.

    Raises UsageError if it is neither.
    """
    from virtualchain.app.declarations import read_contract
    from virtualchain.loading import load_app

    apps = {read_contract(app).name: app for app in options.named_apps()}
    if name in apps:
        return apps[name]
    try:
        return load_app(name)
    except UsageError as error:
        known = f"the apps named are {', '.join(apps)}" if apps else "no app is named with --app"
        raise UsageError(f"{error}; {known}") from error


# Writing


def migrated_database(options: "Options") -> str:
    """Bring the database's schema up to date, and return the URL; starts or creates an embedded server."""
    from virtualchain.store.migrate import migrate
    from virtualchain.store.patience import Patience

    migrate(options.database, Patience(say))
    return options.database


def migrated_deployment(options: "Options") -> str:
    """Bring the schema of an existing deployment up to date, and return the URL; creates none."""
    from virtualchain.reading import views

    with views.snapshot(existing_database(options), of_any_revision=True):
        pass  # refuses an empty database
    return migrated_database(options)


def open_beside_writer(options: "Options") -> "psycopg.Connection":
    """Connect for a small change that the writer need not end for: no lock is taken."""
    from virtualchain.store.database import connect_migrator

    return connect_migrator(migrated_database(options))


@contextmanager
def open_deployment(
    options: "Options", signals: "Signals", repairs: str | None = None
) -> "Iterator[Deployment]":
    """Open the deployment for writing, with the named apps that are installed; needs no node."""
    from virtualchain.app.declarations import read_contract
    from virtualchain.engine.deployment import Deployment
    from virtualchain.engine.options import Options as EngineOptions
    from virtualchain.reading import views

    url = migrated_database(options)
    contracts = [read_contract(app) for app in options.named_apps()]
    with views.snapshot(url) as connection:
        installed = [row["name"] for row in views.apps(connection)]
    deployment = Deployment(
        url,
        [contract for contract in contracts if contract.name in installed],
        None,
        EngineOptions(history=options.settings.history),
        repairs=repairs,
    )
    signals.work_in_steps()
    with closing(deployment):
        yield deployment


@contextmanager
def open_engine(
    options: "Options",
    reporter: "Reporter",
    *,
    wait: bool,
    follows: bool = False,
    pending: bool = False,
    no_apply: bool = False,
    open_source: "Callable[[], BlockSource] | None" = None,
    measures: "Measures | None" = None,
    from_checkpoint: str | None = None,
) -> "Iterator[StateEngine]":
    """Open the engine with the settings; it reports to `reporter`.

    With `follows`, waits for node and database to be up, and prints each block if --json is set. With
    `pending`, unconfirmed inputs are judged as well. With `no_apply`, inputs of apps are only kept.
    `open_source` is used instead of the node or the files of the settings. Apps that are not installed begin
    with a checkpoint of the folder at the URL `from_checkpoint`. `measures` counts what is done.
    """
    from virtualchain.cli.fetching import begin_apps
    from virtualchain.cli.progress import tally_json
    from virtualchain.engine.engine import StateEngine
    from virtualchain.engine.measures import Measures
    from virtualchain.engine.sources import refuse_itself

    measures = measures or Measures()

    reporter.verbose = options.settings.verbose
    if options.settings.verbose and open_source is None:
        from virtualchain.bitcoin.compiled import IS_COMPILED

        message = f"blocks are scanned by {'compiled' if IS_COMPILED else 'interpreted'} code"
        say(Notice(message, "detail"))
    applied, kept = options.applied_and_kept(no_apply=no_apply)
    policies = options.policies(applied)  # reports mistakes before a node is contacted
    if follows:
        for name, file in options.files().items():
            say(Notice(f"app {name} is in {file}", "app_found", app=name, file=file))
    url = options.database  # the same

    def on_block(progress: "Progress") -> None:
        reporter.block(progress)
        if follows and options.settings.json:
            block = progress.block
            apps_json = {name: tally_json(tally) for name, tally in progress.tallies.items()}
            fields = {"block_id": block.block_id, "block_hash": block.hash, "inputs": progress.inputs}
            write_json_line({**fields, "apps": apps_json})
        halted = engine.halted()
        if len(halted) < len(applied):
            reporter.halted(halted)

    def start() -> StateEngine:
        source = (open_source or options.source)()
        reporter.hint = _hint(source)
        try:
            if from_checkpoint is not None:
                refuse_itself(source, url)
                begin_apps(options, from_checkpoint, source, wait=wait)
            return StateEngine(
                *applied,
                database=url,
                source=source,
                confirmations=options.settings.confirmations,
                verify=options.settings.verify,
                senders=options.settings.senders,
                wait_for_writer=wait,
                on_block=on_block,
                on_catch_up=reporter.catching_up,
                on_wait=reporter.waiting,
                on_rollback=reporter.rolled_back,
                history=options.settings.history,
                on_deep_fork=policies,
                deepest_rollback=options.settings.deepest_rollback,
                expect=expected_digests(options),
                on_unexpected=options.settings.on_unexpected,
                pending=pending,
                guard=options.settings.guard,
                keeps=kept,
                measures=measures,
            )
        except BaseException:
            source.close()
            raise

    with _patiently(start, reporter, measures) if follows else start() as engine:
        yield engine


def expected_digests(options: "Options") -> "Expect | None":
    """Return what reads the digests that --expect names; None if it names none."""
    from virtualchain.checkpoint.expected import read_lists

    settings = options.settings
    return partial(read_lists, settings.expect, settings.trust) if settings.expect else None


def _hint(source: "BlockSource") -> str | None:
    """Describe what would make fetching faster, if anything."""
    from virtualchain.bitcoin.node.several import node_of

    node = node_of(source)
    if node is None or node.over_rest:
        return None
    return f"REST is off at {source}: rest=1 in its bitcoin.conf makes fetching several times as fast"


def _patiently(attempt: "Callable[[], _T]", reporter: "Reporter", measures: "Measures") -> _T:
    """Attempt something until node and database answer: they may be starting at the same time.

    It is attempted again as well if readers hold what an upgrade of the schema changes.
    """
    failures = 0
    while True:
        try:
            result = attempt()
        except (NodeUnavailable, DatabaseUnavailable, InUse) as error:
            cause = "readers"
            if isinstance(error, NodeUnavailable):
                cause = "node"
                measures.fail(error)
            elif isinstance(error, DatabaseUnavailable):
                cause = "database"
            reporter.waiting(Notice(f"{error}; trying again", f"waiting_for_{cause}"))
            measures.clock.lose(cause)  # until an attempt succeeds, and one may take long
            time.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1
        else:
            measures.clock.find()
            if failures:
                say(Notice("connected: node and database answer", "connected"))
            return result
