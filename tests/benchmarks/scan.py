"""The speed of a scan of block files, and of the import of what it writes.

    python -m tests.benchmarks.scan [--blocks 240] [--per-file 12] [--workers 1 2] [--runs 3] [--json]

The files hold blocks like mainnet's. They are read bare, as `cat` does, and scanned for a magic that a few
transactions have. A scan of one block shows what starting costs. Then everything in some of the files is an
input, and what that scan writes is imported: checked, by each number of processes, unchecked, checked row by
row as without compiled code, and as bare COPY of the same rows into a table with the same indexes. Rates are
medians, and ratios the medians of the runs' ratios.

At the end stands what 640 GB would take with 16 and 64 workers, as arithmetic: the index of a million blocks,
then the bytes divided by the workers' rates. Nothing of that was measured.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final
from unittest.mock import patch

import psycopg
from rich.table import Table

from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from tests.unit.bitcoin.files.writing import frame, undo_bytes
from virtualchain.bitcoin import compiled
from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.header import sha256d
from virtualchain.bitcoin.networks import network
from virtualchain.testing.blocks import genesis_block
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.mainnet_like import mainnet_like
from virtualchain.testing.undo import read_undo
from virtualchain.transfer.importing import import_tape
from virtualchain.transfer.parts import Searches
from virtualchain.transfer.scanning import Request, scan

CHAIN_BYTES: Final = 640e9
CHAIN_BLOCKS: Final = 1_000_000
"""Bitcoin's chain at the end of 2026, about."""
_MANY: Final = (16, 64)
_EVERYTHING = """
from virtualchain import App

app = App("everything", magic=b"zz", payload_rule=lambda outputs: b"zz!")
app.add(b"!", parse=lambda payload: {})
"""
_COPY_OUT = "COPY vc.inputs TO STDOUT (FORMAT binary)"
_COPY_IN = "COPY public.bare FROM STDIN (FORMAT binary)"


@dataclass(frozen=True)
class Result:
    """What was measured; times are medians in seconds."""

    blocks: int
    bytes: int
    bare: float
    """Reading all files."""
    index: float
    """Reading all headers, and choosing the chain."""
    start: float
    """A scan of one block."""
    scans: dict[int, float]
    """By the number of workers."""
    ratios: dict[int, float]
    """Of the rates, a scan's to that of reading bare."""
    rows: int
    copy: float
    checked: dict[int, float]
    """By the number of processes."""
    unchecked: float
    by_row: float
    """Checked by as many processes as there are, without compiled code."""

    @property
    def rate(self) -> float:
        """Bytes a second that one worker scans."""
        return self.bytes / max(self.scans[1] - self.start, 1e-9)

    def estimate(self, workers: int) -> float:
        """Compute the seconds for mainnet: the index, and then the workers, at this rate each."""
        return self.index / self.blocks * CHAIN_BLOCKS + CHAIN_BYTES / (self.rate * workers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure a scan of block files.")
    parser.add_argument("--blocks", type=int, default=240, help="full blocks (default: 240)")
    parser.add_argument("--per-file", type=int, default=12, help="blocks in each file (default: 12)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes (default: 1 2)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    workers = sorted({1, *options.workers})
    with tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-") as folder:
        write_files(Path(folder) / "blocks", options.blocks, options.per_file)
        with temporary_server() as server:
            result = measure(Path(folder), server, workers, options.runs)
    report(asdict(result), table(result), as_json=options.json)


def write_files(folder: Path, blocks: int, per_file: int) -> None:
    """Write the files of a node whose chain has so many full blocks."""
    folder.mkdir()
    regtest = network("regtest")

    def each() -> Iterator[tuple[bytes, bytes | None]]:
        yield genesis_block(regtest), None
        for block in mainnet_like(blocks):
            yield block.raw, undo_bytes(read_undo(block.undo)[1:])

    remaining, number = each(), 0
    while few := list(islice(remaining, per_file)):
        (folder / f"blk{number:05}.dat").write_bytes(b"".join(frame(regtest, raw) for raw, _ in few))
        records = (frame(regtest, data) + sha256d(raw[4:36] + data) for raw, data in few if data is not None)
        (folder / f"rev{number:05}.dat").write_bytes(b"".join(records))
        number += 1


def measure(folder: Path, server: DatabaseServer, workers: Sequence[int], runs: int) -> Result:
    """Measure everything in turn, several times."""
    blocks, number = folder / "blocks", iter(range(10**6))
    (folder / "everything.py").write_text(_EVERYTHING)
    magic, everything = Searches(magics=("6964",)), Searches((f"{folder}/everything.py",))

    def scanned(searches: Searches, count: int, last: int | None = None) -> Path:
        out = folder / f"out{next(number)}"
        scan(Request(blocks, out, searches, last=last, workers=count, confirmations=0))
        return out

    rounds: list[dict[str, float]] = []
    for _ in range(runs):
        times = {"bare": _timed(lambda: _read(blocks)), "index": _timed(lambda: open_blocks(blocks).close())}
        times["start"] = _timed(lambda: scanned(magic, 1, 0))
        for count in workers:
            times[f"scan {count}"] = _timed(partial(scanned, magic, count))
        rounds.append(times)
    tip = open_blocks(blocks).tip().block_id
    export = scanned(everything, max(workers), min(tip, 30))
    imports = [_imports(server, export, workers, folder / "rows") for _ in range(runs)]

    def median(name: str) -> float:
        return statistics.median(each[name] for each in rounds)

    return Result(
        blocks=tip + 1,
        bytes=sum(path.stat().st_size for path in blocks.glob("blk*.dat")),
        bare=median("bare"),
        index=median("index"),
        start=median("start"),
        scans={count: median(f"scan {count}") for count in workers},
        ratios={
            count: statistics.median(each["bare"] / each[f"scan {count}"] for each in rounds)
            for count in workers
        },
        rows=imports[0][0],
        copy=statistics.median(times["copy"] for _, times in imports),
        checked={
            count: statistics.median(times[f"checked {count}"] for _, times in imports) for count in workers
        },
        unchecked=statistics.median(times["unchecked"] for _, times in imports),
        by_row=statistics.median(times["by row"] for _, times in imports),
    )


def _imports(
    server: DatabaseServer, export: Path, workers: Sequence[int], file: Path
) -> tuple[int, dict[str, float]]:
    """Import an export in all ways, and copy its rows: their number, and the times."""
    times: dict[str, float] = {}

    def timed(name: str, count: int, *, is_checked: bool = True) -> str:
        url = server.clone()
        times[name] = _timed(partial(import_tape, url, export, workers=count, is_checked=is_checked))
        return url

    for count in workers:
        server.drop(timed(f"checked {count}", count))
    with patch.object(compiled, "check_rows", None):
        server.drop(timed("by row", max(workers)))
    url = timed("unchecked", 1, is_checked=False)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with file.open("wb") as target, cursor.copy(_COPY_OUT) as copy:
            target.writelines(copy)
        rows = cursor.rowcount
        cursor.execute("CREATE TABLE public.bare (LIKE vc.inputs INCLUDING ALL)")

        def copy_in() -> None:
            with file.open("rb") as source, cursor.copy(_COPY_IN) as copy:
                while data := source.read(1 << 20):
                    copy.write(data)

        times["copy"] = _timed(copy_in)
    server.drop(url)
    return rows, times


def _read(folder: Path) -> None:
    """Read all block files and the undo data."""
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while file.read(1 << 20):
                pass


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def table(result: Result) -> Table:
    """Format the results."""
    grid = Table("", "seconds", "rate", "to bare")
    grid.columns[1].justify = grid.columns[2].justify = grid.columns[3].justify = "right"
    size = result.bytes / 1e6
    grid.add_row("read the files bare", f"{result.bare:.2f}", f"{size / result.bare:,.0f} MB/s", "1")
    grid.add_row("index", f"{result.index:.2f}", f"{result.blocks / result.index:,.0f} blocks/s", "")
    grid.add_row("start (a scan of one block)", f"{result.start:.2f}", "", "")
    for count, seconds in result.scans.items():
        rate, ratio = f"{size / seconds:,.0f} MB/s", f"{result.ratios[count]:.3f}"
        grid.add_row(f"scan, {count} workers", f"{seconds:.2f}", rate, ratio)
    for name, seconds in (
        (f"COPY of {result.rows} rows", result.copy),
        *((f"import --workers {count}", seconds) for count, seconds in result.checked.items()),
        ("import --unchecked", result.unchecked),
        ("import, without compiled code", result.by_row),
    ):
        rate, ratio = f"{result.rows / seconds:,.0f} rows/s", f"{result.copy / seconds:.3f}"
        grid.add_row(name, f"{seconds:.2f}", rate, ratio)
    for count in _MANY:
        seconds = result.estimate(count)
        grid.add_row(f"640 GB, {count} workers (arithmetic)", f"{seconds:,.0f}", "", "")
    return grid


if __name__ == "__main__":
    main()
