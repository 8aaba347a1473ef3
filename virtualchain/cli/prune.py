"""The command `prune`: free what the tape keeps of old inputs."""

import click

from virtualchain.cli.options import BLOCK_ID, Command, Options, pass_options
from virtualchain.cli.output import counted, write_json
from virtualchain.cli.process import Signals
from virtualchain.cli.session import migrated_deployment
from virtualchain.errors import UsageError


@click.command(cls=Command)
@click.option(
    "--before", type=BLOCK_ID, metavar="BLOCK", help="Prune the inputs of all blocks below this one."
)
@click.option(
    "--keep", type=BLOCK_ID, metavar="BLOCKS", help="Prune all but those of the last BLOCKS blocks."
)
@click.option("--dry-run", is_flag=True, help="Only say how much that would free.")
@pass_options
def prune(options: Options, before: int | None, keep: int | None, dry_run: bool) -> None:
    """Free the raw transactions of old inputs.

    No app needs them, unless it is derived again.

    Blocks, ops, rejections, digests, tables and their history stay. A writer may run meanwhile. Below that
    block, apps cannot be derived again before the node's blocks were searched again, and the tape cannot be
    exported.
    """
    from virtualchain.engine.prune import prune as prune_inputs

    if (before is None) == (keep is None):
        raise UsageError("name either --before BLOCK or --keep BLOCKS")
    url = migrated_deployment(options)
    with Signals() as signals:
        signals.work_in_steps()
        done = prune_inputs(url, before=before, keep=keep, dry_run=dry_run, may_continue=signals.may_continue)
    if options.settings.json:
        write_json(
            {
                "before": done.before,
                "inputs": done.inputs,
                "bytes": done.size,
                "dry_run": dry_run,
                "complete": done.is_complete,
            }
        )
        return
    inputs = f"{counted(done.inputs, 'input')} below block {done.before}"
    if dry_run:
        click.echo(f"{inputs} would be pruned, which frees {done.size:,} bytes in the tables")
    elif done.is_complete:
        click.echo(
            f"{inputs} pruned, which frees {done.size:,} bytes in the tables, for new rows; "
            "VACUUM FULL vc.inputs gives them back to the disk, and stops the writer meanwhile"
        )
    else:
        click.echo(f"interrupted: {inputs} pruned; run it again to continue")
