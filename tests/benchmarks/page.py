"""The page of the documentation about speed, written from the benchmarks' results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tests.benchmarks.apply import BOUNDS
from tests.benchmarks.first_sync import BYTES, OPS
from tests.benchmarks.plot import number
from tests.benchmarks.report import goals

_Json = Mapping[str, Any]

_INTRODUCTION: Final = """\
# Performance

Measured on {date} by `python -m tests.benchmarks --page`, which writes this page, on
{machine},
at a load of {load:.1f} from other work. Values are medians of {runs} runs, and ratios are those of one run.
Everything is on: digests, history, roles, the guard, and commits. Under other work, absolute values are
worse than on a quiet machine, above all times at the tip.

The first sync of mainnet is computed, from {bytes:.0f} GB of blocks and {ops:.0f} million ops, at the rates
of a sync that finds no input in full blocks, and of applying 1,000 ops a block with `state.table`.
"""
_GOALS: Final = """\
## Goals

![Shares of the goals, and stages](performance.svg)
"""
_SYNC: Final = """\
## A sync

Full blocks are like mainnet's, with about 11 ops each; empty ones have only a coinbase. A ratio divides the
rate of a sync by that of the bound.
"""
_SYNC_STAGES: Final = """\
Milliseconds a block; fetching and scanning run in threads beside the rest:
"""
_APPLY: Final = """\
## Applying ops

Each op reads a row with one statement and changes it with another, or with `state.table`. In parentheses: the
rate of applying with statements, divided by the bound's.
"""
_APPLY_STAGES: Final = """\
Microseconds an op, or an empty block:
"""
_GROWTH: Final = """\
## Growth

Ops a second as log and tables grow; empty blocks a second by the number of apps; updates a second by their
number in a block. With SQL, an update of a row looks at the versions that its transaction has made before: in
bare psycopg, too.
"""
_HISTORY: Final = """\
## History

What the server takes to keep the history of a row, beside a table without:
"""
_TIP: Final = """\
## The tip

Milliseconds from the node's announcement of a block to rows that a reader sees. `bare` is the same way
without the engine: a long poll, the block over REST, one row, a commit.
"""


def page(results: _Json) -> str:
    """Write the page."""
    parts = [
        _INTRODUCTION.format(**results, bytes=BYTES / 1e9, ops=OPS / 1e6),
        _first_sync(results["first_sync"]),
        _GOALS,
        _goals(results),
        *_sync(*results["sync"]),
        *_apply(results["apply"]),
        *_growth(results["growth"]),
        _HISTORY,
        _history(results["history"]),
    ]
    if results["tip"]:
        parts += [_TIP, _tip(results["tip"])]
    return "\n".join(parts)


def _first_sync(estimates: Sequence[_Json]) -> str:
    rows = [
        (each["source"], *(f"{each[part]:.1f} h" for part in ("blocks", "ops", "hours")))
        for each in estimates
    ]
    return _table(("a first sync of mainnet from", "blocks", "ops", "in all"), rows)


def _goals(results: _Json) -> str:
    rows = [
        (
            bar.name,
            f"{number(bar.value)} {bar.unit}".strip(),
            f"{'at most' if bar.is_cost else 'at least'} {number(bar.goal)}",
            f"{bar.share:.2f}",
        )
        for bar in goals(results)
    ]
    return _table(("measured", "value", "goal", "share of it"), rows)


def _sync(full: _Json, empty: _Json) -> list[str]:
    rows = [(name, text(full), text(empty)) for name, text in _SYNC_ROWS.items()]
    return [
        _SYNC,
        _table(("", "full blocks", "empty blocks"), rows),
        _SYNC_STAGES,
        _stages({"full blocks": full["stages"], "empty blocks": empty["stages"]}),
    ]


def _rate(task: str) -> Callable[[_Json], str]:
    def text(result: _Json) -> str:
        seconds = result["seconds"][task]
        return (
            f"{number(result['blocks'] / seconds)} blocks/s, {number(result['bytes'] / 1e6 / seconds)} MB/s"
        )

    return text


_SYNC_ROWS: Final[dict[str, Callable[[_Json], str]]] = {
    "node": lambda result: result["node"],
    "blocks": lambda result: f"{result['blocks']:,}, {result['bytes'] / 1e6:.1f} MB",
    "inputs": lambda result: f"{result['inputs']:,}",
    "bound: fetch": _rate("fetch"),
    "bound: fetch, spent outputs": _rate("spent"),
    "sync": _rate("sync"),
    "sync, no input": _rate("absent"),
    "sync, no input, ten apps": _rate("absent, ten apps"),
    "sync / fetch, spent outputs": lambda result: f"{result['sync_ratio']:.2f}",
    "sync, no input / fetch": lambda result: f"{result['absent_ratio']:.2f}",
    "sync, no input, ten apps / one": lambda result: f"{result['ten_ratio']:.2f}",
    "our CPU, a block": lambda result: f"{result['cpu']['sync'] / result['blocks'] * 1e3:.2f} ms",
    "peak memory": lambda result: f"{result['peak_at_all'] / 1e6:.0f} MB",
}


def _apply(results: Sequence[_Json]) -> list[str]:
    rows = [
        ("applied, statements", *(f"{number(each['apply'])}/s" for each in results)),
        (
            "applied, state.table",
            *(f"{number(each['helper'])}/s" if each["helper"] else "" for each in results),
        ),
    ]
    rows += [(f"bound: {name}", *(_bound(each, name) for each in results)) for name in BOUNDS]
    rows += [
        ("our CPU", *(f"{number(each['own_cpu'])} µs" for each in results)),
        ("the server's CPU", *(f"{number(each['server_cpu'])} µs" for each in results)),
        ("peak memory", *(f"{each['peak'] / 1e6:.0f} MB" for each in results)),
    ]
    stages = _stages({_title(each): each["stages"] for each in results})
    return [_APPLY, _table(("", *map(_title, results)), rows), _APPLY_STAGES, stages]


def _bound(result: _Json, name: str) -> str:
    if name not in result["bounds"] or (name == "empty" and result["ops_per_block"]):
        return ""
    return f"{number(result['bounds'][name])}/s ({result['ratios'][name]:.2f})"


def _title(result: _Json) -> str:
    ops = result["ops_per_block"]
    return f"{ops:,} ops a block" if ops else "empty blocks"


def _growth(results: Sequence[_Json]) -> list[str]:
    rows = [
        (
            each["case"],
            ", ".join(f"{number(rate)}/s at {int(at):,}" for at, rate in each["rates"].items()),
            f"{each['ratio']:.2f}",
            f"{each['peak'] / 1e6:.0f} MB",
        )
        for each in results
    ]
    sizes = [(name, size) for each in results for name, size in each["bytes_per_op"].items()]
    sentence = ", ".join(f"{number(size)} in `{name}`" for name, size in sizes)
    total = number(sum(size for _, size in sizes))
    return [
        _GROWTH,
        _table(("case", "rates", "last / first", "peak memory"), rows),
        f"An op takes {total} bytes, indexes included: {sentence}.\n",
    ]


def _history(ways: _Json) -> str:
    rows = [(name, number(value), number(ways["plain"][name])) for name, value in ways["none"].items()]
    return _table(("", "without", "with"), rows)


def _tip(results: Sequence[_Json]) -> str:
    rows = [
        (each["way"], f"{each['blocks']} {each['kind']}", number(each["median"]), number(each["p99"]))
        for each in results
    ]
    return _table(("way", "blocks", "median", "99th percentile"), rows)


def _stages(columns: Mapping[str, Mapping[str, float]]) -> str:
    names = dict.fromkeys(name for stages in columns.values() for name in stages)
    rows = [
        (name, *(number(stages[name]) if name in stages else "" for stages in columns.values()))
        for name in names
    ]
    return _table(("stage", *columns), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown; all columns but the first hold numbers."""
    marks = ["---", *("---:" for _ in head[1:])]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, marks, *rows))
