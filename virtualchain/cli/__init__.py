"""The command line: `virtualchain`, or `python -m virtualchain`.

Each module holds the commands of one subject. Commands print results and leave the work to the rooms below.
They import what they need when they run, so that help appears at once.
"""

import os
import sys

import click
from click.shell_completion import shell_complete

from virtualchain.cli import log
from virtualchain.cli.builds import compare, drop, remove, replay, swap, upgrade
from virtualchain.cli.checkpoint import checkpoint
from virtualchain.cli.completing import COMPLETE, completion
from virtualchain.cli.db import db as db_command
from virtualchain.cli.db import migrate
from virtualchain.cli.demo import demo as demo_command
from virtualchain.cli.dev import dev as dev_command
from virtualchain.cli.doctor import doctor as doctor_command
from virtualchain.cli.forks import pin, rollback, unpin
from virtualchain.cli.init import init
from virtualchain.cli.nodes import compare_nodes
from virtualchain.cli.options import Group, Options
from virtualchain.cli.preview import preview
from virtualchain.cli.process import Ending, run_guarded
from virtualchain.cli.prove import check_proof, prove
from virtualchain.cli.prune import prune
from virtualchain.cli.read import consensus, ops, sql, watch
from virtualchain.cli.rows import prove_row, state_root
from virtualchain.cli.scan import scan
from virtualchain.cli.send import send
from virtualchain.cli.serve import serve
from virtualchain.cli.status import status as status_command
from virtualchain.cli.sync import advance, resume, run
from virtualchain.cli.sync import sync as sync_command
from virtualchain.cli.transfer import export, import_
from virtualchain.cli.verify import verify as verify_command
from virtualchain.cli.webhooks import webhooks

_EPILOG = """\b
Begin with:  virtualchain init points
             virtualchain demo --serve
Read next:   README.md, docs/tutorial.md

Each option above also works after the command, as an environment variable
(such as VIRTUALCHAIN_DATABASE), and as a setting in virtualchain.toml.
"""


@click.group(cls=Group, is_root=True, invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def program(context: click.Context) -> None:
    """Run replicated state machines on Bitcoin, and keep their state in PostgreSQL."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


program.add_section("Make an app", init, dev_command, demo_command)
program.add_section("Run it", sync_command, run, status_command, doctor_command)
program.add_section("Read its state", ops, consensus, sql, watch, serve, webhooks)
program.add_section("Write inputs", preview, send)
program.add_section("When an app stops, or the chain splits", resume, rollback, pin, unpin)
program.add_section("Change an app", upgrade, replay, compare, swap, drop, remove)
program.add_section(
    "Prove, and check", prove, state_root, prove_row, check_proof, verify_command, compare_nodes
)
program.add_section("Move and trim a deployment", checkpoint, export, scan, import_, advance, prune)
program.add_section("Look after the database and the shell", migrate, db_command, completion)


def main() -> None:
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if instruction := os.environ.get(COMPLETE):
        sys.exit(shell_complete(program, {"obj": Options()}, "virtualchain", COMPLETE, instruction))
    log.set_up(sys.argv[1:], os.environ)
    options = Options()

    def work() -> None:
        with program.make_context("virtualchain", sys.argv[1:], obj=options) as context:
            program.invoke(context)

    with Ending() as ending:
        ending.exit_code = run_guarded(work, lambda: options.verbose)
    sys.exit(ending.exit_code)
