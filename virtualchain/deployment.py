"""The database side of the engine: one tape, and the apps that move along it together.

A block is appended, and every app that stands at its parent is advanced, in one transaction. An app
that stands further back is advanced along the tape by the same step, block by block.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from virtualchain import chain
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import Network
from virtualchain.contract import Contract
from virtualchain.coverage import cover, rule_of, watches_of
from virtualchain.errors import AppHalted
from virtualchain.judge import halt
from virtualchain.machine import Machine
from virtualchain.model import Block, Input, Json, ScannedBlock
from virtualchain.store.database import connect_writer
from virtualchain.store.log import AppLog
from virtualchain.store.tape import Tape

_STRETCH = 500
"""Blocks whose inputs are read from the tape at once."""


class Deployment:
    """The writer's session of one database, its tape, and its apps' machines.

    After a psycopg.Error nothing in here can be relied on: close it and make another one.
    """

    def __init__(
        self,
        url: str,
        contracts: Sequence[Contract],
        network: Network,
        *,
        state_folder: Path,
        wait: bool = False,
    ) -> None:
        self._folder = state_folder
        self._connection = connect_writer(url, wait=wait)
        try:
            self.tape = Tape(self._connection)
            with self._connection.transaction():
                self.tape.bind(network.name, network.genesis_hash)
            self.watches = watches_of(contracts)
            self.machines = [self._machine(contract) for contract in contracts]
            with self._connection.transaction():
                cover(self.tape, contracts)
            self.running = [machine for machine in self.machines if machine.log.status() != "halted"]
        except BaseException:
            self.close()
            raise
        self._is_durable = True

    def _machine(self, contract: Contract) -> Machine:
        log = AppLog(self._connection, contract.name)
        with self._connection.transaction():
            tables = log.register(contract, rule_of(contract))
        if log.status() == "stopped":
            log.set_status("running")
        return Machine(self._connection, contract, tables, self._folder / f"{contract.schema}.state")

    def settle(self) -> None:
        """See to it that every block so far is on disk, and that saved files are in place."""
        if not self._is_durable:
            self.tape.set_durable(durable=True)
            self.tape.flush()
            self._is_durable = True
        for machine in self.machines:
            machine.settle()

    def close(self) -> None:
        """End the session; the writer's lock goes with it."""
        self._connection.close()

    def tip(self) -> Block | None:
        """Give the tape's last block."""
        tip = self.tape.tip()
        return None if tip is None else read_header(tip.block_id, tip.header)

    def bottom(self) -> int:
        """Give the height of the tape's first block, or of the one that an empty tape starts with."""
        bottom = self.tape.bottom()
        return self.first_block_id() if bottom is None else bottom.block_id

    def blocks(self, first: int, last: int) -> list[Block]:
        """Give a stretch of the tape's blocks, both ends included."""
        return [read_header(item.block_id, item.header) for item in self.tape.headers(first, last)]

    def first_block_id(self) -> int:
        """Give the block that an empty tape starts with."""
        return min(machine.contract.start for machine in self.machines)

    def take(self, scanned: ScannedBlock, *, near_tip: bool) -> None:
        """Append a block and advance every running app that stands at its parent, in one transaction.

        Far from the tip a crash of the database may lose the block, whole, and listeners are not told.
        """
        block = scanned.block
        if near_tip != self._is_durable:
            self.tape.set_durable(durable=near_tip)
            self._is_durable = near_tip
        advanced: list[tuple[Machine, str]] = []
        with self._connection.transaction():
            self.tape.append(scanned, chain.work(block.bits))
            for machine in list(self.running):
                if machine.cursor == block.block_id - 1:
                    advanced += self._step(machine, block, scanned.inputs)
            if near_tip:
                self.tape.notify(block)
        self._proceed(block, advanced)

    def catch_up(
        self, may_go_on: Callable[[], bool], on_block: Callable[[str, Block, int, int], None] | None = None
    ) -> None:
        """Advance every running app that is behind the tape to its tip, along the tape.

        `on_block` is told of each block behind its transaction: the app, the block, how many inputs it held
        for the app, and the tip's height.
        """
        tip = self.tape.tip()
        for machine in list(self.running):
            if tip is None or machine.cursor >= tip.block_id:
                continue
            machine.log.set_status("catching_up")
            while machine in self.running and machine.cursor < tip.block_id and may_go_on():
                last = min(machine.cursor + _STRETCH, tip.block_id)
                for block, inputs in self._advance(machine, last):
                    if on_block is not None:
                        on_block(machine.contract.name, block, inputs, tip.block_id)
            if machine.cursor == tip.block_id and machine in self.running:
                machine.log.set_status("running")

    def _advance(self, machine: Machine, last: int) -> Iterator[tuple[Block, int]]:
        """Advance an app up to a block; give each block that it took, and how many inputs that held."""
        first = machine.cursor + 1
        inputs = self.tape.inputs(first, last, machine.contract.magics)
        by_block = {block_id: list(items) for block_id, items in groupby(inputs, lambda item: item.block_id)}
        for block in self.blocks(first, last):
            found = by_block.get(block.block_id, ())
            with self._connection.transaction():
                advanced = self._step(machine, block, found)
            self._proceed(block, advanced)
            if advanced:
                yield block, len(found)
            if machine not in self.running:
                return

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

    def _part(self, machine: Machine, status: str, record: Json | None = None) -> None:
        machine.log.set_status(status, record)
        self.running.remove(machine)
