"""How a benchmark prints what it measured: as a table, or as JSON for programs."""

import json

from rich.console import Console
from rich.table import Table


def report(values: object, table: Table, *, as_json: bool, width: int | None = None) -> None:
    """Print the values as JSON, or the table in so many columns (default: the terminal's)."""
    if as_json:
        print(json.dumps(values))  # noqa: T201 - a program's output
    else:
        Console(width=width).print(table)
