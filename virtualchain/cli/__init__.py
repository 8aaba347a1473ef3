"""The command line: `virtualchain`, or `python -m virtualchain`.

Each module has the commands of one kind. They print, and leave the work to the rooms below; what those need
is imported when a command runs, so that help comes at once.
"""

import os
import sys
from typing import Final

import click
from click.shell_completion import shell_complete

from virtualchain.cli.checkpoint import checkpoint
from virtualchain.cli.db import db as db_command
from virtualchain.cli.demo import demo as demo_command
from virtualchain.cli.failures import guarded
from virtualchain.cli.live import watch
from virtualchain.cli.options import EXAMPLE, Given, Group
from virtualchain.cli.query import sql
from virtualchain.cli.read import consensus, ops, status
from virtualchain.cli.recover import pin, replay, rollback, unpin
from virtualchain.cli.sync import advance, migrate, resume, run
from virtualchain.cli.sync import sync as sync_command
from virtualchain.cli.transfer import export, import_
from virtualchain.cli.versions import compare, drop, remove, swap

_EPILOG = f"""\b
Try:  virtualchain demo
      virtualchain {EXAMPLE} --bitcoin http://127.0.0.1:8332 sync

Every option above may also stand behind the command, be an environment variable (VIRTUALCHAIN_DATABASE), or
be written into virtualchain.toml.
"""

_COMPLETE: Final = "_VIRTUALCHAIN_COMPLETE"
"""The variable by which a shell asks for its script, or for what a word could become."""


@click.group(cls=Group, whole=True, invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def program(context: click.Context) -> None:
    """Run replicated state machines on Bitcoin, and keep their state in PostgreSQL."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (
    demo_command,
    sync_command,
    run,
    status,
    ops,
    consensus,
    sql,
    watch,
    export,
    import_,
    advance,
    resume,
    rollback,
    pin,
    unpin,
    replay,
    compare,
    swap,
    drop,
    remove,
    checkpoint,
    migrate,
    db_command,
):
    program.add_command(_command)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if asked := os.environ.get(_COMPLETE):
        sys.exit(shell_complete(program, {"obj": Given()}, "virtualchain", _COMPLETE, asked))
    given = Given()

    def work() -> None:
        with program.make_context("virtualchain", sys.argv[1:], obj=given) as context:
            program.invoke(context)

    sys.exit(guarded(work, lambda: given.verbose))
