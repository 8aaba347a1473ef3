"""The operator's commands for forks: rollback, pin, unpin."""

import re
from typing import Final

import click

from virtualchain.cli.options import BLOCK_ID, Command, Options, pass_options
from virtualchain.cli.output import counted, say, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.progress import Reporter
from virtualchain.cli.session import open_beside_writer, open_deployment, open_reading
from virtualchain.errors import UsageError

_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


@click.command(cls=Command)
@click.argument("block", type=BLOCK_ID, metavar="BLOCK")
@pass_options
def rollback(options: Options, block: int) -> None:
    """Undo every block above BLOCK, for all apps.

    The next sync or run continues from there with the node's blocks. If an app's history does not reach back
    to BLOCK, its tables are rebuilt from the tape; for this, the app must be named with --app or in
    virtualchain.toml.
    """
    from virtualchain.engine.options import Listener
    from virtualchain.engine.rollback import operators_reorg, roll_back

    with Signals() as signals, Reporter() as reporter, open_deployment(options, signals) as deployment:
        reorg = operators_reorg(deployment.tape, block)
        listener = Listener(
            on_catch_up=reporter.catching_up, on_wait=reporter.waiting, may_continue=signals.may_continue
        )
        undone = roll_back(deployment, reorg, listener)
    if undone is None:
        say("interrupted, and nothing was undone: run it again to continue")
    elif options.settings.json:
        write_json({"block_id": block, "blocks": undone.blocks, "ops": undone.ops, "rows": undone.rows})
    else:
        click.echo(
            f"back at block {block}; undone: {counted(undone.blocks, 'block')}, "
            f"{counted(undone.ops, 'op')}, {counted(undone.rows, 'row')}"
        )


@click.command(cls=Command)
@click.argument("block", type=BLOCK_ID, metavar="BLOCK")
@click.argument("block_hash", metavar="HASH")
@pass_options
def pin(options: Options, block: int, block_hash: str) -> None:
    """Follow only chains whose block at height BLOCK is HASH.

    If the node is on another chain, the engine waits for it to switch. If the tape holds another block at
    this height, the engine leaves its branch as soon as the node follows a chain with the pinned block,
    whichever branch has more work.
    """
    from virtualchain.store.tape import Tape

    if not _HASH.fullmatch(block_hash):
        raise UsageError(f"{block_hash} is not a block hash, which has 64 hex digits")
    with open_beside_writer(options) as connection:
        Tape(connection).pin(block, block_hash.lower())
    _write_pins(options, block, f"from now on, the chain must contain block {block} ({block_hash.lower()})")


@click.command(cls=Command)
@click.argument("block", type=BLOCK_ID, metavar="BLOCK")
@pass_options
def unpin(options: Options, block: int) -> None:
    """Follow any chain again, whatever its block at height BLOCK."""
    from virtualchain.store.tape import Tape

    with open_beside_writer(options) as connection:
        if not Tape(connection).unpin(block):
            pins = ", ".join(map(str, Tape(connection).pins())) or "none"
            raise UsageError(f"block {block} is not pinned; pinned blocks: {pins}")
    _write_pins(options, block, f"block {block} is no longer pinned")


def _write_pins(options: Options, block: int, message: str) -> None:
    """Print the pins as JSON, or a message."""
    if not options.settings.json:
        click.echo(message)
        return
    from virtualchain.reading import views

    with open_reading(options) as connection:
        write_json({"block_id": block, "pins": views.pins(connection)})
