"""The commands that advance the apps along the chain or the tape: sync, run, advance, resume."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import click

from virtualchain.background import begin
from virtualchain.cli.completing import complete_apps
from virtualchain.cli.metrics import exporting, read_address
from virtualchain.cli.options import (
    BLOCK_ID,
    Command,
    Options,
    no_apply_option,
    pass_options,
    ready_lag_option,
    trust_option,
    wait_option,
)
from virtualchain.cli.output import counted, duration, say, write_fields, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter, tally_json
from virtualchain.cli.serve import PORT, port_type, serving
from virtualchain.cli.service import Service
from virtualchain.cli.session import migrated_deployment, open_engine
from virtualchain.cli.watching import watching
from virtualchain.errors import AppHalted, Halted, UsageError
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.engine.engine import StateEngine
    from virtualchain.engine.options import Progress

_FOR_ANSWERS: Final = 0.5
"""Seconds after a signal within which the node may still answer."""
_APP_KEYS: Final = (
    "name",
    "version",
    "block_id",
    "block_hash",
    "consensus_hash",
    "state_hash",
    "status",
    "error",
)


_from_checkpoint_option = click.option(
    "--from-checkpoint",
    metavar="URL",
    help="Let apps that are not installed begin with the newest checkpoint at URL, of `checkpoint publish`.",
)


@click.command(cls=Command)
@click.option("--to", type=BLOCK_ID, metavar="BLOCK", help="Stop after this block.")
@_from_checkpoint_option
@trust_option
@wait_option
@no_apply_option
@pass_options
def sync(options: Options, to: int | None, from_checkpoint: str | None, wait: bool, no_apply: bool) -> None:
    """Process blocks up to the stable tip, then exit.

    The stable tip is the last block with as many confirmations as --confirmations requires. A second sync
    continues where the first one ended.
    """
    _refuse_both(from_checkpoint, no_apply=no_apply)
    with (
        Reporter(to=to) as reporter,
        open_engine(
            options, reporter, wait=wait, no_apply=no_apply, from_checkpoint=from_checkpoint
        ) as engine,
    ):
        done = _build(engine, to)
    _finish(options, reporter, done, no_apply=no_apply)


@click.command(cls=Command)
@_from_checkpoint_option
@trust_option
@wait_option
@click.option(
    "--pending",
    is_flag=True,
    help="Judge unconfirmed inputs, too, as if they came next: virtualchain.pending shows what they do.",
)
@click.option(
    "--serve", "serves", is_flag=True, help="Serve pages and API as well: see `virtualchain serve`."
)
@click.option(
    "--port", type=port_type, default=PORT, show_default=True, help="The port for --serve; 0: any free one."
)
@click.option(
    "--metrics",
    "address",
    metavar="[HOST:]PORT",
    callback=read_address,
    help="Answer /metrics, /health and /ready on this port: see docs/monitoring.md; 0: any free one.",
)
@ready_lag_option
@no_apply_option
@pass_options
def run(
    options: Options,
    from_checkpoint: str | None,
    wait: bool,
    pending: bool,
    serves: bool,
    port: int,
    address: tuple[str, int] | None,
    ready_lag: int,
    no_apply: bool,
) -> None:
    """Follow the chain, processing each block as it becomes stable.

    Waits for a node and a database that are not up yet. On Ctrl-C or SIGTERM, finishes the current block and
    exits, without it if that takes long; on a second one, exits immediately. With --json, each block is one
    object on its own line. Webhooks of virtualchain.toml are delivered meanwhile.
    """
    from virtualchain.bitcoin.source import Wake
    from virtualchain.engine.measures import Measures
    from virtualchain.webhooks.deliverer import Deliverer

    _refuse_both(from_checkpoint, no_apply=no_apply)
    if no_apply and pending:
        raise UsageError("--pending judges inputs, and --no-apply applies no app: leave one of them out")
    options.warn_of_exposed_passwords()
    webhooks, measures, service = options.webhooks(), Measures(), Service()
    measures.clock.on_turn = service.turn
    with (
        Signals() as signals,
        Reporter(follows=True, service=service) as reporter,
        exporting(options, measures, address, ready_lag),
        watching(options),
        serving(options, port if serves else None, ready_lag) as end_server,
        open_engine(
            options,
            reporter,
            wait=wait,
            follows=True,
            pending=pending,
            no_apply=no_apply,
            measures=measures,
            from_checkpoint=from_checkpoint,
        ) as engine,
        Deliverer(options.database, webhooks, say),
    ):
        leaving = Wake()

        def stop() -> None:
            service.stopping()
            engine.stop()
            leaving.call()

        def hurry() -> None:
            leaving.wait(threading.TIMEOUT_MAX)
            end_server()
            time.sleep(_FOR_ANSWERS)
            engine.give_up_node()

        begin(hurry)
        signals.stop = stop
        service.ready()
        engine.follow()
    for app, tally in reporter.tallies.items():
        if tally.inputs:
            message = f"app {app}: {counted(tally.inputs, 'input')}: {tally}"
            say(Notice(message, "inputs_counted", app=app, **tally_json(tally)))
    for app, failure in reporter.failures().items():
        say(Notice(failure, "inputs_failed", app=app))
    message = "stopped" if reporter.last is None else f"stopped after block {reporter.last}"
    say(Notice(message, "stopped", block_id=reporter.last))


def _refuse_both(from_checkpoint: str | None, *, no_apply: bool) -> None:
    if no_apply and from_checkpoint is not None:
        raise UsageError(
            "--from-checkpoint installs apps, and --no-apply applies none: leave one of them out"
        )


@click.command(cls=Command)
@wait_option
@pass_options
def advance(options: Options, wait: bool) -> None:
    """Advance the apps to the end of the tape, without a node.

    Use it after `virtualchain import`, or for an app that is lagging. The summary counts each block once for
    every app that processed it.
    """
    with (
        _TapeReporter() as reporter,
        open_engine(options, reporter, wait=wait, open_source=lambda: _offline(options)) as engine,
    ):
        done = _build(engine)
    _finish(options, reporter, replace(done, waits_for=None))


class _TapeReporter(Reporter):
    """Counts the blocks that apps take from the tape as the work done."""

    def catching_up(self, progress: "Progress") -> None:
        """Report a block, and count it in the summary."""
        self.meter.count(progress.inputs)
        super().catching_up(progress)


def _offline(options: Options) -> "BlockSource":
    """Return a source without blocks, for the network that the database follows."""
    from virtualchain.bitcoin.networks import network
    from virtualchain.bitcoin.source import Offline
    from virtualchain.reading import views

    with views.snapshot(migrated_deployment(options)) as connection:
        name = views.network(connection)
    if name is None:
        raise UsageError(
            "this database has no tape yet: `virtualchain import` or `virtualchain sync` creates one"
        )
    if options.settings.network is not None and network(options.settings.network).name != name:
        raise UsageError(f"this database follows {name}, but {options.settings.network} was asked for")
    return Offline(network(name))


@dataclass(frozen=True, slots=True)
class _Done:
    """How the engine ended: the apps that are halted, by name, what it waits for, and what it warns of."""

    halted: "Mapping[str, AppHalted]"
    waits_for: str | None
    warnings: list[str]


def _build(engine: "StateEngine", to: int | None = None) -> _Done:
    """Process the blocks that there are."""
    with suppress(AppHalted):  # raised when no app is left; `halted` has all of them
        engine.build(to)
    return _Done(engine.halted(), engine.waits_for, engine.warnings)


def _finish(options: Options, reporter: Reporter, done: _Done, *, no_apply: bool = False) -> None:
    """Print the summary; raise Halted if an app is halted."""
    _summarize(options, reporter, done, no_apply=no_apply)
    if done.halted:
        errors = list(done.halted.values())
        cause = errors[0] if len(errors) == 1 else ExceptionGroup("several apps are halted", errors)
        raise Halted("\n".join(map(str, errors))) from cause  # --verbose shows it


def _summarize(options: Options, reporter: Reporter, done: _Done, *, no_apply: bool) -> None:
    """Print what was done, and the state of the apps."""
    from virtualchain.engine.options import Tally
    from virtualchain.reading import views

    files = options.files()
    names = list(options.policies(options.applied_and_kept(no_apply=no_apply)[0]))
    tallies = {name: reporter.tallies.get(name, Tally()) for name in names}
    failures = reporter.failures()
    with views.snapshot(options.database) as connection:
        rows = views.apps(connection, names) if names else []
    meter = reporter.meter
    if options.settings.json:
        apps = [
            {key: row[key] for key in _APP_KEYS}
            | tally_json(tallies[row["name"]])
            | {"file": files[row["name"]]}
            for row in rows
        ]
        work = {"blocks": meter.blocks, "inputs": meter.inputs, "seconds": round(meter.seconds, 3)}
        write_json(
            {
                **work,
                "waits_for": done.waits_for,
                "warnings": [*done.warnings, *failures.values()],
                "apps": apps,
            }
        )
        return
    for app, failure in failures.items():
        say(Notice(failure, "inputs_failed", app=app))
    for row in rows:
        write_fields(
            f"{row['name']}: {row['status'].replace('_', ' ')}",
            {
                "block": row["block_id"],
                "consensus hash": row["consensus_hash"],
                "state hash": row["state_hash"],
                "inputs": reporter.inputs(row["name"]),
                "code": files[row["name"]],
            },
        )
    work_done = f"{counted(meter.blocks, 'block')} and {counted(meter.inputs, 'input')}"
    waits_for = "" if done.waits_for is None else f"; {done.waits_for}"
    click.echo(f"{work_done} in {duration(meter.seconds)}{waits_for}")


@click.command(cls=Command)
@click.argument("name", metavar="APP", shell_complete=complete_apps)
@pass_options
def resume(options: Options, name: str) -> None:
    """Let a halted app continue with the next sync or run.

    APP is its name, as shown by `virtualchain status`.
    """
    from virtualchain.reading import views
    from virtualchain.store.database import connect_writer
    from virtualchain.store.log import AppLog

    url = options.database
    with views.snapshot(url) as connection:
        [row] = views.apps(connection, [name])
    if row["status"] != "halted":
        raise UsageError(f"app {name} is not halted: it is {row['status'].replace('_', ' ')}")
    with connect_writer(url) as connection:
        AppLog(connection, name, row["build"]).set_status("running", if_live=True)
    if options.settings.json:
        write_json({"name": name, "block_id": row["block_id"], "status": "running"})
    else:
        place = "from its first block" if row["block_id"] is None else f"after block {row['block_id']}"
        click.echo(f"app {name} continues {place} with the next sync or run")
