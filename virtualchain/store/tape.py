"""The tape: blocks, and the transactions in them that carry a registered magic.

It knows the chain and no app's rules. Everything here runs in the caller's transaction.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import dict_row

from virtualchain.bitcoin.block import StoredTransaction
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import network as find_network
from virtualchain.errors import StoreError
from virtualchain.model import Block, Input, Lazy
from virtualchain.store.pipeline import Answer, pipeline_of
from virtualchain.store.sql import queries, statement

_Q = queries("tape")
_HOLD_BLOCK, _TIP, _PINS = (statement(_Q[name]) for name in ("hold_block", "tip", "pins"))
_ALLOWED: Final = 64_000_000
"""Bytes of inputs that are read at once, by an estimate that is several times too high for most."""
_network: Final = lru_cache(maxsize=1)(find_network)


_TRACKING: Final = "tracking:"
_TRACKING_RULE: Final = re.compile(f"{_TRACKING}.+:[0-9a-f]{{64}}", re.DOTALL)


def tracking_rule(app: str, tracking: str) -> str:
    """Return by what rule the coverage of an app that tracks outputs is kept, with an empty magic."""
    return f"{_TRACKING}{app}:{tracking}"


def is_tracking_rule(rule: str) -> bool:
    """Check whether a rule is what `tracking_rule` returns for some app."""
    return _TRACKING_RULE.fullmatch(rule) is not None


@dataclass(frozen=True, slots=True)
class Covered:
    """A stretch of the tape that was searched for one magic by one payload rule.

    `until_block` is None while the search continues with every new block.
    """

    magic: bytes
    rule: str
    from_block: int
    until_block: int | None

    @property
    def is_tracking(self) -> bool:
        """Whether it is of an app that tracks outputs: then it never continues with blocks by itself."""
        return self.rule.startswith(_TRACKING)


class Standing(NamedTuple):
    """What a plan begins with: the tape's last block, None if it is empty, and the pins."""

    tip: Block | None
    pins: dict[int, str]


class Tape:
    """Reads and changes the tape of one deployment; `BlockTransaction` appends to it."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def bind(self, network: str, genesis_hash: str) -> None:
        """Bind the deployment to its chain, or check that it is bound to this one.

        Raises StoreError if the database follows another chain.
        """
        form = find_network(network).address_form
        chain = {"network": network, "genesis_hash": genesis_hash, "address_form": form}
        self._connection.execute(_Q["set_deployment"], chain)
        bound = self.deployment()
        if bound != (network, genesis_hash):
            raise StoreError(
                f"this database follows {bound[0] if bound else 'nothing'}, and the node is on {network} "
                f"(genesis {genesis_hash}): use another database or another node"
            )

    def deployment(self) -> tuple[str, str] | None:
        """Return the network's name and its genesis hash; None before the first `bind`."""
        row = self._connection.execute(_Q["deployment"]).fetchone()
        return None if row is None else (row[0], row[1])

    @property
    def network(self) -> str:
        """The name of the network that the database follows; `bind` comes first."""
        bound = self.deployment()
        assert bound is not None, "a deployment is bound to its chain before it has apps"
        return bound[0]

    def ask_standing(self) -> Callable[[], Standing]:
        """Ask for tip and pins, and return what waits for the answer; only in a writer's session."""
        pipeline = pipeline_of(self._connection)
        tip, pins = pipeline.run(_TIP), pipeline.run(_PINS)
        pipeline.sync()

        def standing() -> Standing:
            pipeline.wait()
            return Standing(next((read_header(*row) for row in tip.rows()), None), dict(pins.rows()))

        return standing

    def tip(self) -> Block | None:
        """Return the last block; None on an empty tape."""
        return self._edge("tip")

    def bottom(self) -> Block | None:
        """Return the first block; None on an empty tape."""
        return self._edge("bottom")

    def _edge(self, query: str) -> Block | None:
        row = self._connection.execute(_Q[query]).fetchone()
        return None if row is None else read_header(*row)

    def block(self, block_id: int) -> Block | None:
        """Return the block at a height; None if the tape has none there."""
        return next(iter(self.blocks(block_id, block_id)), None)

    def blocks(self, first: int, last: int) -> list[Block]:
        """Return the blocks from height `first` to `last`, both included, in order."""
        rows = self._connection.execute(_Q["blocks"], {"first": first, "last": last})
        return [read_header(*row) for row in rows]

    def hashes_at(self, heights: Collection[int]) -> dict[int, str]:
        """Return the hashes of those of these blocks that are on the tape."""
        return dict(self._connection.execute(_Q["hashes_at"], {"heights": list(heights)}).fetchall())

    def work_above(self, block: Block) -> int:
        """Return the work of all blocks above one that is on the tape."""
        row = self._connection.execute(_Q["work_above"], {"block_id": block.block_id}).fetchone()
        return 0 if row is None else int(row[0])

    def prepend(self, block: Block, child_work: int) -> None:
        """Put a block in front of the first one, whose expected work is `child_work` hashes."""
        self._connection.execute(
            _Q["prepend_block"],
            {
                "block_id": block.block_id,
                "hash": block.hash,
                "prev_hash": block.prev_hash,
                "header": block.header,
                "time": block.time,
                "child_work": child_work,
            },
        )

    def inputs(
        self, first: int, last: int, magics: Sequence[bytes], app: str | None = None
    ) -> Iterator[Input]:
        """Yield the inputs of blocks `first` to `last` that may be an app's, in chain order.

        They carry one of `magics`, or the app's tracking asked for them.
        They are read one by one, to hold each only once: read all before the connection is used again.
        """
        stretch = {"first": first, "last": last, "magics": list(magics), "app": app}
        with self._connection.cursor(row_factory=dict_row) as cursor:
            for row in cursor.stream(_Q["inputs"], stretch):
                yield _read_input(row)

    def stretch(self, first: int, last: int, magics: Sequence[bytes], app: str | None = None) -> int:
        """Return up to which block, at most `last`, the inputs from `first` on can be read at once."""
        place = {"first": first, "last": last, "magics": list(magics), "app": app}
        limits = {**place, "allowed": _ALLOWED}
        row = self._connection.execute(_Q["too_large"], limits).fetchone()
        assert row is not None, "an aggregate has a row"
        return last if row[0] is None else max(first, row[0] - 1)

    def coverage(self) -> list[Covered]:
        """Return every stretch that was searched, ordered by magic, rule and height."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return [Covered(**row) for row in cursor.execute(_Q["coverage"])]

    def pruned_until(self) -> int | None:
        """Return the last block of which raw transactions were dropped; None if there is none."""
        row = self._connection.execute(_Q["pruned"]).fetchone()
        return None if row is None else int(row[0])

    def prunable(self, first: int, last: int) -> tuple[int, int]:
        """Count the inputs in a range of blocks that can be pruned, and the bytes that they take."""
        row = self._connection.execute(_Q["count_prunable"], {"first": first, "last": last}).fetchone()
        assert row is not None, "an aggregate has a row"
        return int(row[0]), int(row[1])

    def prune_part(self, first: int, last: int, most: int) -> int:
        """Return up to which block to prune at once, from `first` on, so that it is about `most` inputs."""
        place = {"first": first, "last": last, "most": most}
        row = self._connection.execute(_Q["prune_part"], place).fetchone()
        assert row is not None, "it selects one value"
        return int(row[0])

    def prune(self, first: int, last: int) -> int:
        """Drop raw transactions and what proves them in a range of blocks; return of how many inputs.

        All blocks below must be pruned already, or have no inputs that are not. Up to `last`, all blocks
        count as not searched from then on.
        """
        place = {"first": first, "last": last}
        count = self._connection.execute(_Q["prune_inputs"], place).rowcount
        for query in ("prune_coinbases", "forget_pruned_searches", "begin_searches_later"):
            self._connection.execute(_Q[query], place)
        if not self._connection.execute(_Q["lengthen_pruned"], place).rowcount:
            self._connection.execute(_Q["begin_pruned"], place)
        return count

    def vacuum(self) -> None:
        """Make the room of what was pruned usable again; not in a transaction."""
        self._connection.execute(_Q["vacuum"])

    def open_coverage(self, magic: bytes, rule: str, from_block: int) -> None:
        """Record that a search runs from this block on, with every new block."""
        search = {"magic": magic, "rule": rule, "from_block": from_block}
        self._connection.execute(_Q["open_coverage"], search)

    def close_coverage(self, magic: bytes, rule: str, until_block: int) -> None:
        """Record that a search ended with this block."""
        search = {"magic": magic, "rule": rule, "until_block": until_block}
        self._connection.execute(_Q["forget_coverage"], search)
        self._connection.execute(_Q["close_coverage"], search)

    def pins(self) -> dict[int, str]:
        """Return the blocks that the followed chain must hold: hashes by height."""
        return dict(self._connection.execute(_Q["pins"]).fetchall())

    def pin(self, block_id: int, block_hash: str) -> None:
        """Require a block of the followed chain, replacing another pin at its height."""
        self._connection.execute(_Q["pin"], {"block_id": block_id, "hash": block_hash})

    def unpin(self, block_id: int) -> bool:
        """Remove the pin at a height; return False if there was none."""
        return self._connection.execute(_Q["unpin"], {"block_id": block_id}).rowcount > 0

    def ask_hold(self, block: Block) -> Answer:
        """Ask whether a block is on the tape; if so, nobody truncates it before this transaction ends."""
        place = {"block_id": block.block_id, "hash": block.hash}
        return pipeline_of(self._connection).run(_HOLD_BLOCK, place)

    def truncate(self, fork_block_id: int) -> int:
        """Drop every block above the fork with its inputs, cut the searches back, and count the blocks."""
        fork = {"fork": fork_block_id}
        self._connection.execute(_Q["claim_blocks"], fork)
        for query in ("truncate_inputs", "truncate_coinbases"):
            self._connection.execute(_Q[query], fork)
        dropped = self._connection.execute(_Q["truncate_blocks"], fork).rowcount
        for query in ("truncate_searches", "shorten_searches", "advance_searches"):
            self._connection.execute(_Q[query], fork)
        return dropped

    def forget_searches(self) -> None:
        """Record that nothing was searched: for an empty tape, which may begin anywhere."""
        self._connection.execute(_Q["forget_searches"])

    def add_coverage(self, magic: bytes, rule: str, first: int, last: int) -> None:
        """Record that a stretch was searched; an adjacent searched stretch grows by it."""
        search = {"magic": magic, "rule": rule, "first": first, "last": last}
        for query in ("extend_coverage", "precede_coverage", "add_coverage"):
            if self._connection.execute(_Q[query], search).rowcount:
                return

    def set_durable(self, *, durable: bool) -> None:
        """Make commits wait for the disk, or let a crash of the database lose the last blocks, whole."""
        self._connection.execute(_Q["set_durable"], {"setting": "on" if durable else "off"})

    def flush(self) -> None:
        """Wait until everything committed in this session is on disk; commits must be durable."""
        self._connection.execute(_Q["flush"])


def _read_input(row: dict[str, Any]) -> Input:
    if row["raw"] is None:
        raise StoreError(
            f"block {row['block_id']}: transaction {row['txid']} was pruned: nothing can be derived from it"
        )
    stored = StoredTransaction(row["raw"], row["spent"], _network(row.pop("network")), row["spent_at"])
    row["magics"], row["tracked_by"] = tuple(row["magics"]), tuple(row["tracked_by"])
    return Input(
        **row,
        senders=Lazy(StoredTransaction.senders, stored),
        outputs=Lazy(StoredTransaction.outputs, stored),
    )
