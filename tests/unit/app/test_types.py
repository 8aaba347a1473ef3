"""Types: what a type checker says of an app, and what is refused at import."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mypy import api

from virtualchain import App
from virtualchain.errors import InvalidApp

ROOT = Path(__file__).parents[3]
HEAD = """
from typing import TypedDict

from virtualchain import App, Handler, Input, Output, Rejected, Sender, State

class Message(TypedDict):
    author: str
    text: str

class Entry(TypedDict):
    author: str
    entries: int

app = App("guestbook", magic=b"gb")
"""
WRONG = """
@app.opcode(b"a")
class Swapped(Handler[Message]):  # error: Value of type variable "H"
    def parse(self, payload: str) -> Message: ...  # error: Signature of "parse" incompatible
    def check(self, state: State, op: Message) -> bool: ...  # error: Signature of "check" incompatible
    def commit(self, op: Message, state: State) -> str: ...  # error: Signature of "commit" incompatible

@app.opcode(b"b")
class Results:  # error: Value of type variable "H"
    def parse(self, payload: bytes) -> int: ...

def check(op: Message, state: State) -> str: ...

app.add(b"c", parse=lambda payload: {}, check=check)  # error: Argument "check" to "add"

@app.opcode(b"d")
class Rows(Handler[Message]):
    def parse(self, payload: bytes, senders: list[Sender]) -> Message:
        senders[0]["adresses"]  # error: TypedDict "Sender" has no key "adresses"
        return {"author": "a"}  # error: Missing key "text"

    def check(self, op: Message, state: State) -> bool:
        row = state.one("SELECT author, entries FROM entries", [], Entry)
        return row["entries"] < 3  # error: Value of type "Entry | None" is not indexable

    def commit(self, op: Message, state: State) -> None:
        state.table("entries", Entry).put({"author": 1, "entries": 1})  # error: Incompatible types
        op["txt"]  # error: TypedDict "Message" has no key "txt"

@app.scan  # error: Value of type variable "F"
def scan(ops: list[Message]) -> None: ...
"""


def test_a_type_checker_finds_mistakes_and_nothing_else(tmp_path: Path) -> None:
    """An app in the way of the page passes `mypy --strict`; a wrong handler is an error at its line."""
    (right,) = re.findall(
        r"^## Types\n.*?```python\n(.*?)```",
        (ROOT / "docs" / "apps.md").read_text(),
        flags=re.DOTALL | re.MULTILINE,
    )
    right += (
        "\ndef parse(payload: bytes, inputs: list[Input], outputs: list[Output]) -> Message | None: ...\n"
    )
    (tmp_path / "right.py").write_text(f"from virtualchain import Input, Output\n{right}")
    (tmp_path / "wrong.py").write_text(HEAD + WRONG)
    files = [str(tmp_path / name) for name in ("right.py", "wrong.py")]
    config = str(ROOT / "pyproject.toml")
    # The whole project is checked with this configuration, too, so that most of the work may be done already.
    output, problems, _ = api.run([*files, "--config-file", config, "--cache-dir", str(ROOT / ".mypy_cache")])
    assert problems == ""
    lines = (HEAD + WRONG).splitlines()
    expected = {
        number: line.partition("# error: ")[2] for number, line in enumerate(lines, 1) if "# error: " in line
    }
    errors = re.findall(r"(\w+)\.py:(\d+): error: (.*?)  \[(.*)\]", output)
    reported = {int(line): text for file, line, text, code in errors if code != "empty-body"}
    assert {file for file, _, _, code in errors if code != "empty-body"} == {"wrong"}
    assert reported.keys() == expected.keys()
    assert all(reported[line].startswith(expected[line]) for line in expected)


def missing_state(op: Any) -> bool:
    """Take too little."""
    return True


def swapped(state: Any, op: Any) -> bool:
    """Take the arguments in another order."""
    return True


def by_name_alone(op: Any, *, state: Any) -> bool:
    """Take by name what comes by position."""
    return True


def unknown(op: Any, state: Any, height: int) -> bool:
    """Take what there is not."""
    return True


def by_position_alone(op: Any, state: Any, block_id: int, /) -> bool:
    """Take by position what comes by name."""
    return True


async def later(op: Any, state: Any) -> bool:
    """Return later."""
    return True


def piecemeal(op: Any, state: Any) -> Iterator[bool]:
    """Return several times."""
    yield True


def wordy(op: Any, state: Any) -> str:
    """Return text."""
    return "yes"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (missing_state, r"takes \(op\)"),
        (swapped, r"takes \(state, op\)"),
        (by_name_alone, r"takes \(op, state\)"),
        (unknown, r"takes \(op, state, height\)"),
        (by_position_alone, r"takes \(op, state, block_id\)"),
        (later, "has async"),
        (piecemeal, "has yield"),
        (wordy, "says that it returns str"),
    ],
)
def test_a_wrong_function_is_refused_at_import(function: Callable[..., Any], reason: str) -> None:
    """The message names its file and line, and ends with the page."""
    line = function.__code__.co_firstlineno
    place = re.escape(f"{function.__name__} ({__file__}, line {line})")
    with pytest.raises(InvalidApp, match=rf"check .*{place} {reason}.*mistakes\.md#signature\)$"):
        App("wrong", magic=b"wr").add(b"w", parse=lambda payload: {}, check=function)
