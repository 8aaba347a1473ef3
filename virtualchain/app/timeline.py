"""Rules that change at activation heights."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Timeline(Generic[T]):
    """What holds from which block on: each until the next one."""

    def __init__(self) -> None:
        self._since: dict[int, T] = {}

    def add(self, from_block: int, what: T) -> bool:
        """Let something hold from a block on; False where something else begins there."""
        return self._since.setdefault(from_block, what) is what

    def at(self, block_id: int) -> T | None:
        """Give what holds at a block; None before the first."""
        begun = [start for start in self._since if start <= block_id]
        return self._since[max(begun)] if begun else None

    def steps(self) -> list[tuple[int, T]]:
        """Give all, by the block from which on it holds."""
        return sorted(self._since.items(), key=lambda item: item[0])
