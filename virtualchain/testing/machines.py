"""Run an app the way another machine would: another process, other settings, other heaps, other restarts.

A `Job` says how. It is done in this process, or in others with other surroundings. Digests and
rows are in the job's database afterwards; what comes back is what the app's callbacks asked of the database,
and why the app halted, if it did.
"""

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.source import BlockSource
from virtualchain.checkpoint.apply import apply
from virtualchain.engine.compare import row_differences
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.engine import StateEngine
from virtualchain.engine.options import QUIET, Options
from virtualchain.engine.rebuild import derive
from virtualchain.engine.rollback import operators_reorg, roll_back
from virtualchain.errors import AppHalted, StoreError, UsageError, VirtualchainError
from virtualchain.model import Json
from virtualchain.store.builds import find_build, live_build
from virtualchain.store.projections import build_schema, projections
from virtualchain.store.sql import queries
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.shipping import Parcel, pack, unpack
from virtualchain.testing.surroundings import foreign_environment, import_path
from virtualchain.testing.tracing import Trace, tracing

T = TypeVar("T")

_Q = queries("testing")
_DEPTH: Final = 500
"""Frames under the engine on a machine with a deep stack; Python's limit is 1,000."""
_PATIENCE: Final = 600.0
"""Seconds after which a process is given up."""
_START: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from virtualchain.testing.machines import work; work()"
)

_is_elsewhere = False
"""Whether this process runs an app for another one."""

FOREIGN: Final[Mapping[str, str]] = {
    "TimeZone": "<NPT>-05:45",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-10",
}
"""Settings of a database that change how values are read and written."""
PLANS: Final[Sequence[Mapping[str, str]]] = (
    {"enable_seqscan": "off"},
    {"enable_indexscan": "off", "enable_indexonlyscan": "off"},
    {"enable_bitmapscan": "off", "enable_indexscan": "off", "enable_indexonlyscan": "off"},
    {"enable_hashjoin": "off", "enable_hashagg": "off"},
    {"enable_mergejoin": "off", "enable_nestloop": "off"},
    {"enable_hashjoin": "off", "enable_nestloop": "off"},
    {"enable_hashjoin": "off", "enable_mergejoin": "off"},
    {"enable_sort": "off", "enable_incremental_sort": "off"},
    {"enable_material": "off", "enable_memoize": "off", "work_mem": "64kB"},
    {"jit": "on", "jit_above_cost": "10", "jit_inline_above_cost": "-1", "jit_optimize_above_cost": "-1"},
    {"join_collapse_limit": "1", "from_collapse_limit": "1", "plan_cache_mode": "force_generic_plan"},
    {
        "force_parallel_mode": "on",  # called debug_parallel_query since PostgreSQL 16
        "debug_parallel_query": "on",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "min_parallel_index_scan_size": "0",
        "max_parallel_workers_per_gather": "4",
    },
)
"""Settings that make the planner choose otherwise; a server ignores those that it does not have."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The blocks up to `stop`, in one session, and what happens around it."""

    stop: int
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the database during the stretch."""
    shuffle: str | None = None
    """If set, rows are first stored in another order, which follows from this text."""
    analyzes: bool = False
    """Whether the planner's statistics are updated first."""
    fork: tuple[BlockSource | str, int] | None = None
    """A source with a branch that ends at this block: it is taken first, and undone by what follows."""
    undoes: int = 0
    """How many blocks are undone at the end, and taken again."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a machine does: take the blocks of a source into a database, stretch by stretch."""

    source: BlockSource | str
    confirmations: int
    folder: Path
    """Where an app's own state is saved."""
    stretches: Sequence[Stretch]
    database: str = ""
    """Its URL."""
    checkpoint: Path | None = None
    """What the app begins with."""
    replays: bool = False
    """Whether the app is derived again from the tape at the end."""
    is_deep: bool = False
    """Whether the engine is called deep in a stack."""
    shifts_clock: bool = False
    """Whether the first of several processes has another clock."""
    guard: bool = False
    """Whether callbacks are watched."""


@dataclass(slots=True)
class Ran:
    """What a run came to."""

    halt: Json | None = None
    """The record of the app's halt."""
    complaint: str | None = None
    """What the engine itself found, for example that a replay has other hashes."""
    trace: Trace = field(default_factory=Trace)
    is_elsewhere: bool = False
    """Whether it was in another process."""


class Machine:
    """One machine with a database of its own, which `drop` removes."""

    def __init__(
        self, name: str, server: DatabaseServer, job: Job, hash_seed: int | None = None, processes: int = 1
    ) -> None:
        """Describe a machine that does a job, whose database is created here.

        With a `hash_seed`, the job is done in so many other processes, one after the other.
        """
        self.job = replace(job, database=server.clone())
        self.ran = Ran()
        self._name = name
        self._server = server
        self._hash_seed = hash_seed
        self._processes = processes

    @property
    def name(self) -> str:
        """What the machine is, and whether it was another process."""
        if self._hash_seed is None:
            return self._name
        return f"{'another' if self.ran.is_elsewhere else 'the same'} process {self._name}"

    @property
    def url(self) -> str:
        """The URL of the database."""
        return self.job.database

    def run_elsewhere(self, parcel: Parcel | None) -> None:
        """Do the job in other processes, if `parcel` has the app and it can be made there.

        Raises VirtualchainError if a process fails.
        """
        if parcel is not None and self._hash_seed is not None:
            self.ran = _perform_elsewhere(parcel, self.job, self._hash_seed, self._processes) or self.ran

    def run_here(self, app: object) -> None:
        """Do the job in this process, unless others have done it."""
        if not self.ran.is_elsewhere:
            self.ran = perform(app, self.job)

    def drop(self) -> None:
        """Drop the database."""
        self._server.drop(self.url)


def packed(app: object) -> Parcel | None:
    """Pack an app for other processes; None if it cannot be sent.

    Raises UsageError in such a process: it imports the app's module, and must not start further ones.
    """
    if _is_elsewhere:
        raise UsageError(
            "the app's module runs a check when it is imported: put that below `if __name__ == '__main__':`"
        )
    try:
        return pack(app)
    except Exception:  # noqa: BLE001 - what an app refers to may raise anything
        return None


def perform(app: object, job: Job) -> Ran:
    """Do a job in this process."""
    ran = Ran()
    worker = _Worker(app, job)
    try:
        with tracing(ran.trace):
            _at_depth(_DEPTH if job.is_deep else 0, worker.take_blocks)
        worker.replay()
    except AppHalted as halted:
        ran.halt = halted.record
    except StoreError as error:
        ran.complaint = str(error)
    return ran


def _perform_elsewhere(parcel: Parcel, job: Job, hash_seed: int, processes: int) -> Ran | None:
    """Do a job in other processes, each of which takes a part of the stretches; None if they lack the app."""
    ran = Ran(is_elsewhere=True)
    stretches = list(job.stretches)
    size = -(-len(stretches) // processes)
    for at in range(0, len(stretches), size):
        part = replace(
            job,
            stretches=stretches[at : at + size],
            checkpoint=None if at else job.checkpoint,
            replays=job.replays and at + size >= len(stretches),
            shifts_clock=job.shifts_clock and at == 0,
        )
        done = _in_another_process(parcel, part, hash_seed)
        if done is None:
            return None
        ran.trace.blocks.update(done.trace.blocks)
        ran.halt, ran.complaint = done.halt, done.complaint
        if ran.halt or ran.complaint:
            break
    return ran


def _in_another_process(parcel: Parcel, job: Job, hash_seed: int) -> Ran | None:
    """Have a new process unpack the app and do the job; None if it cannot unpack it."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result")
        header, task = pickle.dumps(import_path()), pickle.dumps((parcel, job, result))
        done = subprocess.run(  # noqa: S603 - this Python, with a constant program
            [sys.executable, "-c", _START],
            input=header + task,
            env=foreign_environment(hash_seed, shifts_clock=job.shifts_clock),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode or not result.exists():
            output = done.stderr.decode(errors="replace")
            raise VirtualchainError(f"the app cannot be run in another process:\n{output}")
        answer: Ran | None = pickle.loads(result.read_bytes())  # noqa: S301 - see `shipping`
        return answer


def be_elsewhere() -> None:
    """Note that this process runs an app for another one."""
    global _is_elsewhere  # noqa: PLW0603 - it says what kind of process this is
    _is_elsewhere = True


def work() -> None:
    """Do the job on standard input: the main program of another process."""
    be_elsewhere()
    parcel, job, result = pickle.load(sys.stdin.buffer)  # noqa: S301 - see `shipping`
    try:
        app = unpack(parcel)
    except Exception:  # noqa: BLE001 - an app's module may raise anything
        answer = None
    else:
        answer = perform(app, job)
    result.write_bytes(pickle.dumps(answer))


def _at_depth(frames: int, function: Callable[[], T]) -> T:
    return function() if frames == 0 else _at_depth(frames - 1, function)


class _Worker:
    """Does one job."""

    def __init__(self, app: object, job: Job) -> None:
        self._app = app
        self._job = job

    def take_blocks(self) -> None:
        """Take all stretches; raise AppHalted if the app halts, StoreError if something does not match."""
        if self._job.checkpoint is not None:
            options = Options(history=None, state_folder=self._job.folder)
            apply(self._job.database, self._job.checkpoint, [self._contract()], options=options)
        for stretch in self._job.stretches:
            self._set(stretch.settings)
            self._rearrange(stretch)
            if stretch.fork is not None:
                source, last = stretch.fork
                self._build(source, last)
            self._build(self._job.source, stretch.stop)
            if stretch.undoes:
                with closing(self._deployment()) as deployment:
                    roll_back(deployment, operators_reorg(deployment.tape, stretch.stop - stretch.undoes))
                self._build(self._job.source, stretch.stop)

    def replay(self) -> None:
        """Derive the app again beside what it has, if the job says so; raise StoreError if that differs."""
        if not self._job.replays:
            return
        with closing(self._deployment()) as deployment:
            (machine,) = deployment.apps.machines
            live = live_build(deployment.connection, machine.contract.name)
            assert live is not None, "it has taken blocks"
            derived = derive(deployment, live, machine.contract, live.block_id, QUIET)
            made = None if derived is None else find_build(deployment.connection, live.app, derived.build)
            assert made is not None, "nobody has ended it early"
            for other in row_differences(deployment.connection, live, made, 1):
                key = {} if other.key is None else other.key
                place = f"row ({', '.join(map(str, key.values()))}) of block {other.block_id}"
                raise StoreError(f"derived again from the tape, the app has another {place} in {other.table}")

    def _contract(self) -> Contract:
        return read_contract(self._app)

    def _build(self, source: BlockSource | str, last: int) -> None:
        with (
            StateEngine(
                self._app,
                database=self._job.database,
                source=source,
                confirmations=self._job.confirmations,
                state_folder=self._job.folder,
                history=None,
                guard=self._job.guard,
            ) as engine,
            self._another_folder(),
        ):
            engine.build(last)

    def _another_folder(self) -> AbstractContextManager[None]:
        """Work in another folder than the one in which the app was loaded, if this is another process."""
        return chdir(self._job.folder) if _is_elsewhere else nullcontext()

    def _deployment(self) -> Deployment:
        options = Options(self._job.confirmations, history=None, state_folder=self._job.folder)
        return Deployment(self._job.database, [self._contract()], None, options)

    def _set(self, settings: Mapping[str, str]) -> None:
        """Set these settings of the database, and reset all others."""
        if not settings:
            return
        with psycopg.connect(self._job.database, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL(_Q["reset_settings"]).format(database=name))
            known = connection.execute(_Q["known_settings"], {"names": list(settings)}).fetchall()
            for (setting,) in known:
                connection.execute(
                    sql.SQL(_Q["set_setting"]).format(
                        database=name, setting=sql.Identifier(setting), value=sql.Literal(settings[setting])
                    )
                )

    def _rearrange(self, stretch: Stretch) -> None:
        """Store the rows of all tables, those of their history included, in another order."""
        if stretch.shuffle is None and not stretch.analyzes:
            return
        with psycopg.connect(self._job.database, autocommit=True) as connection:
            app = live_build(connection, self._contract().name) if _is_migrated(connection) else None
            if app is None:
                return
            with connection.transaction():
                connection.execute(_Q["keep_quiet"])
                for projection in projections(connection, build_schema(app.schema, app.name)):
                    for table in (projection.table, projection.history, projection.births):
                        if stretch.shuffle is not None:
                            seed = sql.Literal(stretch.shuffle)
                            connection.execute(sql.SQL(_Q["shuffle"]).format(table=table, seed=seed))
            if stretch.analyzes:
                connection.execute(_Q["analyze"])


def _is_migrated(connection: psycopg.Connection) -> bool:
    row: Any = connection.execute(_Q["is_migrated"]).fetchone()
    return bool(row[0])
