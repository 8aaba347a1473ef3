"""What a line, a load or a change of files has come to: as JSON, and in words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from virtualchain.dev.failures import Failure
from virtualchain.model import Json
from virtualchain.reading.json_text import json_text

_MOST_CHANGES: Final = 100
_LONGEST: Final = 2_000
"""What a person reads of changes, and characters of a row or an op; JSON has all."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An event with what a program reads of it, and the lines for a person."""

    event: str
    """A line's first word, or ready, loaded, failed, halted."""
    data: Json = field(default_factory=dict)
    lines: Sequence[str] = ()
    """What is indented belongs to the line before it."""
    columns: Sequence[str] | None = None
    """Of a table, which follows the lines."""
    rows: Sequence[Sequence[Any]] = ()
    is_bad: bool = False
    """Whether it is a mistake or a failure."""

    def as_dict(self) -> Json:
        """Return it as JSON shows it."""
        shown: Json = {"event": self.event, "ok": not self.is_bad, **self.data}
        if self.columns is not None:
            shown["rows"] = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return shown


def mistake(event: str, message: str) -> Outcome:
    """Describe why a line cannot be done."""
    return Outcome(event, {"error": message}, [f"error: {message}"], is_bad=True)


def failed(failure: Failure, event: str, title: str, more: Sequence[str] = ()) -> Outcome:
    """Describe what is wrong with the app; `title` says what could not be done."""
    lines = [f"{title}: {failure.message}"]
    lines += [f"  op      {failure.op}"] if failure.op is not None else []
    lines += [f"  in      {failure.place}"] if failure.place is not None else []
    lines += [f"          {failure.source}"] if failure.source else []
    lines += [
        f"  {'' if number else 'values':6}  {name} = {value}"
        for number, (name, value) in enumerate(failure.values.items())
    ]
    lines += [f"  to do   {failure.advice}", *more]
    return Outcome(event, {"failure": failure.as_dict()}, lines, is_bad=True)


def verdict_lines(verdict: Json, place: str) -> list[str]:
    """Describe what became, or would become, of an input."""
    opcode = verdict["opcode"]
    if verdict["verdict"] == "accepted":
        lines = [f"{place}: {opcode} accepted"]
    else:
        lines = [f"{place}: {opcode} refused at {verdict['step']}: {verdict['reason']}"]
    if verdict["fields"] is not None:
        lines.append(f"  op      {_json(verdict['fields'])}")
    return [*lines, *change_lines(verdict["changes"])]


def change_lines(changes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe what was done to rows; of very many, the first ones."""
    lines, every = [], list(changes)
    for change in every[:_MOST_CHANGES]:
        lines.append(f"  {change['action']:6}  {change['table']} {_json(change['key'])}")
        sides = [side for side in ("old", "new") if change[side] is not None]
        lines += [f"    {side}   {_json(change[side])}" for side in sides]
    if len(every) > _MOST_CHANGES:
        lines.append(f"  and {len(every) - _MOST_CHANGES:,} more changes of rows: see `rows TABLE`")
    return lines


def _json(value: object) -> str:
    text = json_text(value, ensure_ascii=False)
    more = len(text) - _LONGEST
    return text if more <= 0 else f"{text[:_LONGEST]}... and {more:,} more characters"
