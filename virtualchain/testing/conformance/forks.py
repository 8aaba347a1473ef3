"""Take a recorded chain over random forks: rival blocks that the engine takes, and then has to give up."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from random import Random
from typing import Final, TypeVar

from virtualchain.engine.engine import StateEngine
from virtualchain.model import Block
from virtualchain.testing.conformance.source import RecordedSource

C = TypeVar("C")

_MAX_RIVAL_BLOCKS: Final = 6
_MAX_BLOCKS_ABOVE_RIVAL: Final = 4
"""The most recorded blocks above a rival branch's height before the chain forks again."""


def build_over_forks(
    source: RecordedSource[C],
    chain: Sequence[Block],
    rivals: Callable[[int, int], Iterable[C]],
    open_engine: Callable[[], AbstractContextManager[StateEngine]],
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
        with open_engine() as engine:
            restart = False
            while position < last and not restart:
                depth = min(chance.randint(1, _MAX_RIVAL_BLOCKS), last - position)
                parent = chain[position - 1] if position else source.base
                branch = source.make_branch(parent, rivals(position, depth), b"rival")
                source.activate([*chain[:position], *branch])
                engine.build()
                position = min(position + depth + chance.randint(1, _MAX_BLOCKS_ABOVE_RIVAL), len(chain))
                source.activate(chain[:position])
                restart = chance.random() < 0.2
                if not restart:
                    engine.build()
                    yield position
    source.activate(chain)
    with open_engine() as engine:
        engine.build()
    yield len(chain)
