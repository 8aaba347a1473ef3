"""The command `doctor`: checks of everything that a deployment depends on, and what to do."""

from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import counted, visible, write_json
from virtualchain.cli.session import expected_digests

if TYPE_CHECKING:
    from virtualchain.operating.doctor.examination import Examined

_COLORS: Final = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": None}


@click.command(cls=Command)
@pass_options
def doctor(options: Options) -> None:
    """Find out what is not in order, and what to do.

    This machine, the node, the database server, the deployment and its apps are checked.

    Nothing is changed, and nothing is started. A writer may run meanwhile. The exit code is 1 if there is a
    problem; warnings do not count. docs/doctor.md describes every check.
    """
    import logging

    from virtualchain.operating.doctor.examination import examine
    from virtualchain.operating.doctor.findings import VERDICTS, worst
    from virtualchain.operating.doctor.patient import Patient

    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # its warnings repeat our errors
    as_json = options.settings.json
    results = []
    unseen: dict[str, list[str]] = {}
    with closing(Patient(options.settings, expected_digests(options))) as patient:
        for examined in examine(patient):
            results.append(examined)
            if examined.finding.verdict == "skipped" and examined.finding.advice is None:
                unseen.setdefault(examined.finding.observed, []).append(examined.name)
            elif not as_json:
                _write(examined)
    verdicts = [examined.finding.verdict for examined in results]
    verdict = worst([examined.finding for examined in results])
    if as_json:
        checks = [
            {
                "name": examined.name,
                "verdict": examined.finding.verdict,
                "observed": examined.finding.observed,
                "advice": examined.finding.advice,
                "link": examined.link,
            }
            for examined in results
        ]
        write_json({"verdict": verdict, "checks": checks})
    else:
        for reason, names in unseen.items():
            click.echo(f"skipped  {visible(reason)}: {', '.join(names)}")
        counts = {each: verdicts.count(each) for each in VERDICTS}
        click.echo(
            f"{counts['ok']} ok, {counted(counts['warning'], 'warning')}, "
            f"{counted(counts['problem'], 'problem')}, {counts['skipped']} skipped"
        )
    if verdict == "problem":
        raise click.exceptions.Exit(1)


def _write(examined: "Examined") -> None:
    """Write a line for a check, and what to do below it."""
    finding = examined.finding
    verdict = click.style(finding.verdict.ljust(7), fg=_COLORS[finding.verdict])
    click.echo(f"{verdict}  {examined.name}: {visible(finding.observed)}")
    if finding.advice is not None:
        click.echo(f"         {visible(finding.advice)} ({examined.link})")
