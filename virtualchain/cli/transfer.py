"""The commands that carry a deployment from one database to another: export and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.failures import say, visible
from virtualchain.cli.options import Command, Given, pass_given
from virtualchain.cli.output import write_json
from virtualchain.cli.progress import Reporter, counted
from virtualchain.cli.read import existing_database
from virtualchain.errors import WriterBusy

if TYPE_CHECKING:
    from virtualchain.model import Block, Json
    from virtualchain.transfer.files import Format
    from virtualchain.transfer.importing import Imported
    from virtualchain.transfer.manifest import File

_block = click.IntRange(min=0, max=2**31 - 1)
_NAME_WIDTH: Final = 28


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv"]),
    default="parquet",
    help="What the files are. Default: parquet.",
)
@click.option(
    "--what",
    multiple=True,
    metavar="NAME",
    help="tape, ops, rejections, snapshots, SCHEMA.VIEW or all; may be given several times. "
    "Default: tape and ops.",
)
@click.option("--from", "first", type=_block, metavar="BLOCK", help="Only what is of this block on.")
@click.option("--to", "last", type=_block, metavar="BLOCK", help="Only what is of blocks up to this one.")
@pass_given
def export(
    given: Given, folder: Path, form: "Format", what: tuple[str, ...], first: int | None, last: int | None
) -> None:
    """Write the tape, the ops and any view to files, with a manifest of their digests.

    FOLDER must be new or empty. All files show one moment, while others go on writing. `virtualchain import`
    takes the tape back in elsewhere. --from and --to narrow tape, ops, rejections and snapshots.
    """
    from virtualchain.transfer.exporting import export as write
    from virtualchain.transfer.tables import DEFAULT

    def on_file(file: "File") -> None:
        if not given.settings.json:
            rows = counted(file.rows, "row")
            click.echo(f"{visible(file.name).ljust(_NAME_WIDTH)}  {rows}, {counted(file.size, 'byte')}")

    done = write(
        existing_database(given),
        folder,
        form=form,
        what=what or DEFAULT,
        first=first,
        last=last,
        on_file=on_file,
    )
    if given.settings.json:
        write_json(
            {"folder": str(folder), "manifest_sha256": done.sha256, "manifest": done.manifest.as_dict()}
        )
        return
    ends = done.manifest.first, done.manifest.last
    blocks = f"blocks {ends[0].block_id} to {ends[1].block_id}" if ends[0] and ends[1] else "no block yet"
    click.echo(f"{blocks}; {visible(str(folder))}/manifest.json has the SHA-256 {done.sha256}")


@click.command("import", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--wait", is_flag=True, help="Wait while another process writes, instead of giving up.")
@pass_given
def import_(given: Given, folder: Path, wait: bool) -> None:
    """Take the tape of an export into the database, which may be empty.

    FOLDER is what `virtualchain export` made. Every file is checked first; blocks that are there are skipped.
    It is there whole or not at all, and can be repeated. Then `virtualchain advance` lets apps follow.
    """
    from virtualchain.engine.options import Progress
    from virtualchain.store.database import resolve
    from virtualchain.transfer.importing import import_tape

    url = resolve(given.settings.database)
    with Reporter() as reporter:

        def on_block(block: "Block", inputs: int, last: int) -> None:
            reporter.block(Progress(block, inputs, last))

        try:
            done = import_tape(url, folder, on_block=on_block)
        except WriterBusy:
            if not wait:
                raise
            say("another writer is at work on this database: waiting for it to end")
            done = import_tape(url, folder, wait=True, on_block=on_block)
    if given.settings.json:
        write_json(_told(done))
        return
    if done.first is None:
        click.echo("the export holds no block")
        return
    news = f"{counted(done.blocks, 'block')} and {counted(done.inputs, 'input')} were new"
    click.echo(f"blocks {done.first} to {done.last} of {done.network} are on the tape: {news}")


def _told(done: "Imported") -> "Json":
    return {
        "network": done.network,
        "first": done.first,
        "last": done.last,
        "blocks": done.blocks,
        "inputs": done.inputs,
    }
