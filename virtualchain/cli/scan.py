"""The command that scans block files with many processes: scan."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from virtualchain.cli.options import BLOCK_ID, Command, Options, cores, pass_options
from virtualchain.cli.output import counted, duration, say, visible, write_json
from virtualchain.cli.progress import Ticker
from virtualchain.errors import UsageError
from virtualchain.notices import Notice

if TYPE_CHECKING:
    from virtualchain.transfer.scanning import Progress


@click.command(cls=Command)
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Where to write the tape: a new or empty folder, or that of a scan which was interrupted.",
)
@click.option(
    "--magic",
    "magics",
    multiple=True,
    metavar="MAGIC[:RULE]",
    help="Also look for this magic (hex), by the default rule or another shipped one. Can be repeated.",
)
@click.option("--from", "first", type=BLOCK_ID, metavar="BLOCK", help="Begin here. Default: the apps' first.")
@click.option("--to", "last", type=BLOCK_ID, metavar="BLOCK", help="End here. Default: the stable tip.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many processes scan at once. Default: as many as this machine has cores.",
)
@click.option("--dask", metavar="ADDRESS", help="Scan on the Dask cluster with this scheduler instead.")
@pass_options
def scan(
    options: Options,
    folder: Path,
    magics: tuple[str, ...],
    first: int | None,
    last: int | None,
    workers: int | None,
    dask: str | None,
) -> None:
    """Write the tape of block files, with many cores.

    The result is an export, which `virtualchain import` loads. It takes neither a database nor a node. Each
    of the files that --blocks names is scanned on its own, by one of several processes; the result is the
    same whatever their number. A scan that was interrupted goes on when it is started again.
    """
    from virtualchain.bitcoin.networks import network
    from virtualchain.transfer.parts import Searches
    from virtualchain.transfer.scanning import Request
    from virtualchain.transfer.scanning import scan as scan_files

    settings = options.settings
    if settings.blocks is None:
        raise UsageError("name the files to scan: --blocks PATH, bitcoind's data or blocks folder")
    if workers is not None and dask is not None:
        raise UsageError("a Dask cluster has its own workers: leave out --workers, or --dask")
    began = time.monotonic()
    done = scan_files(
        Request(
            blocks=settings.blocks.absolute(),
            folder=folder.absolute(),
            searches=Searches(tuple(app.use for app in settings.apps), magics),
            network=None if settings.network is None else network(settings.network),
            first=first,
            last=last,
            confirmations=settings.confirmations,
            verify=settings.verify or "merkle",
            senders=settings.senders,
            workers=workers or cores(),
            dask=dask,
        ),
        on_file=_Progress(),
        say=lambda message: say(Notice(message, "worker_lost")),
    )
    manifest = done.manifest
    inputs = manifest.file("inputs")
    assert manifest.first is not None, "a scan has a block"
    assert manifest.last is not None, "a scan has a block"
    assert inputs is not None, "a scan writes this file"
    if options.settings.json:
        write_json({"folder": str(folder), "manifest_sha256": done.sha256, "manifest": manifest.as_dict()})
        return
    blocks = f"blocks {manifest.first.block_id} to {manifest.last.block_id} of {manifest.network}"
    took = duration(time.monotonic() - began)
    click.echo(f"{blocks} and {counted(inputs.rows, 'input')} in {took}")
    click.echo(f"{visible(str(folder))}/manifest.json has the SHA-256 {done.sha256}")
    click.echo(f"next: virtualchain import {visible(str(folder))}, then virtualchain advance")


class _Progress:
    """Says how far the scan is: at its beginning, and every ten seconds."""

    def __init__(self) -> None:
        self._began = 0.0
        self._at_first = 0
        self._ticker = Ticker()

    def __call__(self, progress: "Progress") -> None:
        """Count a file."""
        size = f"{progress.size / 1e9:,.1f} of {progress.all_size / 1e9:,.1f} GB"
        line = f"file {progress.files:,} of {progress.all_files:,}, {size}"
        fields = {
            "files": progress.files,
            "all_files": progress.all_files,
            "bytes": progress.size,
            "all_bytes": progress.all_size,
        }
        if not self._began:
            self._began, self._at_first = time.monotonic(), progress.size
            kept = f"; an earlier scan has finished {progress.files:,} of them" if progress.files else ""
            message = (
                f"scanning {counted(progress.all_files, 'file')}, {progress.all_size / 1e9:,.1f} GB{kept}"
            )
            say(Notice(message, "progress", **fields))
            return
        rate = (progress.size - self._at_first) / max(time.monotonic() - self._began, 0.001)
        left = duration((progress.all_size - progress.size) / max(rate, 1.0))
        self._ticker(Notice(f"{line}, {rate / 1e6:,.0f} MB/s, {left} left", "progress", **fields))
