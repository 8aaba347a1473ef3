"""A source that has nothing: for apps that are advanced along what is on the tape, and no further."""

from collections.abc import Mapping, Sequence
from typing import Final

from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.source import Tip
from virtualchain.bitcoin.wake import Wake
from virtualchain.errors import NodeError
from virtualchain.model import Block, SpentOutput

_NOWHERE: Final = Tip(-1, "")


def _nothing(block: int | str) -> NodeError:
    return NodeError(
        f"block {block} has to be fetched, because it is not on the tape or was never searched for an app's "
        "magic, and there is no node here: `virtualchain sync` with one does it"
    )


class Offline:
    """No node and no files, as a BlockSource; every block that it is asked about counts as the last one."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._wake = Wake()

    def __str__(self) -> str:
        return "no source of blocks"

    def tip(self) -> Tip:
        """Tell that there is no block."""
        return _NOWHERE

    def block_hash(self, block_id: int) -> str:
        """Raise NodeError."""
        raise _nothing(block_id)

    def headers_after(self, block_id: int, block_hash: str) -> list[Block]:  # noqa: ARG002 - whichever it is
        """Tell that nothing follows."""
        return []

    def is_invalid(self, block_id: int, block_hash: str) -> bool:  # noqa: ARG002 - whichever it is
        """Know of no invalid block."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Raise NodeError."""
        raise _nothing(block_hash)

    def spent_outputs(
        self,
        block_hash: str,
        transactions: Mapping[int, str],  # noqa: ARG002 - whichever they are
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Raise NodeError."""
        raise _nothing(block_hash)

    def wait(self, timeout: float) -> None:
        """Sleep, less after `wake`."""
        self._wake.wait(timeout)

    def wake(self) -> None:
        """End the present or the next `wait`."""
        self._wake.call()

    def close(self) -> None:
        """There is nothing to let go of."""
