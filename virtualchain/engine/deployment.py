"""The database side of the engine: one tape, and the apps that move along it together.

A block is appended, and every app that stands at its parent is advanced, in one transaction. An app
that stands further back is advanced along the tape by the same step, block by block.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.bitcoin.header import work
from virtualchain.bitcoin.networks import Network
from virtualchain.engine.coverage import cover, gaps, rule_of, watches_of
from virtualchain.engine.judge import halt
from virtualchain.engine.look import held_blocks
from virtualchain.engine.machine import Machine
from virtualchain.errors import AppHalted
from virtualchain.model import Block, Input, Json, ScannedBlock
from virtualchain.settings import HISTORY
from virtualchain.store.builds import live_build, register, set_on_deep_fork
from virtualchain.store.database import connect_writer
from virtualchain.store.history import check_consistency
from virtualchain.store.tape import Tape

_STRETCH = 500
"""Blocks whose inputs are read from the tape at once."""


class Deployment:
    """The writer's session of one database, its tape, and its apps' machines.

    `network` is the chain that the database is bound to, or is to be; None leaves it as it is. `history` is
    for how many blocks apps can be brought back (None: all), `on_deep_fork` the policy of each app by name,
    `mends` the app whose tables may be damaged, because it is derived anew.
    After a psycopg.Error nothing in here can be relied on: close it and make another one.
    """

    def __init__(
        self,
        url: str,
        contracts: Sequence[Contract],
        network: Network | None,
        *,
        state_folder: Path,
        wait: bool = False,
        history: int | None = HISTORY,
        on_deep_fork: Mapping[str, str] | None = None,
        mends: str | None = None,
    ) -> None:
        self._folder = state_folder
        self._history = history
        self.connection = connect_writer(url, wait=wait)
        self._is_durable = True
        try:
            self.tape = Tape(self.connection)
            if network is not None:
                with self.connection.transaction():
                    self.tape.bind(network.name, network.genesis_hash)
            self.machines = [self._install(contract) for contract in contracts]
            self.watches = watches_of([machine.contract for machine in self.machines])
            for name, policy in (on_deep_fork or {}).items():
                set_on_deep_fork(self.connection, name, policy)
            check_consistency(self.connection, mends)
            self.running = [machine for machine in self.machines if machine.log.status() != "halted"]
        except BaseException:
            self.close()
            raise

    def _install(self, contract: Contract) -> Machine:
        with self.connection.transaction():
            build, begun = register(self.connection, contract, rule_of(contract))
        machine = self.machine(begun, build)
        if machine.log.status() == "stopped":
            machine.log.set_status("running")
        return machine

    def machine(self, contract: Contract, build: str) -> Machine:
        """Give the machine of a build that is installed."""
        is_live = live_build(self.connection, contract.name) == build
        file = self._folder / f"{contract.schema}{'' if is_live else f'.{build}'}.state"
        return Machine(self.connection, contract, build, file, self._history)

    def search(self) -> None:
        """Open the apps' searches from the next block on."""
        with self.connection.transaction():
            cover(self.tape, [machine.contract for machine in self.machines])

    def settle(self) -> None:
        """See to it that every block so far is on disk, and that saved files are in place."""
        if not self._is_durable:
            self.be_durable()
            self.tape.flush()
        for machine in self.machines:
            machine.settle()

    def be_durable(self) -> None:
        """Let the commits that follow wait for the disk."""
        self.tape.set_durable(durable=True)
        self._is_durable = True

    def close(self) -> None:
        """End the session; the writer's lock goes with it."""
        self.connection.close()

    def first_block_id(self) -> int:
        """Give the block that an empty tape starts with."""
        return min(machine.contract.start for machine in self.machines)

    def stand_anew(self, rebuilt: Sequence[Machine]) -> None:
        """Stand where the database says, behind a rollback; `rebuilt` are the live builds now."""
        anew = {machine.contract.name: self.machine(machine.contract, machine.build) for machine in rebuilt}
        for machine in rebuilt:
            machine.forget_file()
        self.running = [anew.get(machine.contract.name, machine) for machine in self.running]
        self.machines = [anew.get(machine.contract.name, machine) for machine in self.machines]
        for machine in self.machines:
            if machine.contract.name not in anew:
                machine.load()
        if self.machines and self.tape.tip() is None:
            self.search()

    def take(self, scanned: ScannedBlock, *, near_tip: bool) -> None:
        """Append a block and advance every running app that stands at its parent, in one transaction.

        Far from the tip a crash of the database may lose the block, whole, and listeners are not told.
        """
        block = scanned.block
        for machine in self.machines:
            machine.meet(block)
        if near_tip != self._is_durable:
            self.tape.set_durable(durable=near_tip)
            self._is_durable = near_tip
        advanced: list[tuple[Machine, str]] = []
        with self.connection.transaction():
            self.tape.append(scanned, work(block.bits))
            for machine in list(self.running):
                if machine.cursor == block.block_id - 1:
                    advanced += self._step(machine, block, scanned.inputs)
            if near_tip:
                self.tape.notify(block)
        self._proceed(block, advanced)

    def part_with_swapped(self) -> list[str]:
        """Leave apps alone whose views show another build by now; give their names."""
        swapped = [
            machine
            for machine in self.running
            if live_build(self.connection, machine.contract.name) != machine.build
        ]
        self.running = [machine for machine in self.running if machine not in swapped]
        return [machine.contract.name for machine in swapped]

    def behind(self) -> list[Machine]:
        """Give the running apps that stand below the tape's tip."""
        tip = self.tape.tip()
        return [machine for machine in self.running if tip is not None and machine.cursor < tip.block_id]

    def catch_up(
        self,
        may_go_on: Callable[[], bool],
        on_block: Callable[[str, Block, int, int], None] | None = None,
        most: int | None = None,
    ) -> None:
        """Advance the apps that are behind the tape towards its tip: each by `most` blocks, or all the way.

        One whose blocks were not all searched for its inputs stays where it is. `on_block` is told of each
        block behind its transaction: the app, the block, how many inputs it held for the app, and the tip's
        height.
        """
        tip = self.tape.tip()
        for machine in self.behind():
            assert tip is not None, "nothing is behind an empty tape"
            machine.log.set_status("catching_up")
            if gaps(self.tape, machine.contract):
                continue
            last = tip.block_id if most is None else min(tip.block_id, machine.cursor + most)
            try:
                for block, inputs, consensus_hash in self.advance(machine, last):
                    self._proceed(block, [(machine, consensus_hash)])
                    if on_block is not None:
                        on_block(machine.contract.name, block, inputs, tip.block_id)
                    if machine not in self.running or not may_go_on():
                        break
            except AppHalted as halted:
                self._part(machine, "halted", halted.record)
            if machine.cursor == tip.block_id and machine in self.running:
                machine.log.set_status("running")

    def advance(self, machine: Machine, last: int) -> Iterator[tuple[Block, int, str]]:
        """Advance a build along the tape up to a block, see `along_tape`."""
        return along_tape(self.connection, machine, last)

    def _step(self, machine: Machine, block: Block, inputs: Sequence[Input]) -> list[tuple[Machine, str]]:
        try:
            return [(machine, machine.step(block, inputs))]
        except AppHalted as halted:
            self._part(machine, "halted", halted.record)
            return []

    def _proceed(self, block: Block, advanced: Sequence[tuple[Machine, str]]) -> None:
        """Behind the block's transaction: ask the apps whether to go on, and part with those that do not."""
        for machine, consensus_hash in advanced:
            if self._is_durable:
                machine.settle()
            proceed = machine.contract.proceed
            try:
                if proceed is not None and proceed(block.block_id, consensus_hash) is False:
                    self._part(machine, "stopped")
            except Exception as error:  # noqa: BLE001 - an app's code may raise anything
                record = halt(machine.contract, block, "db_continue", None, error).record
                self._part(machine, "halted", record)

    def halt(self, machine: Machine, record: Json) -> None:
        """Let an app that cannot go on stay behind, alone."""
        self._part(machine, "halted", record)

    def _part(self, machine: Machine, status: str, record: Json | None = None) -> None:
        machine.log.set_status(status, record)
        self.running.remove(machine)


def along_tape(
    connection: psycopg.Connection, machine: Machine, last: int, *, beside_writer: bool = False
) -> Iterator[tuple[Block, int, str]]:
    """Advance a build along the tape up to a block, a transaction for each.

    Gives each block, how many inputs it held for the app, and the consensus hash. With `beside_writer`, a
    process of its own does it: where the writer has rolled blocks back meanwhile, the build stands anew, and
    it ends there. Raises AppHalted.
    """
    tape = Tape(connection)
    while machine.cursor < last:
        first, until = machine.cursor + 1, min(machine.cursor + _STRETCH, last)
        inputs = tape.inputs(first, until, machine.contract.magics)
        found = {block_id: list(items) for block_id, items in groupby(inputs, lambda item: item.block_id)}
        for block in held_blocks(tape, first, until):
            taken = found.get(block.block_id, ())
            with connection.transaction():
                stands = not beside_writer or (tape.holds(block) and machine.is_current())
                consensus_hash = machine.step(block, taken) if stands else ""
            if not stands:
                machine.load()
                return
            yield block, len(taken), consensus_hash
