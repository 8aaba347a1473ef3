"""The commands that advance the apps along the chain or the tape: sync, run, advance, resume."""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.options import Command, Options, pass_options, wait_option
from virtualchain.cli.output import counted, say, write_fields, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter
from virtualchain.cli.session import open_engine, open_reading
from virtualchain.errors import AppHalted, Halted, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtualchain.bitcoin.source import BlockSource
    from virtualchain.engine.engine import StateEngine
    from virtualchain.engine.options import Progress

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


@click.command(cls=Command)
@click.option("--to", type=click.IntRange(min=0), metavar="BLOCK", help="Stop after this block.")
@wait_option
@pass_options
def sync(options: Options, to: int | None, wait: bool) -> None:
    """Process blocks up to the stable tip, then exit.

    The stable tip is the last block with as many confirmations as --confirmations requires. A second sync
    continues where the first one ended.
    """
    with Reporter(to=to) as reporter, open_engine(options, reporter, wait=wait) as engine:
        halted = _build(engine, to)
        waits_for = engine.waits_for
    _finish(options, reporter, halted, waits_for)


@click.command(cls=Command)
@wait_option
@pass_options
def run(options: Options, wait: bool) -> None:
    """Follow the chain, processing each block as it becomes stable.

    On Ctrl-C or SIGTERM, finishes the current block and exits; on a second one, exits immediately. With
    --json, each block is one object on its own line.
    """
    with (
        Signals() as signals,
        Reporter(follows=True) as reporter,
        open_engine(options, reporter, wait=wait, follows=True) as engine,
    ):
        signals.stop = engine.stop
        engine.follow()
    say("stopped" if reporter.last is None else f"stopped after block {reporter.last}")


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
        halted = _build(engine)
    _finish(options, reporter, halted, None)


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

    with open_reading(options) as connection:
        name = views.network(connection)
    if name is None:
        raise UsageError(
            "this database has no tape yet: `virtualchain import` or `virtualchain sync` creates one"
        )
    if options.settings.network is not None and network(options.settings.network).name != name:
        raise UsageError(f"this database follows {name}, but {options.settings.network} was asked for")
    return Offline(network(name))


def _build(engine: "StateEngine", to: int | None = None) -> "Mapping[str, AppHalted]":
    """Process the blocks that there are; return the apps that are halted, by name."""
    with suppress(AppHalted):  # raised when no app is left; `halted` has all of them
        engine.build(to)
    return engine.halted()


def _finish(
    options: Options, reporter: Reporter, halted: "Mapping[str, AppHalted]", waits_for: str | None
) -> None:
    """Print the summary; raise Halted if an app is halted."""
    _summarize(options, reporter, waits_for)
    if halted:
        raise Halted("\n".join(str(error) for error in halted.values()))


def _summarize(options: Options, reporter: Reporter, waits_for: str | None) -> None:
    """Print what was done, and the state of the apps."""
    from virtualchain.reading import views
    from virtualchain.store.builds import code_warning
    from virtualchain.store.database import resolve

    names = [contract.name for contract in options.contracts()]
    with views.snapshot(resolve(options.settings.database)) as connection:
        rows = views.apps(connection, names)
    meter = reporter.meter
    if options.settings.json:
        apps = [{key: row[key] for key in _APP_KEYS} for row in rows]
        work = {"blocks": meter.blocks, "inputs": meter.inputs, "seconds": round(meter.seconds, 3)}
        warnings = [code_warning(row["name"], row["version"]) for row in rows if row["code_changed"]]
        write_json({**work, "waits_for": waits_for, "warnings": warnings, "apps": apps})
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


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@pass_options
def resume(options: Options, name: str) -> None:
    """Let a halted app continue with the next sync or run.

    APP is its name, as shown by `virtualchain status`.
    """
    from virtualchain.reading import views
    from virtualchain.store.database import connect_writer, resolve
    from virtualchain.store.log import AppLog

    url = resolve(options.settings.database)
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
