"""How many requests a second the server answers, and what that costs a writer on the same machine.

    python -m tests.benchmarks.web [--blocks 6000] [--rate 500] [--seconds 2] [--json]

While an engine syncs blocks of one op each, at most `--rate` requests a second come over four connections
that are kept, for another block, or another row, each time; and in turns no requests come. The cost is how
many blocks a second fewer the engine takes in between. Each of node, database, engine and server is a process
of its own. Afterwards, without the engine, as many requests come as are answered: for other blocks and rows
each time, and for the same, as JSON and as pages.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from rich.console import Console
from rich.table import Table

from tests.benchmarks.environment import Chain, single_ops, temporary_server
from virtualchain import App, State, StateEngine

_CONNECTIONS: Final = 4
_TURNS: Final = 4
"""How often the engine is measured without requests, and with them."""

app = App(
    "served",
    magic=b"mv",
    projections="CREATE TABLE seen (block_id integer PRIMARY KEY, txid text NOT NULL, payload text);",
)


def commit(op: dict[str, Any], state: State, block_id: int, txid: str) -> None:
    """Insert a row."""
    state.execute("INSERT INTO seen VALUES (%s, %s, %s)", [block_id, txid, op["payload"]])


app.add(b"o", parse=lambda payload: {"payload": payload.hex()}, commit=commit)


@dataclass(frozen=True)
class Load:
    """What was asked for, and how it was answered; times are milliseconds."""

    kind: str
    requests_per_second: float
    median: float
    slowest_percent: float


@dataclass(frozen=True)
class Report:
    """Blocks a second without and with requests, those requests, and the server alone."""

    quiet: float
    loaded: float
    while_indexing: list[Load]
    alone: list[Load]

    @property
    def slowdown(self) -> float:
        """By which part the writer was slower."""
        return 1 - self.loaded / self.quiet


def main(arguments: list[str] | None = None) -> Report | None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description="Measure the server.")
    parser.add_argument("--blocks", type=int, default=6000)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument(
        "--pages",
        type=int,
        help="how many different ones are asked for beside the engine; default: as many as there are blocks",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="the time of each measurement")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write:
        _write(*options.write)
        return None
    with temporary_server() as server, single_ops(options.blocks) as chain:
        url = server.clone()
        report = _measure(url, chain, options)
    if options.json:
        print(json.dumps({**asdict(report), "slowdown": report.slowdown}, indent=2))  # noqa: T201 - the result
    else:
        _show(report)
    return report


def _write(database: str, node: str) -> None:
    with StateEngine(app, database=database, source=node, confirmations=0) as engine:
        engine.build()


def _measure(url: str, chain: Chain, options: argparse.Namespace) -> Report:
    known = chain.first + options.blocks // 4
    with StateEngine(app, database=url, source=chain.url, confirmations=0) as engine:
        engine.build(known)
    quiet: list[float] = []
    loaded: list[float] = []
    loads = []
    with _serving(url) as base:
        asyncio.run(_ask(base, _different("api/v1/blocks/{}", chain.first, known), 0.5, None, "warm"))
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.web", "--write", url, chain.url],
            stdout=subprocess.DEVNULL,
        )
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                _await_block(connection, known + 1)
                for turn in range(2 * _TURNS):
                    begun, block = time.perf_counter(), _last_block(connection)
                    if turn % 2 == 0:
                        time.sleep(options.seconds)
                    else:
                        path = ("blocks/{}", "apps/served/tables/seen/row?block_id={}")[turn // 2 % 2]
                        last = known if options.pages is None else chain.first + options.pages - 1
                        paths = _different(path, chain.first, last)
                        kind = "blocks" if turn // 2 % 2 == 0 else "rows"
                        loads.append(asyncio.run(_ask(base, paths, options.seconds, options.rate, kind)))
                    if writer.poll() is not None:
                        break
                    blocks = _last_block(connection) - block
                    (loaded if turn % 2 else quiet).append(blocks / (time.perf_counter() - begun))
            if not loaded:
                raise SystemExit("the engine was done too soon: use more --blocks, or fewer --seconds")
            writer.wait()
        finally:
            writer.kill()
        alone = [
            asyncio.run(_ask(base, paths, options.seconds, None, kind))
            for kind, paths in (
                ("other blocks, JSON", _different("api/v1/blocks/{}", chain.first, chain.last)),
                ("same block, JSON", _different("api/v1/blocks/{}", known, known)),
                (
                    "other rows, JSON",
                    _different("api/v1/apps/served/seen?block_id=eq.{}", chain.first, chain.last),
                ),
                ("same row, JSON", _different("api/v1/apps/served/seen?block_id=eq.{}", known, known)),
                ("other blocks, page", _different("blocks/{}", chain.first, chain.last)),
                ("same block, page", _different("blocks/{}", known, known)),
                (
                    "other rows, page",
                    _different("apps/served/tables/seen/row?block_id={}", chain.first, chain.last),
                ),
                ("same row, page", _different("apps/served/tables/seen/row?block_id={}", known, known)),
            )
        ]
    return Report(statistics.median(quiet), statistics.median(loaded), loads, alone)


def _last_block(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT max(block_id) FROM vc.blocks").fetchone()
    assert row is not None
    return int(row[0])


def _await_block(connection: psycopg.Connection, block_id: int) -> None:
    while _last_block(connection) < block_id:
        time.sleep(0.01)


@contextmanager
def _serving(url: str) -> Iterator[str]:
    """Run the command `serve`, and yield where it answers."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "virtualchain", "--database", url, "--json"),
            *("serve", "--port", "0", "--rate-limit", "none"),
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()


def _different(path: str, first: int, last: int) -> Callable[[], str]:
    """Return a function whose paths name each number in turn, in an order that no cache foresees."""
    numbers = count()
    span = last - first + 1
    return lambda: "/" + path.format(first + next(numbers) * 7919 % span)


async def _ask(base: str, path: Callable[[], str], seconds: float, rate: int | None, kind: str) -> Load:
    """Ask for some time, at a rate or as fast as there are answers."""
    place = urlsplit(base)
    times: list[float] = []
    begun = time.perf_counter()
    places = count()

    async def client() -> None:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        while True:
            due = begun + (next(places) / rate if rate else 0)
            if due - begun > seconds or time.perf_counter() - begun > seconds:
                break
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            asked = time.perf_counter()
            writer.write(f"GET {path()} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"an answer is not 200: {head!r}")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            times.append(time.perf_counter() - asked)
        writer.close()

    await asyncio.gather(*(client() for _ in range(_CONNECTIONS)))
    lasted = time.perf_counter() - begun
    cuts = statistics.quantiles(times, n=100)
    return Load(kind, len(times) / lasted, 1000 * statistics.median(times), 1000 * cuts[98])


def _show(report: Report) -> None:
    console = Console()
    console.print(
        f"the engine: {report.quiet:.0f} blocks/s without requests, {report.loaded:.0f} with them "
        f"({report.slowdown:.0%} slower)"
    )
    table = Table("requests", "a second", "median, ms", "99th of 100, ms")
    for load in (*report.while_indexing, *report.alone):
        cells = (f"{load.requests_per_second:.0f}", f"{load.median:.1f}", f"{load.slowest_percent:.1f}")
        table.add_row(load.kind, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
