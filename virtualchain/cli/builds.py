"""The commands for the builds of an app: upgrade, replay, compare, swap, drop, remove."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from virtualchain.cli.completing import complete_apps
from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import counted, say, write_fields, write_json, write_rows
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter
from virtualchain.cli.session import (
    migrated_database,
    migrated_deployment,
    open_deployment,
    open_reading,
)
from virtualchain.errors import BuildsDiffer, UsageError
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from virtualchain.app.contract import Contract
    from virtualchain.engine.compare import Comparison
    from virtualchain.engine.rebuild import Replayed

_app_argument = click.argument("name", metavar="APP", shell_complete=complete_apps)
_build_argument = click.argument("build", metavar="BUILD")


@click.command(cls=Command)
@_app_argument
@click.option(
    "--into", metavar="BUILD", help="Make a build beside the live one instead, possibly of a new version."
)
@pass_options
def replay(options: Options, name: str, into: str | None) -> None:
    """Rebuild the tables of APP from the tape, and replace them.

    APP is its name, as shown by `virtualchain status`; its code must be named with --app or in
    virtualchain.toml. The old tables stay readable meanwhile, and rows that differed are counted. No node is
    needed.

    With --into, the code may be a new version of the app. Its tables are built beside the live ones, while a
    writer continues with the old version; `virtualchain swap` then makes them the live ones.
    """
    from virtualchain.engine.options import Listener
    from virtualchain.engine.rebuild import replay as rebuild

    if into is not None:
        _replay_into(options, name, into)
        return
    with (
        Signals() as signals,
        Reporter() as reporter,
        open_deployment(options, signals, repairs=name) as deployment,
    ):
        if name not in [machine.contract.name for machine in deployment.apps.machines]:
            raise UsageError(f"rebuilding app {name} needs its code: name it with --app")
        listener = Listener(
            on_catch_up=reporter.catching_up, on_wait=reporter.waiting, may_continue=signals.may_continue
        )
        done = rebuild(deployment, name, listener)
    if done is None:
        say("interrupted, and nothing was replaced: run it again to continue")
        return
    if options.settings.json:
        write_json(
            {
                "name": name,
                "block_id": done.block_id,
                "state_hash_before": done.state_hash_before,
                "state_hash": done.state_hash,
                "repaired": _repaired(done),
            }
        )
        return
    repaired = ", ".join(f"{table}: {counted(rows, 'row')}" for table, rows in _repaired(done).items())
    same = done.state_hash == done.state_hash_before
    write_fields(
        f"{name} was rebuilt up to block {done.block_id}",
        {
            "state hash": done.state_hash,
            "before": done.state_hash_before if not same else "the same" if not repaired else "the same hash",
            "repaired": repaired or "nothing: all rows were as the tape leads to them",
        },
    )


def _repaired(done: "Replayed") -> dict[str, int]:
    """Count, by table, the rows that were wrong, missing or too many."""
    rows = {(item.table, str(item.key), item.block_id, item.txindex) for item in done.differences}
    return dict(sorted(Counter(table for table, *_ in rows).items()))


def _replay_into(options: Options, name: str, build: str) -> None:
    """Build the app with the code that is named now, beside the live build."""
    from virtualchain.engine.options import Listener
    from virtualchain.engine.options import Options as EngineOptions
    from virtualchain.engine.versions import build_beside

    contract = _contract(options, name)
    url = migrated_database(options)
    with Signals() as signals, Reporter() as reporter:
        signals.work_in_steps()
        made = build_beside(
            url,
            contract,
            build,
            EngineOptions(history=options.settings.history, guard=options.settings.guard),
            Listener(on_catch_up=reporter.catching_up, may_continue=signals.may_continue),
        )
    if not signals.may_continue():
        say("interrupted: run it again to continue")
    if options.settings.json:
        write_json({"name": name, "build": build, "version": contract.version, "block_id": made.block_id})
        return
    click.echo(
        f"build {build} of {name}, version {contract.version}, is at block {made.block_id}; next:\n"
        f"virtualchain compare {name} {build}\nvirtualchain swap {name} {build}"
    )


def _contract(options: Options, name: str) -> "Contract":
    contracts = options.contracts()
    match = next((contract for contract in contracts if contract.name == name), None)
    if match is None:
        others = ", ".join(contract.name for contract in contracts)
        raise UsageError(f"name the code of app {name} with --app: only {others} is named")
    return match


@click.command(cls=Command)
@_app_argument
@pass_options
def upgrade(options: Options, name: str) -> None:
    """Put changed code of APP in place, whatever changed.

    The code must be named with --app or in virtualchain.toml. New tables are derived from the tape by that
    code; then they take the place of the old ones, which are removed. Blocks that were never searched for the
    app's inputs are searched first, for which the node is needed. No writer may be running.
    """
    from virtualchain.engine.options import Listener
    from virtualchain.engine.options import Options as EngineOptions
    from virtualchain.engine.upgrade import upgrade as upgrade_app
    from virtualchain.reading import views

    contract = _contract(options, name)
    url = migrated_deployment(options)
    with views.snapshot(url) as connection:
        network = views.network(connection)
    with Signals() as signals, Reporter() as reporter:
        signals.work_in_steps()
        done = upgrade_app(
            url,
            contract,
            lambda: options.source(network),
            EngineOptions(
                verify=options.settings.verify or ("merkle" if options.settings.tape is None else "headers"),
                senders=options.settings.senders,
                history=options.settings.history,
                guard=options.settings.guard,
            ),
            Listener(
                on_catch_up=reporter.catching_up,
                on_wait=reporter.waiting,
                may_continue=signals.may_continue,
            ),
        )
    if done is None:
        say("interrupted, and nothing was replaced: run it again to continue")
        return
    block_id = None if done.difference is None else done.difference.block_id
    for app, failure in reporter.failures().items():
        say(Notice(failure, "inputs_failed", app=app))
    if options.settings.json:
        fields = {"name": name, "build": done.now.name, "version": contract.version}
        write_json({**fields, "block_id": done.now.block_id, "before": done.before.name, "differs": block_id})
        return
    write_fields(
        f"{name} runs version {contract.version}, as build {done.now.name}",
        {
            "block": done.now.block_id,
            "code": options.files()[name],
            "before": f"version {done.before.version}, build {done.before.name}, which was removed",
            "inputs": reporter.inputs(name),
            "digests": "as before" if block_id is None else f"differ first after block {block_id}",
        },
    )


@click.command(cls=Command)
@_app_argument
@_build_argument
@pass_options
def compare(options: Options, name: str, build: str) -> None:
    """Compare BUILD of APP with the live build.

    Shows the last block, the digests and the row counts of both, and the first difference. The exit code is 1
    if they differ.
    """
    from virtualchain.engine.compare import compare as compare_builds

    with open_reading(options) as connection:
        comparison = compare_builds(connection, name, build)
    if options.settings.json:
        _write_json(comparison)
    else:
        _write(name, comparison)
    difference = comparison.difference
    if difference is not None or comparison.row is not None:
        raise BuildsDiffer(f"builds {' and '.join(comparison.builds)} of {name} differ, {_place(comparison)}")


def _place(comparison: "Comparison") -> str:
    """Describe where two builds first differ: the block, and the transaction if it is known."""
    difference, verdict = comparison.difference, comparison.verdict
    if difference is None:
        return "in their rows"
    block = f"first after block {difference.block_id} ({difference.block_hash})"
    if verdict is not None:
        return f"{block}, in transaction {verdict['txid']}"
    firsts = {place["first_block_id"] for place in comparison.places.values()}
    if len(firsts) > 1 and difference.block_id == max(firsts):
        return f"{block}, because they begin with different blocks"
    if not comparison.transactions:
        return f"{block}, in which neither accepted a transaction"
    one_of = "what one of these wrote" if len(comparison.transactions) > 1 else "what it wrote"
    return f"{block}, in {one_of}: transaction {', '.join(comparison.transactions)}"


def _write_json(comparison: "Comparison") -> None:
    from dataclasses import asdict

    write_json(asdict(comparison))


def _write(name: str, comparison: "Comparison") -> None:
    for build, kind in zip(comparison.builds, ("live", "beside it"), strict=True):
        place = comparison.places[build]
        write_fields(
            f"{name}, build {build} ({kind})",
            {
                "first block": place["first_block_id"],
                "block": place.get("block_id"),
                "consensus hash": place.get("consensus_hash"),
                "state hash": place.get("state_hash"),
            },
        )
    rows = [(table, *counts) for table, counts in comparison.rows.items()]
    write_rows(("table", *(f"rows of build {build}" for build in comparison.builds)), rows, as_json=False)
    verdict = comparison.verdict
    if verdict is not None:
        live, other = comparison.builds
        write_fields(
            f"first transaction judged differently: {verdict['txid']}",
            {
                "block": f"{verdict['block_id']}, as transaction {verdict['txindex']}",
                f"build {live}": verdict["verdict"] or "not a candidate",
                f"build {other}": verdict["other_verdict"] or "not a candidate",
            },
        )
    if comparison.row is not None:
        title = f"first different row, in {comparison.row['table']}"
        write_fields(title, {f"only build {comparison.row['build']}": comparison.row["row"]})


@click.command(cls=Command)
@_app_argument
@_build_argument
@pass_options
def swap(options: Options, name: str, build: str) -> None:
    """Make BUILD the live build of APP, which its views show.

    The previous build stays until `virtualchain drop` removes it. A writer that still runs the old code stops
    advancing the app: restart it with the new code.
    """
    from virtualchain.engine.versions import swap as swap_builds

    before = swap_builds(migrated_database(options), name, build, say)
    if options.settings.json:
        write_json({"name": name, "build": build, "before": before.name})
    else:
        click.echo(
            f"the views of {name} show build {build}; build {before.name} stays until: "
            f"virtualchain drop {name} {before.name}"
        )


@click.command(cls=Command)
@_app_argument
@_build_argument
@pass_options
def drop(options: Options, name: str, build: str) -> None:
    """Remove BUILD of APP, which must not be the live build.

    Its tables and its part of the log are deleted.
    """
    from virtualchain.engine.versions import drop as drop_build

    drop_build(migrated_database(options), name, build, say)
    if options.settings.json:
        write_json({"name": name, "build": build})
    else:
        click.echo(f"build {build} of {name} was removed")


@click.command(cls=Command)
@_app_argument
@pass_options
def remove(options: Options, name: str) -> None:
    """Remove APP: its tables, its views, its role.

    Its part of the log is removed as well. The tape and the other apps stay as they are. No writer may be
    running.
    """
    from virtualchain.engine.versions import remove as remove_app

    remove_app(migrated_database(options), name, say)
    if options.settings.json:
        write_json({"name": name})
    else:
        click.echo(f"app {name} was removed")
