"""Why an app is halted: the record that `virtualchain.apps` shows, and the error that carries it."""

import bdb
import inspect
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, MethodType, TracebackType
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.app.fields import legible, opcode_text
from virtualchain.errors import AppHalted, MissingData
from virtualchain.model import Input, Json
from virtualchain.store.failures import describe_error, summarize_error

LONGEST_REASON: Final = 1_000
_LONGEST_TRACEBACK: Final = 20_000
_LONGEST_OP: Final = 300
"""Characters that are kept: all of them may quote what a stranger wrote, however long."""

_PACKAGE: Final = Path(__file__).parents[1]
_ENGINE: Final = ("<frozen ", *(str(item) for item in _PACKAGE.iterdir() if item.stem != "examples"))
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")
_INSTALLED: Final = ("site-packages", "dist-packages")
"""Folders of installed packages: an app may be one, but what it calls there rarely is its own code."""
_DEBUGGERS: Final = frozenset({"bdb", "pdb", "_pytest.debugging", "IPython.core.debugger"})


class AppEnded(Exception):
    """A callback tried to end the process, or its block's transaction."""


class DebuggerQuit(KeyboardInterrupt):
    """Whoever debugs a callback has quit the debugger: that ends the work, as Ctrl-C does."""


class contained:  # noqa: N801 - used as `with contained():`, which is entered for every call of a callback
    """Run a callback: what would end the engine, or the block's transaction unnoticed, is the app's error.

    Quitting a debugger is not the app's doing: that raises DebuggerQuit.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            contain(error)


def contain(error: BaseException) -> None:
    """Raise what `contained` raises in place of an error, if it does."""
    if not isinstance(error, Exception | SystemExit | GeneratorExit):
        return
    if _is_quit(error):
        raise DebuggerQuit("the debugger was quit") from error
    if isinstance(error, SystemExit | GeneratorExit | psycopg.Rollback):
        raise AppEnded(f"the callback raised {type(error).__name__}") from error


def _is_quit(error: BaseException) -> bool:
    """Check whether a debugger raised an error to end the program.

    `bdb` has an exception for that. Since Python 3.14 `pdb` calls `sys.exit`, and pytest raises an exception
    of its own.
    """
    if isinstance(error, bdb.BdbQuit):
        return True
    if not isinstance(error, SystemExit) and type(error).__module__ != "_pytest.outcomes":
        return False
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") in _DEBUGGERS for frame, _ in frames)


def halt(
    contract: Contract,
    block_id: int,
    callback: str,
    item: Input | None,
    error: Exception,
    *,
    opcode: bytes | None = None,
    name: str | None = None,
    op: str | None = None,
) -> AppHalted:
    """Describe what failed before the app could take a block, for its record and for the operator.

    `op` is what the callback was called with, as text, if it judges a candidate with `opcode`; `name` is that
    of its handler (`opcode_name`).
    """
    record = {
        "block_id": block_id,
        "callback": callback,
        "txid": item.txid if item else None,
        "txindex": item.txindex if item else None,
        "opcode": None if opcode is None else opcode.hex(),
        "op": None if op is None else legible(op, _LONGEST_OP),
        **_place(error, contract.function(callback, name, block_id)),
        "error": legible(describe_error(error), LONGEST_REASON),
        "traceback": legible("".join(traceback.format_exception(error)), _LONGEST_TRACEBACK),
    }
    return AppHalted(_describe(contract.name, record, summarize_error(error)), record)


def halted_error(app: str, record: Json, cause: BaseException | None = None) -> AppHalted:
    """Return the error of an app that was halted earlier, from its record.

    `cause` is the callback's exception, if it was raised in this process; else its traceback is a note.
    """
    advice = f"fix it, then run `virtualchain resume {app}`"
    halted = AppHalted(f"{_describe(app, record, record['error'].splitlines()[0])}; {advice}", record)
    halted.__cause__ = cause
    if cause is None and record["traceback"]:
        halted.add_note(record["traceback"].rstrip())
    return halted


def place_of(record: Mapping[str, object]) -> str | None:
    """Return the line of the app's code that a record names, as text; None if it names none."""
    if record.get("file") is None:  # an app halted by an older version of the engine, or not by its code
        return None
    return f"{record['file']}, line {record['line']}, in {record['function']}"


def op_of(record: Mapping[str, object]) -> str | None:
    """Return the op that a record names, as text: its opcode, and its fields or payload."""
    if record.get("op") is None:
        return None
    opcode = bytes.fromhex(str(record["opcode"]))
    return f"{opcode_text(opcode)} {record['op']}" if opcode else str(record["op"])


def missing_blocks_record(block_id: int, error: MissingData) -> Json:
    """Describe that the node does not have blocks which an app needs to join, in the form of `halt`."""
    return {
        "block_id": block_id,
        "callback": "searching blocks that were never searched for its magic",
        "txid": None,
        "txindex": None,
        "error": f"{error}; use a node that has all blocks, or its files (--blocks)",
        "traceback": "",
    }


def _describe(app: str, record: Mapping[str, object], summary: str) -> str:
    """Describe a halt on one line: where the chain is, what failed, on which op, and in which line."""
    block = f"block {record['block_id']}" + (f", transaction {record['txid']}" if record["txid"] else "")
    op, place = op_of(record), place_of(record)
    details = f"{'' if op is None else f', op {op}'}{'' if place is None else f', {place}'}"
    return f"app {app} is halted before {block}: {record['callback']} failed with {summary}" + (
        f" ({details.removeprefix(', ')})" if details else ""
    )


def _place(error: Exception, function: object) -> Json:
    """Return file, line and function of the app's code that failed.

    That is the last line of the traceback in code of the app's own; if there is none, because the engine
    refuses what a callback returned, the beginning of the callback, `function`.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if may_be_an_apps(frame.filename)]
    own = [frame for frame in frames if not any(name in frame.filename for name in _INSTALLED)] or frames
    if own:
        return {"file": own[-1].filename, "line": own[-1].lineno, "function": own[-1].name}
    function = inspect.unwrap(function) if callable(function) else function
    function = function.__func__ if isinstance(function, MethodType) else function
    if isinstance(function, FunctionType) and may_be_an_apps(function.__code__.co_filename):
        code = function.__code__
        return {"file": code.co_filename, "line": code.co_firstlineno, "function": code.co_name}
    return {"file": None, "line": None, "function": None}


def may_be_an_apps(file: str) -> bool:
    """Check whether a file is neither the engine's nor of Python's standard library."""
    if file.startswith(_ENGINE):
        return False
    return not file.startswith(_STANDARD_LIBRARY) or any(name in file for name in _INSTALLED)
