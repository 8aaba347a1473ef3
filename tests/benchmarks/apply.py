"""How fast blocks of ops are applied, compared with what PostgreSQL alone makes of the same rows.

    python -m tests.benchmarks.apply [--ops 1 10 1000] [--total 20000] [--runs 3] [--json]

The blocks come from memory, so that neither a node nor the scan counts. Each op moves an amount to one of
10,000 accounts. The app reads the account with one SELECT, in `check`, and writes it with one upsert, in
`commit`; everything else of the engine is on: tape, log, history, digests, the app's role, the guard. Blocks
are far from the tip. The same app is measured with `state.table` in place of the two statements. The bounds,
on the same server and with the same number of ops a transaction:

- statements: the same SELECT and upsert in bare psycopg, prepared, into a table without history
- batch: one upsert of a block's sums, from arrays, in bare psycopg
- copy: one row an op, of the size of its row on the tape, by COPY
- empty: a transaction that inserts one row

Every measurement is a process of its own and begins with an empty database. The table shows medians.
"""

import argparse
import json
import os
import resource
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import psycopg
from rich.table import Table

from tests.benchmarks import processes
from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from tests.benchmarks.stages import Stages
from virtualchain import App, State
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.block import Candidate, Scan, inputs, read_transaction
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.script import op_return
from virtualchain.consensus.hashing import hash160, sha256d
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Options
from virtualchain.model import Block, Input, ScannedBlock, SpentOutput
from virtualchain.testing.blocks import genesis_block
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.wire import serialize_output

ACCOUNTS: Final = 10_000
BLOCKS_AT_ONCE: Final = 10
"""The fewest blocks that are taken without a wait for the server, unless they have very many ops."""
_OPS_AT_ONCE: Final = 20_000
"""The most ops of blocks that are made before they are taken."""
BOUNDS: Final = ("statements", "batch", "copy", "empty")

_PART: Final = 5_000
"""Inputs that are made at once."""
_KEY: Final = b"\x02" + bytes(31) + b"\x01"
_SCRIPT: Final = b"\x00\x14" + hash160(_KEY)
_HEADER: Final = struct.Struct("<I32s32sIII")
_SELECT: Final = "SELECT balance FROM accounts WHERE id = %s"
_UPSERT: Final = (
    "INSERT INTO accounts (id, balance) VALUES (%s, %s) "
    "ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance"
)
_BATCH: Final = (
    "INSERT INTO accounts (id, balance) SELECT * FROM unnest(%s::bigint[], %s::bigint[]) "
    "ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance"
)
_TABLE: Final = "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL)"


@dataclass(frozen=True)
class Result:
    """The medians at one number of ops in a block, as rates a second (ops; blocks if they are empty)."""

    ops_per_block: int
    apply: float
    helper: float
    """The same app with `state.table` in place of SQL; 0 without ops."""
    own_cpu: float
    """Microseconds of this process an op or empty block."""
    server_cpu: float
    """Microseconds of the server's process an op or empty block."""
    peak: int
    """The highest memory of the process in bytes."""
    bounds: dict[str, float]
    ratios: dict[str, float]
    """The apply rate divided by each bound's, medians of the runs' ratios."""
    stages: dict[str, float]
    """Microseconds an op or empty block, from a run of its own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure how fast blocks of ops are applied.")
    parser.add_argument("--ops", type=int, nargs="+", default=[0, 10, 1000], help="ops in a block")
    parser.add_argument("--total", type=int, default=20_000, help="ops, or empty blocks (default: 20,000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--database", help=argparse.SUPPRESS)
    parser.add_argument("--stages", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        measured = _WORKERS[options.worker](options.database, options.ops[0], options.total, options.stages)
        print(json.dumps(measured))  # noqa: T201 - our parent process reads it
        return
    with temporary_server() as server:
        results = [measure(server, ops, options.total, options.runs) for ops in options.ops]
    report([asdict(result) for result in results], table(results, options.runs), as_json=options.json)


def measure(server: DatabaseServer, ops: int, total: int, runs: int) -> Result:
    """Apply the blocks and measure every bound in turn, several times."""
    bounds = BOUNDS if ops else ("empty",)
    workers = ("apply", *(("helper",) if ops else ()), *bounds)
    rounds = [{name: _run(server, name, ops, total) for name in workers} for _ in range(runs)]
    staged = _run(server, "apply", ops, total, "--stages")

    def median(value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(each) for each in rounds)

    return Result(
        ops_per_block=ops,
        apply=median(lambda each: each["apply"]["rate"]),
        helper=median(lambda each: each["helper"]["rate"]) if ops else 0,
        own_cpu=median(lambda each: each["apply"]["own_cpu"]),
        server_cpu=median(lambda each: each["apply"]["server_cpu"]),
        peak=max(each[name]["peak"] for each in rounds for name in ("apply", "helper") if name in each),
        bounds={name: median(lambda each, name=name: each[name]["rate"]) for name in bounds},  # type: ignore[misc]
        ratios={
            name: median(lambda each, name=name: each["apply"]["rate"] / each[name]["rate"])  # type: ignore[misc]
            for name in bounds
        },
        stages=staged["stages"],
    )


def table(results: Sequence[Result], runs: int) -> Table:
    """Format the results side by side."""
    grid = Table(f"medians of {runs}", *(_title(result) for result in results))
    for column in grid.columns[1:]:
        column.justify = "right"
    grid.add_row("apply", *(f"{result.apply:,.0f}/s" for result in results))
    grid.add_row("apply, state.table", *(f"{result.helper:,.0f}/s" for result in results))
    for name in BOUNDS:
        grid.add_row(
            f"bound: {name}",
            *(
                f"{result.bounds[name]:,.0f}/s ({result.ratios[name]:.2f})" if name in result.bounds else ""
                for result in results
            ),
        )
    grid.add_row("our CPU", *(f"{result.own_cpu:,.0f} µs" for result in results))
    grid.add_row("the server's CPU", *(f"{result.server_cpu:,.0f} µs" for result in results))
    grid.add_row("peak memory", *(f"{result.peak / 1e6:,.0f} MB" for result in results))
    for stage in dict.fromkeys(stage for result in results for stage in result.stages):
        grid.add_row(f"stage: {stage}", *(f"{result.stages.get(stage, 0):,.1f} µs" for result in results))
    return grid


def _title(result: Result) -> str:
    return f"{result.ops_per_block:,} ops a block" if result.ops_per_block else "empty blocks"


def accounts_app(name: str = "accounts", magic: bytes = b"mv") -> App:
    """Make an app whose every op reads one account and changes it."""
    app = App(name, magic=magic, projections=_TABLE)

    def parse(payload: bytes) -> dict[str, int]:
        account, amount = struct.unpack(">II", payload)
        return {"account": account, "amount": amount}

    def check(op: dict[str, Any], state: State) -> bool:
        row = state.one(_SELECT, [op["account"]])
        return row is None or row["balance"] < 1 << 62

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute(_UPSERT, [op["account"], op["amount"]])

    app.add(b"o", parse=parse, check=check, commit=commit, fields=["account", "amount"])
    app.first_block_id = 1
    return app


def helped_app() -> App:
    """Make the same app with `state.table` in place of SQL."""
    app = App("accounts", magic=b"mv", projections=_TABLE)

    def parse(payload: bytes) -> dict[str, int]:
        account, amount = struct.unpack(">II", payload)
        return {"account": account, "amount": amount}

    def check(op: dict[str, Any], state: State) -> bool:
        row = state.table("accounts").get(op["account"])
        return row is None or row["balance"] < 1 << 62

    def commit(op: dict[str, Any], state: State) -> None:
        state.table("accounts").add(op["account"], balance=op["amount"])

    def keys(op: dict[str, Any]) -> dict[str, list[int]]:
        return {"accounts": [op["account"]]}

    app.add(b"o", parse=parse, check=check, commit=commit, keys=keys, fields=["account", "amount"])
    app.first_block_id = 1
    return app


def amounts(block_id: int, ops: int) -> list[tuple[int, int]]:
    """Return a block's (account, amount) pairs, with the accounts in an order that repeats."""
    numbers = range(block_id * ops, (block_id + 1) * ops)
    return [(number * 7919 % ACCOUNTS, 1 + number % 1000) for number in numbers]


def blocks(
    count: int,
    ops: int,
    pairs_of: Callable[[int, int], Sequence[tuple[int, int]]] = amounts,
    magics: Sequence[bytes] = (b"mv",),
) -> Iterator[ScannedBlock]:
    """Yield blocks of a chain that exists only in memory; their ops take turns with the magics."""
    chain = network("regtest")
    previous = read_header(0, genesis_block(chain)[:80])
    for block_id in range(1, count + 1):
        header = _HEADER.pack(4, bytes.fromhex(previous.hash)[::-1], bytes(32), block_id, previous.bits, 0)
        previous = read_header(block_id, header)
        yield ScannedBlock(previous, tuple(_inputs(previous, pairs_of(block_id, ops), chain, magics)))


def _inputs(
    block: Block, pairs: Sequence[tuple[int, int]], chain: Network, magics: Sequence[bytes]
) -> Iterator[Input]:
    """Make a block's inputs, a part at a time: decoded candidates take more memory."""
    for start in range(0, len(pairs), _PART):
        candidates = tuple(
            _candidate(place, account, amount, chain, magics[place % len(magics)])
            for place, (account, amount) in enumerate(pairs[start : start + _PART], start + 1)
        )
        spent = {candidate.txindex: [SpentOutput(20_000, _SCRIPT)] for candidate in candidates}
        yield from inputs(Scan(block, candidates, chain), spent)


def _candidate(txindex: int, account: int, amount: int, chain: Network, magic: bytes) -> Candidate:
    """Make a transaction of one input and two outputs; its signature is none."""
    outpoint = sha256d(struct.pack(">II", account, txindex)) + bytes(4)
    outputs = serialize_output(0, op_return(magic + b"o" + struct.pack(">II", account, amount)))
    outputs += serialize_output(10_000, _SCRIPT)
    raw = b"\2\0\0\0\0\1\1" + outpoint + b"\0" + b"\xff" * 4 + b"\2" + outputs
    raw += b"\2\x48" + bytes(72) + b"\x21" + _KEY + bytes(4)
    return Candidate(txindex, read_transaction(raw, chain), raw, (magic,))


def apply_blocks(
    url: str, ops: int, total: int, staged: bool = False, make: Callable[[], App] = accounts_app
) -> dict[str, Any]:
    """Apply the blocks with an app; return the rate, and what it took."""
    chain = network("regtest")
    deployment = Deployment(url, [read_contract(make())], chain, Options(confirmations=0))
    deployment.start_searches()
    stages = Stages()
    made = blocks(_count(ops, total), ops)
    warm = next(made)
    deployment.take(warm, near_tip=False)
    del warm
    assert deployment.apps.running, deployment.apps.machines[0].log.error()
    pid = deployment.connection.info.backend_pid
    seconds, own, server = 0.0, 0.0, cpu_of(pid)
    at_once = min(max(BLOCKS_AT_ONCE, 1000 // max(1, ops)), 1 + _OPS_AT_ONCE // max(1, ops))
    for stretch in stretches(made, at_once):
        with stages.measured() if staged else nullcontext():
            used = time.process_time()
            seconds += take(deployment, stretch)
            own += time.process_time() - used
    measured = _measured(_count(ops, total) - 1, ops, seconds)
    items = (_count(ops, total) - 1) * max(1, ops)
    measured |= {"own_cpu": own / items * 1e6, "server_cpu": (cpu_of(pid) - server) / items * 1e6}
    measured["stages"] = {stage: value / items * 1e6 for stage, value in stages.seconds.items()}
    deployment.close()
    return measured


def stretches(made: Iterator[ScannedBlock], count: int = BLOCKS_AT_ONCE) -> Iterator[list[ScannedBlock]]:
    """Divide blocks into stretches, to be taken one after the other: to make them does not count."""
    while stretch := list(islice(made, count)):
        yield stretch


def take(deployment: Deployment, stretch: Sequence[ScannedBlock]) -> float:
    """Take blocks, and wait until the server has them all; return the seconds."""
    started = time.perf_counter()
    for scanned in stretch:
        deployment.take(scanned, near_tip=False)
    deployment.land()
    return time.perf_counter() - started


_Block = Callable[[psycopg.Connection, int, list[tuple[int, int]]], None]


def _bound(block: _Block) -> Callable[..., Any]:
    def run(url: str, ops: int, total: int, staged: bool) -> dict[str, Any]:
        assert not staged
        pairs_of_blocks = [amounts(block_id, ops) for block_id in range(_count(ops, total))]
        return _measured(len(pairs_of_blocks), ops, sum(_seconds(url, block, pairs_of_blocks)))

    return run


def _seconds(url: str, block: _Block, pairs_of_blocks: Sequence[list[tuple[int, int]]]) -> Iterator[float]:
    """Run blocks in bare psycopg, each in a transaction, and yield the seconds of each."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(_TABLE.replace("accounts", "public.accounts"))
        connection.execute(
            "CREATE TABLE public.rows (block_id integer, place integer, txid bytea, data bytea)"
        )
        connection.execute("CREATE TABLE public.blocks (block_id integer PRIMARY KEY, hash bytea)")
        connection.execute("SET search_path = public")
        for block_id, pairs in enumerate(pairs_of_blocks):
            started = time.perf_counter()
            with connection.transaction():
                block(connection, block_id, pairs)
            yield time.perf_counter() - started


def rates_of_statements(url: str, pairs_of_blocks: Sequence[list[tuple[int, int]]]) -> list[float]:
    """Run the statements of blocks in bare psycopg; return the ops a second of each block."""
    seconds = _seconds(url, _statements, pairs_of_blocks)
    return [len(pairs) / each for pairs, each in zip(pairs_of_blocks, seconds, strict=True)]


def _statements(connection: psycopg.Connection, _: int, pairs: list[tuple[int, int]]) -> None:
    for account, amount in pairs:
        connection.execute(_SELECT, [account], prepare=True).fetchone()
        connection.execute(_UPSERT, [account, amount], prepare=True)


def _batch(connection: psycopg.Connection, _: int, pairs: list[tuple[int, int]]) -> None:
    sums: dict[int, int] = {}
    for account, amount in pairs:
        sums[account] = sums.get(account, 0) + amount
    connection.execute(_BATCH, [list(sums), list(sums.values())], prepare=True)


def _copy(connection: psycopg.Connection, block_id: int, pairs: list[tuple[int, int]]) -> None:
    row = bytes(700)
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY rows (block_id, place, txid, data) FROM STDIN (FORMAT binary)") as copy,
    ):
        copy.set_types(["int4", "int4", "bytea", "bytea"])
        for place, _ in enumerate(pairs):
            copy.write_row((block_id, place, row[:32], row))


def _empty(connection: psycopg.Connection, block_id: int, _: list[tuple[int, int]]) -> None:
    connection.execute("INSERT INTO blocks VALUES (%s, %s)", [block_id, bytes(32)], prepare=True)


def _count(ops: int, total: int) -> int:
    """Return how many blocks there are, the first one included, which only warms up."""
    return 1 + total // max(1, ops)


def _measured(blocks: int, ops: int, seconds: float) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rate": blocks * max(1, ops) / seconds,
        "peak": peak if sys.platform == "darwin" else peak * 1024,
    }


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process of this machine has used; 0 if that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run(server: DatabaseServer, worker: str, ops: int, total: int, *options: str) -> dict[str, Any]:
    url = server.clone()
    arguments = ["--worker", worker, "--database", url, "--ops", str(ops), "--total", str(total), *options]
    result = processes.measured("apply", arguments)
    server.drop(url)
    return result


_WORKERS: Final[dict[str, Callable[..., Any]]] = {
    "apply": apply_blocks,
    "helper": partial(apply_blocks, make=helped_app),
    "statements": _bound(_statements),
    "batch": _bound(_batch),
    "copy": _bound(_copy),
    "empty": _bound(_empty),
}


if __name__ == "__main__":
    main()
