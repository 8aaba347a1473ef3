"""The fake node as tests use it.

    with FakeNode() as node:
        node.mine([node.send(b"id?hello", to=[("bob", 10_000)])])
        node.reorg(2)
        node.fail("busy")
        connect_to(node.url)

Its results, errors and statuses are bitcoind's; tests compare them with a real node's. It does not
validate: no script is run and no signature is checked. But coins must exist, and a real node accepts the
blocks that it mines on regtest.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from virtualchain.errors import UsageError
from virtualchain.testing.chain import PREMINE, BuiltBlock, ChainBuilder
from virtualchain.testing.fakenode.saving import load_chain, save_chain
from virtualchain.testing.fakenode.server import LoopbackServer
from virtualchain.testing.fakenode.service import Service
from virtualchain.testing.fakenode.state import NodeState
from virtualchain.testing.transactions import Key, OwnedCoin, Tx
from virtualchain.testing.wallet import FEE, Recipient


class FakeNode:
    """A node on 127.0.0.1 that serves its own chain; close it, or use it as a context manager.

    The chain is `chain`, or else a new `ChainBuilder(network, premine=premine)`. `rest=False` makes a node
    without -rest=1, `spent_outputs=False` an older one without /rest/spenttxouts, `txindex=True` one with
    -txindex=1. `user` and `password` are required for JSON-RPC; REST needs none.
    """

    def __init__(
        self,
        network: str = "regtest",
        *,
        chain: ChainBuilder | None = None,
        premine: int = PREMINE,
        rest: bool = True,
        spent_outputs: bool = True,
        txindex: bool = False,
        user: str = "user",
        password: str = "password",  # noqa: S107 - it guards a fake on the loopback interface
    ) -> None:
        self.chain = ChainBuilder(network, premine=premine) if chain is None else chain
        self._service = Service(NodeState(self.chain, txindex=txindex), user, password, rest, spent_outputs)
        self._lock = self._service.lock
        self._faults = self._service.faults
        self._server: LoopbackServer | None = LoopbackServer(self._service.respond)
        self._port = self._server.port

    @classmethod
    def from_blocks(
        cls,
        network: str,
        blocks: Iterable[bytes | BuiltBlock],
        **options: Any,  # noqa: ANN401 - they are the class's own
    ) -> Self:
        """Serve existing blocks (see `ChainBuilder.from_blocks`); `options` are those of the class."""
        return cls(chain=ChainBuilder.from_blocks(network, blocks), **options)

    @classmethod
    def load(
        cls,
        file: Path,
        **options: Any,  # noqa: ANN401 - they are the class's own
    ) -> Self:
        """Continue the chain that another node saved; raises UsageError if the file holds none."""
        return cls(chain=load_chain(file), **options)

    def save(self, file: Path) -> None:
        """Save the chain with all its branches, so that `load` continues it; see `save_chain`."""
        with self._lock:
            save_chain(self.chain, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Shut the node down for good: faults, connections, threads and port."""
        self._faults.heal()
        self.stop()

    # What a client sees now

    @property
    def url(self) -> str:
        """Return the address with user and password: http://user:password@127.0.0.1:port."""
        user, password = (quote(text, safe="") for text in (self._service.user, self._service.password))
        return f"http://{user}:{password}@127.0.0.1:{self._port}"

    @property
    def calls(self) -> Counter[str]:
        """Count the requests for each RPC method and each REST endpoint (`/rest/block`)."""
        return self._service.calls

    @property
    def height(self) -> int:
        """Return the height of the node's tip."""
        with self._lock:
            return self.chain.height

    @property
    def tip(self) -> str:
        """Return the hash of the node's tip, in display order."""
        with self._lock:
            return self.chain.tip

    # The chain

    def send(
        self,
        payload: bytes | None = None,
        sender: str | Key | Sequence[str | Key] = "alice",
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
        coins: Sequence[OwnedCoin] = (),
        is_alone: bool = False,
    ) -> Tx:
        """Sign a transaction for `mine`, without passing it to the node; see `ChainBuilder.send`."""
        with self._lock:
            return self.chain.send(payload, sender, to, fee=fee, coins=coins, is_alone=is_alone)

    def double_spend(
        self,
        tx: Tx,
        payload: bytes | None = None,
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
    ) -> Tx:
        """Sign a conflict of `tx` that spends the same coins; see `ChainBuilder.double_spend`."""
        with self._lock:
            return self.chain.double_spend(tx, payload, to, fee=fee)

    def mine(self, txs: Iterable[Tx | bytes] = (), n: int = 1, *, bits: int | None = None) -> list[str]:
        """Mine `n` blocks, the transactions in the first; return their hashes.

        A node that fell behind catches up first. For `bits`, another target, see `ChainBuilder.mine`.
        """
        with self._lock:
            return self.chain.mine(txs, n, bits)

    def reorg(
        self,
        depth: int,
        n: int | None = None,
        txs: Iterable[Tx | bytes] = (),
        *,
        bits: int | None = None,
    ) -> list[str]:
        """Replace the last `depth` blocks by `n` others (by default one more); return the new hashes.

        The new blocks hold only `txs`, in the first. With harder `bits`, a shorter branch may have more
        work. The old branch stays known as a fork, unless it has more work than the new one: no node would
        have left it, so it is forgotten.
        """
        with self._lock:
            return self.chain.reorg(depth, n, txs, bits)

    def fall_behind(self, n: int) -> None:
        """Go back `n` blocks on the node's own chain, like a lagging node that never received them."""
        with self._lock:
            if not 1 <= n <= self.chain.height:
                raise UsageError(f"a node at height {self.chain.height} cannot fall {n} blocks behind")
            tree = self.chain.tree
            tree.hide_since(tree.chain[-n - 1])

    def catch_up(self) -> None:
        """Restore the blocks that `fall_behind` removed."""
        with self._lock:
            self.chain.tree.show_hidden()

    def invalidate(self, block_id: int) -> None:
        """Mark the chain's block at this height and its descendants invalid, like the RPC invalidateblock.

        The chain then ends below it, or switches to the best other branch that the node knows; getchaintips
        reports the invalid one.
        """
        with self._lock:
            self.chain.tree.show_hidden()
            if not 1 <= block_id <= self.chain.height:
                raise UsageError(f"block {block_id} is not between the genesis block and the tip")
            self.chain.tree.invalidate(self.chain.tree.chain[block_id])

    def prune(self, height: int) -> None:
        """Drop the bytes and the undo data of every block below `height`; headers stay."""
        with self._lock:
            if not 0 <= height <= self.chain.height:
                raise UsageError(f"a node at height {self.chain.height} cannot prune up to {height}")
            self._service.state.pruned_below = height

    @property
    def syncing(self) -> bool:
        """Whether the node reports that it is in initial block download."""
        return self._service.state.syncing

    @syncing.setter
    def syncing(self, value: bool) -> None:
        self._service.state.syncing = value

    # Faults

    def fail(self, kind: str, times: int | None = 1, *, on: str = "", seconds: float = 0.2) -> None:
        """Make the next `times` requests fail, or all until `heal` if None; `FAULT_KINDS` lists the kinds.

        `on` restricts the fault to requests whose RPC method or REST path contains it. `seconds` is the delay
        of "slow". Several faults take effect one after the other. Raises UsageError for an unknown kind.
        """
        self._faults.plan(kind, times, on, seconds)

    def heal(self) -> None:
        """End every fault."""
        self._faults.heal()

    def drop_connections(self) -> None:
        """Close every open connection, as a node does with connections that are idle for 30 seconds."""
        if self._server is not None:
            self._server.drop_connections()

    def stop(self) -> None:
        """Stop listening: connections are refused until `start`."""
        if self._server is not None:
            with self._lock:
                self._service.state.ending.set()
            self._server.close()
            self._server = None
            self._service.state.ending.clear()

    def start(self) -> None:
        """Listen again, on the same port, with the same chain."""
        if self._server is None:
            self._server = LoopbackServer(self._service.respond, self._port)
