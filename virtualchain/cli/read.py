"""The commands that read a deployment: ops, consensus, sql, watch."""

import os
import re
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from virtualchain.cli.options import BLOCK_ID, Command, Options, pass_options, sign_option
from virtualchain.cli.output import (
    counted,
    say,
    visible,
    write_fields,
    write_json,
    write_json_line,
    write_rows,
)
from virtualchain.cli.process import Signals
from virtualchain.cli.session import chosen_apps, open_reading
from virtualchain.errors import StoreError, UsageError
from virtualchain.reading.json_text import json_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from virtualchain.reading.events import BlockEvent, Change, PendingEvent

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
        "payload_index",
    ),
    ("rejections", False): ("block_id", "txindex", "app", "opcode", "txid", "step", "reason"),
    ("rejections", True): (
        "app",
        "block_id",
        "txindex",
        "txid",
        "opcode",
        "step",
        "reason",
        "payload_index",
    ),
}
"""The columns shown, by what is listed and whether it is JSON; people get fewer, so that lines stay short."""
_QUERY_TIMEOUT: Final = 60.0
"""Seconds that a query may take without --timeout."""


# ops and consensus


@click.command(cls=Command)
@click.option("--block", type=BLOCK_ID, metavar="BLOCK", help="Only ops of this block.")
@click.option("--from", "first", type=BLOCK_ID, metavar="BLOCK", help="Only ops from this block on.")
@click.option("--to", "last", type=BLOCK_ID, metavar="BLOCK", help="Only ops up to this block.")
@click.option(
    "--opcode",
    metavar="BYTE",
    help="Only ops with this opcode: a character, or two hex digits; none: without one; spend: without a "
    "payload, too.",
)
@click.option("--txid", metavar="TXID", help="Only ops of this transaction.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N ops.")
@click.option("--newest-first", is_flag=True, help="Start with the last block.")
@click.option("--rejected", is_flag=True, help="List rejections instead, with the step and the reason.")
@pass_options
def ops(
    options: Options,
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

    --app limits the list to an app; here it also accepts the app's name.
    """
    from virtualchain.app.fields import NO_PAYLOAD, opcode_text
    from virtualchain.reading import views

    if block is not None and (first is not None or last is not None):
        raise UsageError("use either --block, or --from and --to")
    with open_reading(options) as connection:
        selection = views.Selection(
            apps=chosen_apps(options, connection),
            first=block or first or 0,
            last=next((item for item in (block, last) if item is not None), views.HIGHEST),
            opcode=None if opcode is None else _parse_opcode(opcode),
            only_spends=opcode == NO_PAYLOAD,
            txid=None if txid is None else _parse_txid(txid),
            limit=limit,
            newest_first=newest_first,
        )
        rows = (views.rejections if rejected else views.ops)(connection, selection)
        as_json = options.settings.json
        if not as_json:
            rows = ({**row, "opcode": opcode_text(row["opcode"], row.get("payload", b""))} for row in rows)
        columns = _COLUMNS["rejections" if rejected else "ops", as_json]
        write_rows(columns, ([row[name] for name in columns] for row in rows), as_json=as_json)


def _parse_opcode(text: str) -> bytes:
    from virtualchain.app.fields import NO_OPCODE, NO_PAYLOAD

    if text in {NO_OPCODE, NO_PAYLOAD}:
        return b""
    if len(text) == 1 and text.isascii():
        return text.encode()
    if re.fullmatch(r"(0x)?[0-9a-fA-F]{2}", text):
        return bytes.fromhex(text[-2:])
    raise UsageError(
        f"--opcode {text}: write one character, or the byte as two hex digits; or none, or spend"
    )


def _parse_txid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise UsageError(f"--txid {text}: a transaction id has 64 hex digits")
    return text.lower()


@click.command(cls=Command)
@click.argument("block", type=BLOCK_ID, required=False)
@sign_option("Print JSON, signed")
@pass_options
def consensus(options: Options, block: int | None, keys: tuple[Path, ...]) -> None:
    """Show the apps' digests at BLOCK, or at their last blocks.

    Two nodes with the same consensus hash at a block accepted the same ops up to it. If they also have the
    same state hash, their tables are the same. Another node can expect what --json prints
    (--expect).
    """
    from virtualchain.reading import views

    with open_reading(options) as connection:
        names = chosen_apps(options, connection)
        rows = views.digests(connection, block, names)
        apps = views.apps(connection, names)
    if block is not None and not rows:
        places = ", ".join(f"{app['name']} is at block {app['block_id']}" for app in apps)
        raise UsageError(f"no app has digests of block {block}: {places or 'there is no app yet'}")
    if keys:
        from virtualchain.checkpoint.expected import signed_list

        write_json(signed_list(rows, keys))
        return
    if options.settings.json:
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


# sql


@click.command(cls=Command)
@click.argument("query", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
@click.option(
    "--as-of", metavar="BLOCK", help="Show all tables and views as of this block: a height or a hash."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=1_000_000),
    metavar="SECONDS",
    help="Cancel a query that takes longer; 0 means no limit. Default: 60, and 0 in psql.",
)
@click.option(
    "--own-rights",
    is_flag=True,
    help="Run with all rights of the URL's user, even a superuser's, and not as a reader.",
)
@pass_options
def sql(
    options: Options,
    query: str | None,
    as_csv: bool,
    as_of: str | None,
    timeout: float | None,
    own_rights: bool,
) -> None:
    """Run one read-only SQL statement, or open psql.

    QUERY is the statement; with -, it is read from standard input. Without QUERY, psql opens on the database,
    also read only. Unqualified names refer to the apps' tables, then to the views of schema virtualchain:
    blocks, inputs, ops, rejections, snapshots, apps, changes. If a reader of all apps was granted, the
    statement runs with its rights; a superuser is refused, whom nothing keeps from the server's files.
    """
    from virtualchain.reading import views

    if query is None:
        _check_prompt(options, as_csv=as_csv)
        _open_prompt(options, as_of, timeout, own_rights=own_rights)
    as_json = options.settings.json and not as_csv
    statement = sys.stdin.read() if query == "-" else query
    if not statement.strip():
        raise UsageError('there is no statement: pass one, as in virtualchain sql "SELECT * FROM blocks"')
    with open_reading(options) as connection:
        limit = _QUERY_TIMEOUT if timeout is None else timeout or None
        role = None if own_rights else _reader(connection)
        columns, rows = views.query(connection, statement, as_of=as_of, timeout=limit, role=role)
        if columns or as_json:
            write_rows(columns, rows, as_json=as_json, as_csv=as_csv)


def _reader(connection: "psycopg.Connection") -> str | None:
    """Return the reader to run as, if there is one; raise UsageError for a user who can do more than SQL."""
    from virtualchain.reading import views

    power = views.powers(connection)
    if power is not None:
        raise UsageError(
            f"the database URL's user {power}, and a read-only transaction is no protection against that: "
            "use another user's URL, such as a reader's (`virtualchain db grant-reader ROLE --login`), or "
            "--own-rights"
        )
    return views.reader(connection)


def _check_prompt(options: Options, *, as_csv: bool) -> None:
    """Reject a prompt that nobody would see, or an output format that psql does not have."""
    if options.settings.json or as_csv:
        raise UsageError("--json and --csv need a statement: pass it as QUERY, or - to read standard input")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "there is no terminal for a prompt: pass a statement as QUERY, or - to read standard input"
        )


def _open_prompt(options: Options, as_of: str | None, timeout: float | None, *, own_rights: bool) -> NoReturn:
    """Replace this process with psql on the deployment's database."""
    from virtualchain.reading import views

    program = find_psql()
    with open_reading(options) as connection:  # reports what is wrong with the database, before psql would
        role = None if own_rights else _reader(connection)
        path = views.search_path(connection)
    settings = {"search_path": path, "virtualchain.as_of": as_of or ""}
    if role is not None:
        settings["role"] = role
    if timeout is not None:
        settings["statement_timeout"] = str(int(timeout * 1000))
    environment = psql_environment(options.database, settings)
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and psql would inherit that
    os.execve(program, [program], {**os.environ, **environment})  # noqa: S606 - psql, from PATH


def find_psql() -> str:
    """Return the path of psql: the system's, or else the one that comes with the embedded server."""
    from virtualchain.store.embedded.installation import find_binaries

    if path := shutil.which("psql"):
        return path
    with suppress(UsageError, StoreError):
        program = find_binaries(None, None) / "psql"
        if program.is_file():
            return str(program)
    raise UsageError(
        "psql is not installed: install PostgreSQL's client, or use another client with the URL of "
        "--database; `virtualchain db url` prints the URL of the embedded server"
    )


def psql_environment(url: str, settings: "Mapping[str, str]") -> dict[str, str]:
    """Return the environment variables that connect psql to a database, read only, with these settings.

    The environment is used because every user of the machine can read a command line, and the URL may hold a
    password. Parameters without a variable, such as keepalives, are left out.
    """
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict

    parameters = {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    all_settings = {"default_transaction_read_only": "on", **settings}
    # In libpq's options, a space ends an argument.
    escaped = (
        f"{name}={value}".replace("\\", "\\\\").replace(" ", "\\ ") for name, value in all_settings.items()
    )
    users_own = parameters.get("options") or os.environ.get("PGOPTIONS") or ""
    parameters["options"] = " ".join([users_own, *(f"-c {item}" for item in escaped)]).strip()
    variables = {
        option.keyword.decode(): option.envvar.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar
    }
    return {variables[key]: value for key, value in parameters.items() if key in variables}


# watch


@click.command(cls=Command)
@click.option(
    "--from",
    "first",
    type=BLOCK_ID,
    metavar="BLOCK",
    help="Start with this block. Default: the next new block.",
)
@click.option(
    "--after",
    metavar="POSITION",
    help="Continue after this position, as an event has it; if its block was undone, with the rollback.",
)
@click.option("--pending", is_flag=True, help="Print pending inputs, too, if a writer runs with --pending.")
@pass_options
def watch(options: Options, first: int | None, after: str | None, pending: bool) -> None:
    """Print blocks and their changes as the apps process them.

    Rollbacks are printed, too. --app limits this to some apps, here also by name: a block is printed once
    all of these have processed it. Ctrl-C and SIGTERM end the command. With --json, each block and each
    rollback is one object on its own line, and so is each change of what is pending.
    """
    from virtualchain.reading.event_json import event_json
    from virtualchain.reading.events import PendingEvent, RollbackEvent
    from virtualchain.reading.position import Position
    from virtualchain.reading.watch import watch as follow

    if first is not None and after is not None:
        raise UsageError("use either --from, a block to begin with, or --after, a position to continue after")
    position = None if after is None else Position.parse(after)

    with open_reading(options) as connection:
        names = chosen_apps(options, connection)
    with (
        Signals() as signals,
        follow(options.database, names, first, after=position, pending=pending, on_wait=say) as events,
    ):
        signals.stop = events.close
        for event in events:
            if options.settings.json:
                write_json_line(event_json(event))
            elif isinstance(event, RollbackEvent):
                click.secho(
                    f"rolled back to block {event.block_id} {event.block_hash or ''}".rstrip(), bold=True
                )
            elif isinstance(event, PendingEvent):
                _write_pending(event)
            else:
                _write_block(event)


def _write_block(event: "BlockEvent") -> None:
    from virtualchain.app.fields import opcode_text

    counts = f"{counted(len(event.ops), 'op')}, {counted(len(event.changes), 'change')}"
    click.secho(f"block {event.block_id} {event.block_hash}: {counts}", bold=True)
    for op in event.ops:
        opcode = opcode_text(op.opcode, op.payload)
        click.echo(f"  {op.app} op {opcode} {op.txid} {_short(op.fields)}")
    for change in event.changes:
        start = f"  {change.app} {change.action} {change.table} {_short(change.key)}"
        click.echo(f"{start} {_changed_columns(change)}".rstrip())


def _write_pending(event: "PendingEvent") -> None:
    from virtualchain.app.fields import opcode_text

    for item in event.inputs:
        place = "unconfirmed" if item.block_id is None else f"in block {item.block_id}"
        opcode = "" if item.opcode is None else f" {opcode_text(item.opcode, item.payload)}"
        step = "" if item.step is None else f" at {item.step}"
        outcome = item.verdict if item.reason is None else f"{item.verdict}{step}: {item.reason}"
        click.echo(visible(f"pending {item.app}{opcode} {item.txid} ({place}): {outcome}"))
    for item in event.gone:
        click.echo(f"no longer pending {item.app} {item.txid}")


def _changed_columns(change: "Change") -> str:
    """Write the columns of a new row, or those of an updated row that have another value than before."""
    if change.new is None:
        return ""
    old = change.old or {}
    columns = {
        name: value
        for name, value in change.new.items()
        # By their texts, because the values 1.0 and 1.00 are equal.
        if name not in change.key and (change.old is None or _short(old.get(name)) != _short(value))
    }
    if change.old is None:
        return _short(columns)
    return ", ".join(f"{name}: {_short(old.get(name))} -> {_short(value)}" for name, value in columns.items())


def _short(value: object) -> str:
    """Write a value as JSON on one line, with control characters escaped."""
    return visible(json_text(value, ensure_ascii=False))
