"""What an audit reports: faults, each with its place as far as that can be found, and progress."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

OnProgress = Callable[[str], None]
"""Called often, with one line on how far the audit is."""
MOST_FAULTS: Final = 1000
"""After so many faults the audit ends: what follows from one damaged table is not worth more lines."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the database that does not fit; a field that is None does not apply, or is not known."""

    message: str
    app: str | None = None
    build: str | None = None
    table: str | None = None
    key: Mapping[str, str | None] | None = None
    """The row's primary key: the text of each column."""
    block_id: int | None = None
    txindex: int | None = None
    vtxindex: int | None = None

    def __str__(self) -> str:
        """Write place and message on one line."""
        key = None if self.key is None else f"({', '.join(f'{k}={v}' for k, v in self.key.items())})"
        parts = [
            f"{name} {value}"
            for name, value in (
                ("app", self.app),
                ("build", self.build),
                ("table", self.table),
                ("key", key),
                ("block", self.block_id),
                ("transaction", self.txindex),
                ("vtxindex", self.vtxindex),
            )
            if value is not None
        ]
        return f"{', '.join(parts) or 'the deployment'}: {self.message}"


def ignore(_: str) -> None:
    """Report to nobody."""
