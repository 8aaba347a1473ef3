"""What the engine needs of a chain, whether it comes from a node, from its files or from nowhere.

A source answers questions about the chain as it is now and remembers nothing of earlier answers. Any answer
may be out of date a moment later. A block is appended to the tape only on top of its parent's hash, so a
stale answer costs another query but never correctness.
"""

import queue
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from virtualchain.bitcoin.encoding import read_whole_header
from virtualchain.bitcoin.networks import Network
from virtualchain.errors import MalformedBlock, MissingData, NodeError
from virtualchain.model import Block, ScannedBlock, SpentOutput, Verification

if TYPE_CHECKING:
    from virtualchain.bitcoin.block import Scanner
    from virtualchain.bitcoin.senders import Senders

MOST_HEADERS: Final = 2000
"""Headers in one answer: bitcoind's REST interface allows no more."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The last block of the chain that the source calls active."""

    block_id: int
    hash: str


class BlockSource(Protocol):
    """Where Bitcoin blocks come from; safe to use from several threads at once.

    Its `str` is how messages refer to it: an address without a password, or a path.

    Hashes and transaction ids are lower-case hex in display order. Any method may raise NodeUnavailable,
    after a few attempts of its own, if a later attempt may succeed, and NodeError if none will.
    """

    @property
    def network(self) -> Network:
        """The network that the source is on; its genesis block has been checked."""
        ...

    def tip(self) -> Tip:
        """Return the active chain's last block."""
        ...

    def block_hash(self, block_id: int) -> str:
        """Return the hash of the active block at a height; raises MissingData above the tip."""
        ...

    def headers_after(self, block_id: int, block_hash: str) -> list[Block] | None:
        """Return the headers that follow a block on the active chain, oldest first.

        There are at most `MOST_HEADERS` and often fewer: ask again after the last one. The list is empty if
        the block is the tip. Returns None if the block is unknown or not on the active chain. Each header
        names its predecessor as parent.
        """
        ...

    def is_invalid(self, block_id: int, block_hash: str) -> bool:
        """Check whether the source calls the branch that contains this block invalid.

        Only useful for a block that has left the active chain. False if the source cannot say.
        """
        ...

    def raw_block(self, block_hash: str) -> bytes:
        """Return a block's bytes, whose header has exactly this hash; raises MissingData, MalformedBlock."""
        ...

    def spent_outputs(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return the outputs that some transactions of a block spend: by txindex, one per input, in order.

        `transactions` maps txindex to txid; the coinbase is never among them. Raises MissingData if even one
        spent output is unknown: none is ever left out or made up. A `SpentOutputs` also says what shows that
        they are right; without it, the source's word counts as a node's.
        """
        ...

    def wait(self, timeout: float) -> None:
        """Sleep until the chain may have changed: at most `timeout` seconds, less after `wake`.

        A source that learns of a block earlier ends it then.
        """
        ...

    def wake(self) -> None:
        """End the current or the next `wait`; may be called from another thread or a signal handler."""
        ...

    def close(self) -> None:
        """Close the connections; the source cannot be used afterwards."""
        ...


@runtime_checkable
class HeightSource(Protocol):
    """A BlockSource that also knows the heights of spent outputs, for apps that need them."""

    def spent_outputs_with_heights(
        self, block_hash: str, transactions: Mapping[int, str]
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Return what `spent_outputs` does, with `made_at` in every output if that is known."""
        ...


@runtime_checkable
class TransactionSource(Protocol):
    """A BlockSource that also finds transactions by their ids alone."""

    def transactions(self, txids: Collection[str]) -> Mapping[str, bytes]:
        """Return the serialized transactions with these ids; raises MissingData if one is not found."""
        ...


@runtime_checkable
class InputSource(Protocol):
    """A BlockSource without blocks: it hands out the inputs that somebody has found in them.

    It also has what every BlockSource has, but `raw_block` and `spent_outputs` raise MissingData.
    """

    def header(self, block_id: int, block_hash: str) -> Block:
        """Return the header of an active block; raises NodeUnavailable if it is not active any more."""
        ...

    def scanned(
        self, headers: Sequence[Block], scanner: "Scanner", senders: "Senders", verify: Verification
    ) -> list[ScannedBlock]:
        """Return the inputs of the first one, or several, of these active blocks, at least of one.

        Raises NodeUnavailable if the first one is not active any more, UpstreamLacks if it was not searched
        for all that the scanner looks for, and MalformedBlock if an input is not what `verify` checks.
        """
        ...


@runtime_checkable
class CoinSource(Protocol):
    """A BlockSource that also knows the outputs that a transaction in the next block may spend."""

    def coins(self, outpoints: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], SpentOutput]:
        """Return those of some outputs, by txid and number, that are unspent in the chain's last block.

        Those of unconfirmed transactions are there, too, with None as `made_at`.
        """
        ...


def read_header_of(source: BlockSource, block_id: int, block_hash: str) -> Block:
    """Read the header of an active block, with its AuxPoW if the source has that.

    Raises MalformedBlock if it is another one, and what the source raises.
    """
    with at_height(block_id):
        if isinstance(source, InputSource):
            header = source.header(block_id, block_hash)
        else:
            header = read_whole_header(block_id, source.raw_block(block_hash), source.network)
    if header.hash != block_hash:
        raise MalformedBlock(f"{source}: block {block_id}: requested {block_hash}, got {header.hash}")
    return header


@contextmanager
def at_height(block_id: int) -> Iterator[None]:
    """Add the height to errors about a block, because a source knows only its hash."""
    try:
        yield
    except (MalformedBlock, MissingData) as error:
        if f"block {block_id}" not in str(error):
            error.args = (f"block {block_id}: {error}",)
        raise


class Wake:
    """A sleep that another thread or a signal handler can end: the `wait` and `wake` of every source."""

    def __init__(self) -> None:
        # Unlike an Event, a SimpleQueue can be used by a signal handler that interrupts the wait itself.
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds, or until `call`; a call made before the wait counts too.

        Returns whether there was a call.
        """
        was_called = False
        with suppress(queue.Empty):
            self._calls.get(timeout=max(timeout, 0.0))
            was_called = True
            while True:  # one wait uses up every call made before it
                self._calls.get_nowait()
        return was_called

    def is_called(self) -> bool:
        """Return whether the next wait would end at once."""
        return not self._calls.empty()

    def call(self) -> None:
        """End the current or the next wait."""
        self._calls.put(None)


_NO_BLOCK: Final = Tip(-1, "")


def _offline_error(block: int | str) -> NodeError:
    return NodeError(
        f"block {block} has to be fetched, because it is not on the tape or was never searched for an app's "
        "magic, and there is no node here: `virtualchain sync` with a node fetches it"
    )


class Offline:
    """A BlockSource without blocks, for apps that advance along the tape as it is and no further.

    Every block that it is asked about counts as the last one.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._wake = Wake()

    def __str__(self) -> str:
        return "no source of blocks"

    def tip(self) -> Tip:
        """Return a height below any block."""
        return _NO_BLOCK

    def block_hash(self, block_id: int) -> str:
        """Raise NodeError."""
        raise _offline_error(block_id)

    def headers_after(self, block_id: int, block_hash: str) -> list[Block]:  # noqa: ARG002 - any block
        """Return no headers."""
        return []

    def is_invalid(self, block_id: int, block_hash: str) -> bool:  # noqa: ARG002 - any block
        """Return False: no block is known to be invalid."""
        return False

    def raw_block(self, block_hash: str) -> bytes:
        """Raise NodeError."""
        raise _offline_error(block_hash)

    def spent_outputs(
        self,
        block_hash: str,
        transactions: Mapping[int, str],  # noqa: ARG002 - any transactions
    ) -> Mapping[int, Sequence[SpentOutput]]:
        """Raise NodeError."""
        raise _offline_error(block_hash)

    def wait(self, timeout: float) -> None:
        """Sleep for `timeout` seconds, less after `wake`."""
        self._wake.wait(timeout)

    def wake(self) -> None:
        """End the current or the next `wait`."""
        self._wake.call()

    def close(self) -> None:
        """Do nothing: there are no connections."""
