"""Send an app everything that strangers may send: `check_poison` checks whether one transaction can halt it.

Every case is a transaction of its own. A fake node mines them, and the engine runs the app over them twice,
in new databases, the second time with a restart. No case may halt the app, and both runs must produce the
same ops, rejections and hashes.
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

from virtualchain.app.contract import Contract, instance_of, read_contract
from virtualchain.engine.engine import StateEngine
from virtualchain.errors import AppHalted, UsageError, VirtualchainError
from virtualchain.model import Json
from virtualchain.store.database import connect_reader
from virtualchain.store.sql import queries
from virtualchain.testing.chain import PREMINE
from virtualchain.testing.database import DatabaseServer, running_server
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.hostile import (
    hostile_bodies,
    hostile_outputs,
    hostile_senders,
    mutations,
    spend_from,
    unsigned_transaction,
)
from virtualchain.testing.transactions import Tx, key, op_return

_Q = queries("testing")
_CHANGE: Final = key("change").script_pubkey
_FULLY_TESTED_OPCODES: Final = 12
"""The number of opcodes that are tried with every payload; others only with the first few."""
_FEW_PAYLOADS: Final = 8
_BLOCK_CASES: Final = 60
_BLOCK_BYTES: Final = 700_000
_MAX_HALTS: Final = 8
"""How often the cases are run again without the one that halted the app."""
_MAX_START: Final = 300
"""Empty blocks are mined up to an app's first block if it is at most this; otherwise the app starts lower."""


class Poisoned(VirtualchainError, AssertionError):
    """A transaction halts an app, or two runs differ; the message lists the cases."""


@dataclass(frozen=True, slots=True)
class PoisonReport:
    """The outcome of the cases for an app that survived all of them."""

    cases: int
    accepted: int
    refused: int
    ignored: int
    """Cases in which the app's payload rule, magic and opcodes find no input."""


_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+), in (.+)\n    (.+)$', re.MULTILINE)
_PACKAGE: Final = Path(__file__).parents[1]
_LIBRARIES: Final = (
    sysconfig.get_path("stdlib"),
    *(str(item) for item in _PACKAGE.iterdir() if item.stem != "examples"),
)
"""Folders and files whose code in a traceback is not the app's own."""

_Log = list[tuple[int, str | None, str, str]]
"""Block, transaction, outcome and details of each row, in an order that is the same in every run."""


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
    """Run an app (anything that `StateEngine` accepts) over a list of hostile transactions.

    `samples` are good payloads, with magic and opcode, at least one per opcode. They are sent first, then
    cut off, changed and repeated, so that they also reach the app's checks and reducers. The databases are
    created on the server of `database_url`, whose role must have the right to do so, or on a server started
    for this call. `carry` builds the output script of a payload, for an app whose payload rule does not
    read OP_RETURNs.

    Raises Poisoned, which reports the cases that halt the app or differ between two runs. Raises UsageError
    if no case reaches the app, or if a sample is not one of its payloads.
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
        raise Poisoned(f"app {contract.name} does not survive hostile input:\n{listed}")
    accepted, refused = (
        len({row[1] for row in first.log if row[2] == verdict}) for verdict in ("accepted", "refused")
    )
    if not accepted + refused:
        raise UsageError(
            f"none of {len(names)} cases reaches app {contract.name}: pass samples, or as `carry` a "
            "function that puts a payload into an output"
        )
    return PoisonReport(len(names), accepted, refused, len(names) - accepted - refused)


def _cases(contract: Contract, samples: Sequence[bytes], carry: Callable[[bytes], bytes]) -> Iterator[_Case]:
    """Build and name every transaction, the samples first."""
    numbers = count()
    magic, opcodes = contract.magics[0], sorted(contract.opcodes)
    good = [_split(contract, sample) for sample in samples]

    def case(name: str, start: bytes, body: bytes, sender: str = "alice") -> _Case:
        outputs = [(0, carry(start + body)), (500, _CHANGE)]
        return _Case(name, start, unsigned_transaction(next(numbers), [spend_from(sender)], outputs))

    for sender in ("alice", "alice", "bob"):
        yield from (case(f"sample {start + body!r} by {sender}", start, body, sender) for start, body in good)
    for start, body in good or [(magic + opcode, b"") for opcode in opcodes[:_FULLY_TESTED_OPCODES]]:
        for name, spendings in hostile_senders().items():
            tx = unsigned_transaction(next(numbers), spendings, [(0, carry(start + body))])
            yield _Case(f"{start + body!r} {name}", start, tx)
        for name, outputs in hostile_outputs(carry(start + body), start + body):
            tx = unsigned_transaction(next(numbers), [spend_from("alice", 10**6)], outputs)
            yield _Case(f"{start + body!r} {name}", start, tx)
        for name, changed in mutations(body) if body else ():
            yield case(f"{start + body!r} {name}", start, changed)
    for number, opcode in enumerate(opcodes):
        for name, body in islice(hostile_bodies(), None if number < _FULLY_TESTED_OPCODES else _FEW_PAYLOADS):
            yield case(f"{name} after opcode {opcode!r}", magic + opcode, body)
    for other in contract.magics[1:]:
        yield case(f"magic {other!r}", other + opcodes[0], b"")
    yield from (case(f"sample {start + body!r} at the end", start, body) for start, body in good)


def _split(contract: Contract, sample: bytes) -> tuple[bytes, bytes]:
    """Split a sample after its magic and opcode; UsageError if they are not the app's."""
    for magic in contract.magics:
        end = len(magic) + 1
        if sample.startswith(magic) and sample[len(magic) : end] in contract.opcodes:
            return sample[:end], sample[end:]
    raise UsageError(f"sample {sample!r} does not start with a magic and an opcode of app {contract.name}")


def _blocks(cases: Sequence[_Case]) -> list[list[_Case]]:
    """Distribute cases over blocks that are small enough."""
    blocks: list[list[_Case]] = [[]]
    for case in cases:
        size = sum(len(other.tx.raw) for other in blocks[-1])
        if len(blocks[-1]) == _BLOCK_CASES or size + len(case.tx.raw) > _BLOCK_BYTES:
            blocks.append([])
        blocks[-1].append(case)
    return blocks


def _halts(run: "_Run", blocks: list[list[_Case]]) -> tuple[list[str], list[list[_Case]], "_Outcome"]:
    """Run until nothing halts, each time without the case that did.

    If a halt names no case, as in a hook that sees the whole block, the block's cases get a block each.
    Returns complaints about the halts, the cases that are left, and the outcome of the last run.
    """
    halts: dict[str, str] = {}
    unnamed: str | None = None
    for number in count():
        outcome = run(blocks, restarts=0)
        if outcome.halt is None or number == _MAX_HALTS:
            break
        place = outcome.halt["block_id"] - run.first
        cases = blocks[place] if place >= 0 else []
        named = [case for case in cases if case.tx.txid == outcome.halt["txid"]]
        failure = f"{outcome.halt['callback']} fails with {outcome.halt['error']}"
        if len(cases) == 1 or named:
            culprit, unnamed = (named or cases)[0], None
            location = _location(outcome.halt["traceback"])
            # Many cases trigger the same bug: the second time, all cases with this opcode are dropped.
            dropped = culprit.start if location in halts else b""
            halts.setdefault(location, f"{culprit.name}: {failure}\n{location}")
            blocks = [
                [case for case in block if case is not culprit and not (dropped and case.start == dropped)]
                for block in blocks
            ]
        elif unnamed is None and cases:
            unnamed = f"{cases[0].name}, and {len(cases) - 1} more in one block: {failure}"
            blocks = [*blocks[:place], *([case] for case in cases), *blocks[place + 1 :]]
        else:
            raise Poisoned(f"app {run.name} halts without any input: {failure}\n{outcome.halt['traceback']}")
    return [*halts.values(), *([unnamed] if unnamed else [])], blocks, outcome


def _location(traceback: str) -> str:
    """Return the last line of a traceback that is in the app's own code, or else the last of all."""
    frames = _FRAME.findall(traceback)
    own = [
        frame for frame in frames if not frame[0].startswith(_LIBRARIES) and "site-packages" not in frame[0]
    ]
    return "".join(f"  {file}:{line}, in {name}: {code}" for file, line, name, code in (own or frames)[-1:])


def _differences(first: _Log, second: _Log, names: Mapping[str, str]) -> list[str]:
    """Describe the first difference between two runs."""
    for one, other in zip_longest(first, second):
        if one != other:
            details = [f"{kind} {detail}" for _, _, kind, detail in filter(None, (one, other))]
            block_id, txid = (one or other or (0, None))[:2]
            name = names.get(txid or "", f"block {block_id}")
            return [f"{name}: two runs differ: {' <> '.join(details)}"]
    return []


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The log of one run, and why the app halted, if it did."""

    log: _Log
    halt: Json | None


class _Run:
    """Runs an app over blocks of cases, each time with a new node and a new database."""

    def __init__(self, app: object, contract: Contract, server: DatabaseServer) -> None:
        self.name = contract.name
        self._app = app if contract.start <= _MAX_START else _Lowered(app)
        self._confirmations = contract.confirmations or 0
        self._server = server
        self.first = max(contract.start, PREMINE + 1) if contract.start <= _MAX_START else PREMINE + 1
        """The height of the first block of cases."""

    def __call__(self, blocks: Sequence[Sequence[_Case]], *, restarts: int) -> _Outcome:
        """Run up to the last block, with this many restarts on the way."""
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
                return _Outcome(connection.execute(_Q["log"]).fetchall(), halt)
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
    """An app, unchanged except that it starts with the chain, as a test cannot mine half a million blocks."""

    def __init__(self, app: object) -> None:
        self._app = instance_of(app)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever attribute the app has
        return getattr(self._app, name)

    def get_first_block_id(self) -> int:
        """Return the genesis block's height."""
        return 0

    def get_initial_snapshots(self) -> dict[int, str]:
        """Return no snapshots."""
        return {}
