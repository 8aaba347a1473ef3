"""The command `status`: the apps, the writer, the node, and what a sync would wait for."""

from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import say, visible, write_fields, write_json
from virtualchain.cli.session import chosen_apps, open_reading
from virtualchain.errors import DeepFork, NodeError, UsageError

if TYPE_CHECKING:
    import psycopg

    from virtualchain.bitcoin.source import Tip
    from virtualchain.engine.planner import Plan
    from virtualchain.model import Json

_APP_KEYS = ("name", "version", "block_id", "block_hash", "consensus_hash", "state_hash")


@click.command(cls=Command)
@pass_options
def status(options: Options) -> None:
    """Show the state of the apps, the writer and the node.

    If the node cannot be reached, everything else is still shown, from the database.
    """
    from virtualchain.reading import views
    from virtualchain.store.builds import code_warning
    from virtualchain.store.database import other_locale

    with open_reading(options) as connection:
        network = views.network(connection)
        rows = views.apps(connection, chosen_apps(options, connection))
        deployment: dict[str, Any] = {
            "writer": views.writer(connection),
            "pins": views.pins(connection),
            "builds": views.builds(connection),
            "last_reorg": views.last_reorg(connection),
            "locale": _locale_warning(other_locale(connection)),
        }
        tip, waits_for = _look_ahead(options, connection, network)
    warnings = [code_warning(row["name"], row["version"]) for row in rows if row["code_changed"]]
    if options.settings.json:
        node = None if tip is None else {"block_id": tip.block_id, "hash": tip.hash}
        apps = [
            {
                **{key: row[key] for key in _APP_KEYS},
                "lag": _lag(row, tip),
                "role": row["role"],
                "status": row["status"],
                "error": row["error"],
            }
            for row in rows
        ]
        chain = {"network": network or options.settings.network, "tip": node, "waits_for": waits_for}
        write_json({**chain, **deployment, "warnings": warnings, "apps": apps})
        return
    for warning in warnings:
        say(warning)
    write_fields(
        network or "no network yet",
        {
            "node": None if tip is None else f"block {tip.block_id} ({tip.hash})",
            "writer": deployment["writer"] or "none is running",
            "waits for": None if waits_for is None else waits_for.removeprefix("waiting for "),
            **_pin_fields(deployment["pins"]),
            **_rollback_fields(deployment["last_reorg"]),
            **({"locale": deployment["locale"]} if deployment["locale"] else {}),
        },
    )
    for row in rows:
        _write_app(row, _lag(row, tip))
        if options.settings.verbose and row["error"] is not None:
            for line in row["error"]["traceback"].splitlines():
                click.echo(f"  {visible(line)}")


def _write_app(row: "Json", lag: int | None) -> None:
    from virtualchain.engine.halting import op_of, place_of

    fields = {
        "block": row["block_id"],
        "block hash": row["block_hash"],
        "lag": lag,
        "consensus hash": row["consensus_hash"],
        "state hash": row["state_hash"],
        "role": row["role"] or "the engine's own, because the database's user does not have CREATEROLE",
    }
    if row["error"] is not None:
        error = row["error"]
        fields["failed"] = f"{error['callback']} in block {error['block_id']}: {error['error']}"
        fields["in the code"] = place_of(error)
        fields["transaction"] = error["txid"]
        fields["op"] = op_of(error)
        fields["fix it, then"] = f"virtualchain resume {row['name']}"
    write_fields(f"{row['name']} {row['version']}: {row['status'].replace('_', ' ')}", fields)


def _lag(row: "Json", tip: "Tip | None") -> int | None:
    """Count the blocks between the app and the node's tip, including unconfirmed ones."""
    if tip is None:
        return None
    reached = row["first_block_id"] - 1 if row["block_id"] is None else row["block_id"]
    return max(tip.block_id - int(reached), 0)


def _look_ahead(
    options: Options, connection: "psycopg.Connection", network: str | None
) -> "tuple[Tip | None, str | None]":
    """Ask the node for its tip, and the planner what a writer would now wait for, if anything."""
    import psycopg

    from virtualchain.engine.look import Look
    from virtualchain.store.builds import builds
    from virtualchain.store.tape import Tape

    tip = None
    try:
        with closing(options.source(network)) as source:
            tip = source.tip()
            firsts = [row.base_block_id + 1 for row in builds(connection) if row.is_live]
            if not firsts:
                return tip, None
            look = Look(source, options.settings.confirmations)
            plan = look.plan(Tape(connection), first_block_id=min(firsts), node_tip=tip.block_id)
            return tip, _waits_for(connection, plan)
    except NodeError as error:
        say(f"the node was not reached: {error}")
        return tip, f"the node: {error}"
    except UsageError as error:
        say(str(error))
        return tip, str(error)
    except psycopg.errors.InsufficientPrivilege:  # the user is a reader, who sees only the views
        return tip, None


def _waits_for(connection: "psycopg.Connection", plan: "Plan") -> str | None:
    from virtualchain.engine.planner import Wait
    from virtualchain.engine.rollback import describe_fork, refuse_by_policy
    from virtualchain.model import Reorg

    if isinstance(plan, Wait):
        return plan.reason
    if isinstance(plan, Reorg):
        try:
            refuse_by_policy(connection, plan)
        except DeepFork as error:
            return str(error)
        return f"{describe_fork(plan)}: the next sync or run undoes them"
    return None


def _locale_warning(locale: str | None) -> str | None:
    if locale is None:
        return None
    return (
        f"the database has another locale than C ({locale}), so its apps may differ from those of other "
        "nodes: move to a new database, as docs/operating.md explains"
    )


def _pin_fields(pins: "list[Json]") -> dict[str, str]:
    blocks = ", ".join(f"block {pin['block_id']} ({pin['hash']})" for pin in pins)
    return {"pinned": blocks} if blocks else {}


def _rollback_fields(reorg: "Json | None") -> dict[str, str]:
    if reorg is None:
        return {}
    return {
        "last rollback": f"{reorg['detected_at']}, {reorg['blocks_undone']} blocks above block "
        f"{reorg['fork_block_id']} ({reorg['cause']})"
    }
