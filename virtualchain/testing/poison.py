"""Throw at an app what strangers may: `check_poison` says whether one transaction can halt it.

Every case is a transaction of its own. They are mined on a fake node and run through the engine, twice, in
fresh databases, the second time over a restart: no case may halt the app, and both runs must come to the
same ops, refusals and hashes.
"""

import re
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count, islice, zip_longest
from pathlib import Path
from typing import Any, Final

from virtualchain.app.contract import Contract, read_contract
from virtualchain.engine.engine import StateEngine
from virtualchain.errors import AppHalted, UsageError, VirtualchainError
from virtualchain.model import Json
from virtualchain.store.database import connect_reader
from virtualchain.store.sql import queries
from virtualchain.testing.chain import PREMINE
from virtualchain.testing.database import DatabaseServer, running_server
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.hostile_payloads import hostile_bodies, mutations
from virtualchain.testing.hostile_transactions import build, by, hostile_outputs, hostile_senders
from virtualchain.testing.keys import key
from virtualchain.testing.transactions import Tx, op_return

_Q = queries("testing")
_CHANGE: Final = key("change").script_pubkey
_FULL: Final = 12
"""For how many opcodes every payload is tried; for further ones only the first few."""
_FEW: Final = 8
_BLOCK_CASES: Final = 60
_BLOCK_BYTES: Final = 700_000
_MOST_HALTS: Final = 8
"""So often the cases are run again without the one that halted the app."""
_HIGHEST: Final = 300
"""The highest first block up to which empty blocks are mined; an app of later blocks is started lower."""


class Poisoned(VirtualchainError, AssertionError):
    """A transaction that halts an app, or two runs that differ; the message lists them."""


@dataclass(frozen=True, slots=True)
class PoisonReport:
    """What became of the cases of an app that stood them all."""

    cases: int
    accepted: int
    refused: int
    ignored: int
    """Cases in which the app's payload rule, magic or opcodes find nothing."""


_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+), in (.+)\n    (.+)$', re.MULTILINE)
_OURS: Final = Path(__file__).parents[1]
_LIBRARIES: Final = (
    sysconfig.get_path("stdlib"),
    *(str(item) for item in _OURS.iterdir() if item.stem != "examples"),
)
"""Where the code of a traceback lies that is not the app's."""

_Log = list[tuple[int, str | None, str, str]]
"""Block, transaction, what became of it, and the details; the order is the same in every run."""


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    start: bytes
    """The magic and the opcode that its payload starts with."""
    tx: Tx


def check_poison(
    app: object,
    samples: Sequence[bytes] = (),
    *,
    database_url: str | None = None,
    carry: Callable[[bytes], bytes] = op_return,
) -> PoisonReport:
    """Run an app (anything that `StateEngine` takes) on a catalogue of hostile transactions.

    `samples` are good payloads, with magic and opcode: they are sent first, then cut, changed and repeated,
    so that the app's checks and reducers meet them, too; give one per opcode at least. The databases are
    made on the server of `database_url`, whose role must be allowed to, or on one that is started for it;
    `carry` makes the output script of a payload, where the app's payload rule looks elsewhere.

    Raises Poisoned, which says what halts the app or where two runs differ, and UsageError where no case
    reaches the app, or a sample is none of its payloads.
    """
    with ExitStack() as opened:
        server = (
            opened.enter_context(running_server())
            if database_url is None
            else DatabaseServer(database_url, prefix="poison")
        )
        contract = read_contract(app)
        run = _Run(app, contract, server)
        complaints, blocks, first = _halts(run, _blocks(list(_cases(contract, samples, carry))))
        names = {case.tx.txid: case.name for block in blocks for case in block}
        complaints = complaints or _differences(first.log, run(blocks, restarts=1).log, names)
    if complaints:
        listed = "\n".join(f"- {complaint}" for complaint in complaints)
        raise Poisoned(f"app {contract.name} does not stand hostile input:\n{listed}")
    accepted, refused = (
        len({row[1] for row in first.log if row[2] == verdict}) for verdict in ("accepted", "refused")
    )
    if not accepted + refused:
        raise UsageError(
            f"none of {len(names)} cases reaches app {contract.name}: give samples, or say with `carry` how "
            "an output holds a payload"
        )
    return PoisonReport(len(names), accepted, refused, len(names) - accepted - refused)


def _cases(contract: Contract, samples: Sequence[bytes], carry: Callable[[bytes], bytes]) -> Iterator[_Case]:
    """Name and build every transaction, the samples first."""
    numbers = count()
    magic, opcodes = contract.magics[0], sorted(contract.opcodes)
    good = [_split(contract, sample) for sample in samples]

    def case(name: str, start: bytes, body: bytes, sender: str = "alice") -> _Case:
        outputs = [(0, carry(start + body)), (500, _CHANGE)]
        return _Case(name, start, build(next(numbers), [by(sender)], outputs))

    for sender in ("alice", "alice", "bob"):
        yield from (case(f"sample {start + body!r} by {sender}", start, body, sender) for start, body in good)
    for start, body in good or [(magic + opcode, b"") for opcode in opcodes[:_FULL]]:
        for name, spendings in hostile_senders().items():
            tx = build(next(numbers), spendings, [(0, carry(start + body))])
            yield _Case(f"{start + body!r} {name}", start, tx)
        for name, outputs in hostile_outputs(carry(start + body), start + body):
            tx = build(next(numbers), [by("alice", 10**6)], outputs)
            yield _Case(f"{start + body!r} {name}", start, tx)
        for name, changed in mutations(body) if body else ():
            yield case(f"{start + body!r} {name}", start, changed)
    for place, opcode in enumerate(opcodes):
        for name, body in islice(hostile_bodies(), None if place < _FULL else _FEW):
            yield case(f"{name} behind opcode {opcode!r}", magic + opcode, body)
    for other in contract.magics[1:]:
        yield case(f"magic {other!r}", other + opcodes[0], b"")
    yield from (case(f"sample {start + body!r} at the end", start, body) for start, body in good)


def _split(contract: Contract, sample: bytes) -> tuple[bytes, bytes]:
    """Cut a sample into magic with opcode, and what follows; UsageError where it is not the app's."""
    for magic in contract.magics:
        end = len(magic) + 1
        if sample.startswith(magic) and sample[len(magic) : end] in contract.opcodes:
            return sample[:end], sample[end:]
    raise UsageError(f"sample {sample!r} does not start with a magic and an opcode of app {contract.name}")


def _blocks(cases: Sequence[_Case]) -> list[list[_Case]]:
    """Spread cases over blocks that are small enough."""
    blocks: list[list[_Case]] = [[]]
    for case in cases:
        size = sum(len(other.tx.raw) for other in blocks[-1])
        if len(blocks[-1]) == _BLOCK_CASES or size + len(case.tx.raw) > _BLOCK_BYTES:
            blocks.append([])
        blocks[-1].append(case)
    return blocks


def _halts(run: "_Run", blocks: list[list[_Case]]) -> tuple[list[str], list[list[_Case]], "_Seen"]:
    """Run until nothing halts any more, each time without the case that did; give what was left, and a log.

    Where no case is named, as by a hook that sees the whole block, its cases are given a block each.
    """
    halts: dict[str, str] = {}
    together: str | None = None
    for number in count():
        seen = run(blocks, restarts=0)
        if seen.halt is None or number == _MOST_HALTS:
            break
        place = seen.halt["block_id"] - run.first
        cases = blocks[place] if place >= 0 else []
        named = [case for case in cases if case.tx.txid == seen.halt["txid"]]
        told = f"{seen.halt['callback']} fails with {seen.halt['error']}"
        if len(cases) == 1 or named:
            culprit, together = (named or cases)[0], None
            where = _where(seen.halt["traceback"])
            # Many cases meet the same mistake: when it is met again, its opcode has said enough.
            gone = culprit.start if where in halts else b""
            halts.setdefault(where, f"{culprit.name}: {told}\n{where}")
            blocks = [
                [case for case in block if case is not culprit and not (gone and case.start == gone)]
                for block in blocks
            ]
        elif together is None and cases:
            together = f"{cases[0].name}, and {len(cases) - 1} more in one block: {told}"
            blocks = [*blocks[:place], *([case] for case in cases), *blocks[place + 1 :]]
        else:
            raise Poisoned(f"app {run.name} halts without any input: {told}\n{seen.halt['traceback']}")
    return [*halts.values(), *([together] if together else [])], blocks, seen


def _where(traceback: str) -> str:
    """Give the last line of a traceback that is the app's own, or the last of all."""
    frames = _FRAME.findall(traceback)
    own = [
        frame for frame in frames if not frame[0].startswith(_LIBRARIES) and "site-packages" not in frame[0]
    ]
    return "".join(f"  {file}:{line}, in {name}: {code}" for file, line, name, code in (own or frames)[-1:])


def _differences(first: _Log, again: _Log, names: Mapping[str, str]) -> list[str]:
    """Say where two runs begin to differ."""
    for one, other in zip_longest(first, again):
        if one != other:
            found = [f"{kind} {detail}" for _, _, kind, detail in filter(None, (one, other))]
            block_id, txid = (one or other or (0, None))[:2]
            name = names.get(txid or "", f"block {block_id}")
            return [f"{name}: two runs differ: {' <> '.join(found)}"]
    return []


@dataclass(frozen=True, slots=True)
class _Seen:
    """The log of one run, and why the app halted, if it did."""

    log: _Log
    halt: Json | None


class _Run:
    """Runs an app over blocks of cases, each time on a node and in a database of its own."""

    def __init__(self, app: object, contract: Contract, server: DatabaseServer) -> None:
        self.name = contract.name
        self._app = app if contract.start <= _HIGHEST else _Lowered(app)
        self._confirmations = contract.confirmations or 0
        self._server = server
        self.first = max(contract.start, PREMINE + 1) if contract.start <= _HIGHEST else PREMINE + 1
        """The height of the first block of cases."""

    def __call__(self, blocks: Sequence[Sequence[_Case]], *, restarts: int) -> _Seen:
        """Run up to the last block, with so many restarts on the way."""
        stops = [self.first + len(blocks) * (n + 1) // (restarts + 1) - 1 for n in range(restarts + 1)]
        url = self._server.create()
        try:
            with FakeNode() as node, tempfile.TemporaryDirectory() as folder:
                if self.first > node.height + 1:
                    node.mine(n=self.first - node.height - 1)
                for block in blocks:
                    node.mine(case.tx for case in block)
                node.mine(n=self._confirmations + 1)
                halt = self._follow(node.url, url, stops, Path(folder))
            with closing(connect_reader(url)) as connection:
                return _Seen(connection.execute(_Q["log"]).fetchall(), halt)
        finally:
            self._server.drop(url)

    def _follow(self, source: str, database: str, stops: Sequence[int], folder: Path) -> Json | None:
        try:
            for stop in stops:
                with StateEngine(
                    self._app,
                    database=database,
                    source=source,
                    confirmations=self._confirmations,
                    state_folder=folder,
                ) as engine:
                    engine.build(stop)
        except AppHalted as halted:
            return halted.record
        return None


class _Lowered:
    """An app as it is, but that it starts with the chain: nobody mines half a million blocks for a test."""

    def __init__(self, app: object) -> None:
        self._app = app() if isinstance(app, type) else app

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the app has
        return getattr(self._app, name)

    def get_first_block_id(self) -> int:
        """Start with the first block."""
        return 0

    def get_initial_snapshots(self) -> dict[int, str]:
        """Start from nothing."""
        return {}
