"""The writer's session of one database: the tape, and a machine for each app.

All running apps at the tape's tip take a new block together, in one transaction. An app that lags is advanced
along the tape by the same step, block by block.
"""

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from typing import Final, NamedTuple

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.block import Scanner
from virtualchain.bitcoin.networks import Network
from virtualchain.bitcoin.prefetch import prefetch
from virtualchain.bitcoin.senders import Senders
from virtualchain.bitcoin.source import BlockSource
from virtualchain.clock import Clock
from virtualchain.engine.coverage import cover, gaps, tracking_of, watches_of
from virtualchain.engine.machine import NOTHING, Advanced, Machine
from virtualchain.engine.options import Listener, Options, Progress, Tally, ignore
from virtualchain.engine.roster import NO_FORMER, Former, Roster
from virtualchain.errors import AppHalted, BuildChanged, StoreError
from virtualchain.model import Block, Input, ScannedBlock
from virtualchain.notices import Notice
from virtualchain.store.block_transaction import BlockTransaction
from virtualchain.store.builds import builds, set_on_deep_fork
from virtualchain.store.database import Lineage, advice, connect_writer
from virtualchain.store.failures import may_be_of_a_value, store_error
from virtualchain.store.history import check_consistency
from virtualchain.store.notifications import Notifier
from virtualchain.store.patience import Patience
from virtualchain.store.pipeline import EarlierFailed, pipeline_of
from virtualchain.store.sql import queries
from virtualchain.store.tape import Tape

_PENDING = queries("pending")
_MOST_IN_FLIGHT: Final = 50
_COLLECTED_AFTER: Final = 50_000
"""New objects after which Python looks for cycles. After every 700 it would go through the ops of a large
block again and again, which takes a sixth of the time."""


class Landed(NamedTuple):
    """A block that the server has taken, how many inputs it has, and what became of them, by app."""

    block: Block
    inputs: int
    tallies: dict[str, Tally]


class _Flight(NamedTuple):
    """A block whose end was sent to the server, which had not answered when it was last looked at."""

    transaction: BlockTransaction
    block: Block
    inputs: int
    advanced: Sequence[tuple[Machine, Advanced | None]]
    """The apps that took it; None for one in which nothing was for it."""


class Deployment:
    """The writer's session of one database, its tape, and its apps' machines.

    `network` is the chain that the database is bound to, or is to be; None leaves that as it is. The tape
    also gets what the apps in `kept` need, which are not applied here: others follow it. `former` is what a
    session before this one has left, see `Roster`. `repairs` names an app whose tables may be damaged,
    because it is about to be derived again. `on_message` is called with what an operator should know. After a
    psycopg.Error nothing in here can be relied on: close it and make another one.
    """

    def __init__(
        self,
        url: str,
        contracts: Sequence[Contract],
        network: Network | None,
        options: Options,
        *,
        kept: Sequence[Contract] = (),
        former: Former = NO_FORMER,
        repairs: str | None = None,
        on_message: Callable[[str], None] = ignore,
        patience: Patience | None = None,
        lineage: Lineage | None = None,
    ) -> None:
        self.options = options.for_database(url)
        _collect_rarely()
        self._clock = Clock() if patience is None else patience.clock
        with self._clock.waiting("writer") if options.wait_for_writer else nullcontext():
            self.connection = connect_writer(
                url, wait=options.wait_for_writer, patience=patience, lineage=lineage
            )
        self._is_durable = True
        self._waits = True
        """Whether the next block is waited for: the first one is, after a block that failed in flight.

        So is each part of it, and what fails is that part's.
        """
        self._in_flight: deque[_Flight] = deque()
        self.notifier = Notifier(self.connection, on_message)
        try:
            self.tape = Tape(self.connection)
            if network is not None:
                with self.connection.transaction():
                    self.tape.bind(network.name, network.genesis_hash)
            self.kept = [contract.on(self.tape.network) for contract in kept]
            here = [contract.on(self.tape.network) for contract in contracts]
            self.apps = Roster(self.connection, self.tape, here, self.options, former, on_message)
            self.contracts = [*(machine.contract for machine in self.apps.machines), *self.kept]
            self.watches = watches_of(self.contracts)
            self.tracks_outputs = any(contract.tracks is not None for contract in self.contracts)
            for app, policy in options.on_deep_fork.items():
                set_on_deep_fork(self.connection, app, policy)
            check_consistency(self.connection, repairs)
            _forget_pending(self.connection)
            self.warnings = self._warnings()
            self.apps.note_arrived()
            self.apps.expect(options.expected)
        except psycopg.Error as error:
            self.close()
            if known := advice(url, error):
                raise StoreError(f"{store_error(error)}{known}") from error
            raise
        except BaseException:
            self.close()
            raise

    def _warnings(self) -> list[str]:
        """Return what is to be said of the apps' code: that it changed, or is missing."""
        names = self.names()
        return [
            Notice(warning, "app_warned", app=build.app)
            for build in builds(self.connection)
            if build.is_live
            and (warning := build.warning if build.app in names else build.not_run_warning) is not None
        ]

    def names(self) -> set[str]:
        """Return the names of the apps."""
        return {contract.name for contract in self.contracts}

    @property
    def goes_on(self) -> bool:
        """Whether there is work: an app that runs, or a tape that is kept for apps elsewhere."""
        return bool(self.apps.running or self.kept)

    def scanner(self, network: Network) -> Scanner:
        """Make what searches blocks for all apps."""
        tracking = tracking_of(self.contracts)
        return Scanner(self.watches, network, keeps_blocks=self.tracks_outputs, tracking=tracking)

    def start_searches(self) -> None:
        """Start the apps' searches with the next block."""
        with self.connection.transaction():
            cover(self.tape, self.contracts)

    def settle(self) -> None:
        """Wait until every block so far is on disk, and move saved files into place."""
        self.be_durable()
        for machine in self.apps.machines:
            machine.settle()

    def be_durable(self) -> None:
        """Make the following commits wait for the disk, and wait for those before."""
        if not self._is_durable:
            self._set_durable(durable=True)
            self.tape.flush()

    def _set_durable(self, *, durable: bool) -> None:
        self.tape.set_durable(durable=durable)
        self._is_durable = durable

    def close(self) -> None:
        """End the session, and with it the writer's lock; the blocks in flight are waited for."""
        if not self.connection.closed:
            with suppress(psycopg.Error):
                pipeline_of(self.connection).leave()
        self.connection.close()

    def first_block_id(self) -> int:
        """Return the block that an empty tape starts with; 0 without apps."""
        return min((contract.start for contract in self.contracts), default=0)

    def last_block_id(self) -> int:
        """Return the tape's last block; if it is empty, the one before its first."""
        tip = self.tape.tip()
        return self.first_block_id() - 1 if tip is None else tip.block_id

    def fetch(
        self, source: BlockSource, scanner: Scanner, headers: Iterable[Block]
    ) -> Generator[ScannedBlock, None, None]:
        """Fetch and scan blocks, which are checked as the options say; close the generator to stop early."""
        verify = self.options.verify
        return prefetch(source, scanner, headers, verify=verify, senders=self.senders(), clock=self._clock)

    def senders(self) -> Senders:
        """Return who checks what inputs spend, on the tape, too."""
        return Senders(self.options.senders, self.tape.hashes_at)

    def take(self, scanned: ScannedBlock, *, near_tip: bool) -> list[Landed]:
        """Append a block and advance every running app at its parent, in one transaction.

        Far from the tip a crash of the database may lose the block, whole, no notification is sent, and the
        transaction may still be on its way to the server on return: if it fails, that is raised later, and
        whoever uses the connection waits for it. Returns the blocks that the server has taken since it was
        asked last, this one or earlier ones.
        """
        block = scanned.block
        for machine in self.apps.machines:
            machine.check_base_block(block)
        if near_tip != self._is_durable:
            self._set_durable(durable=near_tip)
        with BlockTransaction(
            self.connection, block, scanned.inputs, is_new=True, in_flight=not self._waits
        ) as transaction:
            with self._clock.stage("judge"):
                inputs = self._look(scanned, transaction)
                self._hold(block, transaction)
                advanced = list(self._advanced(block, inputs, transaction))
            is_asked = any(step is not None and machine.is_to_be_asked for machine, step in advanced)
            with self._clock.stage("commit"):
                if self._waits or near_tip or is_asked:
                    self._commit(transaction, advanced)
                else:
                    transaction.send_commit()
        self._waits = False
        self._in_flight.append(_Flight(transaction, block, len(inputs), advanced))
        if len(self._in_flight) > _MOST_IN_FLIGHT:
            with self._clock.stage("commit"):
                self._in_flight[_MOST_IN_FLIGHT // 2].transaction.wait_until_taken()
        landed = list(self._landed())
        if near_tip:
            self.notifier.block(block)
        return landed

    def _look(self, scanned: ScannedBlock, transaction: BlockTransaction) -> Sequence[Input]:
        """Return a block's inputs, with those that apps see because they track outputs."""
        block = scanned.block
        tracking = [
            machine
            for machine in self.apps.running
            if machine.contract.tracks is not None and machine.cursor == block.block_id - 1
        ]
        if not tracking:
            return scanned.inputs
        assert scanned.rest is not None, "the scanner keeps blocks for apps that track outputs"
        inputs = {item.txindex: item for item in scanned.inputs}
        for machine in tracking:
            machine.look(block, inputs, scanned.rest, transaction)
        transaction.inputs = [item for _, item in sorted(inputs.items())]
        return transaction.inputs

    def _hold(self, block: Block, transaction: BlockTransaction) -> None:
        """Hold the builds whose history is dropped at a block; leave apps whose build is swapped or dropped.

        In flight that would be found out too late, and cost the session. They are asked together, and once in
        many blocks.
        """
        asked = [
            (machine, machine.ask_to_drop_history(block.block_id, transaction))
            for machine in self.apps.running
            if machine.cursor == block.block_id - 1
        ]
        answers = [(machine, answer) for machine, answer in asked if answer is not None]
        if not answers:
            return
        transaction.wait()
        for machine, answer in answers:
            try:
                machine.may_drop_history(block.block_id, answer)
            except BuildChanged:
                self.apps.leave(machine)

    def land(self) -> list[Landed]:
        """Wait for the blocks in flight, and return them."""
        self._wait()
        return list(self._landed())

    def _wait(self) -> None:
        with self._clock.stage("commit"):
            pipeline_of(self.connection).wait()

    def _commit(
        self, transaction: BlockTransaction, advanced: Sequence[tuple[Machine, Advanced | None]]
    ) -> None:
        try:
            transaction.commit()
        except EarlierFailed:
            raise  # no app of this block is to blame
        except psycopg.Error as error:
            culprit = transaction.culprit() if may_be_of_a_value(error) else None
            for machine, _ in advanced:
                machine.was_interrupted = machine.place == culprit
            raise

    def _landed(self) -> Iterator[Landed]:
        """Do what is to be done after blocks that the server has taken meanwhile, and yield them."""
        while self._in_flight and (missed := self._in_flight[0].transaction.missed()) is not None:
            flight = self._in_flight.popleft()
            tallies = {}
            for machine, step in flight.advanced:
                if machine.place in missed:
                    self.apps.leave(machine)
                elif step is None:
                    self.apps.look_at_digests(machine, flight.block)
                    tallies[machine.contract.name] = NOTHING
                else:
                    self._after_commit(machine, step)
                    tallies[machine.contract.name] = step.tally
            yield Landed(flight.block, flight.inputs, tallies)

    def _advanced(
        self, block: Block, inputs: Sequence[Input], transaction: BlockTransaction
    ) -> Iterator[tuple[Machine, Advanced | None]]:
        """Advance every running app at the block's parent; yield those that could take the block."""
        magics = {magic for item in inputs for magic in item.magics}
        for machine in list(self.apps.running):
            if machine.cursor != block.block_id - 1:
                continue
            try:
                if machine.rests(block, magics):
                    machine.rest(block, transaction)
                    step = None
                else:
                    consensus_hash = machine.step(block, inputs, transaction)
                    step = Advanced(block, len(inputs), consensus_hash, machine.tally)
            except AppHalted as halted:
                transaction.begin()
                self.apps.halt_for(machine, halted)
            except BuildChanged:
                self.apps.leave(machine)
            else:
                yield machine, step

    def catch_up(self, listener: Listener, most: int | None = None) -> None:
        """Advance the lagging apps along the tape towards its tip: each by `most` blocks, or all the way.

        An app stays where it is until all blocks have been searched for its inputs.
        """
        tip = self.tape.tip()
        for machine in self.apps.lagging():
            assert tip is not None, "no app lags on an empty tape"
            machine.log.set_status("catching_up", if_live=True)
            if gaps(self.tape, machine.contract, machine.cursor):
                continue
            last = tip.block_id if most is None else min(tip.block_id, machine.cursor + most)
            self.advance_to(machine, last, listener)

    def advance_to(self, machine: Machine, last: int, listener: Listener) -> None:
        """Advance a lagging app along the tape."""
        self._follow(machine, machine.advance(last), listener)

    def advance_over(
        self, machine: Machine, scanned_blocks: Iterable[ScannedBlock], listener: Listener
    ) -> None:
        """Advance a lagging app along blocks of the tape that were fetched again."""
        self._follow(machine, machine.advance_over(scanned_blocks), listener)

    def _follow(self, machine: Machine, steps: Iterable[Advanced], listener: Listener) -> None:
        """Let a lagging app take steps towards the tape's tip, as far as it and the listener go."""
        name, tip = machine.contract.name, self.tape.tip()
        assert tip is not None, "no app lags on an empty tape"
        machine.log.set_status("catching_up", if_live=True)
        try:
            for step in steps:
                self._after_commit(machine, step)
                listener.on_catch_up(
                    Progress(step.block, step.inputs, tip.block_id, name, {name: step.tally})
                )
                if machine not in self.apps.running or not listener.may_continue():
                    break
        except AppHalted as halted:
            self.apps.halt_for(machine, halted)
        except BuildChanged:
            self.apps.leave(machine)
        if machine.cursor == tip.block_id and machine in self.apps.running:
            machine.log.set_status("running", if_live=True)

    def reload_after_rollback(self, rebuilt: Sequence[Machine]) -> None:
        """Load every machine again, after a rollback; the builds of `rebuilt` are live now."""
        self.apps.load(rebuilt)
        self.apps.note_arrived()
        self.apps.expect_again()
        if self.contracts and self.tape.tip() is None:
            self.start_searches()

    def _after_commit(self, machine: Machine, step: Advanced) -> None:
        """After the block's transaction: ask the app whether to continue, and retire it if not."""
        if self._is_durable:
            machine.settle()
        self.apps.ask(machine, step)


def _forget_pending(connection: psycopg.Connection) -> None:
    """Remove what a writer has noted of pending inputs that was killed, if it has."""
    row = connection.execute(_PENDING["is_there"]).fetchone()
    if row is not None and row[0]:
        connection.execute(_PENDING["forget"])


def _collect_rarely() -> None:
    """Have this process look for cycles less often, unless it never does, or it is set to do so already."""
    first, *others = gc.get_threshold()
    if 0 < first < _COLLECTED_AFTER:
        gc.set_threshold(_COLLECTED_AFTER, *others)
