"""The commands that read the log: status, ops, consensus."""

import re
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from virtualchain.cli.failures import say
from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import opcode_text, write_fields, write_json, write_rows
from virtualchain.errors import DeepFork, NodeError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from virtualchain.bitcoin.source import Tip
    from virtualchain.engine.planner import Plan
    from virtualchain.model import Json

_STATUS = ("name", "version", "block_id", "block_hash", "consensus_hash", "state_hash")
_COLUMNS: Final[dict[tuple[str, bool], tuple[str, ...]]] = {
    ("ops", False): ("block_id", "vtxindex", "app", "opcode", "txid", "fields"),
    ("ops", True): (
        "app",
        "block_id",
        "block_hash",
        "time",
        "txindex",
        "vtxindex",
        "txid",
        "opcode",
        "payload",
        "fields",
        "canonical",
    ),
    ("rejections", False): ("block_id", "txindex", "app", "opcode", "txid", "step", "reason"),
    ("rejections", True): ("app", "block_id", "txindex", "txid", "opcode", "step", "reason"),
}
"""What is shown, by what is listed and whether it is JSON: for people less, so that lines stay short."""

_block = click.IntRange(min=0, max=2**31 - 1)


@click.command(cls=Command)
@pass_given
def status(given: Given) -> None:
    """Show where the apps and the node stand.

    The node is asked where it can be reached; all the rest is what the database says.
    """
    from virtualchain.reading import views

    with open_reading(given) as connection:
        network = views.network(connection)
        rows = views.apps(connection, chosen_apps(given, connection))
        told: dict[str, Any] = {
            "writer": views.writer(connection),
            "pins": views.pins(connection),
            "builds": views.builds(connection),
            "last_reorg": views.last_reorg(connection),
        }
        tip, waits_for = _look_ahead(given, connection, network)
    if given.settings.json:
        node = None if tip is None else {"block_id": tip.block_id, "hash": tip.hash}
        apps = [
            {
                **{key: row[key] for key in _STATUS},
                "lag": _lag(row, tip),
                "role": row["role"],
                "status": row["status"],
                "error": row["error"],
            }
            for row in rows
        ]
        found = {"network": network or given.settings.network, "tip": node, "waits_for": waits_for}
        write_json({**found, **told, "apps": apps})
        return
    write_fields(
        network or "no network yet",
        {
            "node": None if tip is None else f"block {tip.block_id} ({tip.hash})",
            "writer": told["writer"] or "none is at work",
            "waits for": None if waits_for is None else waits_for.removeprefix("waiting for "),
            **_pinned(told["pins"]),
            **_reorganised(told["last_reorg"]),
        },
    )
    for row in rows:
        _write_app(row, _lag(row, tip))


def _write_app(row: "Json", lag: int | None) -> None:
    fields = {
        "block": row["block_id"],
        "block hash": row["block_hash"],
        "lag": lag,
        "consensus hash": row["consensus_hash"],
        "state hash": row["state_hash"],
        "role": row["role"] or "the engine's own, because the database's user lacks CREATEROLE",
    }
    if row["error"] is not None:
        error = row["error"]
        fields["failed"] = f"{error['callback']} in block {error['block_id']}: {error['error']}"
        fields["transaction"] = error["txid"]
        fields["mend it, then"] = f"virtualchain resume {row['name']}"
    write_fields(f"{row['name']} {row['version']}: {row['status'].replace('_', ' ')}", fields)


def _lag(row: "Json", tip: "Tip | None") -> int | None:
    """Count the blocks between the app and the node's tip, unconfirmed ones included."""
    if tip is None:
        return None
    reached = row["first_block_id"] - 1 if row["block_id"] is None else row["block_id"]
    return max(tip.block_id - int(reached), 0)


def _look_ahead(
    given: Given, connection: "psycopg.Connection", network: str | None
) -> "tuple[Tip | None, str | None]":
    """Ask the node for its tip, and the planner what a writer would wait for now, if it would."""
    import psycopg

    from virtualchain.engine.look import make_plan
    from virtualchain.store.builds import builds
    from virtualchain.store.tape import Tape

    tip = None
    try:
        with closing(given.source(network)) as source:
            tip = source.tip()
            firsts = [row.base_block_id + 1 for row in builds(connection) if row.is_live]
            if not firsts:
                return tip, None
            plan = make_plan(
                Tape(connection),
                source,
                first_block_id=min(firsts),
                node_tip=tip.block_id,
                confirmations=given.settings.confirmations,
            )
            return tip, _waits_for(connection, plan)
    except NodeError as error:
        say(f"the node was not reached: {error}")
        return tip, f"the node: {error}"
    except UsageError as error:
        say(str(error))
        return tip, str(error)
    except psycopg.errors.InsufficientPrivilege:  # a reader, who sees no more than the views
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


def _pinned(pins: "list[Json]") -> dict[str, str]:
    told = ", ".join(f"block {pin['block_id']} ({pin['hash']})" for pin in pins)
    return {"pinned": told} if told else {}


def _reorganised(reorg: "Json | None") -> dict[str, str]:
    if reorg is None:
        return {}
    return {
        "last rollback": f"{reorg['detected_at']}, {reorg['blocks_undone']} blocks above block "
        f"{reorg['fork_block_id']} ({reorg['cause']})"
    }


@click.command(cls=Command)
@click.option("--block", type=_block, metavar="BLOCK", help="Only those of one block.")
@click.option("--from", "first", type=_block, metavar="BLOCK", help="Only those from this block on.")
@click.option("--to", "last", type=_block, metavar="BLOCK", help="Only those up to this block.")
@click.option("--opcode", metavar="BYTE", help="Only those of one opcode: a character, or two hex digits.")
@click.option("--txid", metavar="TXID", help="Only those of one transaction.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many.")
@click.option("--newest-first", is_flag=True, help="Begin at the last block.")
@click.option("--rejected", is_flag=True, help="List what was refused, at which step and why, instead.")
@pass_given
def ops(
    given: Given,
    block: int | None,
    first: int | None,
    last: int | None,
    opcode: str | None,
    txid: str | None,
    limit: int | None,
    newest_first: bool,
    rejected: bool,
) -> None:
    """List the ops that the apps accepted, in chain order.

    --app narrows the list to an app, here also by its name.
    """
    from virtualchain.reading import views

    if block is not None and (first is not None or last is not None):
        raise UsageError("give either --block, or --from and --to")
    with open_reading(given) as connection:
        selection = views.Selection(
            apps=chosen_apps(given, connection),
            first=block or first or 0,
            last=next((item for item in (block, last) if item is not None), views.HIGHEST),
            opcode=None if opcode is None else _read_opcode(opcode),
            txid=None if txid is None else _read_txid(txid),
            limit=limit,
            newest_first=newest_first,
        )
        rows = (views.rejections if rejected else views.ops)(connection, selection)
        as_json = given.settings.json
        if not as_json:
            rows = ({**row, "opcode": opcode_text(row["opcode"])} for row in rows)
        columns = _COLUMNS["rejections" if rejected else "ops", as_json]
        write_rows(columns, ([row[name] for name in columns] for row in rows), as_json=as_json)


@click.command(cls=Command)
@click.argument("block", type=_block, required=False)
@pass_given
def consensus(given: Given, block: int | None) -> None:
    """Show the apps' digests at BLOCK, or at the last block of each.

    Two nodes with the same consensus hash at a block accepted the same ops up to it; with the same state
    hash, their tables are the same, too.
    """
    from virtualchain.reading import views

    with open_reading(given) as connection:
        names = chosen_apps(given, connection)
        rows = views.digests(connection, block, names)
        apps = views.apps(connection, names)
    if block is not None and not rows:
        places = ", ".join(f"{app['name']} is at block {app['block_id']}" for app in apps)
        raise UsageError(f"no app has digests of block {block}: {places or 'there is no app yet'}")
    if given.settings.json:
        write_json({"apps": rows})
        return
    for row in rows:
        write_fields(
            f"{row['name']} at block {row['block_id']}",
            {
                "block hash": row["block_hash"],
                "ops hash": row["ops_hash"],
                "consensus hash": row["consensus_hash"],
                "state hash": row["state_hash"],
            },
        )


@contextmanager
def open_reading(given: Given) -> "Iterator[psycopg.Connection]":
    """Open a read-only transaction on the settings' database; starts an embedded server that is there."""
    from virtualchain.reading import views

    with views.snapshot(existing_database(given)) as connection:
        yield connection


def existing_database(given: Given) -> str:
    """Give the URL of the settings' database; starts an embedded server that is there, and makes none."""
    from virtualchain.store.database import resolve
    from virtualchain.store.embedded.server import EmbeddedServer

    database = given.settings.database
    if database is None and EmbeddedServer().status().address is None:
        raise StoreError(
            "there is no database yet: `virtualchain sync` with an app makes one; or give --database"
        )
    return resolve(database)


def chosen_apps(given: Given, connection: "psycopg.Connection") -> list[str] | None:
    """Give the names of the apps that --app chose on the command line, by name or module; None: all."""
    from virtualchain.reading import views

    named = given.flags.get("app")
    if not named:
        return None
    known = [row["name"] for row in views.apps(connection)]
    return [use if use in known else _name_of(use, known) for use in named]


def _name_of(use: str, known: list[str]) -> str:
    from virtualchain.app.contract import read_contract
    from virtualchain.settings import load_app

    there = f"the apps of this database are {', '.join(known)}" if known else "this database has no app yet"
    try:
        name = read_contract(load_app(use)).name
    except UsageError as error:
        raise UsageError(f"{there}, and {error}") from error
    if name not in known:
        raise UsageError(f"there is no app {name} here: {there}")
    return name


def _read_opcode(text: str) -> bytes:
    if len(text) == 1 and text.isascii():
        return text.encode()
    if re.fullmatch(r"(0x)?[0-9a-fA-F]{2}", text):
        return bytes.fromhex(text[-2:])
    raise UsageError(f"--opcode {text}: write one character, or the byte as two hex digits")


def _read_txid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise UsageError(f"--txid {text}: a transaction id has 64 hex digits")
    return text.lower()
