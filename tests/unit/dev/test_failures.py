"""What is shown of an error in an app: the place, the line, the values, and no secret."""

from pathlib import Path

import pytest

from virtualchain.app.declarations import read_contract
from virtualchain.dev.failures import of_block, of_load
from virtualchain.engine.halting import halt
from virtualchain.errors import AppHalted, InvalidApp, UsageError
from virtualchain.loading import load_app

APP = '''
from virtualchain import App

class Odd:
    def __repr__(self):
        raise RuntimeError("no")

class Pair(tuple):
    def __repr__(self):
        raise RuntimeError("no")

def commit(op, state, block_id):
    """Fail."""
    password, pair, odd = "hunter2", Pair(), Odd()
    url = "postgresql://me:hunter2@host/x"
    long = "x" * 10_000
    control = "a\\x1b[31mb\\u202e"
    nested = {"api_key": "hunter2", "list": [1, [2, [3, [4, [5]]]]]}
    unrelated = 1
    return (
        op["text"],
        password, pair, odd, url, long, control, nested,
        op["missing"],
    )

app = App("failing", magic=b"fa")
app.add(b"x", parse=lambda payload: {"text": payload.decode()}, commit=commit)
'''


def failing(folder: Path) -> AppHalted:
    """Return the error with which the app above is halted."""
    (folder / "failing_app.py").write_text(APP)
    contract = read_contract(load_app(str(folder / "failing_app.py")))
    try:
        op = {"text": "hi", "virtualchain_txid": "aa"}
        contract.commit(1, b"x", op, "aa", 0, db_state=None)
    except KeyError as error:
        halted = halt(contract, 7, "db_commit", None, error, opcode=b"x", op='{"text": "hi"}')
        halted.__cause__ = error
        return halted
    pytest.fail("it did not fail")


def test_values_of_the_line_are_shown(tmp_path: Path) -> None:
    """They are those that the statement names: short, on one line, without secrets, whatever they are."""
    failure = of_block(failing(tmp_path), "failing")
    assert (failure.callback, failure.block_id, failure.op) == ("commit", 7, 'x {"text": "hi"}')
    assert failure.message == "KeyError: 'missing'"
    assert failure.function == "commit"
    assert (failure.file, failure.source) == (str(tmp_path / "failing_app.py"), 'op["missing"],')
    values = failure.values
    assert values["op"] == "{'text': 'hi'}"
    assert values["password"] == "(not shown)"
    assert values["pair"].startswith("<Pair instance")
    assert "odd" not in values
    assert "unrelated" not in values
    assert "api_key': (not shown)" in values["nested"]
    assert len(values["long"]) < 100
    assert all(text.isprintable() for text in values.values())
    assert "hunter2" not in str(failure.as_dict())
    assert values["url"] == "'postgresql://***@host/x'"


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("a = 1\ndef f(:\n    pass\n", "SyntaxError: ", 2),
        ("a = 1\nb = 1 / 0\n", "ZeroDivisionError: division by zero", 2),
        ("import missing_module_of_nobody\n", "ModuleNotFoundError: No module named 'missing_module", 1),
        (
            "from virtualchain import App\napp = App('x', magic=b'x')\n\napp.opcode(b'long')\n",
            "must be one byte",
            4,
        ),
        ("raise SystemExit('no')\n", "SystemExit: no", 1),
    ],
)
def test_errors_of_an_import_name_the_line(tmp_path: Path, source: str, message: str, line: int) -> None:
    """The line is the app's, also if code of virtualchain has raised the error."""
    file = tmp_path / f"broken_{line}_{len(source)}.py"
    file.write_text(source)
    with pytest.raises(UsageError) as raised:
        load_app(str(file))
    failure = of_load(raised.value)
    assert message in failure.message
    assert (failure.file, failure.line) == (str(file), line)
    assert failure.source == source.splitlines()[line - 1].strip()


def test_errors_without_a_line_stay_as_they_are() -> None:
    """A declaration that is refused later, and a module that is not there, have no line."""
    failure = of_load(InvalidApp("app 'x' has no opcode"))
    assert (failure.message, failure.place) == ("app 'x' has no opcode", None)
    with pytest.raises(UsageError) as raised:
        load_app("module_of_nobody")
    assert "there is no module module_of_nobody" in of_load(raised.value).message
