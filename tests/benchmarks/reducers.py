"""How fast one app is in each way to write it: statements, `state.table`, SQL alone, a WebAssembly module.

    python -m tests.benchmarks.reducers [--ops 10 1000] [--total 20000] [--runs 3] [--json]

The app and its blocks are those of `tests.benchmarks.apply`. The table shows medians, and in parentheses the
rate divided by that of the app with statements in Python.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from rich.table import Table

from tests.benchmarks import apply
from tests.benchmarks.environment import temporary_server
from tests.benchmarks.printing import report
from virtualchain import App, wasm_app
from virtualchain.testing.database import DatabaseServer

PROJECTIONS: Final = "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL)"
MODULE: Final = """
(module
  (import "virtualchain" "next" (func $next (param i32 i32) (result i32)))
  (import "virtualchain" "get" (func $get (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "virtualchain" "put" (func $put (param i32 i32 i32 i32)))
  (import "virtualchain" "accept" (func $accept (param i32 i32)))
  (import "virtualchain" "want" (func $want (param i32 i32 i32 i32)))
  (memory (export "memory") 1 1)
  (data (i32.const 0) "accounts")
  (func $integer (param $at i32) (result i64)  ;; of four bytes, big-endian
    (local $value i64) (local $n i32)
    (loop $more
      (local.set $value (i64.or (i64.shl (local.get $value) (i64.const 8))
        (i64.load8_u (i32.add (local.get $at) (local.get $n)))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $n) (i32.const 4))))
    (local.get $value))
  (func $write (param $at i32) (param $value i64)
    (i32.store8 (local.get $at) (i32.const 3))
    (i64.store (i32.add (local.get $at) (i32.const 1)) (local.get $value)))
  (func (export "keys") (param i32 i64 i32)
    (loop $more
      (if (call $next (i32.const 1024) (i32.const 32768)) (then
        (call $write (i32.const 16) (call $integer (i32.const 1072)))
        (call $want (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 9))
        (br $more)))))
  (func (export "block") (param i32 i64 i32)
    (local $balance i64) (local $amount i64)
    (loop $more
      (if (call $next (i32.const 1024) (i32.const 32768)) (then
        (local.set $balance (i64.const 0))
        (local.set $amount (call $integer (i32.const 1076)))
        (call $write (i32.const 16) (call $integer (i32.const 1072)))
        (if (i32.gt_s (call $get (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 9)
              (i32.const 64) (i32.const 64)) (i32.const 0))
          (then (local.set $balance (i64.load (i32.const 74)))))
        (call $write (i32.const 25) (i64.add (local.get $balance) (local.get $amount)))
        (call $put (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 18))
        (call $write (i32.const 25) (local.get $amount))
        (call $accept (i32.const 16) (i32.const 18))
        (br $more))))))
"""
"""The rules: an input of an account and an amount, four bytes each, adds to a balance."""


def sql_app() -> App:
    """Make the app in SQL alone."""
    app = App("accounts", magic=b"mv", projections=PROJECTIONS, first_block_id=1)
    app.add(
        b"o",
        layout="account u32, amount u32",
        check="SELECT 'too much' FROM accounts WHERE id = %(account)s AND balance >= 4611686018427387904",
        commit="""
            INSERT INTO accounts (id, balance) VALUES (%(account)s, %(amount)s)
            ON CONFLICT (id) DO UPDATE SET balance = accounts.balance + excluded.balance
        """,
    )
    return app


def module_app() -> App:
    """Make the app as a module."""
    import wasmtime

    return wasm_app(
        bytes(wasmtime.wat2wasm(MODULE)),
        "accounts",
        magic=b"mv",
        projections=PROJECTIONS,
        first_block_id=1,
        opcodes={b"o": ["account", "amount"]},
    )


WAYS: Final[dict[str, Callable[[], App]]] = {
    "statements in Python": apply.accounts_app,
    "state.table in Python": apply.helped_app,
    "SQL alone": sql_app,
    "a module": module_app,
}


@dataclass(frozen=True)
class Result:
    """The medians at one number of ops in a block, as ops a second."""

    ops_per_block: int
    rates: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(description="Measure each way to write the same app.")
    parser.add_argument("--ops", type=int, nargs="+", default=[10, 1000], help="ops in a block")
    parser.add_argument("--total", type=int, default=20_000, help="ops (default: 20,000)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with temporary_server() as server:
        results = [measure(server, ops, options.total, options.runs) for ops in options.ops]
    report([asdict(result) for result in results], _table(results, options.runs), as_json=options.json)


def measure(server: DatabaseServer, ops: int, total: int, runs: int) -> Result:
    """Apply the same blocks with each app in turn, several times, each time to an empty database."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(runs):
        for name, make in WAYS.items():
            url = server.clone()
            rates[name].append(apply.apply_blocks(url, ops, total, make=make)["rate"])
            server.drop(url)
    return Result(ops, {name: statistics.median(measured) for name, measured in rates.items()})


def _table(results: Sequence[Result], runs: int) -> Table:
    grid = Table(f"medians of {runs}", *(f"{result.ops_per_block:,} ops a block" for result in results))
    for column in grid.columns[1:]:
        column.justify = "right"
    for name in WAYS:
        cells = []
        for result in results:
            ratio = result.rates[name] / result.rates["statements in Python"]
            cells.append(f"{result.rates[name]:,.0f}/s ({ratio:.2f})")
        grid.add_row(name, *cells)
    return grid


if __name__ == "__main__":
    main()
