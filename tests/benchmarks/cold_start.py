"""A cold start: how long it takes from a checkpoint's URL to an app that is live, beside a bare COPY.

    python -m tests.benchmarks.cold_start [--rows 1000000] [--runs 3] [--folder FOLDER] [--json]

A checkpoint of so many rows of 100 bytes is made without a chain, and served from a folder by a web server.
`checkpoint apply URL` then downloads, verifies, loads and reads back all of it, on an empty database of a
temporary server. The bound is to read the file and COPY the rows into such a table. Memory is the most that
the command and its processes had together, without the database server.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.table import Table as Shown

from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain import App
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.networks import network
from virtualchain.checkpoint import archive, publication
from virtualchain.checkpoint.create import _opened, _write
from virtualchain.checkpoint.digests import ConsensusSeries, computed_root
from virtualchain.checkpoint.manifest import NAME, SNAPSHOTS, Manifest, Table
from virtualchain.checkpoint.publication import Entry
from virtualchain.checkpoint.rows import RowDigest, digest_batch
from virtualchain.checkpoint.verify import manifest_of
from virtualchain.consensus.state_hash import digest_number
from virtualchain.crew import Crew
from virtualchain.testing.database import DatabaseServer

FIRST: Final = 100
BLOCKS: Final = range(FIRST, FIRST + 1000)
TABLE: Final = Table("names", ("name", "owner", "value"), ("name",), "projections/1.names")
TABLES: Final = "CREATE TABLE names (name text PRIMARY KEY, owner text NOT NULL, value integer NOT NULL);"
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What was measured; times are medians in seconds."""

    rows: int
    bytes: int
    apply: float
    bound: float
    """Seconds to read the rows and COPY them."""
    ratio: float
    memory: float
    """Megabytes."""


app = App("names", magic=b"nm", first_block_id=FIRST, projections=TABLES)
app.add(b"s", parse=lambda payload: {"text": payload.decode()}, commit=lambda op, state: None)


def lines(rows: int) -> Iterator[bytes]:
    """Yield rows as COPY writes them, a thousand at a time."""
    for first in range(0, rows, 1000):
        yield b"".join(
            b"name%09d\t%s0123456789\t%d\t%d\n"
            % (n, sha256(b"%d" % n).hexdigest().encode(), n * 7 % 1_000_003, BLOCKS[n % len(BLOCKS)])
            for n in range(first, min(first + 1000, rows))
        )


def make(file: Path, rows: int) -> None:
    """Write a checkpoint of so many rows."""
    contract = read_contract(app).on("regtest")
    with Crew(digest_batch, 3) as crew:
        table = RowDigest(BLOCKS, crew.in_order)
        table.add(TABLE, lines(rows))
    state_hash = digest_number(table.number)
    series, digests = ConsensusSeries(FIRST), list[bytes]()
    for block_id in BLOCKS:
        ops_hash = sha256(b"%d" % block_id).hexdigest()
        consensus_hash = series.compute(ops_hash)
        series.append(consensus_hash)
        last = state_hash if block_id == BLOCKS[-1] else r"\N"
        digests.append(f"{block_id}\t{ops_hash}\t{consensus_hash}\t{last}\n".encode())
    with archive.writing(file) as writer:
        members = {SNAPSHOTS: _write(writer, SNAPSHOTS, digests, in_chunks=True)}
        with _opened(writer, TABLE.member, in_chunks=True) as output:
            for piece in lines(rows):
                output.write_lines(piece)
        members[TABLE.member] = output.content(rows)
        manifest = Manifest(
            app=contract.name,
            version=contract.version,
            fingerprint=contract.fingerprint(),
            network="regtest",
            genesis_hash=network("regtest").genesis_hash,
            block_id=BLOCKS[-1],
            block_hash=sha256(b"block").hexdigest(),
            consensus_hash=consensus_hash,
            state_hash=state_hash,
            state_root=None,
            first_block_id=FIRST,
            members=members,
            tables=(TABLE,),
        )
        manifest = replace(manifest, state_root=computed_root(manifest, table.tables))
        _write(writer, NAME, [manifest.to_bytes()])


def publish(file: Path, folder: Path) -> None:
    """Divide a checkpoint into the files that a web server serves."""
    for name in ("chunks", "manifests"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with archive.reading(file) as reader:
        manifest = manifest_of(reader)
        for name in manifest.ordered_members:
            offset = 0
            for chunk in manifest.members[name].chunks or ():
                path = folder / publication.chunk_path(chunk.sha256)
                path.write_bytes(reader.stretch(name, offset, chunk.size))
                offset += chunk.size
    content = manifest.to_bytes()
    (folder / publication.manifest_path(sha256(content).hexdigest())).write_bytes(content)
    (folder / publication.INDEX).write_bytes(publication.write_index([Entry.of(manifest)]))


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: Any) -> None:
        """Do not log requests."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


def cold_start(server: DatabaseServer, url: str, cache: Path) -> tuple[float, float]:
    """Apply what is published there to a new database; return seconds, and megabytes of memory."""
    database = server.create()
    command = [sys.executable, "-m", "virtualchain", "--app", "tests.benchmarks.cold_start:app"]
    command += ["--database", database, "checkpoint", "apply", url]
    began = time.perf_counter()
    with subprocess.Popen(
        command, cwd=_ROOT, env={**os.environ, "XDG_CACHE_HOME": str(cache)}, stdout=subprocess.DEVNULL
    ) as process:
        most = 0.0
        while process.poll() is None:
            most = max(most, memory_of(process.pid))
            time.sleep(0.1)
    seconds = time.perf_counter() - began
    assert process.returncode == 0
    server.drop(database)
    return seconds, most


def memory_of(pid: int) -> float:
    """Return the megabytes that a process and its children have for themselves, on Linux."""
    total = 0
    for each in (pid, *children(pid)):
        with suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text(encoding="ascii")
            total += sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+)", text, re.MULTILINE))
    return total / 1000


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def bare_copy(server: DatabaseServer, file: Path) -> float:
    """Return the seconds to read the rows of a checkpoint and COPY them."""
    database = server.create()
    with psycopg.connect(database) as connection:
        connection.execute(TABLES.replace(");", ", since_block integer NOT NULL);").encode())
        began = time.perf_counter()
        with archive.reading(file) as reader, connection.cursor().copy("COPY names FROM STDIN") as copy:
            for piece in reader.whole_lines(TABLE.member):
                copy.write(piece)
        connection.commit()
        seconds = time.perf_counter() - began
    server.drop(database)
    return seconds


def measure(server: DatabaseServer, rows: int, runs: int, folder: Path) -> Result:
    """Make a checkpoint, and apply it beside the bound several times."""
    file, site = folder / "file", folder / "site"
    make(file, rows)
    publish(file, site)
    measured = []
    with serving(site) as url:
        for _ in range(runs):
            bound = bare_copy(server, file)
            measured.append((*cold_start(server, url, folder / "cache"), bound))
    return Result(
        rows,
        file.stat().st_size,
        apply=statistics.median(seconds for seconds, _, _ in measured),
        bound=statistics.median(bound for _, _, bound in measured),
        ratio=statistics.median(bound / seconds for seconds, _, bound in measured),
        memory=max(memory for _, memory, _ in measured),
    )


def shown(result: Result) -> Shown:
    """Show the result."""
    table = Shown(title=f"a checkpoint of {result.rows:,} rows, {result.bytes / 1e6:,.0f} MB")
    for column in ("", "seconds", "MB/s", "ratio", "memory, MB"):
        table.add_column(column, justify="right" if column else "left")
    for name, seconds, ratio, memory in (
        ("checkpoint apply URL", result.apply, f"{result.ratio:.2f}", f"{result.memory:,.0f}"),
        ("bare COPY", result.bound, "1", ""),
    ):
        table.add_row(name, f"{seconds:.1f}", f"{result.bytes / 1e6 / seconds:,.0f}", ratio, memory)
    return table


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cold_start", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files go, by default a temporary folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-", dir=options.folder) as folder,
        temporary_server() as server,
    ):
        result = measure(server, options.rows, options.runs, Path(folder))
    report(asdict(result), shown(result), as_json=options.json)


if __name__ == "__main__":
    main()
