"""The commands that follow chain or tape, and what these need: migrate, sync, run, advance, resume."""

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.failures import say
from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_fields, write_json, write_json_line
from virtualchain.cli.progress import Reporter, counted
from virtualchain.cli.read import open_reading
from virtualchain.cli.signals import Signals
from virtualchain.errors import AppHalted, Halted, NodeUnavailable, UsageError, WriterBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.engine.engine import StateEngine
    from virtualchain.engine.options import Progress

_POLL: Final = 3.0
"""Seconds between two attempts to reach a node."""
_waits = click.option("--wait", is_flag=True, help="Wait while another process writes, instead of giving up.")


@click.command(cls=Command)
@pass_given
def migrate(given: Given) -> None:
    """Bring the database's schema up to date.

    Commands that write do so by themselves; this one does nothing else.
    """
    from virtualchain.store.database import redact, resolve
    from virtualchain.store.migrate import migrate as upgrade

    url = resolve(given.settings.database)
    revision = upgrade(url)
    if given.settings.json:
        write_json({"database": redact(url), "revision": revision})
    else:
        click.echo(f"{redact(url)} is at revision {revision}")


@click.command(cls=Command)
@click.option("--to", type=click.IntRange(min=0), metavar="BLOCK", help="Stop behind this block.")
@_waits
@pass_given
def sync(given: Given, to: int | None, wait: bool) -> None:
    """Process blocks up to the stable tip, and end.

    The stable tip is the last block with as many confirmations as --confirmations asks for. A second sync
    goes on where the first one ended.
    """
    with Reporter(to=to) as reporter, _engine(given, reporter, wait=wait) as engine:
        with suppress(AppHalted):  # told below, together with those that let others go on
            engine.build(to)
        halted, waits_for = engine.halted(), engine.waits_for
    _summarise(given, reporter, waits_for)
    if halted:
        raise Halted("\n".join(str(error) for error in halted.values()))


@click.command(cls=Command)
@_waits
@pass_given
def run(given: Given, wait: bool) -> None:
    """Follow the chain: process each block as it becomes stable.

    Ends behind the block at hand on Ctrl-C and SIGTERM, and at once when told a second time. With --json
    each block is an object on a line of its own.
    """
    with (
        Signals() as signals,
        Reporter(follows=True) as reporter,
        _engine(given, reporter, wait=wait, follows=True) as engine,
    ):
        signals.stop = engine.stop
        engine.follow()
    say("stopped" if reporter.last is None else f"stopped behind block {reporter.last}")


@click.command(cls=Command)
@_waits
@pass_given
def advance(given: Given, wait: bool) -> None:
    """Advance the apps to the end of the tape, without a node.

    For a tape that `virtualchain import` brought, or an app that stayed behind. Where blocks are counted,
    those of each app count.
    """
    with (
        _TapeReporter() as reporter,
        _engine(given, reporter, wait=wait, open_source=lambda: _offline(given)) as engine,
    ):
        with suppress(AppHalted):  # told below, as in sync
            engine.build()
        halted = engine.halted()
    _summarise(given, reporter, None)
    if halted:
        raise Halted("\n".join(str(error) for error in halted.values()))


class _TapeReporter(Reporter):
    """Counts what apps take from the tape as what was done."""

    def catching_up(self, progress: "Progress") -> None:
        """Take note of a block, for the summary, too."""
        self.meter.count(progress.inputs)
        super().catching_up(progress)


def _offline(given: Given) -> "BlockSource":
    """Give no source of blocks, of the network that the database follows."""
    from virtualchain.bitcoin.networks import network
    from virtualchain.bitcoin.source import Offline
    from virtualchain.reading import views

    with open_reading(given) as connection:
        name = views.network(connection)
    if name is None:
        raise UsageError(
            "this database has no tape yet: `virtualchain import` or `virtualchain sync` gives it one"
        )
    if given.settings.network is not None and network(given.settings.network).name != name:
        raise UsageError(f"this database follows {name}, but {given.settings.network} was asked for")
    return Offline(network(name))


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@pass_given
def resume(given: Given, name: str) -> None:
    """Let a halted app go on: the next sync or run catches it up.

    APP is its name, as `virtualchain status` shows it.
    """
    from virtualchain.reading import views
    from virtualchain.store.database import connect_writer, resolve
    from virtualchain.store.log import AppLog

    url = resolve(given.settings.database)
    with views.snapshot(url) as connection:
        [row] = views.apps(connection, [name])
    if row["status"] != "halted":
        raise UsageError(f"app {name} is not halted: it is {row['status'].replace('_', ' ')}")
    with connect_writer(url) as connection:
        AppLog(connection, name, row["build"]).set_status("running")
    if given.settings.json:
        write_json({"name": name, "block_id": row["block_id"], "status": "running"})
    else:
        behind = "its first block" if row["block_id"] is None else f"block {row['block_id']}"
        click.echo(f"app {name} goes on behind {behind} with the next sync or run")


@contextmanager
def _engine(
    given: Given,
    reporter: Reporter,
    *,
    wait: bool,
    follows: bool = False,
    open_source: "Callable[[], BlockSource] | None" = None,
) -> "Iterator[StateEngine]":
    """Open the engine as the settings say, its news going to the reporter; a follower waits for the node."""
    from virtualchain.engine.engine import StateEngine
    from virtualchain.store.database import resolve

    apps = given.apps()
    policies = given.policies()  # mistakes are told before a node is looked for
    url = resolve(given.settings.database)

    def on_block(progress: "Progress") -> None:
        reporter.block(progress)
        if follows and given.settings.json:
            block = progress.block
            write_json_line({"block_id": block.block_id, "block_hash": block.hash, "inputs": progress.inputs})
        halted = engine.halted()
        if len(halted) < len(apps):
            reporter.halted(halted)

    def open_engine(*, wait: bool) -> StateEngine:
        source = _patient_source(given, reporter) if follows else (open_source or given.source)()
        reporter.hint = _hint(source)
        try:
            return StateEngine(
                *apps,
                database=url,
                source=source,
                confirmations=given.settings.confirmations,
                verify=given.settings.verify,
                wait_for_writer=wait,
                on_block=on_block,
                on_catch_up=reporter.catching_up,
                on_wait=reporter.waiting,
                on_rollback=reporter.rolled_back,
                history=given.settings.history,
                on_deep_fork=policies,
            )
        except BaseException:
            source.close()
            raise

    try:
        engine = open_engine(wait=False)
    except WriterBusy:
        if not wait:
            raise
        say("another writer is at work on this database: waiting for it to end")
        engine = open_engine(wait=True)
    with engine:
        yield engine


def _hint(source: "BlockSource") -> str | None:
    """Say what would make fetching faster, if anything."""
    from virtualchain.bitcoin.node.node import NodeSource

    if not isinstance(source, NodeSource) or source.over_rest:
        return None
    return f"REST is off at {source}: rest=1 in its bitcoin.conf makes fetching several times as fast"


def _patient_source(given: Given, reporter: Reporter) -> "BlockSource":
    """Open the node once it answers: both may be started at the same time."""
    while True:
        try:
            return given.source()
        except NodeUnavailable as error:
            reporter.waiting(str(error))
            time.sleep(_POLL)


def _summarise(given: Given, reporter: Reporter, waits_for: str | None) -> None:
    """Say what a sync did, and where its apps stand now."""
    from virtualchain.app.contract import read_contract
    from virtualchain.reading import views
    from virtualchain.store.database import resolve

    names = [read_contract(app).name for app in given.apps()]
    with views.snapshot(resolve(given.settings.database)) as connection:
        rows = views.apps(connection, names)
    meter = reporter.meter
    if given.settings.json:
        apps = [{key: row[key] for key in _APP_KEYS} for row in rows]
        told = {"blocks": meter.blocks, "inputs": meter.inputs, "seconds": round(meter.seconds, 3)}
        write_json({**told, "waits_for": waits_for, "apps": apps})
        return
    for row in rows:
        write_fields(
            f"{row['name']}: {row['status'].replace('_', ' ')}",
            {
                "block": row["block_id"],
                "consensus hash": row["consensus_hash"],
                "state hash": row["state_hash"],
            },
        )
    done = f"{counted(meter.blocks, 'block')} and {counted(meter.inputs, 'input')} in {meter.seconds:.1f} s"
    click.echo(done if waits_for is None else f"{done}; {waits_for}")


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
