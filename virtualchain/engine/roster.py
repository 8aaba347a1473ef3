"""The apps of a writer's session: their machines, which of them take blocks, what became of the others."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.engine.expectations import describe_mismatch
from virtualchain.engine.halting import contained, halt
from virtualchain.engine.machine import Advanced, Machine
from virtualchain.engine.measures import AppState
from virtualchain.engine.options import Options
from virtualchain.errors import AppHalted
from virtualchain.model import Block, Expected, Json
from virtualchain.notices import Notice
from virtualchain.store.builds import builds, live_build, lock_builds, register
from virtualchain.store.database import require_space
from virtualchain.store.failures import is_transient
from virtualchain.store.state_files import sweep
from virtualchain.store.tape import Tape


class Former(NamedTuple):
    """What a process's session leaves to the next one."""

    builds: Mapping[str, int | None]
    """The serial numbers of the builds that were advanced last, by app; None for one that was gone."""
    stopped: frozenset[str]
    """The apps that have stopped themselves since the process began."""
    causes: Mapping[str, BaseException | None]
    """The exceptions that halted apps since then, by app."""


NO_FORMER = Former({}, frozenset(), {})


class Roster:
    """The apps of one session.

    `former` is what a session before this one has left: an app that shows another build by now is left alone,
    as `retire_swapped` does, and one that has stopped stays so. `on_message` is called with what an operator
    should know.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        tape: Tape,
        contracts: Iterable[Contract],
        options: Options,
        former: Former,
        on_message: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._tape = tape
        self._options = options
        self._former = former
        self._on_message = on_message
        self._expected: Mapping[str, Sequence[Expected]] | None = None
        self._swapped: list[str] = []
        machines = [self._install(contract) for contract in contracts]
        self.machines = [machine for machine in machines if machine is not None]
        self.causes = dict(former.causes)
        """The exceptions that halted apps since this process began, by app."""
        halted = [machine for machine in self.machines if machine.log.status() == "halted"]
        self.halted = {machine.contract.name: machine.log.error() or {} for machine in halted}
        """Why apps are halted, by app."""
        self._stopped = set(former.stopped)
        names = {*self.halted, *self._stopped}
        self.running = [machine for machine in self.machines if machine.contract.name not in names]

    def _install(self, contract: Contract) -> Machine | None:
        """Install an app, or look whether it is the same; return None if it shows another than before."""
        app = contract.name
        with self._connection.transaction():
            if app in self._former.builds:
                lock_builds(self._connection, app)
                if self._live(app) != self._former.builds[app]:
                    self._swapped.append(app)
                    return None
            build, contract = register(self._connection, contract)
        machine = Machine(self._connection, contract, build, self._options, is_live=True)
        if contract.get_state is not None:
            self._clean_folder(contract)
        if machine.log.status() == "stopped" and app not in self._former.stopped:
            machine.log.set_status("running", if_live=True)
        return machine

    def _clean_folder(self, contract: Contract) -> None:
        """Remove the files of builds that were dropped, or swapped in, since an engine ran here."""
        assert self._options.state_folder is not None, "the options are a database's: Options.for_database"
        rows = builds(self._connection, contract.name)
        sweep(self._options.state_folder, contract.schema, {row.name: row.is_live for row in rows})

    def handover(self) -> Former:
        """Return what this session and those before it leave to the next one."""
        own = {machine.contract.name: machine.log.serial for machine in self.machines}
        return Former({**self._former.builds, **own}, frozenset(self._stopped), dict(self.causes))

    def names_with_code(self) -> set[str]:
        """Return the apps whose live build can be derived again, because its code is here."""
        return {machine.contract.name for machine in self.machines if self._is_live(machine)}

    def states(self) -> dict[str, AppState]:
        """Return how far the apps are, and which of them are halted, by name."""
        return {
            machine.contract.name: AppState(
                machine.cursor,
                is_halted=machine.contract.name in self.halted,
                is_unexpected=machine.unexpected is not None,
            )
            for machine in self.machines
        }

    def lagging(self) -> list[Machine]:
        """Return the running apps that have not reached the tape's tip."""
        tip = self._tape.tip()
        return [machine for machine in self.running if tip is not None and machine.cursor < tip.block_id]

    def note_arrived(self) -> None:
        """Record which apps do not lag any more: the tape came back to them, or a kill met their arrival."""
        lagging = self.lagging()
        for machine in self.running:
            if machine not in lagging:
                machine.log.set_status("running", if_live=True)

    def load(self, rebuilt: Sequence[Machine]) -> None:
        """Load every machine again, after a rollback; the builds of `rebuilt` are live now."""
        for machine in rebuilt:
            machine.forget_file()
        replacements = {
            machine.contract.name: Machine(
                self._connection, machine.contract, machine.build, self._options, is_live=True
            )
            for machine in rebuilt
        }
        self.running = [replacements.get(machine.contract.name, machine) for machine in self.running]
        self.machines = [replacements.get(machine.contract.name, machine) for machine in self.machines]
        for machine in self.machines:
            if machine.contract.name not in replacements:
                machine.load()

    # Digests that were stated from outside

    def expect(self, expected: Mapping[str, Sequence[Expected]] | None) -> None:
        """Compare every app's digests with these, by app, and with those that it declares, from now on.

        With None, nothing is compared.
        """
        self._expected = expected
        if expected is None:
            return
        for machine in self.machines:
            contract = machine.contract
            machine.expect([*contract.expected(self._tape.network), *expected.get(contract.name, ())])
            self._note_unexpected(machine)

    def expect_again(self) -> None:
        """Compare with the same, because blocks were rolled back."""
        self.expect(self._expected)

    def look_at_digests(self, machine: Machine, block: Block) -> bool:
        """Note if an app has others than expected since `block`; return whether it is halted for that."""
        if machine.unexpected is not None and machine.unexpected["block_id"] == block.block_id:
            self._note_unexpected(machine)
        return machine not in self.running

    def _note_unexpected(self, machine: Machine) -> None:
        """Record whether an app's digests are others than expected; halt it if it must stop for that."""
        machine.log.set_unexpected(machine.unexpected)
        if machine.unexpected is None:
            return
        app, unexpected = machine.contract.name, machine.unexpected
        message = f"app {app}: {describe_mismatch(unexpected)}"
        self._on_message(Notice(message, "digest_unexpected", app=app, **unexpected))
        if machine.must_stop and machine in self.running:
            self.halt_for(machine, machine.refusal())

    # Apps that take no further block

    def ask(self, machine: Machine, step: Advanced) -> None:
        """Ask an app whether to continue after a block that it has taken, and retire it if not."""
        proceed, block = machine.contract.proceed, step.block
        if self.look_at_digests(machine, block):
            return
        try:
            with contained(), machine.answering():
                goes_on = proceed is None or proceed(block.block_id, step.consensus_hash) is not False
            if not goes_on:
                self._stopped.add(machine.contract.name)
                self._retire(machine, "stopped")
        except Exception as error:
            if is_transient(error):  # of a database that it asked for consensus hashes
                raise
            halted = halt(machine.contract, block.block_id, "db_continue", None, error)
            halted.__cause__ = error
            self.halt_for(machine, halted)

    def halt(self, machine: Machine, record: Json) -> None:
        """Halt an app that cannot continue; the others continue."""
        self._retire(machine, "halted", record)

    def halt_for(self, machine: Machine, halted: AppHalted) -> None:
        """Halt an app for an error of its callbacks, and keep what caused it."""
        self.causes[machine.contract.name] = halted.__cause__
        self.halt(machine, halted.record)

    def _retire(self, machine: Machine, status: str, record: Json | None = None) -> None:
        machine.log.set_status(status, record, if_live=True)
        self.running.remove(machine)
        if record is not None:
            self.halted[machine.contract.name] = record

    def interrupted(self) -> Machine | None:
        """Return the app whose turn it was when the database failed; None if it failed elsewhere."""
        return next((machine for machine in self.machines if machine.was_interrupted), None)

    def condemn(self, failed: Machine, error: psycopg.Error) -> None:
        """Have the app of a failed machine halted at its next block, because of an error of the database.

        The transaction that halts it is that in which the others take the block, which shows that the
        database works. Raises psycopg.Error if the disk was full, and is.
        """
        if isinstance(error, psycopg.errors.DiskFull):
            require_space(self._connection)
        for machine in self.running:
            if machine.contract.name == failed.contract.name:
                machine.condemned = error

    # Apps whose views show another build, because another process swapped it

    def leave(self, machine: Machine) -> None:
        """Leave an app alone from now on, because its build was swapped or dropped."""
        if machine in self.running:  # it may have been found out twice
            self.running.remove(machine)
            self._swapped.append(machine.contract.name)

    def retire_swapped(self) -> list[str]:
        """Stop advancing apps whose views show another build by now; return names not yet returned."""
        for machine in self.running.copy():
            if not self._is_live(machine):
                self.leave(machine)
        swapped, self._swapped = self._swapped, []
        return swapped

    def _is_live(self, machine: Machine) -> bool:
        return self._live(machine.contract.name) == machine.log.serial

    def _live(self, app: str) -> int | None:
        """Return the serial number of the build that an app's views show; None if it was removed."""
        live = live_build(self._connection, app)
        return None if live is None else live.serial
