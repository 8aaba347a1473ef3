"""Expected snapshots: digests that an app must have at a block, by the word of somebody else.

They decide nothing about the state. An app whose digests are others stops before it takes another block, so
that a node which has diverged, for whatever reason, says so instead of answering.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from virtualchain.background import begin
from virtualchain.model import Digests, Expected, Json

if TYPE_CHECKING:
    from concurrent.futures import Future

Expect = Callable[[], Mapping[str, Sequence[Expected]]]
"""Returns which digests are expected, by app; raises VirtualchainError if that cannot be found out."""
AGAIN: Final = 600.0
"""Seconds after which a follower asks again."""


class Inquiry:
    """Asks again from time to time which digests are expected, while blocks are taken."""

    def __init__(self, expect: Expect) -> None:
        self._expect = expect
        self._asked_at = time.monotonic()
        self._asked: Future[Mapping[str, Sequence[Expected]]] | None = None

    def answer(self) -> Mapping[str, Sequence[Expected]] | None:
        """Return what is expected, if an answer has come since the last call, and ask if it is time to.

        Raises what the function raised that was asked.
        """
        asked = self._asked
        if asked is None and time.monotonic() - self._asked_at >= AGAIN:
            self._asked_at = time.monotonic()
            self._asked = begin(self._expect)
        if asked is None or not asked.done():
            return None
        self._asked = None
        return asked.result()


class Expectations:
    """What is expected of one app, by block."""

    def __init__(self, expected: Iterable[Expected] = ()) -> None:
        self._by_block: dict[int, list[Expected]] = {}
        for one in expected:
            self._by_block.setdefault(one.block_id, []).append(one)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._by_block

    def until(self, block_id: int) -> list[int]:
        """Return the blocks up to this one at which something is expected."""
        return sorted(at for at in self._by_block if at <= block_id)

    def mismatch(self, digests: Digests) -> Json | None:
        """Compare the digests of a block; return what differs, as `virtualchain.apps` shows it.

        What is expected by several is compared in their order; what nobody expects fits.
        """
        for one in self._by_block.get(digests.block_id, ()):
            for name in ("block_hash", "consensus_hash", "state_hash"):
                expected, actual = getattr(one, name), getattr(digests, name)
                if expected is not None and expected != actual:
                    return {
                        "block_id": digests.block_id,
                        "digest": name,
                        "expected": expected,
                        "found": actual,
                        "origin": one.origin,
                    }
        return None


def describe_mismatch(mismatch: Json) -> str:
    """Describe what differs, on one line."""
    name = mismatch["digest"].replace("_", " ")
    actual = mismatch["found"] or "none"
    return (
        f"the {name} at block {mismatch['block_id']} is {actual}, but {mismatch['origin']} expects "
        f"{mismatch['expected']}"
    )
