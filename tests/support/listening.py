"""Listeners that act in the middle of the engine's work."""

from collections.abc import Callable

from virtualchain.engine.options import Progress


def once_at(block_id: int, act: Callable[[], object], times: int = 1) -> Callable[[Progress], None]:
    """Return a listener that acts when it is called with a block, the first time or the first few times."""
    calls: list[int] = []

    def listen(progress: Progress) -> None:
        if progress.block.block_id == block_id and len(calls) < times:
            calls.append(block_id)
            act()

    return listen
