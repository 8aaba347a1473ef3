"""What an audit reports: faults, each with its place as far as that can be found, and progress."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from virtualchain.errors import DamagedTables

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


def refuse_damage(faults: Iterator[Fault], what: str) -> None:
    """Raise DamagedTables with the first fault, if there is one; `what` is its consequence."""
    fault = next(faults, None)
    if fault is not None:
        raise DamagedTables(f"{what}: {fault}; `virtualchain verify` lists all that does not fit")
