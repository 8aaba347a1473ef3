"""What went wrong in an app, for whoever writes it: the place, the line, the values involved, what to do."""

import ast
import dataclasses
import linecache
import re
import reprlib
import traceback
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final

import psycopg

from virtualchain.engine.halting import may_be_an_apps, op_of
from virtualchain.errors import AppHalted, UsageError, VirtualchainError
from virtualchain.model import Json

START_AGAIN: Final = "write `reload` once that is over, or start dev again, which keeps the chain"
"""What to do if neither the app nor a line is to blame."""
_LONGEST: Final = 800
"""Characters of a message, or of a value."""
_MOST_VALUES: Final = 12
_DRIVER: Final = str(Path(psycopg.__file__).parent)
_PLAIN: Final = (str, bytes, int, float, bool, type(None), Decimal, date, time, timedelta)
_NESTED: Final = (list, tuple, dict, set, frozenset)
_SECRET: Final = re.compile(r"passw|secret|credential|private_?key|api_?key", re.IGNORECASE)
_LOGIN: Final = re.compile(r"://[^/@\s]*:[^/@\s]*@")


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why an app could not be loaded, or could not take a block."""

    message: str
    advice: str
    file: str | None = None
    line: int | None = None
    function: str | None = None
    source: str | None = None
    """The text of the line."""
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Local variables that the line names, as text."""
    callback: str | None = None
    """Of a block: the callback that failed; the block, the transaction and the op that it failed on."""
    block_id: int | None = None
    txid: str | None = None
    op: str | None = None

    def as_dict(self) -> Json:
        """Return it as JSON shows it."""
        return dataclasses.asdict(self)

    @property
    def place(self) -> str | None:
        """Where it is, in words."""
        if self.file is None:
            return None
        line = "" if self.line is None else f", line {self.line}"
        function = "" if self.function in {None, "<module>"} else f", in {self.function}"
        return f"{self.file}{line}{function}"


def of_load(error: Exception) -> Failure:
    """Describe why an app could not be imported, or is not one."""
    cause: BaseException = error
    while isinstance(cause, UsageError) and cause.__cause__ is not None:
        cause = cause.__cause__
    advice = "mend it and save: the app is loaded again by itself"
    if isinstance(cause, SyntaxError):
        message = f"{type(cause).__name__}: {cause.msg}"
        return Failure(message, advice, cause.filename, cause.lineno, None, (cause.text or "").strip())
    frame, line = _own_frame(cause.__traceback__)
    if isinstance(error, VirtualchainError) and not isinstance(error, UsageError):
        return Failure(_short(str(error)), START_AGAIN)
    if frame is None:  # no line of the app's was running
        return Failure(_short(str(error)), advice)
    message = str(cause) if isinstance(cause, UsageError) else f"{type(cause).__name__}: {cause}"
    return Failure(_short(message), advice, *_place(frame, line), values=_values(frame, line))


def of_block(error: AppHalted, app: str) -> Failure:
    """Describe why an app could not take a block."""
    record = error.record
    cause = error.__cause__
    frame, line = (None, 0) if cause is None else _frame_at(cause, record)
    values = {} if frame is None else _values(frame, line)
    place = _place(frame, line) if frame is not None else _place_of(record)
    return Failure(
        _short(" ".join(str(record["error"]).splitlines())),
        f"mend app {app} and save: it is loaded again, and takes the block by itself",
        *place,
        values=values,
        callback=str(record["callback"]).removeprefix("db_").removesuffix("_block"),
        block_id=int(str(record["block_id"])),
        txid=None if record["txid"] is None else str(record["txid"]),
        op=op_of(record),
    )


def _own_frame(trace: TracebackType | None) -> tuple[FrameType | None, int]:
    """Return the innermost frame of code that may be the app's; the driver of the database is not."""
    frames = ((each, each[0].f_code.co_filename) for each in traceback.walk_tb(trace))
    own = [each for each, file in frames if may_be_an_apps(file) and not file.startswith(_DRIVER)]
    return own[-1] if own else (None, 0)


def _frame_at(error: BaseException, record: Mapping[str, object]) -> tuple[FrameType | None, int]:
    """Return the frame that a record names; None if the line was not running."""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if (frame.f_code.co_filename, line) == (record.get("file"), record.get("line")):
            return frame, line
    return None, 0


def _place(frame: FrameType, line: int) -> tuple[str, int, str, str | None]:
    file = frame.f_code.co_filename
    return file, line, frame.f_code.co_name, _source(file, line)


def _place_of(record: Mapping[str, object]) -> tuple[str | None, int | None, str | None, str | None]:
    file, line, function = record.get("file"), record.get("line"), record.get("function")
    if not isinstance(file, str) or not isinstance(line, int):
        return None, None, None, None
    return file, line, str(function), _source(file, line)


def _source(file: str, line: int) -> str | None:
    return linecache.getline(file, line).strip() or None


def _values(frame: FrameType, line: int) -> dict[str, str]:
    """Return the local variables that a line names, or else all of a function; none of a module."""
    if frame.f_code.co_name == "<module>":
        return {}
    file = frame.f_code.co_filename
    named = _names_at(file, line)
    shown = {name: value for name, value in frame.f_locals.items() if name in named} or frame.f_locals
    values = {name: _shown(name, value) for name, value in shown.items() if not name.startswith("__")}
    legible = [(name, text) for name, text in values.items() if text is not None]
    return dict(legible[:_MOST_VALUES])


def _names_at(file: str, line: int) -> set[str]:
    """Return the names in the statement that a line is part of."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return set()
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    if not around:
        return set()
    statement = min(around, key=lambda node: (node.end_lineno or node.lineno) - node.lineno)
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _shown(name: str, value: object) -> str | None:
    """Return a value as text; None for what is the same in every call, such as a function or `self`."""
    if _SECRET.search(name):
        return "(not shown)"
    if isinstance(value, (*_PLAIN, *_NESTED)):
        return _short(_LOGIN.sub("://***@", _Shortened().repr(value)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        inner = ", ".join(f"{key}={_shown(key, each)}" for key, each in fields.items())
        return _short(f"{type(value).__name__}({inner})")
    return None


class _Shortened(reprlib.Repr):
    """Writes values that may be long, with the fields of an op all there."""

    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 12
        self.maxstring = self.maxother = self.maxlong = 80
        self.maxlevel = 4

    def repr_dict(self, x: dict[object, object], level: int) -> str:
        """Write a dict in its own order, without what the engine adds to ops, and without secrets."""
        if level <= 0:
            return "{...}"
        pairs = [(key, value) for key, value in x.items() if not str(key).startswith("virtualchain_")]
        parts = [
            f"{self.repr1(key, level - 1)}: "
            + ("(not shown)" if _SECRET.search(str(key)) else self.repr1(value, level - 1))
            for key, value in pairs[: self.maxdict]
        ]
        return "{" + ", ".join([*parts, *(["..."] if len(pairs) > self.maxdict else [])]) + "}"


def _short(text: str) -> str:
    """Keep a text on one line, and short."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
