"""The command `status`: the apps, the writer, the node, and what a sync would wait for."""

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import counted, duration, moment, say, visible, write_fields, write_json
from virtualchain.cli.session import chosen_apps, expected_digests, open_reading
from virtualchain.errors import DeepFork, Halted, NodeError, NodeUnavailable, UnexpectedDigest, UsageError
from virtualchain.metrics import awaits_decision
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import psycopg

    from virtualchain.bitcoin.source import BlockSource, Tip
    from virtualchain.engine.planner import Plan
    from virtualchain.model import Json
    from virtualchain.store.builds import Build


@dataclass(slots=True)
class _Outlook:
    """What is known of the node, and what a writer would wait for; None: nothing, or unknown."""

    tip: "Tip | None" = None
    pruned_below: int | None = None
    waits_for: str | None = None
    is_planned: bool = False
    """Whether `waits_for` is known: the node was reached, and the tape could be read."""


@click.command(cls=Command)
@click.option(
    "--check",
    is_flag=True,
    help="Exit with 1 if an app has other digests than expected, with 4 if one is halted or a deep fork "
    "needs a decision, or with 3 if the node was not reached.",
)
@pass_options
def status(options: Options, check: bool) -> None:
    """Show the state of the apps, the writer and the node.

    If the node cannot be reached, everything else is still shown, from the database, with what the writer
    reported last of the node. With --expect, the apps'
    digests are compared with those expected now; without it, what the writer found is shown.
    """
    from virtualchain.operating.expected import compare_digests
    from virtualchain.reading import reported, views
    from virtualchain.store.builds import code_warning
    from virtualchain.store.database import other_locale

    expect = expected_digests(options)
    expected = {} if expect is None else expect()
    with open_reading(options) as connection:
        network = views.network(connection)
        rows = views.apps(connection, chosen_apps(options, connection))
        compare_digests(connection, rows, expected)
        samples = reported.samples(connection)
        deployment: dict[str, Any] = {
            "writer": views.writer(connection),
            "standby": views.is_standby(connection),
            "pins": views.pins(connection),
            "inputs_pruned_below": views.inputs_pruned_below(connection),
            "builds": views.builds(connection),
            "last_reorg": views.last_reorg(connection),
            "locale": _locale_warning(other_locale(connection)),
            "rates": reported.rates(connection),
            "metrics": [sample.as_json() for sample in samples],
        }
        last = views.last_start(connection)
        running = last if deployment["writer"] is not None or deployment["standby"] else None
        confirmations = running["confirmations"] if running else options.settings.confirmations_on(network)
        apps_with_code = running["apps"] if running else _next_apps(options, last)
        live = _live_builds(connection)
        outlook = _look_ahead(options, connection, network, live, confirmations, apps_with_code)
    warnings = [code_warning(row["name"], row["version"]) for row in rows if row["code_changed"]]
    if apps_with_code is not None:
        missing = [build for build in live or () if build.app not in apps_with_code]
        warnings += [build.not_run_warning for build in missing if build.not_run_warning is not None]
    tip = outlook.tip
    report = views.writer_report(last)
    height = None if report is None or report["node"] is None else int(report["node"]["block_id"])
    height = height if tip is None else tip.block_id
    fork = report["waits_for"] if report is not None and awaits_decision(samples) else None
    if options.settings.json:
        node = None if tip is None else {"block_id": tip.block_id, "hash": tip.hash}
        apps = [views.app_status(row, height) for row in rows]
        chain = {
            "network": network or options.settings.network,
            "tip": node,
            "pruned_below": outlook.pruned_below,
            "waits_for": outlook.waits_for,
            "confirmations": confirmations,
        }
        write_json({**chain, **deployment, "report": report, "warnings": warnings, "apps": apps})
        _check(rows, outlook, fork, check=check)
        return
    for warning in warnings:
        say(Notice(warning, "note", "warning"))
    write_fields(
        network or "no network yet",
        {
            "node" if options.settings.tape is None else "upstream": _node(outlook, report),
            "writer": _writer(deployment["writer"], confirmations, report, is_standby=deployment["standby"]),
            "waits for": _awaited(outlook, report if running else None, report),
            **_work_fields(deployment["rates"], deployment["metrics"]),
            **_kept_fields(last, deployment["builds"]),
            **_pin_fields(deployment["pins"]),
            **_pruned_fields(deployment["inputs_pruned_below"]),
            **_rollback_fields(deployment["last_reorg"]),
            **({"locale": deployment["locale"]} if deployment["locale"] else {}),
        },
    )
    for row in rows:
        _write_app(row, height, deployment["builds"])
        if options.settings.verbose and row["error"] is not None:
            for line in row["error"]["traceback"].splitlines():
                click.echo(f"  {visible(line)}")
    _check(rows, outlook, fork, check=check)


def _check(rows: "list[Json]", outlook: _Outlook, fork: str | None, *, check: bool) -> None:
    """Raise, with `check`, the error whose exit code says what an operator must look at.

    `fork` is the deep fork that waits for a decision.
    """
    from virtualchain.engine.expectations import describe_mismatch

    if not check:
        return
    for row in rows:
        if row["unexpected"] is not None:
            raise UnexpectedDigest(f"app {row['name']}: {describe_mismatch(row['unexpected'])}")
    halted = [row["name"] for row in rows if row["status"] == "halted"]
    if halted:
        raise Halted(f"halted: {', '.join(halted)}")
    if fork is not None:
        raise DeepFork(fork)
    if outlook.tip is None:
        raise NodeUnavailable("the node was not reached")


def _node(outlook: _Outlook, report: "Json | None") -> str | None:
    if outlook.tip is None:
        if report is None or report["node"] is None:
            return None
        node = report["node"]
        return f"block {node['block_id']} ({node['hash']}), {_reported(report)}"
    pruned = "" if outlook.pruned_below is None else f", pruned below {outlook.pruned_below}"
    return f"block {outlook.tip.block_id} ({outlook.tip.hash}){pruned}"


def _reported(report: "Json") -> str:
    return f"reported {duration(report['age'])} ago"


def _awaited(outlook: _Outlook, report: "Json | None", last: "Json | None") -> str | None:
    """Describe what is waited for: what the writer reported, if that cannot be seen from here.

    `last` is the last report, also of a writer that has ended.
    """
    if not outlook.is_planned and report is not None and report["stopped_at"] is None:
        if report["waits_for"] is None:
            return f"nothing: it was taking blocks, {_reported(report)}"
        return f"{report['waits_for'].removeprefix('waiting for ')}, {_reported(report)}"
    if not outlook.is_planned and last is not None and last["stopped_at"] is not None and last["waits_for"]:
        return f"an operator since {moment(last['stopped_at'])}: {last['waits_for']}"
    return None if outlook.waits_for is None else outlook.waits_for.removeprefix("waiting for ")


def _writer(name: str | None, confirmations: int, report: "Json | None", *, is_standby: bool) -> str:
    if is_standby:
        if report is None:
            return "not known here: this database is a standby, so ask its primary"
        if report["stopped_at"] is not None:
            return f"stopped {moment(report['stopped_at'])}, as far as this standby knows"
        return f"on the primary, as this is a standby, {_reported(report)}"
    if name is not None:
        return f"{name}, with {counted(confirmations, 'confirmation')}"
    if report is None or report["stopped_at"] is not None:
        return "none is running"
    return f"none is running; the last one ended without a word, seen {duration(report['age'])} ago"


def _write_app(row: "Json", height: int | None, builds: "list[Json]") -> None:
    from virtualchain.engine.expectations import describe_mismatch
    from virtualchain.engine.halting import op_of, place_of
    from virtualchain.reading import views

    first = row["first_block_id"]
    beside = [item["build"] for item in builds if item["app"] == row["name"] and not item["is_live"]]
    fields = {
        "block": f"none yet: it starts with block {first}" if row["block_id"] is None else row["block_id"],
        "block hash": row["block_hash"],
        "lag": views.lag(row, height),
        "consensus hash": row["consensus_hash"],
        "state hash": row["state_hash"],
        "role": row["role"] or "the engine's own, because the database's user does not have CREATEROLE",
    }
    if beside:
        fields["other builds"] = f"{', '.join(beside)}: `virtualchain drop` removes one"
    if row["unexpected"] is not None:
        fields["UNEXPECTED"] = describe_mismatch(row["unexpected"])
    if row["error"] is not None:
        error = row["error"]
        fields["failed"] = f"{error['callback']} in block {error['block_id']}: {error['error']}"
        fields["in the code"] = place_of(error)
        fields["transaction"] = error["txid"]
        fields["op"] = op_of(error)
        fields["fix it, then"] = f"virtualchain resume {row['name']}"
    write_fields(f"{row['name']} {row['version']}: {row['status'].replace('_', ' ')}", fields)


def _next_apps(options: Options, last: "Json | None") -> "Collection[str] | None":
    """Return the apps whose code the next writer has: those of the settings, or else of the last writer.

    --app does not count: here it limits what is shown.
    """
    if options.settings.apps and not options.flags.get("app"):
        try:
            return [contract.name for contract in options.contracts()]
        except UsageError as error:  # which only a writer has to care about
            say(Notice(str(error), "note", "warning"))
    return None if last is None else last["apps"]


def _live_builds(connection: "psycopg.Connection") -> "list[Build] | None":
    """Return the live builds; None if the user is a reader, who sees only the views."""
    import psycopg

    from virtualchain.store.builds import builds

    try:
        with connection.transaction():
            return [build for build in builds(connection) if build.is_live]
    except psycopg.errors.InsufficientPrivilege:
        return None


def _look_ahead(
    options: Options,
    connection: "psycopg.Connection",
    network: str | None,
    live: "list[Build] | None",
    confirmations: int,
    apps_with_code: "Collection[str] | None",
) -> _Outlook:
    """Ask the node for its tip, and the planner what a writer would now wait for, if anything."""
    from virtualchain.engine.look import Look
    from virtualchain.store.tape import Standing, Tape

    outlook = _Outlook()
    try:
        with closing(options.source(network)) as source:
            outlook.tip = tip = source.tip()
            outlook.pruned_below = _pruned_below(source)
            tape = Tape(connection)
            if live or (live is not None and tape.tip() is not None):
                plan = Look(source, confirmations, options.settings.verify or "headers").plan(
                    tape,
                    Standing(tape.tip(), tape.pins()),
                    first_block_id=min((build.base_block_id + 1 for build in live), default=0),
                    node_tip=lambda: tip,
                )
                deepest = options.settings.deepest_rollback
                outlook.waits_for = _waits_for(
                    connection, plan, outlook.pruned_below, apps_with_code, deepest
                )
                outlook.is_planned = True
    except NodeError as error:
        what = "was not reached" if outlook.tip is None else "failed"
        say(Notice(f"the node {what}: {error}", "node_failed"))
        outlook.waits_for = f"the node: {error}"
    except UsageError as error:
        say(Notice(str(error), "note", "warning"))
        outlook.waits_for = str(error)
    return outlook


def _pruned_below(source: "BlockSource") -> int | None:
    from virtualchain.bitcoin.node.several import node_of

    node = node_of(source)
    return None if node is None else node.pruned_below()


def _waits_for(
    connection: "psycopg.Connection",
    plan: "Plan",
    pruned_below: int | None,
    apps_with_code: "Collection[str] | None",
    deepest: int | None,
) -> str | None:
    from virtualchain.engine.planner import Wait
    from virtualchain.engine.rollback import describe_fork, refuse_by_policy, refuse_without_code
    from virtualchain.model import Reorg

    if isinstance(plan, Wait):
        return plan.reason
    if isinstance(plan, Reorg):
        try:
            refuse_by_policy(connection, plan, deepest)
            if apps_with_code is not None:
                refuse_without_code(connection, plan, apps_with_code)
        except DeepFork as error:
            return str(error)
        fork = describe_fork(plan)
        return f"{fork}: the next sync or run undoes them, if its settings are those of this command"
    first = plan.blocks[0].block_id
    if pruned_below is not None and first < pruned_below:
        return (
            f"waiting for block {first}, which the node has pruned: use a node that still has it, or its "
            "files (--blocks)"
        )
    return None


def _work_fields(rates: "Json | None", metrics: "Sequence[Json]") -> dict[str, str]:
    """Describe how fast the writer was, and what it has done since it was started."""
    fields = {}
    if rates is not None:
        fields["speed"] = (
            f"{rates['blocks']:,.1f} blocks/s, {rates['ops']:,.1f} ops/s over {duration(rates['seconds'])}"
        )
    totals: dict[str, float] = {}
    for sample in metrics:
        totals[sample["name"]] = totals.get(sample["name"], 0.0) + sample["value"]
    counts = [
        counted(int(totals.get(f"virtualchain_{name}_total", 0)), thing)
        for name, thing in (
            ("blocks", "block"),
            ("ops", "op"),
            ("refusals", "rejection"),
            ("reorganizations", "rollback"),
            ("node_errors", "node error"),
        )
    ]
    if "virtualchain_blocks_total" in totals:
        fields["so far"] = ", ".join(counts)
    if totals.get("virtualchain_nodes_disagree"):
        fields["NODES"] = "they disagree about the chain: the writer's log says which, and what to do"
    return fields


def _locale_warning(locale: str | None) -> str | None:
    if locale is None:
        return None
    return (
        f"the database has another locale than C ({locale}), so its apps may differ from those of other "
        "nodes: move to a new database, as docs/operating.md explains"
    )


def _kept_fields(last: "Json | None", builds: "list[Json]") -> dict[str, str]:
    """Name the apps whose inputs the writer keeps, and that it does not apply."""
    installed = {build["app"] for build in builds}
    kept = [] if last is None else [app for app in last["apps"] if app not in installed]
    return {"keeps": f"the inputs of {', '.join(kept)}, not applied here"} if kept else {}


def _pin_fields(pins: "list[Json]") -> dict[str, str]:
    blocks = ", ".join(f"block {pin['block_id']} ({pin['hash']})" for pin in pins)
    return {"pinned": blocks} if blocks else {}


def _pruned_fields(block_id: int | None) -> dict[str, str]:
    return {} if block_id is None else {"inputs": f"pruned below block {block_id}"}


def _rollback_fields(reorg: "Json | None") -> dict[str, str]:
    if reorg is None:
        return {}
    return {
        "last rollback": f"{moment(reorg['detected_at'])}, {counted(reorg['blocks_undone'], 'block')} above "
        f"block {reorg['fork_block_id']} in {duration(reorg['duration'])} ({reorg['cause']})"
    }
