"""What bounds a deployment of any size, computed from what was measured on two cores.

    python -m tests.benchmarks.scaling

It prints the tables of `docs/scaling.md`. The figures of `MEASURED` are those of other benchmarks, of one
machine; set others to compute with those of yours. The model of state nodes was compared with what
`state_nodes` measured: as many busy nodes as cores share them well, and more get in each other's way.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Measured:
    """Rates and sizes of one machine."""

    statements: float = 3_400.0
    """Ops a second of apps that read a row and write two in each op, of one process (`state_nodes`)."""
    table: float = 26_000.0
    """Ops a second through `state.table`, at 1,000 ops a block (`apply`)."""
    op_bytes: float = 674.0
    """Bytes of the database for each op, without the app's own tables (`growth`)."""
    raw_share: float = 0.5
    """The share of these that `prune` can drop."""
    empty_block: float = 1 / 15_300
    """Seconds for a block without an input, with one app (`growth`)."""
    idle_app: float = (1 / 9_400 - 1 / 15_300) / 9
    """Seconds that each further app adds to a block without an input for it."""
    pages: float = 300.0
    """Different pages a second of one `virtualchain serve`, with its sessions on a core of the database."""
    cached: float = 6_000.0
    """The same for pages that were asked for before, of a deployment that has not changed since."""
    checkpoint: float = 10_000_000 / 46
    """Rows a second of `checkpoint apply` (`cold_start`)."""
    shared: float = 0.81
    """What a state node does beside others, on a core of its own, of what it does alone."""
    crowded: float = 0.48
    """How fast that falls with the nodes for each core above one: by this power."""


MEASURED: Final = Measured()
NODES: Final = {1: 1.0, 2: 1.62, 4: 1.17, 8: 0.85}
"""How much faster state nodes were than one process, on two cores: `state_nodes`, with such statements."""
MAINNET: Final = 930_000
"""Blocks of mainnet, at the end of 2026 about."""


def speedup(nodes: int, cores: int, measured: Measured = MEASURED) -> float:
    """Return how much faster so many busy state nodes are than one process.

    A node keeps a process of its own and one of the database busy in turns, so it takes about a core.
    """
    if nodes == 1:
        return 1.0
    crowd = max(1.0, nodes / cores)
    return float(min(nodes, cores) * measured.shared / crowd**measured.crowded)


def duration(seconds: float) -> str:
    """Write seconds in the unit that fits."""
    for unit, size, below in (
        ("s", 1, 100),
        ("min", 60, 6_000),
        ("h", 3_600, 172_800),
        ("days", 86_400, 1e12),
    ):
        if seconds < below:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1g} {unit}"
    raise AssertionError("the last unit fits everything")


def volume(size: float) -> str:
    """Write bytes in the unit that fits."""
    for unit, factor in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if size < 1000 * factor:
            return f"{size / factor:,.0f} {unit}"
    return f"{size / 1e12:,.1f} TB"


def by_ops(measured: Measured = MEASURED) -> list[list[str]]:
    """Compute what so many ops take: to store, to apply, and to begin with."""
    rows = [
        [
            "ops",
            "log and tape",
            "after `prune`",
            "applying, SQL",
            "applying, `state.table`",
            "from a checkpoint",
        ]
    ]
    for ops in (10**3, 10**6, 10**9):
        size = ops * measured.op_bytes
        rows.append(
            [
                f"10^{len(str(ops)) - 1}",
                volume(size),
                volume(size * (1 - measured.raw_share)),
                duration(ops / measured.statements),
                duration(ops / measured.table),
                duration(ops / measured.checkpoint),
            ]
        )
    return rows


def by_apps(measured: Measured = MEASURED) -> list[list[str]]:
    """Compute what idle apps cost while the blocks of mainnet are taken."""
    rows = [["apps", "a block without inputs", "all blocks of mainnet"]]
    for apps in (1, 10, 100):
        seconds = measured.empty_block + (apps - 1) * measured.idle_app
        rows.append([str(apps), f"{seconds * 1e3:.1f} ms", duration(seconds * MAINNET)])
    return rows


def by_nodes(measured: Measured = MEASURED) -> list[list[str]]:
    """Compute how much faster state nodes are than one process."""
    rows = [["state nodes", "2 cores, measured", "2 cores", "4 cores", "16 cores", "64 cores"]]
    for nodes in (1, 2, 4, 8, 16, 64):
        known = f"{NODES[nodes]:.2f}" if nodes in NODES else ""
        rows.append(
            [str(nodes), known, *(f"{speedup(nodes, cores, measured):.2g}" for cores in (2, 4, 16, 64))]
        )
    return rows


def by_readers(measured: Measured = MEASURED) -> list[list[str]]:
    """Compute what readers take who each ask for one page a second."""
    rows = [
        [
            "readers",
            "different pages: `serve` processes, each with a core of a database",
            "the same page: processes",
        ]
    ]
    for readers in (1, 10, 100, 1000):
        processes = -(-readers // measured.pages), -(-readers // measured.cached)
        rows.append([f"{readers:,}", *(f"{count:.0f}" for count in processes)])
    return rows


def markdown(rows: list[list[str]]) -> str:
    """Write a table for the page."""
    head, *others = rows
    lines = [head, ["---:"] * len(head), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the tables."""
    for rows in (by_ops(), by_apps(), by_nodes(), by_readers()):
        print(markdown(rows), end="\n\n")  # noqa: T201 - a program's output


if __name__ == "__main__":
    main()
