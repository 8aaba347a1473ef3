"""Whether the rate of applying ops stays level as log and tables grow, and how many bytes an op takes.

    python -m tests.benchmarks.growth [--rows 20000 100000] [--ops 1000] [--json]

Each case is applied to an empty database until log and tables have the largest number of rows, from blocks in
memory (see `apply`). Half of the ops make a new row, the others change an earlier one, at random. At each
number of rows the rate is that of the last tenth before it. The cases:

- plain: one app whose table has a bigint as key
- state.table: the same, through `state.table` in place of SQL
- snapshot: the same, while a reader has kept a snapshot open since the first of the numbers
- composite: the key is a text and a number
- ten apps: ten apps, whose ops take turns
- idle apps: empty blocks with one, three and ten apps, as blocks a second
- one row: a block that updates one row 16,000 times, compared with one of 4,000 (with 1,000 ops a block)
- one row, state.table: the same, through `state.table` in place of SQL
- one row, bare: the same statements in bare psycopg. Each looks at the versions of the row that its
  transaction has made before, so PostgreSQL's own rate is not level either

The bytes of an op are those of all tables of the log and the tape with their indexes. Every op has one sender
and two outputs.
"""

import argparse
import json
import resource
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
from rich.console import Console
from rich.table import Table

from tests.benchmarks import processes
from tests.benchmarks.apply import (
    BLOCKS_AT_ONCE,
    accounts_app,
    blocks,
    helped_app,
    rates_of_statements,
    stretches,
    take,
)
from tests.benchmarks.environment import temporary_server
from virtualchain import App, State
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.networks import network
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Options
from virtualchain.testing.database import DatabaseServer

ONE_ROW: Final = ("one row", "one row, state.table", "one row, bare")
CASES: Final = ("plain", "state.table", "snapshot", "composite", "ten apps", "idle apps", *ONE_ROW)
_EMPTY: Final = 2000
"""Blocks for each number of idle apps."""
_FEW, _MANY = 4, 16
"""Updates of one row in a block, relative to the ops of a block."""
_MAGICS: Final = tuple(b"m%d" % number for number in range(10))
_SIZES: Final = """
    SELECT c.relname, pg_total_relation_size(c.oid) FROM pg_class AS c
    WHERE c.relnamespace = 'vc'::regnamespace AND c.relkind = 'r' ORDER BY c.relname
"""


@dataclass(frozen=True)
class Result:
    """The rates of one case: ops a second, by the number of rows; updates a second, by updates of the row."""

    case: str
    rates: dict[int, float]
    ratio: float
    """The last rate divided by the first."""
    peak: int
    """The highest memory of the process in bytes."""
    bytes_per_op: dict[str, float]
    """By table; empty if it was not measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure rates as log and tables grow.")
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000], help="rows to measure at")
    parser.add_argument("--ops", type=int, default=1000, help="ops in a block (default: 1000)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="default: all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--worker", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--database", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        result = _grow(options.worker, options.database, sorted(options.rows), options.ops)
        print(json.dumps(asdict(result)))  # noqa: T201 - our parent process reads it
        return
    with temporary_server() as server:
        results = measure(server, options.rows, options.ops, options.cases)
    if options.json:
        print(json.dumps([asdict(result) for result in results]))  # noqa: T201 - a program's output
    else:
        Console().print(table(results))


def measure(
    server: DatabaseServer, rows: Sequence[int], ops: int, cases: Sequence[str] = CASES
) -> list[Result]:
    """Measure each case in a process of its own."""
    return [_run(server, case, rows, ops) for case in cases]


def table(results: Sequence[Result]) -> Table:
    """Format the cases, one a line."""
    grid = Table("case", "ops/s at rows", "last / first", "bytes an op", "peak memory")
    for result in results:
        grid.add_row(
            result.case,
            ", ".join(f"{rate:,.0f} at {rows:,}" for rows, rate in result.rates.items()),
            f"{result.ratio:.2f}",
            f"{sum(result.bytes_per_op.values()):,.0f}" if result.bytes_per_op else "",
            f"{result.peak / 1e6:,.0f} MB",
        )
    return grid


def _grow(case: str, url: str, milestones: Sequence[int], ops: int) -> Result:
    if case in ONE_ROW:
        rates = _update_one_row(url, case, _FEW * ops, _MANY * ops)
        return Result(case, rates, rates[_MANY * ops] / rates[_FEW * ops], _peak(), {})
    if case == "idle apps":
        rates = {apps: _take_empty_blocks(url, apps) for apps in (10, 3, 1)}
        return Result(case, dict(sorted(rates.items())), rates[10] / rates[1], _peak(), {})
    magics = _MAGICS if case == "ten apps" else (b"mv",)
    apps = {"composite": [_composite_app()], "state.table": [helped_app()]}.get(case, [])
    apps = apps or [accounts_app(f"accounts{place}", magic) for place, magic in enumerate(magics)]
    rates = {}
    windows = {max(0, rows - max(ops * BLOCKS_AT_ONCE, rows // 10)): rows for rows in milestones}
    with ExitStack() as opened:
        deployment = _open(url, apps)
        opened.callback(deployment.close)
        sizes: dict[str, int] = dict(deployment.connection.execute(_SIZES).fetchall())
        taken, spent, began = 0, 0.0, 0.0
        for stretch in stretches(blocks(milestones[-1] // ops, ops, _pairs, magics)):
            if taken in windows:
                began = spent
            spent += take(deployment, stretch)
            taken += ops * len(stretch)
            for start, rows in windows.items():
                if taken == rows:
                    rates[rows] = (rows - start) / (spent - began)
            if case == "snapshot" and taken == milestones[0]:
                reader = opened.enter_context(psycopg.connect(url))
                reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                reader.execute("SELECT count(*) FROM accounts0.accounts")
        assert taken == milestones[-1], f"{milestones} are multiples of 10 blocks"
        assert len(deployment.apps.running) == len(apps), deployment.apps.halted
        grown = deployment.connection.execute(_SIZES).fetchall()
    per_op = {name: (size - sizes[name]) / taken for name, size in grown if size - sizes[name] > taken}
    ratio = rates[milestones[-1]] / rates[milestones[0]]
    return Result(case, rates, ratio, _peak(), per_op if case == "plain" else {})


def _take_empty_blocks(url: str, count: int) -> float:
    """Take empty blocks with so many apps; return blocks a second. The first call has the most apps."""
    apps = [accounts_app(f"accounts{place}", magic) for place, magic in enumerate(_MAGICS[:count])]
    deployment = _open(url, apps)
    last = deployment.last_block_id()
    seconds = take(deployment, [each for each in blocks(last + _EMPTY, 0) if each.block.block_id > last])
    assert len(deployment.apps.running) == count, deployment.apps.halted
    deployment.close()
    return _EMPTY / seconds


def _update_one_row(url: str, case: str, few: int, many: int) -> dict[int, float]:
    """Take a block of few updates, and one of many, of the same row."""
    updates = [[(1, 1)] * count for count in (1, few, many)]
    if case == "one row, bare":
        return dict(zip((few, many), rates_of_statements(url, updates)[1:], strict=True))
    deployment = _open(url, [accounts_app() if case == "one row" else helped_app()])
    rates = {}
    for pairs, scanned in zip(updates, blocks(3, 0, lambda block_id, _: updates[block_id - 1]), strict=True):
        rates[len(pairs)] = len(pairs) / take(deployment, [scanned])
    assert deployment.apps.running, deployment.apps.halted
    deployment.close()
    return {count: rates[count] for count in (few, many)}


def _open(url: str, apps: Sequence[App]) -> Deployment:
    for app in apps:
        app.first_block_id = 1
    contracts = [read_contract(app) for app in apps]
    deployment = Deployment(url, contracts, network("regtest"), Options(confirmations=0))
    deployment.start_searches()
    return deployment


def _pairs(block_id: int, ops: int) -> list[tuple[int, int]]:
    """Return a block's (account, amount) pairs: every other account is new."""
    numbers = range((block_id - 1) * ops, block_id * ops)
    return [
        (number // 2 if number % 2 == 0 else number * 7919 % (number // 2 + 1), 1 + number % 1000)
        for number in numbers
    ]


def _composite_app() -> App:
    app = App(
        "accounts0",
        magic=b"mv",
        projections="CREATE TABLE accounts (owner text, asset integer, balance bigint NOT NULL, "
        "PRIMARY KEY (owner, asset))",
    )

    def parse(payload: bytes) -> dict[str, Any]:
        account, amount = struct.unpack(">II", payload)
        return {"owner": f"owner {account // 10}", "asset": account % 10, "amount": amount}

    def check(op: dict[str, Any], state: State) -> bool:
        key = [op["owner"], op["asset"]]
        row = state.one("SELECT balance FROM accounts WHERE owner = %s AND asset = %s", key)
        return row is None or row["balance"] < 1 << 62

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO accounts (owner, asset, balance) VALUES (%s, %s, %s) ON CONFLICT (owner, asset) "
            "DO UPDATE SET balance = accounts.balance + excluded.balance",
            [op["owner"], op["asset"], op["amount"]],
        )

    app.add(b"o", parse=parse, check=check, commit=commit, fields=["owner", "asset", "amount"])
    return app


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(server: DatabaseServer, case: str, rows: Sequence[int], ops: int) -> Result:
    url = server.clone()
    arguments = ["--worker", case, "--database", url, "--ops", str(ops), "--rows", *map(str, rows)]
    measured = processes.measured("growth", arguments)
    server.drop(url)
    rates = {int(at): rate for at, rate in measured["rates"].items()}
    return Result(**measured | {"rates": rates})


if __name__ == "__main__":
    main()
