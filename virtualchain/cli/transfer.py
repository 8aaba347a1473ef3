"""The commands that move a deployment from one database to another: export and import."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from virtualchain.cli.options import BLOCK_ID, Command, Options, cores, pass_options, wait_option
from virtualchain.cli.output import counted, visible, write_json
from virtualchain.cli.progress import Reporter
from virtualchain.cli.session import existing_database

if TYPE_CHECKING:
    from virtualchain.model import Block
    from virtualchain.transfer.files import Format
    from virtualchain.transfer.manifest import File

_NAME_WIDTH: Final = 28


@click.command(cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv"]),
    default="parquet",
    help="The format of the files. Default: parquet.",
)
@click.option(
    "--what",
    multiple=True,
    metavar="NAME",
    help="What to export: tape, ops, rejections, snapshots, SCHEMA.VIEW or all. Can be repeated. "
    "Default: tape and ops.",
)
@click.option("--from", "first", type=BLOCK_ID, metavar="BLOCK", help="Only data from this block on.")
@click.option("--to", "last", type=BLOCK_ID, metavar="BLOCK", help="Only data up to this block.")
@pass_options
def export(
    options: Options, folder: Path, form: "Format", what: tuple[str, ...], first: int | None, last: int | None
) -> None:
    """Write the tape, the ops and any view to files.

    FOLDER must be new or empty. A manifest in it lists the files with their digests. All files show the
    database at one moment, even while a writer runs. `virtualchain import` loads the tape into another
    database. --from and --to apply to tape, ops, rejections and snapshots.
    """
    from virtualchain.transfer.exporting import export as export_files
    from virtualchain.transfer.tables import DEFAULT

    def on_file(file: "File") -> None:
        if not options.settings.json:
            rows = counted(file.rows, "row")
            click.echo(f"{visible(file.name).ljust(_NAME_WIDTH)}  {rows}, {counted(file.size, 'byte')}")

    done = export_files(
        existing_database(options),
        folder,
        form=form,
        what=what or DEFAULT,
        first=first,
        last=last,
        on_file=on_file,
    )
    if options.settings.json:
        write_json(
            {"folder": str(folder), "manifest_sha256": done.sha256, "manifest": done.manifest.as_dict()}
        )
        return
    ends = done.manifest.first, done.manifest.last
    blocks = f"blocks {ends[0].block_id} to {ends[1].block_id}" if ends[0] and ends[1] else "no block yet"
    click.echo(f"{blocks}; {visible(str(folder))}/manifest.json has the SHA-256 {done.sha256}")


@click.command("import", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many processes check rows of rare forms. Default: one for each core; one with --unchecked.",
)
@click.option(
    "--unchecked",
    is_flag=True,
    help="Take the inputs as they are, which spares time for rare forms: for files that you made yourself.",
)
@wait_option
@pass_options
def import_(options: Options, folder: Path, workers: int | None, unchecked: bool, wait: bool) -> None:
    """Load the tape of an export into the database.

    FOLDER is an export made by `virtualchain export` or `virtualchain scan`. The database may be empty;
    blocks that it already has are skipped. Every file is verified first, and the import happens completely or
    not at all. It can be repeated. Afterwards, `virtualchain advance` lets the apps process the tape.
    """
    from virtualchain.engine.options import Progress
    from virtualchain.transfer.importing import import_tape

    url = options.database
    with Reporter() as reporter:

        def on_block(block: "Block", inputs: int, last: int) -> None:
            reporter.block(Progress(block, inputs, last))

        done = import_tape(
            url,
            folder,
            wait=wait,
            workers=workers or (1 if unchecked else cores()),
            is_checked=not unchecked,
            on_block=on_block,
        )
    if options.settings.json:
        write_json(
            {
                "network": done.network,
                "first": done.first,
                "last": done.last,
                "blocks": done.blocks,
                "inputs": done.inputs,
            }
        )
        return
    if done.first is None:
        click.echo("the export holds no block")
        return
    added = f"{counted(done.blocks, 'block')} and {counted(done.inputs, 'input')} were new"
    click.echo(f"blocks {done.first} to {done.last} of {done.network} are on the tape: {added}")
