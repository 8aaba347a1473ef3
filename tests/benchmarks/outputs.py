"""What tracking outputs costs: an app that follows them beside the same app with payloads only.

    python -m tests.benchmarks.outputs [--tracked 10000 1000000] [--blocks 10] [--transactions 3000] [--json]

The blocks are like mainnet's: of their transactions a third carries a runestone and spends a tracked output,
a tenth spends one without a payload, all others spend what nobody tracks. Both apps write one row for each
runestone, with `state.table`. The one that tracks outputs also deletes the rows of what is spent, and moves
them with transactions that have no payload. Blocks come from memory, and are checked, scanned and taken.

Before the first block the tracked set has as many rows as `--tracked` says. Every measurement is a process of
its own. The table shows medians of the runs' rates, and ratios.
"""

import argparse
import hashlib
import json
import resource
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
from rich.table import Table

from tests.benchmarks.apply import cpu_of
from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain import App, State
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.header import HEADER_SIZE, read_header
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.payload import runestone
from virtualchain.bitcoin.prefetch import fetch
from virtualchain.bitcoin.source import Offline
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Options
from virtualchain.model import Block, SpentOutput, SpentOutputs
from virtualchain.testing.blocks import genesis_block, make_block
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.wire import serialize_output

_KEY: Final = b"\x02" + bytes(31) + b"\x01"
_SCRIPT: Final = b"\x00\x14" + hash160(_KEY)
_STEP: Final = 7919
"""The preloaded outputs are spent in this stride, so that they lie anywhere in the index."""
_PROJECTIONS: Final = """
    CREATE TABLE held (txid text, vout integer, amount bigint NOT NULL, PRIMARY KEY (txid, vout));
"""
_PRELOAD: Final = """
    INSERT INTO outputs__1.held (txid, vout, amount, since_block)
    SELECT encode(sha256(int8send(n)), 'hex'), 1, n, 0 FROM generate_series(0::bigint, %s - 1) AS n
"""


@dataclass(frozen=True)
class Result:
    """The medians at one size of the tracked set, as blocks a second."""

    tracked: int
    tracking: float
    payloads: float
    ratio: float
    """Median of the runs' ratios."""
    own_cpu: tuple[float, float]
    """Milliseconds of this process a block: of the app that tracks, and of the other."""
    server_cpu: tuple[float, float]
    """Milliseconds of the server's process a block, likewise."""
    peak: int
    """The highest memory of the process in bytes, of the app that tracks."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure what tracking outputs costs.")
    parser.add_argument("--tracked", type=int, nargs="+", default=[10_000, 1_000_000], help="tracked outputs")
    parser.add_argument("--blocks", type=int, default=10, help="blocks (default: 10)")
    parser.add_argument("--transactions", type=int, default=3_000, help="in a block (default: 3,000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", choices=("tracking", "payloads"), help=argparse.SUPPRESS)
    parser.add_argument("--database", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        is_tracking = options.worker == "tracking"
        measured = _sync(
            options.database, options.tracked[0], options.blocks, options.transactions, is_tracking
        )
        print(json.dumps(measured))  # noqa: T201 - our parent process reads it
        return
    with temporary_server() as server:
        results = [
            measure(server, tracked, options.blocks, options.transactions, options.runs)
            for tracked in options.tracked
        ]
    report([asdict(result) for result in results], table(results, options.runs), as_json=options.json)


def measure(server: DatabaseServer, tracked: int, blocks: int, transactions: int, runs: int) -> Result:
    """Sync the blocks with each app in turn, several times."""
    rounds = [
        {kind: _run(server, kind, tracked, blocks, transactions) for kind in ("tracking", "payloads")}
        for _ in range(runs)
    ]

    def median(kind: str, name: str) -> float:
        return float(statistics.median(each[kind][name] for each in rounds))

    return Result(
        tracked=tracked,
        tracking=median("tracking", "rate"),
        payloads=median("payloads", "rate"),
        ratio=statistics.median(each["tracking"]["rate"] / each["payloads"]["rate"] for each in rounds),
        own_cpu=(median("tracking", "own_cpu"), median("payloads", "own_cpu")),
        server_cpu=(median("tracking", "server_cpu"), median("payloads", "server_cpu")),
        peak=max(each["tracking"]["peak"] for each in rounds),
    )


def table(results: Sequence[Result], runs: int) -> Table:
    """Format the results side by side."""
    grid = Table(f"medians of {runs}", *(f"{result.tracked:,} tracked" for result in results))
    for column in grid.columns[1:]:
        column.justify = "right"
    grid.add_row("with tracked outputs", *(f"{result.tracking:,.2f} blocks/s" for result in results))
    grid.add_row("with payloads only", *(f"{result.payloads:,.2f} blocks/s" for result in results))
    grid.add_row("ratio", *(f"{result.ratio:.2f}" for result in results))
    grid.add_row(
        "relative to the first", *(f"{result.tracking / results[0].tracking:.2f}" for result in results)
    )
    for name, values in (("our CPU a block", "own_cpu"), ("the server's CPU a block", "server_cpu")):
        pairs = (getattr(result, values) for result in results)
        grid.add_row(name, *(f"{tracking:,.0f} ms ({payloads:,.0f})" for tracking, payloads in pairs))
    grid.add_row("peak memory", *(f"{result.peak / 1e6:,.0f} MB" for result in results))
    return grid


def outputs_app(*, is_tracking: bool) -> App:
    """Make the app that writes a row for each runestone, and with `is_tracking` follows it."""
    app = App(
        "outputs",
        magic=b"",
        opcodes=None,
        payload_rule=runestone,
        projections=_PROJECTIONS,
        tracks="held" if is_tracking else None,
        first_block_id=1,
    )

    def read(payload: bytes | None) -> dict[str, int]:
        return {"amount": 0 if payload is None else len(payload)}

    def write(op: dict[str, Any], state: State, txid: str) -> None:
        amount, held = op["amount"], state.table("held")
        for n in op.get("virtualchain_spends", ()):
            sender = op["virtualchain_senders"][n]
            for row in state.tracked(sender["txid"], sender["vout"]):
                amount += row["amount"]
                held.delete((row["txid"], row["vout"]))
        held.put({"txid": txid, "vout": 1, "amount": amount})

    app.add(parse=read, commit=write, fields=["amount"])
    if is_tracking:

        class Moves:
            """Follows what transactions without a payload spend."""

            parse = staticmethod(read)
            commit = staticmethod(write)

        app.spend(fields=["amount"])(Moves)
    return app


class _Memory(Offline):
    """Blocks in memory, as a source; it knows what they spend, because it is always the same."""

    def __init__(self) -> None:
        super().__init__(network("regtest"))
        self.raw = b""

    def raw_block(self, block_hash: str) -> bytes:
        """Return the current block."""
        return self.raw

    def spent_outputs(self, block_hash: str, transactions: Mapping[int, str]) -> SpentOutputs:
        """Return two outputs for each transaction."""
        return SpentOutputs(dict.fromkeys(transactions, (SpentOutput(20_000, _SCRIPT),) * 2))


def _blocks(tracked: int, count: int, transactions: int) -> Iterator[tuple[Block, bytes]]:
    """Yield blocks whose transactions spend the preloaded outputs, each at most once."""
    previous = read_header(0, genesis_block(network("regtest"))[:HEADER_SIZE])
    number = spent = 0
    for _ in range(count):
        made = []
        for place in range(transactions):
            has_payload, moves = place % 3 == 0, place % 10 == 1
            outpoints = [sha256d(b"other %d %d" % (number, n)) + bytes(4) for n in range(2)]
            if has_payload or moves:
                outpoints[0] = _preloaded(spent * _STEP % tracked) + struct.pack("<I", 1)
                spent += 1
            made.append(_transaction(number, outpoints, has_payload=has_payload))
            number += 1
        raw, _ = make_block(previous, made, _SCRIPT, 50 * 10**8)
        previous = read_header(previous.block_id + 1, raw[:HEADER_SIZE])
        yield previous, raw


def _preloaded(number: int) -> bytes:
    """Return the id of a preloaded transaction, in internal byte order."""
    return hashlib.sha256(struct.pack(">q", number)).digest()[::-1]


def _transaction(number: int, outpoints: Sequence[bytes], *, has_payload: bool) -> tuple[bytes, bytes]:
    """Make a transaction of two inputs and three outputs, with its id; its signatures are none."""
    first = b"\x6a\x5d\x07" + struct.pack("<IBH", number, 1, 2) if has_payload else _SCRIPT
    inputs = b"".join(each + b"\0" + b"\xff" * 4 for each in outpoints)
    outputs = serialize_output(0, first) + serialize_output(10_000, _SCRIPT) * 2
    body = struct.pack("<B", len(outpoints)) + inputs + b"\3" + outputs
    witness = (b"\2\x48" + bytes(72) + b"\x21" + _KEY) * len(outpoints)
    return b"\2\0\0\0\0\1" + body + witness + bytes(4), sha256d(b"\2\0\0\0" + body + bytes(4))


def _sync(url: str, tracked: int, count: int, transactions: int, is_tracking: bool) -> dict[str, Any]:
    chain = network("regtest")
    contract = read_contract(outputs_app(is_tracking=is_tracking))
    deployment = Deployment(url, [contract], chain, Options(confirmations=0))
    deployment.start_searches()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET virtualchain.block_id = 'undo'")  # no history: these rows are from before
        connection.execute(_PRELOAD, [tracked])
        connection.execute("ANALYZE outputs__1.held")
    source = _Memory()
    scanner = Scanner(deployment.watches, chain, keeps_blocks=deployment.tracks_outputs)
    pid = deployment.connection.info.backend_pid
    seconds = own = 0.0
    server = cpu_of(pid)
    for place, (header, source.raw) in enumerate(_blocks(tracked, count + 1, transactions)):
        started, used = time.perf_counter(), time.process_time()
        deployment.take(fetch(source, scanner, header, verify="headers"), near_tip=False)
        if not place:  # the first one warms up
            deployment.land()
            server = cpu_of(pid)
            continue
        seconds += time.perf_counter() - started
        own += time.process_time() - used
    started = time.perf_counter()
    deployment.land()
    seconds += time.perf_counter() - started
    assert deployment.apps.running, deployment.apps.machines[0].log.error()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured = {
        "rate": count / seconds,
        "own_cpu": own / count * 1e3,
        "server_cpu": (cpu_of(pid) - server) / count * 1e3,
        "peak": peak if sys.platform == "darwin" else peak * 1024,
    }
    deployment.close()
    return measured


def _run(server: DatabaseServer, kind: str, tracked: int, blocks: int, transactions: int) -> dict[str, Any]:
    url = server.clone()
    command = [sys.executable, "-m", "tests.benchmarks.outputs", "--worker", kind, "--database", url]
    command += ["--tracked", str(tracked), "--blocks", str(blocks), "--transactions", str(transactions)]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    server.drop(url)
    measured: dict[str, Any] = json.loads(process.stdout)
    return measured


if __name__ == "__main__":
    main()
