"""What would come of the inputs that no block of the tape holds yet, judged between the writer's blocks.

They are those of the blocks that have fewer than K others on top, and the node's unconfirmed ones, taken for
one more block in the order in which a miner would take them. All is judged in the writer's session, so that
nothing changes meanwhile, and in a transaction that is undone. Only verdicts and rows are kept, in tables of
their own, from which nothing is derived.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import psycopg

from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.next_block import NextBlock
from virtualchain.bitcoin.node.mempool import Mempool, Unconfirmed
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.prefetch import fetch
from virtualchain.bitcoin.transaction import read_inputs
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.foreseeing import Foreseer, Interrupted, Verdict
from virtualchain.engine.machine import Machine
from virtualchain.errors import AppHalted, UsageError
from virtualchain.model import Block, ScannedBlock
from virtualchain.store.failures import summarize_error
from virtualchain.store.foreseen import RowChange, net
from virtualchain.store.giving_way import give_way
from virtualchain.store.log import as_json
from virtualchain.store.projections import build_schema, projections
from virtualchain.store.publish import show_pending
from virtualchain.store.sql import queries

_Q = queries("pending")
MOST_JUDGED: Final = 2_000
"""Unconfirmed transactions that are judged, so that it ends although others come."""
MOST_BYTES: Final = 16_000_000
"""Bytes of them that are judged: four blocks of the largest size."""
MOST_ON_TOP: Final = 200
"""Blocks on top of the tape's last one up to which there is a view of what is pending."""
_MOST_FAILURES: Final = 20
"""Inputs at which a callback fails that are left out, one after the other, until the rest is not judged."""
_AT_ONCE: Final = 32_000_000
"""Characters of rows that a statement adds; jsonb holds eight times as many."""
_TXID: Final = 32
"""Bytes of an outpoint that are the transaction's id."""
_STILL_SO: Final = 20.0
"""Seconds after which it is recorded that nothing has changed."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """An input, its transaction, and what would come of it."""

    txid: str
    raw: bytes
    block_id: int | None
    """The block that holds it; None if it is unconfirmed."""
    verdict: Verdict | None
    """None if it was not judged, or a callback failed."""
    failure: Exception | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What there is one row for."""
        return self.txid, 0 if self.verdict is None else self.verdict.payload_index

    def row(self, place: int, unconfirmed: Mapping[str, Unconfirmed]) -> str:
        """Return it as a row for the database, in JSON."""
        verdict, seen = self.verdict, unconfirmed.get(self.txid)
        changes = "" if verdict is None else ",".join(change.as_json() for change in verdict.changes)
        values = [
            *self.key,
            place,
            self.block_id,
            self.raw.hex(),
            None if verdict is None else verdict.opcode.hex(),
            None if verdict is None or verdict.payload is None else verdict.payload.hex(),
            None if verdict is None else verdict.fields,
            *self._outcome(),
            *(3 * [None] if seen is None else [seen.fee, seen.vsize, seen.seen_at]),
        ]
        return f"{as_json(values)[:-1]},[{changes}]]"

    def _outcome(self) -> tuple[str, str | None, str | None]:
        if isinstance(self.failure, psycopg.Error):
            return "unjudged", None, f"what inputs do cannot be shown: {summarize_error(self.failure)}"
        if isinstance(self.failure, UsageError):
            return "unjudged", None, str(self.failure)
        if isinstance(self.failure, AppHalted):
            record = self.failure.record
            return "halts", str(record["callback"]), str(record["error"])
        if self.verdict is None:
            most = f"{MOST_JUDGED} transactions, and {MOST_BYTES // 1_000_000} megabytes of them"
            return "unjudged", None, f"only the first {most} are judged"
        return "accepted" if self.verdict.is_accepted else "refused", self.verdict.step, self.verdict.reason


class Pending:
    """The pending inputs of one deployment; for the thread that has its session.

    `mempool` belongs to the caller. Raises NodeError, psycopg.Error; then make another one.
    """

    def __init__(
        self, deployment: Deployment, source: NodeSource, scanner: Scanner, mempool: Mempool
    ) -> None:
        self._deployment = deployment
        self._connection = deployment.connection
        self._source = source
        self._scanner = scanner
        self._mempool = mempool
        self._folder = TemporaryDirectory(prefix="virtualchain-pending-")
        self._foreseers: dict[Machine, Foreseer] = {}
        self._on_top: list[ScannedBlock] = []
        self._judged_on: tuple[object, ...] | None = None
        """What the last verdicts depend on: the tape's last block, those on top, and the apps."""
        self._judged_at = float("-inf")
        self._tracked: set[bytes] = set()
        """The outpoints that apps track, among those that unconfirmed transactions spend."""
        self._made: set[bytes] = set()
        """The transactions in blocks on top that may have made such outputs."""
        self._tracked_on: tuple[str, ...] = ()
        """The chain on which that is so."""
        self._rows: dict[str, dict[tuple[str, int], str]] = {}
        """The rows that are recorded of each app, as JSON, by txid and payload."""
        self._written: dict[str, list[str]] = {}
        if deployment.tracks_outputs:
            mempool.track(())  # else it would keep every transaction until it is said what is tracked
        self._begin()

    def _begin(self) -> None:
        """Forget what an earlier writer has left, and make the views."""
        with self._connection.transaction():
            self._connection.execute(_Q["forget"])
        for machine in self._deployment.apps.machines:
            contract = machine.contract
            made = projections(self._connection, build_schema(contract.schema, machine.build))
            give_way(
                self._connection,
                [contract.name],
                lambda contract=contract, made=made: show_pending(  # type: ignore[misc]
                    self._connection, contract.name, contract.schema, made
                ),
            )

    def close(self) -> None:
        """Forget what is pending, as far as the database answers."""
        self._folder.cleanup()
        if not self._connection.closed:
            with suppress(psycopg.Error):
                self._connection.execute(_Q["forget"])

    def refresh(self) -> bool:
        """Judge again if anything has changed; return whether it has.

        A block that is announced meanwhile, or a stop, ends it early: then nothing is noted.
        """
        with suppress(Interrupted):
            return self._refresh()
        self._judged_on, self._tracked_on = None, ()
        return False

    def _refresh(self) -> bool:
        tip = self._deployment.tape.tip()
        if tip is None:
            return False
        headers = self._source.headers_after(tip.block_id, tip.hash)
        if headers is None or len(headers) > MOST_ON_TOP:
            return False  # the writer is to roll back, or to catch up
        machines = [machine for machine in self._deployment.apps.running if machine.cursor == tip.block_id]
        changed = self._mempool.update()
        self._take_on_top(headers)
        changed = self._track(machines, tip, headers) or changed
        judged_on = (tip.hash, tuple(block.hash for block in headers), tuple(machines))
        if not changed and judged_on == self._judged_on:
            if time.monotonic() - self._judged_at > _STILL_SO:
                self._note(headers[-1] if headers else tip)
            return False
        parent = headers[-1] if headers else tip
        transactions = list(self._mempool.transactions())
        most = _how_many(transactions)
        following = self._next_block(parent, transactions[:most])
        judged = {
            machine.contract.name: self._judge(machine, following, transactions, most) for machine in machines
        }
        with self._connection.transaction():
            self._record(judged, {item.txid: item for item in transactions})
            self._note(parent)
        self._deployment.notifier.pending()
        self._judged_on = judged_on
        return True

    def _track(self, machines: Sequence[Machine], tip: Block, headers: Sequence[Block]) -> bool:
        """Have the transactions shown that spend what apps track; return whether others are shown then.

        The apps' tables are asked for all outputs that unconfirmed transactions spend after a new block, and
        otherwise for those that new ones spend.
        """
        tracking = [machine for machine in machines if machine.contract.tracks is not None]
        if not tracking:
            return False
        chain = (tip.hash, *(block.hash for block in headers))
        new = list(self._mempool.new_spends())
        if chain != self._tracked_on:
            self._tracked_on, new = chain, list(self._mempool.spends())
            self._made = {bytes.fromhex(txid) for machine in tracking for txid in self._seen_on_top(machine)}
            before: set[bytes] | None = None
        else:
            before = self._tracked
        tracked = {each for each in new if each[:_TXID] in self._made}
        with self._connection.transaction(force_rollback=True):
            for machine in tracking:
                tracked |= self._foreseer(machine).tracked(new)
        if before is not None and tracked <= before:
            return False
        self._tracked = tracked | (before or set())
        self._mempool.track(self._tracked)
        return self._mempool.update()

    def _seen_on_top(self, machine: Machine) -> set[str]:
        """Return which transactions an app sees in the blocks on top: it may track what they make."""
        with suppress(AppHalted, UsageError, psycopg.DataError):  # that is shown when all is judged
            return {verdict.txid for verdict in self._foresee(machine, self._on_top)}
        return set()

    def _take_on_top(self, headers: Sequence[Block]) -> None:
        known = {scanned.block.hash: scanned for scanned in self._on_top}
        unknown = [block for block in headers if block.hash not in known]
        if unknown:
            with closing(self._deployment.fetch(self._source, self._scanner, unknown)) as blocks:
                known |= {scanned.block.hash: scanned for scanned in blocks}
        self._on_top = [known[block.hash] for block in headers]

    def _next_block(self, parent: Block, transactions: Sequence[Unconfirmed]) -> ScannedBlock:
        spent = {
            (spending.txid, spending.vout): output
            for item in transactions
            for spending, output in zip(read_inputs(item.raw), item.spent, strict=True)
        }
        moment = max(int(time.time()), parent.time + 1)
        raws = [item.raw for item in transactions]
        following = NextBlock(parent, moment, raws, self._source.network, spent=spent, source=self._source)
        return fetch(following, self._scanner, following.block, verify="off")

    def _judge(
        self, machine: Machine, following: ScannedBlock, transactions: Sequence[Unconfirmed], most: int
    ) -> list[_Judged]:
        """Return what would come of all that is pending for an app, in the order in which it is judged.

        Inputs at which a callback fails come after the others, and those that were not judged last.
        """
        verdicts, failed = self._verdicts(machine, [*self._on_top, following])
        blocks = {block.block.block_id for block in self._on_top}
        judged = [
            _Judged(each.txid, each.raw, each.block_id if each.block_id in blocks else None, each)
            for each in verdicts
        ]
        judged += [
            _Judged(
                item.txid, item.raw, block.block.block_id if block is not following else None, None, halted
            )
            for block in [*self._on_top, following]
            for item in block.inputs
            if (halted := failed.get(item.txid)) is not None
        ]
        judged += [
            _Judged(item.txid, item.raw, None, None)
            for item in transactions[most:]
            if not machine.magics.isdisjoint(item.magics)
        ]
        return judged

    def _verdicts(
        self, machine: Machine, blocks: Sequence[ScannedBlock]
    ) -> tuple[list[Verdict], dict[str, Exception]]:
        """Judge blocks without the inputs at which a callback fails; return which these are, too.

        If that cannot be found out, it is all of them.
        """
        failed: dict[str, Exception] = {}
        while True:
            try:
                return self._foresee(machine, [_without(block, failed) for block in blocks]), failed
            except AppHalted as halted:
                txid = halted.record["txid"]
                if not isinstance(txid, str) or txid in failed or len(failed) >= _MOST_FAILURES:
                    return [], dict.fromkeys(_txids(machine, blocks), halted)
                failed[txid] = halted
            except (
                psycopg.DataError,
                UsageError,
            ) as error:  # JSON that jsonb lacks; a state that is not loaded
                return [], dict.fromkeys(_txids(machine, blocks), error)

    def _foresee(self, machine: Machine, blocks: Sequence[ScannedBlock]) -> list[Verdict]:
        with self._connection.transaction(force_rollback=True):
            foreseer = self._foreseer(machine)
            return [verdict for block in blocks for verdict in foreseer.foresee(block)]

    def _foreseer(self, machine: Machine) -> Foreseer:
        foreseer = self._foreseers.get(machine)
        if foreseer is None:
            foreseer = self._foreseers[machine] = Foreseer(
                self._connection,
                machine.contract,
                machine.build,
                self._deployment.options,
                folder=Path(self._folder.name),
                may_continue=lambda: not self._source.is_woken(),
            )
        else:
            foreseer.load()
        return foreseer

    def _record(
        self, judged: Mapping[str, Sequence[_Judged]], unconfirmed: Mapping[str, Unconfirmed]
    ) -> None:
        """Write what has changed since the last time."""
        self._connection.execute(_Q["remove_others"], {"apps": list(judged)})
        for app in self._rows.keys() - judged.keys():
            del self._rows[app]
            self._written.pop(app, None)
        for app, items in judged.items():
            self._record_app(app, items, unconfirmed)

    def _record_app(self, app: str, items: Sequence[_Judged], unconfirmed: Mapping[str, Unconfirmed]) -> None:
        rows = {item.key: item.row(place, unconfirmed) for place, item in enumerate(items)}
        before = self._rows.get(app, {})
        gone = [list(key) for key, row in before.items() if rows.get(key) != row]
        added = [row for key, row in rows.items() if before.get(key) != row]
        if gone:
            self._connection.execute(_Q["remove"], {"app": app, "keys": json.dumps(gone)})
        if added:
            self._add("add", app, added)
        self._rows[app] = rows
        written = [_as_row(place, change) for place, change in enumerate(_net(items))]
        if written != self._written.get(app, []):
            self._connection.execute(_Q["remove_rows"], {"app": app})
            self._add("add_rows", app, written)
            self._written[app] = written

    def _add(self, query: str, app: str, rows: Sequence[str]) -> None:
        """Add rows; one that the database cannot hold is left out, so that no input can end the writer."""
        if len(rows) == 1 or sum(map(len, rows)) <= _AT_ONCE:
            with suppress(psycopg.DataError, psycopg.errors.ProgramLimitExceeded):
                with self._connection.transaction():
                    self._connection.execute(_Q[query], {"app": app, "rows": f"[{','.join(rows)}]"})
                return
        if len(rows) > 1:
            half = len(rows) // 2
            self._add(query, app, rows[:half])
            self._add(query, app, rows[half:])

    def _note(self, parent: Block) -> None:
        """Record that all is so now."""
        place = {"block_id": parent.block_id, "block_hash": parent.hash}
        self._connection.execute(_Q["judged"], place)
        self._judged_at = time.monotonic()


def _without(block: ScannedBlock, txids: Mapping[str, object]) -> ScannedBlock:
    return replace(block, inputs=tuple(item for item in block.inputs if item.txid not in txids))


def _txids(machine: Machine, blocks: Sequence[ScannedBlock]) -> list[str]:
    """Return which inputs of blocks have a magic of the app."""
    inputs = [item for block in blocks for item in block.inputs]
    return [item.txid for item in inputs if not machine.magics.isdisjoint(item.magics)]


def _net(items: Iterable[_Judged]) -> list[RowChange]:
    return net(change for item in items if item.verdict is not None for change in item.verdict.changes)


def _as_row(place: int, change: RowChange) -> str:
    return f"[{as_json(change.table)},{change.key_json},{change.new_json or 'null'},{place}]"


def _how_many(transactions: Sequence[Unconfirmed]) -> int:
    """Return how many of these are judged."""
    total = 0
    for number, item in enumerate(transactions[:MOST_JUDGED]):
        total += len(item.raw)
        if total > MOST_BYTES:
            return number
    return min(len(transactions), MOST_JUDGED)
