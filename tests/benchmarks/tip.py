"""How long a new block takes from the node's announcement to rows that a reader sees.

    python -m tests.benchmarks.tip [--blocks 200] [--full-blocks 40] [--chain FOLDER] [--json]

A follower runs in a process of its own, as `virtualchain run` does, with an app that stores a row for each
op, and commits that wait for the disk. Blocks come one by one to a real node: small ones with one op, mined
by the node, and full ones like mainnet's, submitted to it. The clock starts when the node has announced the
block to another listener (`waitfornewblock`) or the call that made it returns, whichever is first, and ends
when a query in another session sees the block. Blocks come over REST, over JSON-RPC alone, and, to show the
difference, with announcements over ZMQ. Each block comes once the follower waits again. The bound, `bare`,
takes the same way without the engine: long poll, block over REST, one row, commit.

Generating a full block takes half a second, so `--full-blocks` are submitted to fresh nodes until there are
`--blocks`. `--chain FOLDER` uses a chain that `shared/tools/genchain.py --out FOLDER` wrote before. It needs
a real bitcoind, in `BITCOIND` or on PATH.
"""

import argparse
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
from rich.console import Console
from rich.table import Table

from tests.acceptance.accept_all import MAGIC, builder
from tests.benchmarks.environment import temporary_server
from tests.support.generated import GeneratedChain, generate, read
from virtualchain import StateEngine
from virtualchain.bitcoin.node.node import open_source
from virtualchain.testing.bitcoind import Bitcoind, find_bitcoind
from virtualchain.testing.database import DatabaseServer

WAYS: Final = ("bare", "REST", "RPC", "REST, ZMQ")
_ROW: Final = {
    False: "SELECT FROM vc.blocks WHERE block_id = %s",
    True: "SELECT FROM public.taken WHERE block_id = %s",
}
"""What the reader asks, by whether the follower is the bare one."""
_LOOK: Final = 0.0002
"""Seconds between two looks of the reader."""
_SETTLE: Final = 0.02
"""Seconds between two blocks, in which the follower comes to wait again."""
_PATIENCE: Final = 60.0


@dataclass(frozen=True)
class Result:
    """Milliseconds from the announcement to the rows."""

    way: str
    kind: str
    blocks: int
    median: float
    p99: float
    worst: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure how soon a new block is in the database.")
    parser.add_argument("--blocks", type=int, default=200, help="blocks of each kind (default: 200)")
    parser.add_argument("--full-blocks", type=int, default=40, help="full blocks to generate (default: 40)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="how blocks come (default: all)"
    )
    parser.add_argument("--chain", type=Path, help="a folder with the generator's output")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--follow", nargs=3, metavar=("NODE", "WAY", "DATABASE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.follow:
        follow(*options.follow)
        return
    with temporary_server() as server, tempfile.TemporaryDirectory() as folder:
        chain = (
            read(options.chain)
            if options.chain
            else generate(Path(folder), full=options.full_blocks, small=0)
        )
        results = measure(server, chain, options.blocks, options.ways)
    if options.json:
        print(json.dumps([asdict(result) for result in results]))  # noqa: T201 - a program's output
    else:
        Console().print(table(results))


def measure(
    server: DatabaseServer, chain: GeneratedChain, blocks: int, ways: Sequence[str] = WAYS
) -> list[Result]:
    """Measure small and full blocks on each way."""
    results = []
    for way in ways:
        for kind, round_of in (("small", _small_blocks), ("full", _full_blocks)):
            times: list[float] = []
            while len(times) < blocks:
                times += round_of(server, chain, way, blocks - len(times))
            results.append(_result(way, kind, times))
    return results


def table(results: Sequence[Result]) -> Table:
    """Format the results, one a line."""
    grid = Table("way", "blocks", "median", "99th percentile", "worst")
    for result in results:
        times = (f"{value:,.1f} ms" for value in (result.median, result.p99, result.worst))
        grid.add_row(result.way, f"{result.blocks} {result.kind}", *times)
    for column in grid.columns[2:]:
        column.justify = "right"
    return grid


def _result(way: str, kind: str, times: Sequence[float]) -> Result:
    ordered = sorted(1000 * seconds for seconds in times)
    at = min(len(ordered) - 1, round(0.99 * len(ordered)))
    return Result(way, kind, len(ordered), statistics.median(ordered), ordered[at], ordered[-1])


def _small_blocks(server: DatabaseServer, _chain: GeneratedChain, way: str, most: int) -> Iterator[float]:
    with _node() as (node, publisher):
        node.send(MAGIC + b"!warm")
        node.mine()

        def mine() -> None:
            node.rpc("generatetoaddress", 1, address)

        address = node.rpc("getnewaddress", wallet=node.rpc("listwallets")[0])
        with _follower(server, node, way, publisher) as wait_for:
            height = node.rpc("getblockcount")
            wait_for(height)
            for block_id in range(height + 1, height + 1 + most):
                node.send(MAGIC + b"!%d" % block_id)
                yield _time(node, mine, lambda block_id=block_id: wait_for(block_id))  # type: ignore[misc]


def _full_blocks(server: DatabaseServer, chain: GeneratedChain, way: str, most: int) -> Iterator[float]:
    first = next(row[0] for row in chain.index if row[5] == "full")
    with _node() as (node, publisher):
        for block_id in range(1, first):
            node.rpc("submitblock", chain.raw(block_id).hex())
        with _follower(server, node, way, publisher) as wait_for:
            wait_for(first - 1)
            for block_id in range(first, min(first + most, chain.tip + 1)):
                text = chain.raw(block_id).hex()
                yield _time(
                    node,
                    lambda text=text: node.rpc("submitblock", text),  # type: ignore[misc]
                    lambda block_id=block_id: wait_for(block_id),  # type: ignore[misc]
                )


def _time(node: Bitcoind, make_block: Callable[[], object], wait: Callable[[], float]) -> float:
    """Return the seconds from the announcement of the block that is made to its rows."""
    time.sleep(_SETTLE)
    announced: list[float] = []

    def listen() -> None:
        node.rpc("waitfornewblock", 60_000, before)
        announced.append(time.perf_counter())

    def make() -> None:
        make_block()
        announced.append(time.perf_counter())

    before = node.rpc("getbestblockhash")
    listener = threading.Thread(target=listen)
    listener.start()
    maker = threading.Thread(target=make)
    maker.start()
    seen = wait()
    listener.join()
    maker.join()
    return seen - min(announced)


@contextmanager
def _node() -> Iterator[tuple[Bitcoind, str]]:
    """Run a node; its publisher's address comes with it."""
    program = find_bitcoind()
    assert program is not None, "this benchmark needs bitcoind: set BITCOIND to its path, or put it on PATH"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        publisher = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    # A node whose tip is old believes that it is still syncing, and publishes nothing.
    node = Bitcoind(program, f"-zmqpubhashblock={publisher}", "-maxtipage=999999999")
    try:
        yield node, publisher
    finally:
        node.stop()


@contextmanager
def _follower(
    server: DatabaseServer, node: Bitcoind, way: str, publisher: str
) -> Iterator[Callable[[int], float]]:
    """Follow the node; yields what waits for a block's rows and returns when a reader sees them."""
    url = server.clone()
    command = [sys.executable, "-m", "tests.benchmarks.tip", "--follow"]
    command += [node.url, f"{way} {publisher}" if way == "REST, ZMQ" else way, url]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as process,
        psycopg.connect(url, autocommit=True) as reader,
    ):
        assert process.stdin is not None
        reader.execute("CREATE TABLE public.taken (block_id integer PRIMARY KEY, hash bytea)")
        query = _ROW[way == "bare"]

        def wait_for(block_id: int) -> float:
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                if reader.execute(query, [block_id], prepare=True).fetchone() is not None:
                    return time.perf_counter()
                time.sleep(_LOOK)
            raise TimeoutError(f"block {block_id} was not taken in {_PATIENCE:.0f} s")

        yield wait_for
        process.stdin.close()
    server.drop(url)


def follow(node: str, way: str, database: str) -> None:
    """Follow the node until standard input ends."""
    if way == "bare":
        _follow_bare(node, database)
        return
    name, _, publisher = way.partition(" tcp://")
    zmq = f"tcp://{publisher}" if publisher else None
    app = copy(builder)  # which other users of this process have, too
    app.first_block_id = 1
    source = open_source(node, rest=name != "RPC", zmq=zmq)
    with StateEngine(app, database=database, source=source, confirmations=0) as engine:

        def stop() -> None:
            sys.stdin.read()
            engine.stop()

        threading.Thread(target=stop, daemon=True).start()
        engine.follow()


def _follow_bare(node: str, database: str) -> None:
    """Take each tip of the node as a row, with nothing of the engine."""

    def stop() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=stop, daemon=True).start()
    url = urlsplit(node)
    assert url.hostname is not None
    login = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
    polls, blocks = (HTTPConnection(url.hostname, url.port) for _ in range(2))
    tip = ""
    with psycopg.connect(database, autocommit=True) as connection:
        while True:
            parameters = [60_000, tip] if tip else [1]
            body = json.dumps({"id": 0, "method": "waitfornewblock", "params": parameters})
            polls.request("POST", "/", body, {"Authorization": f"Basic {login}"})
            answer = json.loads(polls.getresponse().read())["result"]
            if answer["hash"] != tip:
                tip = answer["hash"]
                blocks.request("GET", f"/rest/block/{tip}.bin")
                blocks.getresponse().read()
                row = [answer["height"], bytes.fromhex(tip)]
                connection.execute("INSERT INTO public.taken VALUES (%s, %s)", row, prepare=True)


if __name__ == "__main__":
    main()
