"""`StateEngine`: follow a chain and keep apps' states in PostgreSQL.

It asks the source for blocks, has the planner decide, and hands the blocks to the deployment. It keeps no
state of its own: after any failure it continues from what is in the database.
"""

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final, Self

import psycopg

from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.mempool import Mempool
from virtualchain.bitcoin.node.node import NodeSource
from virtualchain.bitcoin.node.several import asks_another, node_of, standing_of
from virtualchain.bitcoin.source import BlockSource, Wake
from virtualchain.engine.answering import Answering, unless_only_an_app
from virtualchain.engine.backfill import catch_up
from virtualchain.engine.changed_settings import note_settings, settings_of
from virtualchain.engine.deployment import Deployment, Landed
from virtualchain.engine.expectations import Expect, Inquiry
from virtualchain.engine.faults import Faults
from virtualchain.engine.halting import halted_error
from virtualchain.engine.look import Look
from virtualchain.engine.measures import Measures
from virtualchain.engine.options import Listener, Options, Progress, check_runnable, ignore, policies_by_app
from virtualchain.engine.pending import Pending
from virtualchain.engine.planner import Extend, Wait
from virtualchain.engine.rebuild import drop_unfinished
from virtualchain.engine.report import Report
from virtualchain.engine.rollback import refuse_below_pruned, refuse_by_policy, refuse_without_code, roll_back
from virtualchain.engine.roster import NO_FORMER, Former
from virtualchain.engine.sources import check_upstream, cut, options_for, source_of
from virtualchain.errors import (
    AppHalted,
    DatabaseUnavailable,
    DeepFork,
    InUse,
    NodeError,
    NodeUnavailable,
    StoreError,
    UsageError,
    VirtualchainError,
)
from virtualchain.model import Block, OnUnexpected, Reorg, SenderLevel, Verification
from virtualchain.notices import Notice
from virtualchain.settings import HISTORY, Policy, verification
from virtualchain.store.database import Lineage, redact, resolve
from virtualchain.store.failures import PAUSES, is_of_changed_build, store_error
from virtualchain.store.migrate import migrate
from virtualchain.store.patience import Patience
from virtualchain.store.rollback import Undone

_PAUSE = 5.0
"""The most seconds between a follower's attempts to reach a database: a standby may take over at any time."""
NEAR_TIP = 10
"""Within this many blocks of the stable tip, commits wait for the disk, and notifications are sent."""
POLL = 3.0
"""Seconds between two looks at the node, if it announces nothing in between."""
_STRETCH = 500
"""Blocks that a lagging app is advanced by while others have new blocks to take."""
_GARBLED = 3
"""How many malformed answers in a row a follower tolerates from the node."""


_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class StateEngine(Answering):
    """Runs apps on a chain.

    ::

        with StateEngine(app, source="http://user:password@127.0.0.1:8332") as engine:
            engine.build()

    `apps` are implementations (`App` objects, modules, classes); without any, the engine itself is one: a
    subclass that has the callbacks. Such a class may also be passed as an app, to another engine or with
    --app: then its own part of `__init__` runs, and nothing is opened. `database` is a PostgreSQL URL; None
    means the embedded server. `source` is a node's URL, the URLs of several nodes, the postgresql:// URL of
    another deployment whose tape is followed, or a BlockSource; `cookie` is the file with which to log in at
    the node, if neither the URL has a password nor the file is in its default place. A block is taken once
    `confirmations` blocks are on top of it; None means as many as the network should have, which is 6 on
    Bitcoin, and none on top of another deployment's tape.
    Every block is checked before anything of it is taken: with `verify="headers"` the chain of headers with
    its work, targets and times, and the block's form; with "merkle" its transactions and witnesses against
    what header and coinbase commit to, too; with "off" only that it is the block of its header. None means
    "headers" for a node or a deployment, and "merkle" for any other source. `senders` is what the
    outputs that transactions spend are taken on: the source's word ("node"), what the inputs reveal
    ("bound"), or the transactions and blocks that made them ("proved").
    `history` is for how many blocks every app can be rolled back by its history (None: all); below that it is
    derived again from the tape. `on_deep_fork` says what happens when taken blocks are replaced: rollback,
    checkpoint or halt, for all apps or by app; an app that it does not name keeps its policy, at first
    rollback. A fork that replaces more blocks than `deepest_rollback` is left to an operator, as with halt,
    whatever the policies are. Apps with a state of their own have it saved to `state_folder` (default: the
    user's data folder).

    `expect` returns the digests that others say the apps have, by app; it is called at the start, and in
    another thread every ten minutes while `follow` runs. An app with other ones, or with others than it
    declares itself, stops before it takes another block, unless `on_unexpected` is "continue".

    With `pending`, `follow` also judges what is not in a block of the tape yet: the node's unconfirmed
    transactions, and blocks with fewer confirmations. `virtualchain.pending` shows what would come of them.
    For the apps in `keeps`, the tape gets what they need, but they are neither installed nor applied: other
    deployments follow that tape.
    With `guard`, callbacks that read the clock, files and the like are refused or halted (docs/mistakes.md).

    After each block's transaction `on_block` is called, and `on_catch_up` for each block that a lagging app
    takes from the tape; `on_wait` before waiting, with the reason, and with what needs the user's attention;
    `on_rollback` after each rollback. `measures` counts what is done, for whoever looks at it meanwhile.
    `on_wait` must not query the engine: the database may just be silent. What it gets is a
    `virtualchain.notices.Notice`: text that also names its event.

    Raises UsageError if the apps cannot be run this way, StoreError, NodeError.
    """

    @classmethod
    def __virtualchain_app__(cls) -> Self:
        """Make an object for its callbacks alone, without source and database, for another engine to call.

        What an `__init__` of the subclass requires is None there.
        """
        app = cls.__new__(cls)
        app._is_only_an_app = True  # noqa: SLF001 - the object is of this class
        initialize: Callable[..., None] = app.__init__  # type: ignore[misc] # with whatever arguments it has
        parameters = inspect.signature(initialize).parameters.values()
        required = [item for item in parameters if item.default is item.empty and item.kind in _NAMED]
        initialize(**{item.name: None for item in required})
        return app

    @unless_only_an_app
    def __init__(
        self,
        *apps: object,
        database: str | None = None,
        source: BlockSource | str | Sequence[str],
        cookie: Path | str | None = None,
        confirmations: int | None = None,
        verify: Verification | None = None,
        senders: SenderLevel = "node",
        wait_for_writer: bool = False,
        on_block: Callable[[Progress], None] | None = None,
        on_catch_up: Callable[[Progress], None] | None = None,
        on_wait: Callable[[str], None] | None = None,
        on_rollback: Callable[[Reorg, Undone], None] | None = None,
        state_folder: Path | None = None,
        history: int | None = HISTORY,
        on_deep_fork: Policy | Mapping[str, Policy] | None = None,
        deepest_rollback: int | None = None,
        expect: Expect | None = None,
        on_unexpected: OnUnexpected = "halt",
        pending: bool = False,
        guard: bool = False,
        keeps: Sequence[object] = (),
        measures: Measures | None = None,
    ) -> None:
        declared = [read_contract(app) for app in apps or (() if keeps else (self,))]
        self._kept = [read_contract(app) for app in keeps]
        self._options = Options(
            confirmations=confirmations or 0,  # without any, the network's, once it is known
            verify="merkle" if verify is None else verification(verify) or verify,
            senders=senders,
            history=history,
            on_deep_fork=policies_by_app(declared, on_deep_fork),
            deepest_rollback=deepest_rollback,
            state_folder=state_folder,
            wait_for_writer=wait_for_writer,
            expected={} if expect is None else expect(),
            on_unexpected=on_unexpected,
            guard=guard,
        )
        self._verify = verify  # as asked for: None leaves it to the source
        self._inquiry = None if expect is None else Inquiry(expect)
        check_runnable(declared, self._options, self._kept)
        self._wake = Wake()
        self._stopping = False  # plain, because a signal handler sets it: an Event's lock may be held then
        self._faults = Faults(PAUSES)
        self._garbled = 0
        """Malformed answers of the node since the last block."""
        self._listener = Listener(
            on_block=self._with_progress(on_block or ignore),
            on_catch_up=self._with_progress(on_catch_up or ignore),
            on_wait=on_wait or ignore,
            on_rollback=on_rollback or ignore,
            may_continue=lambda: self.measures.clock.turn() and not self._stopping,
        )
        self.measures = measures or Measures()
        self._report = Report(self.measures)
        self._dropped_unfinished = False
        self._waits_for: str | None = None
        self._cause = "tip"
        """The cause of waiting, one of `CAUSES`."""
        self._follows = False
        self._node_is_away = False
        self._url = resolve(database)
        self._lineage = Lineage()
        self._patience = Patience(self._listener.on_wait, self._listener.may_continue, self.measures.clock)
        migrate(self._url, self._patience)
        cookie = None if cookie is None else Path(cookie)
        self._source = source_of(source, cookie, self._listener.on_wait)
        self._pending: Pending | None = None
        self._mempool: Mempool | None = None
        self._mempool_of: NodeSource | None = None
        try:
            if pending and node_of(self._source) is None:
                raise UsageError(f"only a node has unconfirmed transactions: {self._source} is none")
            self._options = options_for(self._options, self._source, declared, verify, confirmations)
            check_upstream(self._source, self._url, self._listener.on_wait)
            self._contracts = [contract.on(self._source.network.name) for contract in declared]
            self._deployment = self._open()
        except BaseException:
            self._source.close()
            raise
        self._look = Look(self._source, self._options.confirmations, self._options.verify)
        self._scanner = self._deployment.scanner(self._source.network)
        if pending:
            self._follow_mempool()
        for warning in self.warnings:
            self._listener.on_wait(warning)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database and the node."""
        self._leave_pending()
        if self._mempool is not None:
            self._mempool.close()
        self._report.end(self._deployment.connection)
        self._deployment.close()
        self._source.close()

    def stop(self) -> None:
        """End `build` or `follow` after the current block; for signal handlers and other threads."""
        self._stopping = True
        self._wake.call()
        self._source.wake()

    def give_up_node(self) -> None:
        """Let no answer of the node hold up the end; for another thread, after `stop`."""
        cut(self._source)

    def build(self, to: int | None = None) -> int:
        """Process blocks up to `to`, or to the stable tip; return the last block processed.

        If no block was ever processed, that is the one before the first. If the node has left our branch, the
        blocks taken from it are undone first. Raises DeepFork if an app's policy forbids that, AppHalted if
        no app is left that can continue, StoreError, NodeError.
        """
        self._faults.clear()
        while True:
            try:
                while self._listener.may_continue() and self._advance(to):
                    self._faults.clear()
                    self._report.write(self._deployment.connection)
                self._deployment.settle()
                self._report.write(self._deployment.connection, self._waits_for)
                return self._deployment.last_block_id()
            except psycopg.Error as error:
                self._recover(error)
            except NodeError as error:
                self.measures.fail(error)
                if not asks_another(self._source, error):
                    raise
            except DeepFork as error:
                self.measures.fail(error)
                self._report.stop_for(str(error))
                raise

    def _recover(self, error: psycopg.Error) -> None:
        """Continue in a new session after a fault that passes; raise StoreError if it does not.

        If values of one app may cause it again and again, that app is halted alone, provided that the others
        can take the block. A build that was swapped or dropped is no fault: the new session finds it out.
        """
        if is_of_changed_build(error):
            if self._reopen((0.0, *PAUSES)):  # at once: nobody else is to become the writer
                self._note_connection()
            return
        failure = StoreError.from_database(error)
        machine = self._deployment.apps.interrupted()
        place = None if machine is None else (machine.contract.name, machine.cursor + 1)
        retry = None if self._stopping else self._faults.add(error, place)
        if retry is None:
            raise failure from error
        self._listener.on_wait(Notice(f"{failure}; trying again", "database_failed"))
        self._reopen(retry.pauses)
        self._note_connection()
        if retry.condemns and machine is not None:
            try:
                self._deployment.apps.condemn(machine, error)
            except psycopg.Error as still:
                raise StoreError.from_database(still) from still

    def _with_progress(self, notify: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Notify of a block, after which faults are counted from zero again, and report if it is due."""

        def note(progress: Progress) -> None:
            self._faults.clear()
            self._garbled = 0
            self._report.count(progress)
            notify(progress)
            if progress.app is not None:  # which may catch up for hours; of others, some may not be noted yet
                self._report.write(self._deployment.connection)

        return note

    def follow(self) -> None:
        """Build, wait for new blocks, and build again, until `stop`.

        While the node or the database is away, it is waited for. After a malformed answer the node is asked a
        few more times, since something on the way may have garbled it. Raises what `build` raises otherwise.
        """
        self._garbled = 0
        self._follows = True
        while not self._stopping:
            try:
                self._build_or_wait()
            except StoreError as error:
                if self._listener.may_continue():
                    raise
                self._listener.on_wait(Notice(str(error), "interrupted"))
                return
            if not self._deployment.goes_on:
                return
            if not self._stopping:
                if self._waits_for is not None:
                    self._listener.on_wait(self._waits_for)
                self._judge_pending()
                with self.measures.clock.waiting(self._cause):
                    self._report_waiting()  # so that the report has what is waited for, too
                    waiting = self._source if self._node_is_away else self._mempool or self._source
                    waiting.wait(POLL)

    def _build_or_wait(self) -> None:
        """Build; note what is waited for if that fails now and may succeed later."""
        self._cause = "tip"
        try:
            self.build()
            self._garbled = 0
        except NodeUnavailable as error:
            self._waits_for, self._cause = Notice(str(error), "waiting_for_node"), "node"
            self._node_is_away = True
            self.measures.clock.lose("node")
        except InUse as error:
            self._waits_for, self._cause = Notice(str(error), "waiting_for_readers"), "readers"
        except NodeError as error:
            self._waits_for, self._cause = Notice(str(error), "node_failed"), "node"
            self._garbled += 1
            if self._garbled > _GARBLED:
                raise

    def _judge_pending(self) -> None:
        """Judge what is not in a block of the tape yet, if that was asked for."""
        if self._mempool is None or self._node_is_away:
            return
        node, mempool = self._follow_mempool()
        try:
            if self._pending is None:
                self._pending = Pending(self._deployment, node, self._scanner, mempool)
            self._pending.refresh()
        except psycopg.Error as error:
            self._recover(error)
        except (NodeError, InUse) as error:
            self._leave_pending()
            message = f"pending inputs are not judged: {error}; trying again"
            self._listener.on_wait(Notice(message, "pending_not_judged"))

    def _follow_mempool(self) -> tuple[NodeSource, Mempool]:
        """Follow the unconfirmed transactions of the node that is asked now."""
        node = node_of(self._source)
        assert node is not None, "it was checked"
        if self._mempool is None or self._mempool_of is not node:
            self._leave_pending()
            if self._mempool is not None:
                self._mempool.close()
            tracks = self._deployment.tracks_outputs
            watches = self._deployment.watches
            self._mempool = Mempool(node, watches, tracks_outputs=tracks, zmq=node.publisher)
            self._mempool_of = node
        return node, self._mempool

    def _report_waiting(self) -> None:
        """Report what is waited for."""
        try:
            self._report.write(self._deployment.connection, self._waits_for, is_idle=True)
        except psycopg.Error as error:
            self._recover(error)

    def _leave_pending(self) -> None:
        """Forget what is pending: nobody knows it any more."""
        if self._pending is not None:
            self._pending.close()
            self._pending = None

    @property
    def waits_for(self) -> str | None:
        """What the engine waits for; None while it has blocks to process."""
        return self._waits_for

    @property
    def warnings(self) -> list[str]:
        """What an operator should know of the apps' code: that it changed, or is missing."""
        return self._deployment.warnings

    def halted(self) -> dict[str, AppHalted]:
        """Return why each halted app was halted, by its name."""
        return {
            name: halted_error(name, record, self._deployment.apps.causes.get(name))
            for name, record in self._deployment.apps.halted.items()
        }

    def _open(self, former: Former = NO_FORMER) -> Deployment:
        try:
            deployment = Deployment(
                self._url,
                self._contracts,
                self._source.network,
                self._options,
                kept=self._kept,
                former=former,
                on_message=self._listener.on_wait,
                patience=self._patience,
                lineage=self._lineage,
            )
            with ExitStack() as on_failure:
                on_failure.callback(deployment.close)
                deployment.start_searches()
                self.measures.begin(self._options.confirmations, deployment.first_block_id())
                self.measures.be_at(deployment.tape.tip())
                self.measures.see(deployment.apps.states())
                self._report.begin(deployment.connection, self._options.confirmations, deployment.names())
                settings = settings_of(self._options, self._verify, self._contracts)
                note_settings(deployment.connection, settings, self._listener.on_wait)
                on_failure.pop_all()
        except psycopg.Error as error:
            raise store_error(error) from error
        return deployment

    def _note_connection(self) -> None:
        self.measures.reconnect("database")
        message = f"connected again to the database {redact(self._url)}"
        self._listener.on_wait(Notice(message, "database_connected"))

    def _reopen(self, pauses: Sequence[float]) -> bool:
        """Get a new session; all work in progress is discarded. Return whether it was reported as waited for.

        A follower waits for a database that cannot be reached without end, until `stop`.
        """
        self._leave_pending()
        former = self._deployment.apps.handover()
        self._deployment.close()
        with self.measures.clock.waiting("database"):
            for attempt in count():
                pause = pauses[min(attempt, len(pauses) - 1)]
                self._wake.wait(min(pause, _PAUSE) if self._follows else pause)
                try:
                    self._deployment = self._open(former)
                    break
                except StoreError as error:
                    # WriterBusy, too: the server may not know yet that our old session has ended.
                    waits = self._follows and isinstance(error, DatabaseUnavailable)
                    if not self._listener.may_continue() or (attempt + 1 >= len(pauses) and not waits):
                        raise
                    self._listener.on_wait(Notice(f"{error}; trying again", "waiting_for_database"))
        return attempt > 0

    def _advance(self, to: int | None) -> bool:
        """Take the next stretch of blocks and let lagging apps catch up; return whether any moved."""
        if self._follows:
            self._expect_again()
        moved = self._deployment.goes_on and self._follow_plan(to)
        most = _STRETCH if moved else None
        moved = catch_up(self._deployment, self._source, self._listener, most, self._note_search) or moved
        # Each block checks that its builds are live; so this comes after, when nobody waits for rows.
        for name in self._deployment.apps.retire_swapped():
            # A new session would refuse it, because its code is not that of the live build.
            self._contracts = [contract for contract in self._contracts if contract.name != name]
            message = f"app {name} shows another build now: restart with that build's code"
            self._listener.on_wait(Notice(message, "app_swapped", app=name))
        self.measures.see(self._deployment.apps.states())
        if not self._deployment.goes_on:
            for error in self.halted().values():
                raise error
            return False
        return moved

    def _expect_again(self) -> None:
        """Expect what is expected by now; if that cannot be read, what was expected before still is."""
        try:
            expected = None if self._inquiry is None else self._inquiry.answer()
        except VirtualchainError as error:
            message = f"the digests that are expected could not be read again: {error}"
            self._listener.on_wait(Notice(message, "expected_unreadable"))
            return
        if expected is not None and expected != self._options.expected:
            self._options = replace(self._options, expected=expected)
            self._deployment.apps.expect(expected)

    def _follow_plan(self, to: int | None) -> bool:
        """Do what the planner says; return whether the tape changed."""
        asked = self._deployment.tape.ask_standing()
        if not isinstance(self._source, NodeSource):
            self._source.tip()  # files are read again when they are asked for it; a node knows its chain
        self._look.ask_ahead()  # the source answers while the database does
        standing = asked()
        plan = self._look.plan(
            self._deployment.tape,
            standing,
            first_block_id=self._deployment.first_block_id(),
            node_tip=self._source.tip,
        )
        self._report.know(self._look.node_tip, *standing_of(self._source))
        if self._node_is_away:
            self._node_is_away = False
            self.measures.clock.find()
            self.measures.reconnect("node")
            self._listener.on_wait(Notice(f"connected again: {self._source} answers", "node_connected"))
        match plan:
            case Wait(reason=reason):
                self._waits_for = reason
                return False
            case Reorg():
                self._roll_back(plan, standing.pins)
                return True
            case Extend(blocks=blocks):
                self._waits_for = None
                if not self._dropped_unfinished:
                    drop_unfinished(self._deployment.connection)
                    self._dropped_unfinished = True
                headers = [block for block in blocks if to is None or block.block_id <= to]
                self._extend(headers, self._look.node_tip.block_id - self._options.confirmations)
                return bool(headers)

    def _extend(self, headers: Sequence[Block], stable_tip: int) -> None:
        """Fetch these blocks, and let the deployment take them one by one."""
        fetched = self._deployment.fetch(self._source, self._scanner, headers)
        with closing(fetched) as scanned_blocks:
            try:
                for scanned in scanned_blocks:
                    near_tip = scanned.block.block_id > stable_tip - NEAR_TIP
                    self._notify(self._deployment.take(scanned, near_tip=near_tip), stable_tip)
                    self._report.write(self._deployment.connection)
                    if not self._listener.may_continue() or not self._deployment.goes_on:
                        break
            except NodeError:
                self._notify(self._deployment.land(), stable_tip)
                raise
        self._notify(self._deployment.land(), stable_tip)

    def _notify(self, landed: Iterable[Landed], stable_tip: int) -> None:
        for block, inputs, tallies in landed:
            self._listener.on_block(Progress(block, inputs, stable_tip, tallies=tallies))
        if len(self._deployment.apps.halted) != self.measures.halted:
            self.measures.see(self._deployment.apps.states())

    def _roll_back(self, reorg: Reorg, pins: Mapping[int, str]) -> None:
        """Undo the blocks that the node's chain does not hold; the next plan extends the tape again.

        If somebody changes the `pins` that the plan is based on, nothing is undone before the next plan.
        """
        self._dropped_unfinished = False
        connection = self._deployment.connection
        refuse_by_policy(connection, reorg, self._options.deepest_rollback)
        refuse_without_code(connection, reorg, self._deployment.apps.names_with_code())
        started = time.monotonic()
        try:
            refuse_below_pruned(self._deployment, reorg)
            undone = roll_back(
                self._deployment,
                reorg,
                self._listener,
                still_holds=lambda: self._deployment.tape.pins() == pins,
                source=self._source,
            )
        except UsageError:
            with_code = self._deployment.apps.names_with_code()
            refuse_without_code(connection, reorg, with_code)  # there was a swap since then
            raise
        if undone is not None:
            self.measures.undo(undone.blocks, time.monotonic() - started)
            self.measures.be_at(self._deployment.tape.tip())
            self._listener.on_rollback(reorg, undone)

    def _note_search(self) -> None:
        """Take note that blocks were searched for an app that joins: node and database work."""
        self._faults.clear()
        self._garbled = 0
