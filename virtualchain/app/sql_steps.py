"""Steps of a handler that are written in SQL: the queries of a check, and the statements of a commit."""

import re
from collections.abc import Collection, Iterator
from dataclasses import InitVar, dataclass
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar, Final

from virtualchain.app.author import author
from virtualchain.app.ddl import QUOTED, bare_sql
from virtualchain.app.handlers import Rejected
from virtualchain.errors import InvalidApp
from virtualchain.model import Json

PROVIDED: Final = ("block_id", "block_time", "txid", "vtxindex")
"""Parameters that every statement has, besides the fields of the op."""
_SUFFIX: Final = ".sql"
_TOKEN: Final = re.compile(rf"(?P<quoted>{QUOTED})|(?P<blank>\s+|--[^\n]*|/\*.*?\*/)|(?P<end>;)|.", re.DOTALL)
_PERCENT: Final = re.compile(r"%(?:%|\((?P<name>[^)]*)\)s)?")
_FIRST_WORD: Final = re.compile(r"\(*\s*(\w+)")
_READING: Final = frozenset({"SELECT", "VALUES", "WITH"})
_WRITING: Final = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "WITH"})

Place = tuple[str, int]
"""The file and the line with which a statement begins."""


@dataclass(frozen=True)
class _SqlStep:
    """Statements that run one after the other, with the op's fields as parameters."""

    statements: tuple[str, ...]
    """Without comments, and in one layout: the code digest has them."""
    places: InitVar[tuple[Place, ...]]

    step: ClassVar[str]
    words: ClassVar[frozenset[str]]
    """What a statement may begin with."""
    advice: ClassVar[str]

    def __post_init__(self, places: tuple[Place, ...]) -> None:
        """Keep where the statements are written, which says nothing about what they do."""
        object.__setattr__(self, "_places", places)

    @cached_property
    def _programs(self) -> list[CodeType]:
        """The calls of the statements, as code that stands in the file and line of each.

        So the traceback of a statement that fails, and the record of an app that is halted, name its line.
        """
        places: tuple[Place, ...] = getattr(self, "_places")  # noqa: B009 - it is no field
        return [
            compile("\n" * (line - 1) + "run(statement, values)", file, "eval").replace(
                co_name=f"statement {number}"
            )
            for number, (file, line) in enumerate(places, 1)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the programs, which no other process takes."""
        return {name: value for name, value in vars(self).items() if name != "_programs"}

    def _results(self, run: Any, values: Json) -> Iterator[Any]:  # noqa: ANN401 - a method of `State`
        for statement, program in zip(self.statements, self._programs, strict=True):
            yield eval(program, {"run": run, "statement": statement, "values": values})  # noqa: S307 - our own call


def _values(op: Json, state: Any, block_id: int, txid: str, vtxindex: int) -> Json:  # noqa: ANN401 - a `State`
    return op | dict(zip(PROVIDED, (block_id, state.block_time, txid, vtxindex), strict=True))


@dataclass(frozen=True)
class SqlCheck(_SqlStep):  # its name and its field are in the code digests of apps
    """A check in SQL: each query refuses the op by a row with a reason, or by a condition that fails."""

    step = "check"
    words = _READING
    advice = "a check reads only: what is to be written belongs into commit"

    def __call__(self, op: Json, state: Any, block_id: int, txid: str, vtxindex: int) -> bool | Rejected:  # noqa: ANN401 - a `State`, which this room does not know
        """Run the queries until one refuses."""
        results = self._results(state.refusal, _values(op, state, block_id, txid, vtxindex))
        for number, reason in enumerate(results, 1):
            if reason is not None:
                return Rejected(reason or f"condition {number} does not hold")
        return True


@dataclass(frozen=True)
class SqlCommit(_SqlStep):  # as above
    """A commit in SQL: each statement changes rows."""

    step = "commit"
    words = _WRITING
    advice = "a commit writes only: what is to be looked at first belongs into check"

    def __call__(self, op: Json, state: Any, block_id: int, txid: str, vtxindex: int) -> None:  # noqa: ANN401 - as above
        """Run the statements."""
        for _ in self._results(state.execute, _values(op, state, block_id, txid, vtxindex)):
            pass


def is_sql(step: object) -> bool:
    """Return whether a step is written in SQL: text, or the path of a file."""
    return isinstance(step, str | Path)


def read_steps(kind: type[_SqlStep], source: str | Path, fields: Collection[str] | None) -> Any:  # noqa: ANN401 - `kind`
    """Read the statements of a step from SQL, or from a `.sql` file beside the module that declares the app.

    `fields` are those of the op, if the app declares them: a parameter must be one of them. Raises
    InvalidApp, which names the file, the statement and its line.
    """
    file, first_line, text = _source(source)
    taken = sorted({*(fields or ())} & {*PROVIDED})
    if taken:
        raise InvalidApp(f"{kind.step} in SQL: every statement is given %({taken[0]})s: rename that field")
    statements: list[str] = []
    places: list[Place] = []
    for statement, line in _split(text):
        place = f"{file}, statement {len(statements) + 1}, line {first_line + line}"
        complaint = _problem(kind, statement, fields)
        if complaint is not None:
            raise InvalidApp(f"{kind.step}: {complaint} ({place})")
        statements.append(statement)
        places.append((file, first_line + line))
    if not statements:
        raise InvalidApp(f"{kind.step}: there is no statement in {file}")
    return kind(tuple(statements), tuple(places))


def _source(source: str | Path) -> tuple[str, int, str]:
    """Return the file of SQL, its first line in there, from 1, and the text."""
    module, line = author()
    if isinstance(source, str) and (not source.strip().endswith(_SUFFIX) or "\n" in source.strip()):
        try:  # where in the module the text stands, if it is written there as it is
            before, text_there, _ = Path(module).read_text(encoding="utf-8").partition(source)
        except (OSError, UnicodeDecodeError):
            return module, line, source
        return module, before.count("\n") + 1 if text_there else line, source
    file = Path(module).parent / (source.strip() if isinstance(source, str) else source)
    try:
        return str(file), 1, file.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidApp(f"cannot read {str(source)!r}, from the folder of {module}: {error}") from error


def _split(text: str) -> Iterator[tuple[str, int]]:
    """Yield each statement without comments, with the number of lines above its first word."""
    start: int | None = None
    for token in _TOKEN.finditer(text + ";"):
        if token["end"] is not None:
            if start is not None:
                yield bare_sql(text[start : token.start()]), text.count("\n", 0, start)
            start = None
        elif token["blank"] is None and start is None:
            start = token.start()


def _problem(kind: type[_SqlStep], statement: str, fields: Collection[str] | None) -> str | None:
    """Return what is wrong with a statement before any database has seen it; None if nothing is."""
    word = _FIRST_WORD.match(statement)
    if word is None or word[1].upper() not in kind.words:
        begins = statement.split(maxsplit=1)[0]
        words = ", ".join(sorted(kind.words))
        return f"a statement begins with {begins}, and not with one of {words}; {kind.advice}"
    for match in _PERCENT.finditer(statement):
        name = match["name"]
        if name is None and match[0] != "%%":
            return "a percent sign is written %%, and a parameter %(name)s"
        if name is not None and fields is not None and name not in {*fields, *PROVIDED}:
            known = ", ".join([*fields, *PROVIDED])
            return f"%({name})s is neither a field of the op nor given to every statement; there are {known}"
    return None
