"""The command `verify`: check that a deployment's tables fit each other and the digests."""

from typing import TYPE_CHECKING

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import counted, say, visible, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter, Ticker
from virtualchain.cli.session import existing_database
from virtualchain.errors import DamagedTables

if TYPE_CHECKING:
    from virtualchain.audit.fault import Fault
    from virtualchain.audit.verify import Report


@click.command(cls=Command)
@click.option(
    "--deep", is_flag=True, help="Also judge every app again from the tape, and compare all of its rows."
)
@pass_options
def verify(options: Options, deep: bool) -> None:
    """Check all tables against each other and against the digests.

    Checks every block and input of the tape, every op, rejection and digest of the log, and every row of the
    projections and their history. Each fault is printed with its place; the exit code is 1 if there is any.
    With the apps' code, named by --app or in virtualchain.toml, more of the log is checked. Nothing is
    changed, and a writer may run meanwhile.

    --deep derives each app whose code is named again from the tape, into tables that are dropped afterwards.
    """
    from virtualchain.app.declarations import read_contract
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

        report = check(
            existing_database(options),
            contracts,
            deep=deep,
            options=EngineOptions(history=options.settings.history),
            listener=Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_continue),
            on_fault=on_fault,
            on_progress=on_progress,
        )
    _write(options, report)
    if report.faults:
        number = counted(len(report.faults), "fault")
        raise DamagedTables(
            f"{number} found: restore the database from a backup, or see what repairs it in docs/operating.md"
        )


def _write(options: Options, report: "Report") -> None:
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
        write_json({"faults": [asdict(fault) for fault in report.faults], "builds": builds})
        return
    for build in builds:
        again = ", and judged again from the tape" if build["judged_again"] else ""
        place = "before its first block" if build["block_id"] is None else f"to block {build['block_id']}"
        click.echo(f"{build['app']}, build {build['build']}: checked {place}{again}")
    if not report.faults:
        click.echo("all tables fit each other and the digests")
