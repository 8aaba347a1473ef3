"""Take a recorded chain over random forks: rival blocks that the engine takes, and then has to give up."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from random import Random
from typing import Final, Self, TypeVar

from virtualchain.engine.engine import StateEngine
from virtualchain.model import Block
from virtualchain.testing.conformance.source import RecordedSource

C = TypeVar("C")

_MAX_RIVAL_BLOCKS: Final = 6
_MAX_BLOCKS_ABOVE_RIVAL: Final = 4
"""The most recorded blocks above a rival branch's height before the chain forks again."""
_RESTARTS: Final = 0.2
"""The share of forks during which the engine is restarted."""


class Engines:
    """One engine at a time, until it is replaced by another on the same database."""

    def __init__(self, open_engine: Callable[[], AbstractContextManager[StateEngine]]) -> None:
        self._open = open_engine
        self._opened = ExitStack()
        self._engine: StateEngine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restart()

    def restart(self) -> None:
        """Close the engine; the next one is opened when it is needed."""
        self._engine = None
        self._opened.close()

    def build(self) -> None:
        """Build up to the tip of the source's active chain."""
        if self._engine is None:
            self._engine = self._opened.enter_context(self._open())
        self._engine.build()


def build_over_forks(
    source: RecordedSource[C],
    chain: Sequence[Block],
    rivals: Callable[[int, int], Iterable[C]],
    engines: Engines,
    chance: Random,
    position: int = 0,
) -> Iterator[int]:
    """Build a chain over rival branches, with restarts of the engine, until it is built completely.

    `rivals(position, depth)` yields what to make `depth` rival blocks from, in place of the blocks from
    `position` on. The chain's last block is not replaced: it outworks the rivals of those before it.
    `position` is how many blocks are built already. Yields how many blocks are built whenever all of them
    are recorded ones.
    """
    last = len(chain) - 1
    while position < last:
        depth = min(chance.randint(1, _MAX_RIVAL_BLOCKS), last - position)
        parent = chain[position - 1] if position else source.base
        branch = source.make_branch(parent, rivals(position, depth), b"rival")
        source.activate([*chain[:position], *branch])
        engines.build()
        position = min(position + depth + chance.randint(1, _MAX_BLOCKS_ABOVE_RIVAL), len(chain))
        source.activate(chain[:position])
        if chance.random() < _RESTARTS:
            engines.restart()  # the rival blocks are given up by the next engine
        else:
            engines.build()
            yield position
    source.activate(chain)
    engines.build()
    yield len(chain)
