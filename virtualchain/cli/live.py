"""The command `watch`: what the deployment does, as it does it."""

from typing import TYPE_CHECKING, Any

import click

from virtualchain.cli.failures import say, visible
from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import opcode_text, write_json_line
from virtualchain.cli.progress import counted
from virtualchain.cli.read import chosen_apps, open_reading
from virtualchain.cli.signals import Signals

if TYPE_CHECKING:
    from virtualchain.model import Json
    from virtualchain.reading.events import BlockEvent, Change, RollbackEvent


@click.command(cls=Command)
@click.option(
    "--from",
    "first",
    type=click.IntRange(min=0, max=2**31 - 1),
    metavar="BLOCK",
    help="Begin with this block. Default: the next one that comes.",
)
@pass_given
def watch(given: Given, first: int | None) -> None:
    """Print each block as the apps take it, what it did, and rollbacks.

    --app narrows this to apps, here also by their names: a block comes once all of them have taken it. Ends
    on Ctrl-C and SIGTERM. With --json each block and rollback is an object on a line of its own.
    """
    from virtualchain.reading.events import RollbackEvent
    from virtualchain.reading.watch import watch as follow
    from virtualchain.store.database import resolve

    with open_reading(given) as connection:
        names = chosen_apps(given, connection)
    with (
        Signals() as signals,
        follow(resolve(given.settings.database), names, first, on_wait=say) as events,
    ):
        signals.stop = events.close
        for event in events:
            if given.settings.json:
                write_json_line(_as_json(event))
            elif isinstance(event, RollbackEvent):
                click.secho(
                    f"rolled back to block {event.block_id} {event.block_hash or ''}".rstrip(), bold=True
                )
            else:
                _write_block(event)


def _as_json(event: "BlockEvent | RollbackEvent") -> "Json":
    from virtualchain.reading.events import RollbackEvent

    if isinstance(event, RollbackEvent):
        return {"event": "rollback", "block_id": event.block_id, "block_hash": event.block_hash}
    return {
        "event": "block",
        "block_id": event.block_id,
        "block_hash": event.block_hash,
        "time": event.time.isoformat(),
        "ops": [_fields(op) for op in event.ops],
        "changes": [_fields(change) for change in event.changes],
    }


def _fields(value: Any) -> "Json":  # noqa: ANN401 - any of our frozen values
    from dataclasses import fields

    return {field.name: getattr(value, field.name) for field in fields(value)}


def _write_block(event: "BlockEvent") -> None:
    told = f"{counted(len(event.ops), 'op')}, {counted(len(event.changes), 'change')}"
    click.secho(f"block {event.block_id} {event.block_hash}: {told}", bold=True)
    for op in event.ops:
        click.echo(f"  {op.app} op {opcode_text(op.opcode)} {op.txid} {_short(op.fields)}")
    for change in event.changes:
        click.echo(
            f"  {change.app} {change.action} {change.table} {_short(change.key)} {_told(change)}".rstrip()
        )


def _told(change: "Change") -> str:
    """Say what a change came to: the columns that are new, or those that are others than before."""
    if change.new is None:
        return ""
    old = change.old or {}
    others = {
        name: value
        for name, value in change.new.items()
        if name not in change.key and (change.old is None or old.get(name) != value)
    }
    if change.old is None:
        return _short(others)
    return ", ".join(f"{name}: {_short(old.get(name))} -> {_short(value)}" for name, value in others.items())


def _short(value: object) -> str:
    """Write a value as JSON for people."""
    import json

    return visible(json.dumps(value, ensure_ascii=False, default=str))
