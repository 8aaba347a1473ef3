"""Random forks: `check_reorgs` compares an app, after each of them, with a fresh replay of the chain."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, cycle, islice
from pathlib import Path
from random import Random
from typing import Final

from psycopg import sql

from virtualchain.app.declarations import read_contract
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.bitcoin.script import op_return
from virtualchain.engine.engine import StateEngine
from virtualchain.errors import AppHalted, UsageError, VirtualchainError
from virtualchain.store.builds import live_build
from virtualchain.store.database import connect_reader
from virtualchain.store.projections import build_schema, projections
from virtualchain.store.sql import queries
from virtualchain.testing.advice import SAME_EVERYWHERE, UNDONE_WITH_ITS_BLOCK
from virtualchain.testing.blocks import bits_for
from virtualchain.testing.cases import AtOnce, Carry, Case, CaseWriter, Place
from virtualchain.testing.database import DatabaseServer, running_server
from virtualchain.testing.differences import Side, describe_difference, halt_alike, verdicts
from virtualchain.testing.elsewhere import Elsewhere
from virtualchain.testing.machines import Job, Ran, Stretch, packed, perform
from virtualchain.testing.tracing import shortened, tracing

_Q = queries("testing")
_FIRST_BLOCKS: Final = 6
_MOST_CASES: Final = 4
"""Inputs in a block."""
_DEPTHS: Final = (1, 1, 1, 2, 2, 3, 4, 6, 9)
_MUTATED: Final = 3
"""How many good inputs come for each that is changed."""


class ReorgDiffers(VirtualchainError, AssertionError):
    """After a fork, an app has not what a fresh replay of the chain has; the message says where."""


@dataclass(frozen=True, slots=True)
class ReorgReport:
    """What an app that is the same after all forks was tried with."""

    seed: int
    forks: int
    blocks: int
    """Blocks that were mined, on all branches."""
    inputs: int
    """Inputs that the app accepted or rejected in the end."""
    is_elsewhere: bool
    """Whether the replays were in other processes; if not, the app cannot be sent there."""


def check_reorgs(
    app: object,
    samples: Sequence[bytes] = (),
    *,
    database_url: str | None = None,
    forks: int = 8,
    seed: int = 1,
    carry: Carry = op_return,
    guard: bool = True,
) -> ReorgReport:
    """Run an app (anything that `StateEngine` accepts) through random forks, and compare it after each.

    `samples`, `database_url` and `carry` are as for `check_poison`. The chain forks so many times, at
    different depths, into branches with the same inputs in another order, with fewer and with others, and
    back to a branch that was left. Some forks are seen together, and sometimes the engine starts again. After
    each look, verdicts, digests, rows and their history are compared with those of a replay of the chain as
    it is then, in a new process with another hash seed.

    The guard is on, unless `guard` is False: callbacks that read the clock, files and the like are errors
    (docs/mistakes.md).

    What happens follows from the `seed`. Raises ReorgDiffers, which lists the steps and names the first
    block, op, statement and row that differ. Raises UsageError if the app halts in the replay, too, or if no
    input reaches it.
    """
    if forks < 1:
        raise UsageError(f"check_reorgs needs at least one fork, not {forks}")
    with ExitStack() as opened:
        server = (
            opened.enter_context(running_server())
            if database_url is None
            else DatabaseServer(database_url, prefix="reorgs")
        )
        opened.callback(server.drop_template)
        contract = read_contract(app, "regtest")
        if guard:
            require_no_mistake(contract)
        place = Place.of(contract)
        app = place.app(AtOnce(app) if contract.confirmations else app)
        parcel = packed(app)
        elsewhere = None if parcel is None else opened.enter_context(Elsewhere(parcel))
        walk = _Walk(seed, place, CaseWriter(contract, samples, carry), has_samples=bool(samples))
        opened.callback(walk.node.close)
        subject = _Subject(app, contract.name, server, walk, opened, guard)
        # Waited for here, when this process has done what it can meanwhile.
        replayer = elsewhere if elsewhere is not None and elsewhere.has_app() else None
        for step in walk.steps(forks):
            walk.done.append(step)
            if walk.is_looked_at:
                subject.build()
                subject.compare(replayer)
        inputs = len({row[1] for row in verdicts(subject.side) if row[1] is not None})
        if not inputs:
            raise UsageError(
                f"no input reaches app {contract.name}: pass samples, or as `carry` a function that puts a "
                "payload into an output"
            )
        return ReorgReport(seed, forks, walk.mined, inputs, replayer is not None)


class _Walk:
    """A chain that forks at random: what happens next follows from the seed."""

    def __init__(self, seed: int, place: Place, writer: CaseWriter, *, has_samples: bool) -> None:
        self.seed = seed
        self.names: dict[str, str] = {}
        self.done: list[str] = []
        self.is_looked_at = True
        self.restarts = False
        self.mined = 0
        self.node = place.node()
        if place.first > self.node.height + 1:
            self.node.mine(n=place.first - self.node.height - 1)
        self._dice = Random(seed)  # noqa: S311 - it must be the same each time
        self._base = self.node.height
        self._cases = _stream(writer, self._dice, has_samples=has_samples)
        self._held: dict[str, list[Case]] = {}
        """The cases of blocks, by hash."""

    def steps(self, forks: int) -> Iterator[str]:
        """Mine and fork; yield what has just happened, in words."""
        yield self._mine(_FIRST_BLOCKS)
        for number in range(forks):
            self.is_looked_at = number == forks - 1 or self._dice.random() < 0.8
            self.restarts = self._dice.random() < 0.25
            grown = self._mine(self._dice.randint(1, 3)) if self._dice.random() < 0.6 else ""
            forked = self._return() if self._dice.random() < 0.25 else self._fork()
            yield f"{grown}{'; ' if grown else ''}{forked}{'' if self.is_looked_at else ' (not looked at)'}"

    def _mine(self, n: int) -> str:
        for _ in range(n):
            self._add(self._new())
        return f"{n} new block{'' if n == 1 else 's'}"

    def _fork(self) -> str:
        depth = min(self._dice.choice(_DEPTHS), self.node.height - self._base)
        count = max(1, depth + self._dice.choice((-2, -1, 0, 0, 1, 1, 2)))
        tree = self.node.chain.tree
        old, fork = tree.tip, tree.chain[-depth - 1]
        replaced = [case for stored in tree.chain[-depth:] for case in self._held.get(stored.block.hash, [])]
        kept = [case for case in replaced if self._dice.random() < 0.7]
        if self._dice.random() < 0.5:
            self._dice.shuffle(kept)
        tree.activate(fork)
        for number in range(count):
            share = [kept.pop(0) for _ in range(min(len(kept), self._dice.randint(0, _MOST_CASES)))]
            new = self._new() if self._dice.random() < 0.4 else []
            self._add([*share, *new], bits_for(old.chainwork - fork.chainwork + 1) if number == 0 else None)
        return f"a fork: {depth} blocks are replaced by {count}"

    def _return(self) -> str:
        """Go back to a branch that was left, which becomes longer."""
        tree = self.node.chain.tree
        left = [tip.stored for tip in tree.tips() if tip.status == "valid-fork"]
        if not left:
            return self._fork()
        old, before = tree.tip, list(tree.chain)
        tree.activate(self._dice.choice(left))
        shared = sum(one is other for one, other in zip(before, tree.chain, strict=False))
        self._add(self._new(), bits_for(max(2, old.chainwork - tree.tip.chainwork + 1)))
        return f"a branch that was left wins again: {len(before) - shared} blocks are replaced"

    def _new(self) -> list[Case]:
        return list(islice(self._cases, self._dice.randint(0, _MOST_CASES)))

    def _add(self, cases: list[Case], bits: int | None = None) -> None:
        easy = self.node.chain.tree.chain[0].block.bits
        (block_hash,) = self.node.mine((case.tx for case in cases), bits=bits or easy)
        self._held[block_hash] = cases
        self.names.update((case.tx.txid, case.name) for case in cases)
        self.mined += 1


def _stream(writer: CaseWriter, dice: Random, *, has_samples: bool) -> Iterator[Case]:
    """Yield inputs without end: samples by few senders, some changed ones, and what spends their outputs."""
    yield from writer.samples()
    yield from islice(writer.spends(), 24)
    changed = list(writer.mutated() if has_samples else writer.hostile())
    dice.shuffle(changed)
    if not has_samples:
        yield from changed
        raise UsageError("there are no more inputs: pass samples, or fewer forks")
    others = chain.from_iterable(cycle([changed])) if changed else iter(())
    while True:
        good = list(writer.samples())
        dice.shuffle(good)
        for number, case in enumerate(good):
            yield case
            if number % _MUTATED == 0:
                yield from islice(others, 1)


@dataclass(slots=True)
class _Subject:
    """The app in this process, which sees the forks."""

    app: object
    name: str
    server: DatabaseServer
    walk: _Walk
    opened: ExitStack
    guard: bool
    ran: Ran = field(default_factory=Ran)
    side: Side = field(init=False)
    _folder: Path = field(init=False)
    _engine: StateEngine | None = None

    def __post_init__(self) -> None:
        url = self.server.clone()
        self.opened.callback(self.server.drop, url)
        self._folder = Path(self.opened.enter_context(tempfile.TemporaryDirectory()))
        self.opened.callback(self._close)
        self.side = Side("the app after these steps", url, self.ran)

    def build(self) -> None:
        """Take the chain as it is now, perhaps with another engine."""
        if self.walk.restarts:
            self._close()
        with tracing(self.ran.trace):
            try:
                if self._engine is None:
                    folder = self._folder / "own"
                    folder.mkdir(exist_ok=True)
                    self._engine = StateEngine(
                        self.app,
                        database=self.side.url,
                        source=self.walk.node.url,
                        confirmations=0,
                        state_folder=folder,
                        history=None,
                        guard=self.guard,
                    )
                self._engine.build()
            except AppHalted as halted:
                self.ran.halt = halted.record

    def compare(self, elsewhere: Elsewhere | None) -> None:
        """Compare with a replay of the chain; raise ReorgDiffers."""
        url = self.server.clone()
        try:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                stretches = [Stretch(self.walk.node.height)]
                job = Job(self.walk.node.url, 0, Path(folder), stretches, database=url)
                ran = perform(self.app, job) if elsewhere is None else elsewhere.perform(job)
            replay = Side("a fresh replay of the chain", url, ran)
            self._require_no_halt(ran)
            lines = describe_difference(self.name, self.side, replay, self.walk.names)
            lines = lines or _describe_history(self.name, self.side, replay)
        finally:
            self.server.drop(url)
        if lines:
            raise ReorgDiffers(self._report(lines))

    def _require_no_halt(self, replay: Ran) -> None:
        """Raise UsageError if the app halts at the same place in the replay."""
        halt = self.ran.halt
        if halt is None or not halt_alike(self.ran, replay):
            return
        case = self.walk.names.get(halt["txid"] or "", "no single transaction")
        raise UsageError(
            f"app {self.name} halts in block {halt['block_id']}, in a fresh replay, too; check_poison finds "
            f"such transactions: {halt['callback']} fails with {halt['error']} ({case})"
        )

    def _report(self, lines: Sequence[str]) -> str:
        steps = self.walk.done
        forks = max(1, len(steps) - 1)
        what = "is other than in a fresh replay, " + (
            f"after {forks} fork{'' if forks == 1 else 's'}" if len(steps) > 1 else "even before a fork"
        )
        listed = "\n".join(f"- {line}" for line in lines)
        walked = "\n".join(f"  {number}. {step}" for number, step in enumerate(steps, 1))
        return (
            f"app {self.name} {what}:\n{listed}\nThese steps led there; "
            f"check_reorgs(…, seed={self.walk.seed}, forks={forks}) repeats them:\n{walked}\n"
            f"Instead, {UNDONE_WITH_ITS_BLOCK}; {SAME_EVERYWHERE}."
        )

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def _describe_history(app: str, one: Side, other: Side) -> list[str]:
    """Describe the first difference in what each block changed, or in the rows as they were."""
    for what, read in (("changes", _changes), ("earlier rows", _earlier_rows)):
        first, second = read(one.url, app), read(other.url, app)
        if first != second:
            pairs = [(row, row in first) for row in sorted(set(first) ^ set(second))]
            row, is_ours = pairs[0] if pairs else ("the same rows, not as often", True)
            side = one if is_ours else other
            return [f"{one.name} and {other.name} have other {what}", f"only {side.name}: {shortened(row)}"]
    return []


def _changes(url: str, app: str) -> list[str]:
    with closing(connect_reader(url)) as connection:
        return [text for (text,) in connection.execute(_Q["changes_of_app"], {"app": app})]


def _earlier_rows(url: str, app: str) -> list[str]:
    with closing(connect_reader(url)) as connection:
        live = live_build(connection, app)
        tables = [] if live is None else projections(connection, build_schema(live.schema, live.name))
        return [
            f"{table.name} {text}"
            for table in tables
            for (text,) in connection.execute(sql.SQL(_Q["earlier_rows"]).format(history=table.history))
        ]
