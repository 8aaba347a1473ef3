"""The command `verify`: check that a deployment's tables fit each other and the digests."""

import re
from pathlib import Path
from secrets import randbelow
from typing import TYPE_CHECKING, Any

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import counted, say, visible, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter, Ticker
from virtualchain.cli.session import existing_database
from virtualchain.errors import DamagedTables, UntrustedImport, UsageError, quoted

if TYPE_CHECKING:
    from virtualchain.audit.fault import Fault
    from virtualchain.audit.verify import Report
    from virtualchain.model import Block


@click.command(cls=Command)
@click.option(
    "--deep", is_flag=True, help="Also judge every app again from the tape, and compare all of its rows."
)
@click.option(
    "--sample",
    "number",
    type=click.IntRange(min=1, max=10_000),
    metavar="N",
    help="Check N random stretches of at most 100 blocks instead of everything.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Let --sample choose the blocks that it chose with this seed before.",
)
@click.option(
    "--import",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Check an export instead: advance it in a database of its own, which is dropped afterwards.",
)
@click.option(
    "--trust",
    multiple=True,
    metavar="[APP=]HASH",
    help="With --import: the consensus hash that the app must have at the last block. Can be repeated.",
)
@pass_options
def verify(
    options: Options,
    deep: bool,
    number: int | None,
    seed: int | None,
    folder: Path | None,
    trust: tuple[str, ...],
) -> None:
    """Check all tables against each other and against the digests.

    Checks every block and input of the tape, every op, rejection and digest of the log, and every row of the
    projections and their history. Each fault is printed with its place; the exit code is 1 if there is any.
    With the apps' code, named by --app or in virtualchain.toml, more of the log is checked. Nothing is
    changed, and a writer may run meanwhile.

    --deep derives each app whose code is named again from the tape, into tables that are dropped afterwards.
    --sample checks random stretches only, and has each app judge them again from its own state before them,
    as far as its history reaches.

    With --import the database is not checked, but an export that somebody else made: the named apps are
    advanced along its tape, and it is accepted only if each leads to the hash that you trust.
    """
    if (folder is None) != (not trust):
        raise UsageError("--import FOLDER and --trust HASH belong together")
    if sum((deep, number is not None, folder is not None)) > 1:
        raise UsageError("--deep, --sample and --import exclude each other")
    if seed is not None and number is None:
        raise UsageError("--seed chooses what --sample checks")
    if folder is not None:
        _verify_import(options, folder, trust)
        return
    _verify_tables(options, deep, number, seed)


def _verify_tables(options: Options, deep: bool, number: int | None, seed: int | None) -> None:
    from virtualchain.app.declarations import read_contract
    from virtualchain.audit.sample import verify_sample
    from virtualchain.audit.verify import verify as check
    from virtualchain.engine.options import Listener
    from virtualchain.engine.options import Options as EngineOptions

    contracts = [read_contract(app) for app in options.named_apps()]
    ticker = Ticker()
    with Signals() as signals, Reporter() as reporter:
        signals.work_in_steps()

        def on_fault(fault: "Fault") -> None:
            if not options.settings.json:
                click.echo(visible(str(fault)))

        def on_progress(line: str) -> None:
            if not signals.may_continue():
                raise click.Abort
            ticker(line)

        url = existing_database(options)
        engine = EngineOptions(history=options.settings.history)
        listener = Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_continue)
        events: Any = {"listener": listener, "on_fault": on_fault, "on_progress": on_progress}
        if number is None:
            report = check(url, contracts, deep=deep, options=engine, **events)
        else:
            seed = randbelow(2**32) if seed is None else seed
            report = verify_sample(url, number, seed, contracts, options=engine, **events)
    _write(options, report, seed)
    if report.faults:
        faults = counted(len(report.faults), "fault")
        raise DamagedTables(
            f"{faults} found: restore the database from a backup, or see what repairs it in docs/operating.md"
        )


def _write(options: Options, report: "Report", seed: int | None) -> None:
    from dataclasses import asdict

    for note in report.notes:
        say(note)
    builds = [
        {
            "app": build.app,
            "build": build.build,
            "is_live": build.is_live,
            "block_id": build.block_id,
            "judged_again": build.is_live and build.app in report.judged_again,
        }
        for build in report.builds
    ]
    if options.settings.json:
        sample = None if seed is None else {"seed": seed, "stretches": list(map(asdict, report.stretches))}
        faults = [asdict(fault) for fault in report.faults]
        write_json({"faults": faults, "builds": builds} | ({} if sample is None else {"sample": sample}))
        return
    if seed is not None:
        _write_sample(report, seed)
        return
    for build in builds:
        again = ", and judged again from the tape" if build["judged_again"] else ""
        place = "before its first block" if build["block_id"] is None else f"to block {build['block_id']}"
        click.echo(f"{build['app']}, build {build['build']}: checked {place}{again}")
    if not report.faults:
        click.echo("all tables fit each other and the digests")


def _write_sample(report: "Report", seed: int) -> None:
    for stretch in report.stretches:
        again = f", judged again by {', '.join(stretch.judged_again)}" if stretch.judged_again else ""
        click.echo(f"blocks {stretch.first} to {stretch.last}: checked{again}")
    click.echo(f"chosen with --seed {seed}" + ("" if report.faults else "; no fault was found in them"))


def _verify_import(options: Options, folder: Path, trust: tuple[str, ...]) -> None:
    from virtualchain.app.declarations import read_contract
    from virtualchain.engine.options import Progress
    from virtualchain.transfer.trial import outcome_json, try_import

    apps = options.apps()
    trusted = _trusted(trust, [read_contract(app).name for app in apps])
    with Reporter() as reporter:

        def on_block(block: "Block", inputs: int, last: int) -> None:
            reporter.block(Progress(block, inputs, last))

        url = options.database
        imported, outcomes = try_import(
            url, folder, apps, trusted, ours=url, on_block=on_block, on_catch_up=reporter.catching_up
        )
    if options.settings.json:
        write_json(
            {
                "network": imported.network,
                "first": imported.first,
                "last": imported.last,
                "apps": [outcome_json(outcome) for outcome in outcomes],
            }
        )
    for outcome in outcomes if not options.settings.json else ():
        if outcome.is_accepted:
            click.echo(f"{outcome.app}: accepted, it leads to {outcome.trusted} at block {outcome.block_id}")
    refused = [f"{item.app}: {item.reason}" for item in outcomes if not item.is_accepted]
    if refused:
        raise UntrustedImport(
            f"{visible(str(folder))} is not accepted: it does not lead to the hash that is trusted for "
            + "; for ".join(refused)
        )


def _trusted(trust: tuple[str, ...], names: list[str]) -> dict[str, str]:
    """Return the trusted hashes by app; raise UsageError for what is not a hash, or not of a named app."""
    trusted: dict[str, str] = {}
    for item in trust:
        name, equals, text = item.rpartition("=")
        if not equals and len(names) != 1:
            raise UsageError(f"several apps are named, so say whose hash it is: --trust APP={item}")
        app = name if equals else names[0]
        if app not in names:
            raise UsageError(f"--trust names app {app}, but the apps that are named are {', '.join(names)}")
        if not re.fullmatch("[0-9a-fA-F]{32}", text):
            raise UsageError(f"{quoted(text)} is not a consensus hash, which has 32 hex digits")
        if trusted.setdefault(app, text.lower()) != text.lower():
            raise UsageError(f"--trust has two hashes for app {app}")
    return trusted
