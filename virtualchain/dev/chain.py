"""The chain of `virtualchain dev`: kept in a file, and served by a fake node, or given to a real one as well.

Besides, the inputs that wait for the next block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embit.script import address_to_scriptpubkey

from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.next_block import Outpoint
from virtualchain.bitcoin.script import classify
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.dev.real_node import PEOPLE, RealNode
from virtualchain.errors import StoreError, UsageError, VirtualchainError, quoted
from virtualchain.model import SpentOutput
from virtualchain.testing import FakeNode, Key, Tx, key
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.wire import outpoint, read_block, read_transaction

NETWORK: Final = "regtest"
_GRANT: Final = 100_000_000
"""Satoshi that each wallet of a real node has at the beginning."""
_SHORTEST_ADDRESS: Final = 26
"""Characters; whatever is shorter is a name."""


@dataclass(frozen=True, slots=True)
class Held:
    """An input that waits for the next block, and its transaction on top of the present chain."""

    script: bytes
    """Of the output with the payload."""
    sender: Key
    payments: Sequence[tuple[bytes, int]]
    """Scripts and satoshis of the other outputs, but for the change."""
    tx: Tx


class Chain:
    """A chain that grows block by block; each change is in the file before anybody else knows of it."""

    def __init__(self, file: Path, *, fresh: bool, real: RealNode | None = None) -> None:
        """Continue the chain of a file, or begin a new one; `real` is a node that gets each of its blocks.

        Raises UsageError, with the command that mends it, if the file does not hold a chain; NodeError.
        """
        self._file = file
        self._real = real
        self.held: list[Held] = []
        """In the order in which the next block will have them."""
        if file.exists() and not fresh:
            try:
                self.node = FakeNode.load(file)
            except UsageError as error:
                raise UsageError(
                    f"{error}: move it away, or begin a new chain with `virtualchain dev --fresh`"
                ) from error
        else:
            self.node = self._begin()
        self._give()

    def close(self) -> None:
        """Stop the nodes; inputs that are held are gone."""
        self.node.close()
        if self._real is not None:
            self._real.close()

    @property
    def url(self) -> str:
        """The URL of the node that the app follows."""
        return self.node.url if self._real is None else self._real.url

    @property
    def height(self) -> int:
        """The height of the last block."""
        return self.node.height

    def reset(self) -> None:
        """Begin a new chain in place of this one."""
        self.node.close()
        self.held.clear()
        self.node = self._begin()
        self._give()

    def hold(self, script: bytes, sender: Key, payments: Sequence[tuple[bytes, int]]) -> Held:
        """Sign a transaction with the payload's output and others, and keep it for the next block."""
        held = Held(script, sender, payments, self._sign(script, sender, payments))
        self.held.append(held)
        return held

    def send(self, held: Held, blocks: int) -> list[Tx]:
        """Mine blocks, the first with what is held; if that cannot be, the last input is not held either."""
        try:
            return self.mine(blocks)
        except VirtualchainError:
            self.held = [each for each in self.held if each is not held]
            raise

    def mine(self, blocks: int) -> list[Tx]:
        """Mine blocks, the first with what is held; return that."""
        taken, before = [held.tx for held in self.held], self.node.chain.tree.tip
        self.node.mine([*taken, *self._sent_elsewhere()], blocks)
        self._keep(before)
        return taken

    def fork(self, depth: int, blocks: int | None) -> list[Tx]:
        """Replace the last `depth` blocks by others, the first with what is held; return that."""
        if depth >= self.height:
            raise UsageError(
                f"the chain has {self.height} blocks: a fork can replace up to {self.height - 1}"
            )
        taken: list[Tx] = []
        before = self.node.chain.tree.tip

        def signed() -> Iterator[Tx]:
            """Sign with the coins that there are on the new branch, once that has begun."""
            for held in self.held:
                taken.append(self._sign(held.script, held.sender, held.payments))
                yield taken[-1]

        self.node.reorg(depth, blocks, signed())
        self._keep(before, depth)
        return taken

    def before(self) -> tuple[list[bytes], dict[Outpoint, SpentOutput]]:
        """Return what the next block would have before another input, and the outputs that it spends."""
        txs = [held.tx for held in self.held]
        raws = [tx.raw for tx in self.node.chain.with_funding(txs)] if txs else []
        spent = {}
        for item in (item for raw in raws for item in read_inputs(raw)):
            coin = self.node.chain.unspent(outpoint(item.txid, item.vout))
            if coin is not None:  # else one of these transactions makes it
                made_at = 2 * coin.height + coin.generated
                spent[item.txid, item.vout] = SpentOutput(coin.value, coin.script, made_at)
        return raws, spent

    def _begin(self) -> FakeNode:
        node = FakeNode(NETWORK)
        if self._real is not None:
            node.mine([node.send(None, name, to=[(name, _GRANT)]) for name in PEOPLE])
        self._save(node)
        return node

    def _keep(self, before: StoredBlock, replaced: int = 0) -> None:
        """Save what was mined since the tip `before`, of which the last `replaced` blocks are replaced.

        If that fails, nothing was mined: the app never has a block that is not in the file.
        """
        try:
            self._save(self.node)
        except StoreError as error:
            tree = self.node.chain.tree
            first = tree.chain[before.height - replaced + 1]
            tree.activate(before)
            tree.forget(first)
            raise StoreError(
                f"{error}: nothing was mined, what was held still is; mend that, and write the line again"
            ) from error
        self.held.clear()
        self._give()

    def _save(self, node: FakeNode) -> None:
        try:
            node.save(self._file)
        except OSError as error:
            raise StoreError(f"{self._file} cannot be written: {error.strerror}") from error

    def _give(self) -> None:
        """Let the real node, if there is one, have the blocks."""
        if self._real is not None:
            tree = self.node.chain.tree
            self._real.give([(stored.block.hash, stored.raw) for stored in tree.blocks], tree.tip.block.hash)

    def _sent_elsewhere(self) -> list[bytes]:
        """Return what waits in the real node's mempool but was in a block of a branch that it has left."""
        waiting = [] if self._real is None else self._real.waiting()
        if not waiting:
            return []
        blocks = self.node.chain.tree.blocks
        known = {tx.txid for stored in blocks for tx in read_block(stored.raw)}
        return [raw for raw in waiting if read_transaction(raw).txid not in known]

    def _sign(self, script: bytes, sender: Key, payments: Sequence[tuple[bytes, int]]) -> Tx:
        return self.node.chain.send(None, sender, to=[(script, 0), *payments])


def script_of(whom: str) -> bytes:
    """Return the script that pays a name or an address; raises UsageError for one of another network."""
    if len(whom) < _SHORTEST_ADDRESS:
        return key(whom).script_pubkey
    try:
        script: bytes = address_to_scriptpubkey(whom).data
    except Exception as error:  # whatever the library raises for other text
        raise UsageError(f"{quoted(whom)} is not an address on {NETWORK}, and too long for a name") from error
    if whom not in classify(script, network(NETWORK))[1]:
        raise UsageError(f"{quoted(whom)} is not an address on {NETWORK}")
    return script
