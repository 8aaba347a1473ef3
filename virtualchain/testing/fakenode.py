"""A fake Bitcoin node: bitcoind's JSON-RPC and REST over real blocks, and verbs to upset it.

    with FakeNode() as node:
        node.mine([node.send(b"id?hello", to=[("bob", 10_000)])])
        node.reorg(2)
        node.fail("busy")
        connect_to(node.url)

Answers, errors and statuses are bitcoind's, held against a real one by tests. It does not validate: no
script is run and no signature checked, but coins must exist, and blocks that it mines on regtest are good
for a real node.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self
from urllib.parse import quote

from virtualchain.errors import UsageError
from virtualchain.testing.chain import PREMINE, BuiltBlock, ChainBuilder
from virtualchain.testing.keys import Key
from virtualchain.testing.server import LoopbackServer
from virtualchain.testing.service import Service
from virtualchain.testing.state import NodeState
from virtualchain.testing.transactions import Tx
from virtualchain.testing.wallet import FEE, Recipient


class FakeNode:
    """A node on 127.0.0.1 that serves a chain of its own; close it, or use it as a context manager.

    `network`, `premine` and `chain` say which chain: a new `ChainBuilder(network, premine=premine)`, or one
    that is there already. `rest=False` is a node without -rest=1; `spent_outputs=False` an older one without
    /rest/spenttxouts. `user` and `password` are asked for on JSON-RPC, as REST has none.
    """

    def __init__(
        self,
        network: str = "regtest",
        *,
        chain: ChainBuilder | None = None,
        premine: int = PREMINE,
        rest: bool = True,
        spent_outputs: bool = True,
        user: str = "user",
        password: str = "password",  # noqa: S107 - it guards a fake on the loopback interface
    ) -> None:
        self.chain = ChainBuilder(network, premine=premine) if chain is None else chain
        self._service = Service(NodeState(self.chain), user, password, rest, spent_outputs)
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
        """Serve given blocks (see `ChainBuilder.from_blocks`); `options` are those of the class."""
        return cls(chain=ChainBuilder.from_blocks(network, blocks), **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the node for good: faults, connections, threads and port."""
        self._faults.heal()
        self.stop()

    # What it is now

    @property
    def url(self) -> str:
        """Give the address with user and password: http://user:password@127.0.0.1:port."""
        user, password = (quote(text, safe="") for text in (self._service.user, self._service.password))
        return f"http://{user}:{password}@127.0.0.1:{self._port}"

    @property
    def calls(self) -> Counter[str]:
        """Count how often each RPC method and each REST endpoint (`/rest/block`) was asked for."""
        return self._service.calls

    @property
    def height(self) -> int:
        """Give the height of the node's tip."""
        with self._lock:
            return self.chain.height

    @property
    def tip(self) -> str:
        """Give the hash of the node's tip, display order."""
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
    ) -> Tx:
        """Sign a transaction for `mine`; see `ChainBuilder.send`. The node does not know it before."""
        with self._lock:
            return self.chain.send(payload, sender, to, fee=fee)

    def double_spend(
        self,
        tx: Tx,
        payload: bytes | None = None,
        to: Sequence[tuple[Recipient, int]] = (),
        *,
        fee: int = FEE,
    ) -> Tx:
        """Sign a rival of `tx` that spends the same coins; see `ChainBuilder.double_spend`."""
        with self._lock:
            return self.chain.double_spend(tx, payload, to, fee=fee)

    def mine(self, txs: Iterable[Tx | bytes] = (), n: int = 1, *, bits: int | None = None) -> list[str]:
        """Mine `n` blocks, the transactions in the first; their hashes. After `fall_behind` it catches up.

        `bits` gives them another target, see `ChainBuilder.mine`.
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
        """Replace the last `depth` blocks by `n` others (default: one more); the hashes of these.

        Only `txs` are in them, in the first. With harder `bits`, a shorter branch may have more work. The old
        branch stays known as a fork, but is forgotten where it has more work than the new one: no node would
        have left it.
        """
        with self._lock:
            return self.chain.reorg(depth, n, txs, bits)

    def fall_behind(self, n: int) -> None:
        """Go back `n` blocks on the node's own chain, as a node that lags and never heard of them."""
        with self._lock:
            if not 1 <= n <= self.chain.height:
                raise UsageError(f"a node at height {self.chain.height} cannot fall {n} blocks behind")
            tree = self.chain.tree
            tree.hide_since(tree.chain[-n - 1])

    def catch_up(self) -> None:
        """Know again what `fall_behind` took away."""
        with self._lock:
            self.chain.tree.show_hidden()

    def invalidate(self, block_id: int) -> None:
        """Call the chain's block at this height invalid, and all above it, as the RPC invalidateblock does.

        The chain ends below it, or goes to the best other branch that the node knows; getchaintips tells of
        the invalid one.
        """
        with self._lock:
            self.chain.tree.show_hidden()
            if not 1 <= block_id <= self.chain.height:
                raise UsageError(f"there is no block {block_id} between the genesis block and the tip")
            self.chain.tree.invalidate(self.chain.tree.chain[block_id])

    def prune(self, height: int) -> None:
        """Drop the bytes and the undo data of every block below `height`; headers stay."""
        with self._lock:
            if not 0 <= height <= self.chain.height:
                raise UsageError(f"a node at height {self.chain.height} cannot prune up to {height}")
            self._service.state.pruned_below = height

    @property
    def syncing(self) -> bool:
        """Whether the node says that it is in initial block download."""
        return self._service.state.syncing

    @syncing.setter
    def syncing(self, value: bool) -> None:
        self._service.state.syncing = value

    # Trouble

    def fail(self, kind: str, times: int | None = 1, *, on: str = "", seconds: float = 0.2) -> None:
        """Let the next `times` requests go wrong, or with None all until `heal`; `faults.KINDS` says how.

        `on`: only requests whose RPC method or REST path contains this. `seconds`: how late "slow" is.
        Several faults come one after the other. UsageError where there is no such kind.
        """
        self._faults.plan(kind, times, on, seconds)

    def heal(self) -> None:
        """End every fault."""
        self._faults.heal()

    def drop_connections(self) -> None:
        """Close every open connection, as a node does with idle ones after 30 seconds."""
        if self._server is not None:
            self._server.drop_connections()

    def stop(self) -> None:
        """Stop listening: connections are refused until `start`."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def start(self) -> None:
        """Listen again, on the same port, with the same chain."""
        if self._server is None:
            self._server = LoopbackServer(self._service.respond, self._port)
