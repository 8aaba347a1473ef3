"""The process of one load: it imports the app, derives its state, and judges what is sent from then on.

It answers the process that started it over a pipe, one call after the other, and ends when that is gone.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final

import psycopg

from virtualchain.app.declarations import read_contract
from virtualchain.app.encoding import Around, find_opcode, write_input, write_output
from virtualchain.app.field_text import read_fields, split_fields
from virtualchain.app.fields import opcode_text
from virtualchain.bitcoin.next_block import Outpoint
from virtualchain.dev import files
from virtualchain.dev.described import describe
from virtualchain.dev.failures import START_AGAIN, Failure, of_block, of_load
from virtualchain.dev.messages import Built, Load, Loaded, Problem, Writing
from virtualchain.engine.engine import StateEngine
from virtualchain.engine.options import Options
from virtualchain.engine.preview import carry, preview_transactions
from virtualchain.errors import AppHalted, StoreError, UsageError, VirtualchainError
from virtualchain.loading import load_app
from virtualchain.model import Json, Reorg, SpentOutput
from virtualchain.notices import notice_of
from virtualchain.store.rollback import Undone

if TYPE_CHECKING:
    from virtualchain.app.contract import Contract

_CHANGE: Final = 1000
"""Satoshi of the change in a transaction that is made up."""
_IDLE: Final = 10.0
"""Seconds without a call after which the engine looks at the node."""


def main(connection: Connection, load: Load) -> None:
    """Load an app, and answer calls until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the prompt
    os.dup2(2, 1)  # standard output is for results: what the app prints is not one
    sys.dont_write_bytecode = True
    reading = files.Reading()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        worker = Worker(load)
        loaded = worker.load()
        connection.send(Loaded(loaded[0], loaded[1], reading.files()))
        while loaded[1] is None:
            while not connection.poll(_IDLE):
                answer_of(worker.build)  # so that the engine reports that it runs; the next call has problems
            name, arguments = connection.recv()
            connection.send((answer_of(getattr(worker, name), *arguments), reading.files()))
    os._exit(0)  # whatever threads the app has begun


def answer_of(method: Callable[..., object], *arguments: object) -> object:
    """Call a method; return what it returns, or the problem."""
    try:
        return method(*arguments)
    except VirtualchainError as error:
        return Problem(str(error), error.exit_code)
    except psycopg.Error as error:
        text = " ".join(str(error).split())
        return Problem(f"the database does not work: {text}; {START_AGAIN}", StoreError.exit_code)


class Worker:
    """One load of an app; its public methods are what can be called."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._remarks: list[str] = []
        self._undone: Json | None = None
        self._contract: Contract
        self._engine: StateEngine

    def load(self) -> tuple[Json | None, Failure | None]:
        """Import the app, and install it in its database."""
        try:
            app = load_app(self._load.use)
            self._contract = read_contract(app, "regtest")
            self._engine = StateEngine(
                app,
                database=self._load.database,
                source=self._load.node,
                confirmations=self._contract.confirmations or 0,
                state_folder=self._load.state_folder,
                guard=True,
                on_wait=self._remark,
                on_rollback=self._roll_back,
            )
        except Exception as error:  # noqa: BLE001 - the app's own code may raise anything
            return None, of_load(error)
        return describe(self._contract), None

    def build(self) -> Built:
        """Have the app take the blocks that the node has."""
        failure = None
        self._undone = None
        with suppress(AppHalted):
            self._engine.build()
        for name, error in self._engine.halted().items():
            failure = of_block(error, name)
        remarks, self._remarks = self._remarks, []
        return Built(self._engine.get_current_block(), failure, self._undone, remarks)

    def write(self, writing: Writing) -> bytes:
        """Return the script of the output that carries an input's payload."""
        payload, around = self._written(writing)
        return write_output(self._contract, payload, around)

    def preview(
        self, writing: Writing, before: Sequence[bytes], spent: Mapping[Outpoint, SpentOutput]
    ) -> Json:
        """Judge an input, after transactions that would be in the same block."""
        payload, around = self._written(writing)
        raw, made_up = carry(self._contract, payload, around)
        verdicts = preview_transactions(
            self._load.database,
            self._contract,
            [*before, raw],
            spent={**spent, **made_up},
            options=Options(guard=True),
        )
        if not verdicts or verdicts[-1].raw != raw:
            raise UsageError(self._unseen(payload))
        verdict = verdicts[-1].as_dict()
        return {**verdict, "opcode": opcode_text(verdicts[-1].opcode, verdicts[-1].payload or b"")}

    def _written(self, writing: Writing) -> tuple[bytes, Around]:
        """Return the payload of an input, and the transaction around it."""
        contract = self._contract
        around = Around([*writing.outputs, (_CHANGE, writing.sender)], writing.sender)
        if writing.payload is not None:
            return writing.payload, around
        last = self._engine.get_current_block()
        code = find_opcode(contract, writing.opcode)
        fields = read_fields(contract, code, split_fields(writing.fields), last + 1)
        consensus_hash = None if "consensus_hash" in fields else self._engine.get_consensus_at(last)
        payload = write_input(
            contract, code, fields, block_id=last + 1, consensus_hash=consensus_hash, around=around
        )
        return payload, around

    def _unseen(self, payload: bytes) -> str:
        contract = self._contract
        magics = " or ".join(magic.hex() for magic in contract.magics)
        if payload.startswith(contract.magics):
            return f"app {contract.name} has no opcode for the payload {payload.hex()}"
        return f"payload {payload.hex()} does not begin with the magic of app {contract.name}, {magics}"

    def _remark(self, message: str) -> None:
        if notice_of(message).level in {"warning", "error"}:
            self._remarks.append(message)

    def _roll_back(self, reorg: Reorg, undone: Undone) -> None:
        self._undone = {
            "fork_block_id": reorg.fork_block_id,
            "depth": reorg.depth,
            "blocks": undone.blocks,
            "ops": undone.ops,
            "rows": undone.rows,
        }
