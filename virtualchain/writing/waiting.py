"""Following a transaction from the mempool into a block, and on to what the app makes of it.

The chain is followed by headers from the block at which the transaction was sent. A block is looked into only
if it contains one of the outpoints that the transaction spends: then it has the transaction, or another one
that conflicts with it. So nothing is needed that not every node has, such as an index of transactions.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.block import read_inputs, split_transactions
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.source import Tip
from virtualchain.bitcoin.transaction import read_transaction
from virtualchain.errors import DatabaseUnavailable, Halted, MissingData, NodeUnavailable
from virtualchain.model import Block
from virtualchain.reading import views
from virtualchain.writing.orders import Say, Sent
from virtualchain.writing.relay import spenders

PAUSE: Final = 1.0
"""Seconds between two looks; a new block ends the pause."""
_LOOKS: Final = 3
"""How often a transaction must be missing before it counts as dropped: a reorganization moves it."""
_DEEPEST: Final = 100
"""Blocks that are looked at again, below the tip, when a wait begins."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a transaction is: in a block, in the mempool, or nowhere; or another one that is in its place."""

    block: Tip | None = None
    in_mempool: bool = False
    other: str | None = None


class Wait:
    """Follows one transaction until the app has decided on it, or it cannot get into a block."""

    def __init__(
        self,
        sent: Sent,
        contract: Contract,
        source: NodeSource,
        database: str,
        *,
        began: Tip | None = None,
        say: Say = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sent = sent
        self._contract = contract
        self._source = source
        self._database = database
        self._say = say
        self._clock = clock
        tx = read_transaction(sent.raw, source.network)
        self._outpoints = [(item.txid, item.vout) for item in tx.inputs]
        self._searched = [
            bytes.fromhex(txid)[::-1] + vout.to_bytes(4, "little") for txid, vout in self._outpoints
        ]
        self._chain: list[Tip] = [began or self._start()]
        """The blocks that were looked into, after one that was not."""
        self._spent_in: dict[str, str] = {}
        """By hash, blocks that spend one of the outpoints, and the transaction that does."""
        self._missing = 0
        self._last_line = ""

    def until_decided(self, timeout: float | None = None) -> Sent:
        """Wait, and note in `sent` what became of it; its status is `waiting` if `timeout` seconds pass.

        A node and a database that cannot be reached for a while are waited for. Raises Halted if the app is
        halted, NodeError, StoreError.
        """
        deadline = None if timeout is None else self._clock() + timeout
        while not self._try_to_look():
            left = PAUSE if deadline is None else min(PAUSE, deadline - self._clock())
            if left <= 0:
                self._sent.status = "waiting"
                return self._sent
            self._source.wait(left)
        return self._sent

    def _try_to_look(self) -> bool:
        try:
            return self._look()
        except (NodeUnavailable, DatabaseUnavailable) as error:
            self._missing = 0
            self._report(f"{error}; trying again")
            return False

    def _look(self) -> bool:
        """Look at node and database once; return whether all is decided."""
        place = self._find()
        sent = self._sent
        sent.block_id = None if place.block is None else place.block.block_id
        sent.block_hash = None if place.block is None else place.block.hash
        if place.block is not None:
            self._missing = 0
            return self._is_judged(place.block)
        if place.in_mempool:
            self._missing = 0
            self._report(f"transaction {sent.txid} is in the mempool of {self._source}")
            return False
        self._missing += 1
        if not self._source.rpc.call("getmempoolinfo").get("loaded", True):
            self._missing = 0  # the node has just started
        if self._missing < _LOOKS:
            return False
        if place.other is not None:
            sent.status, sent.other_txid = "replaced", place.other
            sent.reason = f"transaction {place.other} spends its coins"
        else:
            sent.status = "dropped"
            sent.reason = "the node's mempool no longer has it: it was evicted, or it expired"
        return True

    def _find(self) -> _Place:
        """Find the transaction: blocks after the mempool, so that it is not missed on its way."""
        in_mempool = self._is_in_mempool()
        self._follow()
        for tip in reversed(self._chain):
            spender = self._spent_in.get(tip.hash)
            if spender == self._sent.txid:
                return _Place(block=tip)
            if spender is not None:
                return _Place(other=spender)
        if in_mempool:
            return _Place(in_mempool=True)
        return _Place(other=min(spenders(self._source, self._sent.raw), default=None))

    def _is_in_mempool(self) -> bool:
        try:
            self._source.rpc.call("getmempoolentry", self._sent.txid)
        except MissingData:
            return False
        return True

    def _follow(self) -> None:
        """Look into the blocks that are new, from the last one that is still active."""
        while headers := self._headers():
            for header in headers:
                raw = self._source.raw_block(header.hash)
                if any(item in raw for item in self._searched):
                    self._look_into(header.hash, split_transactions(raw, self._source.network))
                self._chain.append(Tip(header.block_id, header.hash))

    def _headers(self) -> Sequence[Block]:
        """Return headers on top of the last block that is still active; forget those that no longer are."""
        while (headers := self._source.headers_after(self._chain[-1].block_id, self._chain[-1].hash)) is None:
            if len(self._chain) == 1:
                self._chain = [self._start()]
            else:
                left = self._chain.pop()
                if self._spent_in.get(left.hash) == self._sent.txid:
                    self._report(f"block {left.block_id}, which had it, is no longer active")
        return headers

    def _look_into(self, block_hash: str, transactions: Sequence[bytes]) -> None:
        for raw in transactions:
            if any((item.txid, item.vout) in self._outpoints for item in read_inputs(raw)):
                txid = read_transaction(raw, self._source.network).txid
                self._spent_in[block_hash] = txid
                if txid == self._sent.txid:
                    return

    def _start(self) -> Tip:
        """Return a block far enough below the tip that the transaction is not in one before it."""
        first = max(self._source.tip().block_id - _DEEPEST, 0)
        return Tip(first, self._source.block_hash(first))

    def _is_judged(self, block: Tip) -> bool:
        """Check whether the app has taken the block; then note its verdict."""
        sent, name = self._sent, self._contract.name
        with views.snapshot(self._database) as connection:
            (app,) = views.apps(connection, [name])
            last_start = views.last_start(connection) or {}
            writer = views.writer(connection)
            selection = views.Selection(
                apps=[name], first=block.block_id, last=block.block_id, txid=sent.txid
            )
            ops = [op for op in views.ops(connection, selection) if op["block_hash"] == block.hash]
            refused = list(views.rejections(connection, selection))
            digests = views.digests_at(connection, name, [block.block_id])
        is_before_first = block.block_id < self._contract.start
        if not is_before_first and [digest.block_hash for digest in digests] != [block.hash]:
            if app["status"] == "halted":
                raise Halted(
                    f"app {name} is halted below block {block.block_id}, which has transaction {sent.txid}: "
                    f"see `virtualchain status`, and `virtualchain resume {name}`"
                )
            confirmations = self._chain[-1].block_id - block.block_id
            needed = last_start.get("confirmations")
            idle = "" if writer else "; no process writes to the database: run `virtualchain run`"
            of = "" if needed is None else f" of {needed}"
            self._report(
                f"transaction {sent.txid} is in block {block.block_id}, with {confirmations}{of} blocks on "
                f"top{idle}"
            )
            return False
        if ops:
            sent.status = "accepted"
        elif refused:
            sent.status, sent.step, sent.reason = "refused", refused[0]["step"], refused[0]["reason"]
        else:
            sent.status, sent.reason = "ignored", "the app has taken the block, and no input of it"
        return True

    def _report(self, line: str) -> None:
        """Report a line, unless it was the last one."""
        if line != self._last_line:
            self._say(line)
            self._last_line = line
