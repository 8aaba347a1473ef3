"""What a halted app was about: its callback, op, line, the values there, and its last statement."""

import linecache
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType, TracebackType
from typing import Final

from virtualchain.engine.halting import op_of
from virtualchain.errors import AppHalted
from virtualchain.store.state import State
from virtualchain.testing.advice import advice_for
from virtualchain.testing.tracing import Trace, shortened

_NOT_SHOWN: Final = (State, ModuleType, FunctionType, MethodType, type)
_MOST_VALUES: Final = 12


def describe_halt(app: str, error: AppHalted, names: Mapping[str, str], trace: Trace) -> str:
    """Describe a halt over several lines; `names` describes transactions, `trace` has the statements."""
    record = error.record
    txid = record.get("txid")
    op = op_of(record)
    summary = str(record["error"]).partition("\n")[0]
    lines = [f"app {app} halts in block {record['block_id']}: {record['callback']} fails with {summary}"]
    if txid is not None:
        lines.append(f"input: {names.get(str(txid), 'a transaction')} ({txid})")
    if op is not None:
        lines.append(f"op: {op}")
    if record.get("file") is not None:
        code = linecache.getline(str(record["file"]), int(str(record["line"]))).strip()
        lines.append(f"line: {record['file']}:{record['line']}, in {record['function']}: {code}")
    lines += [f"value: {name} = {value}" for name, value in _values(error, record)]
    last = trace.last(int(str(record["block_id"])), None if txid is None else str(txid))
    if last is not None:
        lines.append(f"last statement: {last}")
    advice = advice_for(str(record["error"]))
    if advice is not None:
        lines.append(f"Instead, {advice}.")
    return "\n  ".join(lines)


def _values(error: AppHalted, record: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the local values of the line that failed."""
    place: TracebackType | None = None
    at = None if error.__cause__ is None else error.__cause__.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if code.co_filename == record.get("file") and code.co_name == record.get("function"):
            place = at
        at = at.tb_next
    if place is None:
        return
    shown = {
        name: value
        for name, value in place.tb_frame.f_locals.items()
        if name != "self" and not isinstance(value, _NOT_SHOWN)
    }
    for name, value in list(shown.items())[:_MOST_VALUES]:
        yield name, shortened(repr(_without_additions(value)))


def _without_additions(value: object) -> object:
    """Leave out of an op what the engine adds to it."""
    if not isinstance(value, dict):
        return value
    return {name: item for name, item in value.items() if not str(name).startswith("virtualchain_")}
