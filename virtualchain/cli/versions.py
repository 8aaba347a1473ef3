"""The commands for versions of an app, and for its end: replay --into, compare, swap, drop, remove."""

from typing import TYPE_CHECKING

import click

from virtualchain.cli.failures import say
from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_fields, write_json, write_rows
from virtualchain.cli.progress import Reporter
from virtualchain.cli.signals import Signals
from virtualchain.errors import BuildsDiffer, UsageError

if TYPE_CHECKING:
    from virtualchain.app.contract import Contract
    from virtualchain.engine.compare import Comparison


def replay_into(given: Given, name: str, build: str) -> None:
    """Derive the app by the code that is named now, into a build beside the live one."""
    from virtualchain.engine.options import Listener, Options
    from virtualchain.engine.versions import build_beside
    from virtualchain.store.database import resolve
    from virtualchain.store.migrate import migrate

    contract = _named(given, name)
    url = resolve(given.settings.database)
    migrate(url)
    with Signals() as signals, Reporter() as reporter:
        signals.work_in_steps()
        made = build_beside(
            url,
            contract,
            build,
            Options(history=given.settings.history),
            Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_go_on),
        )
    if not signals.may_go_on():
        say("ended early: say it again to go on")
    if given.settings.json:
        write_json({"name": name, "build": build, "version": contract.version, "block_id": made.block_id})
        return
    click.echo(
        f"build {build} of {name}, version {contract.version}, stands at block {made.block_id}; next:\n"
        f"virtualchain compare {name} {build}\nvirtualchain swap {name} {build}"
    )


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@click.argument("build", metavar="BUILD")
@pass_given
def compare(given: Given, name: str, build: str) -> None:
    """Hold BUILD of APP against the live one.

    Shows where each stands, its digests, how many rows its tables have, and the first difference. Exit code 1
    where they differ.
    """
    from virtualchain.cli.read import open_reading
    from virtualchain.engine.compare import compare as hold_against

    with open_reading(given) as connection:
        found = hold_against(connection, name, build)
    if given.settings.json:
        _write_json(found)
    else:
        _write(name, found)
    if found.difference is not None or found.row is not None:
        where = f" first after block {found.difference.block_id}" if found.difference else " in their rows"
        raise BuildsDiffer(f"builds {' and '.join(found.builds)} of {name} differ,{where}")


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@click.argument("build", metavar="BUILD")
@pass_given
def swap(given: Given, name: str, build: str) -> None:
    """Let the views of APP show BUILD from now on.

    The build that they showed stays until `virtualchain drop`. A writer that runs the old code leaves the app
    alone then: start it again with the new code.
    """
    from virtualchain.engine.versions import swap as put_in_place
    from virtualchain.store.database import resolve

    before = put_in_place(resolve(given.settings.database), name, build, say)
    if given.settings.json:
        write_json({"name": name, "build": build, "before": before.name})
    else:
        click.echo(
            f"the views of {name} show build {build}; build {before.name} stays until: "
            f"virtualchain drop {name} {before.name}"
        )


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@click.argument("build", metavar="BUILD")
@pass_given
def drop(given: Given, name: str, build: str) -> None:
    """Remove BUILD of APP, which its views do not show: its tables, and its part of the log."""
    from virtualchain.engine.versions import drop as remove_build
    from virtualchain.store.database import resolve

    remove_build(resolve(given.settings.database), name, build)
    if given.settings.json:
        write_json({"name": name, "build": build})
    else:
        click.echo(f"build {build} of {name} is gone")


@click.command(cls=Command)
@click.argument("name", metavar="APP")
@pass_given
def remove(given: Given, name: str) -> None:
    """Remove APP: its tables and views, its part of the log, its role.

    The tape and the other apps stay as they are. No writer may be at work.
    """
    from virtualchain.engine.versions import remove as remove_app
    from virtualchain.store.database import resolve

    remove_app(resolve(given.settings.database), name)
    if given.settings.json:
        write_json({"name": name})
    else:
        click.echo(f"app {name} is gone")


def _named(given: Given, name: str) -> "Contract":
    from virtualchain.app.contract import read_contract

    contracts = [read_contract(app) for app in given.apps()]
    found = next((contract for contract in contracts if contract.name == name), None)
    if found is None:
        there = ", ".join(contract.name for contract in contracts)
        raise UsageError(f"name the code of app {name} with --app: that of {there} is named")
    return found


def _write_json(found: "Comparison") -> None:
    from dataclasses import asdict

    write_json(asdict(found))


def _write(name: str, found: "Comparison") -> None:
    for build, what in zip(found.builds, ("live", "beside it"), strict=True):
        place = found.places.get(build, {})
        write_fields(
            f"{name}, build {build} ({what})",
            {
                "block": place.get("block_id"),
                "consensus hash": place.get("consensus_hash"),
                "state hash": place.get("state_hash"),
            },
        )
    rows = [(table, *counts) for table, counts in found.rows.items()]
    write_rows(("table", *(f"rows of build {build}" for build in found.builds)), rows, as_json=False)
    if found.verdict is not None:
        live, other = found.builds
        write_fields(
            f"first judged otherwise: transaction {found.verdict['txindex']} of the block",
            {f"build {live}": found.verdict["verdict"], f"build {other}": found.verdict["other_verdict"]},
        )
    if found.row is not None:
        title = f"first other row, in {found.row['table']}"
        write_fields(title, {f"only build {found.row['build']}": found.row["row"]})
