"""Record what an app's callbacks ask of the database and what it answers, statement by statement."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final
from unittest import mock

from virtualchain.app.contract import Callback
from virtualchain.store.failures import summarize_error
from virtualchain.store.state import State
from virtualchain.store.table import Table

_STEPS: Final = {7: "parse", 6: "check", 5: "commit"}
"""Callbacks of one op, by the number of their arguments; those of a whole block have two."""
_WRITES: Final = re.compile(
    r"\s*(?:(?:WITH|INSERT|UPDATE|DELETE|MERGE)\b|\S+\.(?:put|append|update|add|spend|move|delete|pop)\()",
    re.IGNORECASE,
)
_TXID: Final = 3
_STATEMENTS: Final = ("execute", "query", "one", "refusal")
_ROWS: Final = (*("put", "append", "update", "add", "spend", "move", "delete", "pop"),)
_LONGEST: Final = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement of a callback, and what came of it, as text."""

    step: str
    txid: str | None
    """The op's transaction; None in parse, scan and final."""
    statement: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.statement} (in {self.step}): {shortened(self.outcome)}"


@dataclass(slots=True)
class Trace:
    """What was asked in each block; if a block is judged more than once, the last time counts."""

    blocks: dict[int, list[Asked]] = field(default_factory=dict)

    def first_difference(
        self, other: "Trace", block_id: int, txid: str | None
    ) -> tuple[Asked | None, Asked | None] | None:
        """Return the first statements of a block with other outcomes, those of an op's if there are any."""
        for of_op in (True, False) if txid else (False,):
            pairs = self._pairs(other, block_id, txid if of_op else None)
            for one, another in pairs:
                if one != another:
                    return one, another
        return None

    def _pairs(
        self, other: "Trace", block_id: int, txid: str | None
    ) -> Iterator[tuple[Asked | None, Asked | None]]:
        ours, theirs = (
            [asked for asked in trace.blocks.get(block_id, ()) if txid in {None, asked.txid}]
            for trace in (self, other)
        )
        for at in range(max(len(ours), len(theirs))):
            yield (ours[at] if at < len(ours) else None, theirs[at] if at < len(theirs) else None)

    def writer_of(self, block_id: int, table: str, key: str) -> Asked | None:
        """Return the first statement of a block that names a table, and preferably a key, to write to it."""
        writers = [
            asked
            for asked in self.blocks.get(block_id, ())
            if _WRITES.match(asked.statement) and re.search(rf"\b{re.escape(table)}\b", asked.statement)
        ]
        parts = key.strip("()").replace('"', "").split(",")
        fitting = [asked for asked in writers if all(part in asked.statement for part in parts)]
        return next(iter(fitting or writers), None)

    def last(self, block_id: int, txid: str | None) -> Asked | None:
        """Return the last statement of an op, or of the block, if there is one."""
        asked = self.blocks.get(block_id, [])
        return next((item for item in reversed(asked) if txid in {None, item.txid}), None)


def shortened(text: str) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


@contextmanager
def tracing(trace: Trace) -> Iterator[None]:
    """Record the statements of all apps that this process runs."""
    recorder = _Recorder(trace)
    with ExitStack() as patched:
        patched.enter_context(mock.patch.object(Callback, "__call__", recorder.calling(Callback.__call__)))
        patched.enter_context(mock.patch.object(State, "begin", recorder.beginning(State.begin)))
        for name in _STATEMENTS:
            patched.enter_context(mock.patch.object(State, name, recorder.asking(getattr(State, name))))
        for name in _ROWS:
            patched.enter_context(mock.patch.object(Table, name, recorder.handling(getattr(Table, name))))
        yield


class _Recorder:
    """Wraps the places that statements and rows pass through."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._step = ""
        self._txid: str | None = None
        self._asked: list[Asked] = []

    def beginning(self, begin: Callable[..., None]) -> Callable[..., None]:
        @wraps(begin)
        def wrapper(state: State, block: Any, **options: Any) -> None:  # noqa: ANN401 - as `State.begin` has it
            self._asked = self._trace.blocks[block.block_id] = []
            begin(state, block, **options)

        return wrapper

    def calling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def wrapper(callback: Callback, *arguments: Any, db_state: object) -> Any:  # noqa: ANN401 - any app's
            self._step = _STEPS.get(len(arguments)) or str(getattr(callback.function, "__name__", "a hook"))
            self._txid = arguments[_TXID] if self._step in {"check", "commit"} else None
            return call(callback, *arguments, db_state=db_state)

        return wrapper

    def asking(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(ask)
        def wrapper(state: State, statement: Any, parameters: Any = None, *row: Any, **named: Any) -> Any:  # noqa: ANN401 - as `State` has it
            try:
                result = ask(state, statement, parameters, *row, **named)
            except Exception as error:
                self._record(statement, parameters, summarize_error(error))
                raise
            self._record(statement, parameters, repr(result))
            return result

        return wrapper

    def handling(self, handle: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handle)
        def wrapper(table: Table[Any], *arguments: Any, **amounts: Any) -> Any:  # noqa: ANN401 - as `Table` has it
            parts = [*map(repr, arguments), *(f"{name}={amount!r}" for name, amount in amounts.items())]
            call = f"{table.name}.{handle.__name__}({', '.join(parts)})"
            try:
                result = handle(table, *arguments, **amounts)
            except Exception as error:
                self._record(call, None, summarize_error(error))
                raise
            self._record(call, None, repr(result))
            return result

        return wrapper

    def _record(self, statement: object, parameters: object, outcome: str) -> None:
        values = "" if parameters is None else f" with {shortened(repr(parameters))}"
        text = f"{' '.join(str(statement).split())}{values}"
        self._asked.append(Asked(self._step, self._txid, text, outcome))
