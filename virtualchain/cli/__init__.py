"""The command line: `virtualchain`, or `python -m virtualchain`.

Each module has the commands of one kind. They print, and leave the work to the rooms below; what those need
is imported when a command runs, so that help comes at once.
"""

import sys

import click

from virtualchain.cli import db, demo, query, read, sync
from virtualchain.cli.failures import guarded
from virtualchain.cli.options import EXAMPLE, Given, Group

_EPILOG = f"""\b
Try:  virtualchain demo
      virtualchain {EXAMPLE} --bitcoin http://127.0.0.1:8332 sync

Every option above may also stand behind the command, be an environment variable (VIRTUALCHAIN_DATABASE), or
be written into virtualchain.toml.
"""


@click.group(cls=Group, whole=True, invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def program(context: click.Context) -> None:
    """Run replicated state machines on Bitcoin, and keep their state in PostgreSQL."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (
    demo.demo,
    sync.sync,
    sync.run,
    read.status,
    read.ops,
    read.consensus,
    query.sql,
    sync.resume,
    sync.migrate,
    db.db,
):
    program.add_command(_command)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    given = Given()

    def work() -> None:
        with program.make_context("virtualchain", sys.argv[1:], obj=given) as context:
            program.invoke(context)

    sys.exit(guarded(work, lambda: given.verbose))
