"""What an author sees of a callback that fails, and what is not the app's error."""

import bdb
import json
import os
import pdb
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, Integer, StateEngine
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

_TABLES = "CREATE TABLE notes (block_id integer PRIMARY KEY, text text)"


def notes(**steps: Callable[..., Any]) -> App:
    """Return an app that records texts, with some of its functions replaced."""
    app = App("notes", magic=b"nt", projections=_TABLES)
    functions: dict[str, Any] = {
        "parse": lambda payload: {"text": payload.decode()},
        "check": lambda op, state: True,
        "commit": lambda op, state: None,
    }
    hooks = {name: steps.pop(name) for name in ("scan", "final", "proceed") if name in steps}
    if "find_payload" in steps:
        app.find_payload = steps.pop("find_payload")
    app.add(b"o", **{**functions, **steps}, fields=["text"])
    for name, hook in hooks.items():
        getattr(app, name)(hook)
    return app


def line_of(function: Callable[..., Any], offset: int = 1) -> int:
    """Return the number of a line of a function, counted from its first."""
    return function.__code__.co_firstlineno + offset


def fail(*arguments: Any) -> Any:
    """Fail as an author's code does: with an error that a lookup raises."""
    owners: dict[str, Any] = {}
    return owners["owner"]


def failing(first: Any, second: Any) -> Any:
    """Fail as a step that has two arguments."""
    del first, second
    return fail()


_FAIL = line_of(fail, 3)


@pytest.mark.parametrize(
    ("steps", "callback", "op"),
    [
        ({"parse": lambda payload: fail()}, "db_parse", "with the payload 4869"),
        ({"check": lambda op, state: fail()}, "db_check", '{"text": "Hi"}'),
        ({"commit": lambda op, state: fail()}, "db_commit", '{"text": "Hi"}'),
        ({"scan": lambda ops, state: fail()}, "db_scan_block", None),
        ({"final": lambda ops, state: fail()}, "db_final", None),
        ({"find_payload": lambda outputs: fail()}, "find_payload", None),
    ],
)
def test_the_error_names_op_file_line_and_cause(
    fake_node: FakeNode, run: Run, query: Query, steps: dict[str, Any], callback: str, op: str | None
) -> None:
    """The exception that `build` raises names what failed, and the callback's own exception is its cause."""
    tx = fake_node.send(b"ntoHi")
    fake_node.mine([tx])
    with pytest.raises(AppHalted, match=f"{callback} failed with KeyError: 'owner'") as caught:
        run(notes(**steps))
    assert isinstance(caught.value.__cause__, KeyError)
    shown = "".join(traceback.format_exception(caught.value))
    assert 'return owners["owner"]' in shown  # as pytest and --verbose show it
    message = str(caught.value)
    assert f"{__file__}, line {_FAIL}, in fail" in message
    assert op is None or f"op o {op}" in message
    record = query("SELECT error FROM virtualchain.apps")[0]["error"]
    assert (record["file"], record["line"], record["function"]) == (__file__, _FAIL, "fail")
    assert (record["op"], record["opcode"]) == (op, None if op is None else "6f")


def test_a_failing_proceed_is_the_cause(fake_node: FakeNode, run: Run) -> None:
    """The function that runs after the block's transaction is no exception."""
    with pytest.raises(AppHalted, match=f"db_continue failed .*line {_FAIL}, in fail") as caught:
        run(notes(proceed=failing))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_wrong_return_value_names_the_function(fake_node: FakeNode, run: Run) -> None:
    """If a check forgets to return True, no line of it failed: its first line is named."""

    def forgetful(op: Any, state: Any) -> Any:
        del op, state

    fake_node.mine([fake_node.send(b"ntoHi")])
    with pytest.raises(AppHalted, match="db_check returned a NoneType") as caught:
        run(notes(check=forgetful))
    assert f"{__file__}, line {line_of(forgetful, 0)}, in forgetful" in str(caught.value)


def test_the_rules_of_the_block_are_named(fake_node: FakeNode, run: Run) -> None:
    """Of rules by activation height, the function that judged the block is named."""
    app = notes(check=lambda op, state: True)
    later: Any = lambda op, state: None  # noqa: E731 - one line, to be named

    app.add(b"o", parse=lambda payload: {"text": ""}, check=later, fields=["text"], from_block=50)
    app.add(b"o", parse=fail, fields=["text"], from_block=5_000)
    fake_node.mine([fake_node.send(b"ntoHi")])
    with pytest.raises(AppHalted, match=f"line {line_of(later, 0)}, in <lambda>"):
        run(app)


def test_the_apps_own_line_is_named(fake_node: FakeNode, run: Run) -> None:
    """An error inside a library that the app calls names the line that calls it."""

    def parse(payload: bytes) -> Any:
        try:
            return json.loads(payload, parse_constant=len, object_hook=fail)
        except KeyError:
            return json.dumps(object())

    fake_node.mine([fake_node.send(b"nto{}")])
    with pytest.raises(AppHalted, match=f"line {line_of(parse, 4)}, in parse"):
        run(notes(parse=parse))


def test_an_op_that_cannot_be_written_is_named_by_its_fields(fake_node: FakeNode, run: Run) -> None:
    """An int with more digits than Python writes does not hide the error."""
    app = App("notes", magic=b"nt")
    app.add(
        b"o",
        parse=lambda payload: {"text": payload.decode()},
        check=lambda op, state: op.update(number=10**6_000) or fail(),
        fields=["text"],
    )
    fake_node.mine([fake_node.send(b"ntoHi")])
    with pytest.raises(AppHalted, match="op o with the fields 'text', 'number'") as caught:
        run(app)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_long_op_is_cut(fake_node: FakeNode, run: Run) -> None:
    """The message stays short, whatever a stranger wrote."""
    fake_node.mine([fake_node.send(b"nto" + b"x" * 50_000)])
    with pytest.raises(AppHalted) as caught:
        run(notes(check=failing))
    assert len(str(caught.value)) < 1_000


def test_after_a_restart_the_traceback_is_a_note(fake_node: FakeNode, run: Run) -> None:
    """Another process has no exception to chain to: the recorded traceback is shown instead."""
    fake_node.mine([fake_node.send(b"ntoHi")])
    with pytest.raises(AppHalted):
        run(notes(check=failing))
    with pytest.raises(AppHalted, match=f"line {_FAIL}, in fail") as caught:
        run(notes())
    assert caught.value.__cause__ is None
    assert 'return owners["owner"]' in "".join(traceback.format_exception(caught.value))


def quit_bdb() -> Any:
    """Quit as `bdb` does, up to Python 3.13."""
    raise bdb.BdbQuit


def quit_pdb() -> None:
    """Quit as `pdb` does since Python 3.14: in a function of its module, it ends the process."""
    source = "def do_quit():\n    import sys\n    sys.exit()\n"
    module: dict[str, Any] = {"__name__": pdb.__name__}
    exec(source, module)
    module["do_quit"]()


def quit_pytest() -> None:
    """Quit as pytest's own debugger does."""
    source = "def do_quit():\n    import pytest\n    pytest.exit('Quitting debugger')\n"
    module: dict[str, Any] = {"__name__": "_pytest.debugging"}
    exec(source, module)
    module["do_quit"]()


def interrupt() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("leave", [quit_bdb, quit_pdb, quit_pytest, interrupt])
@pytest.mark.parametrize("step", ["parse", "check", "commit", "scan", "final", "proceed"])
def test_quitting_a_debugger_does_not_halt_the_app(
    fake_node: FakeNode, run: Run, query: Query, leave: Callable[[], Any], step: str
) -> None:
    """It ends the work as Ctrl-C does: nothing of the block stays, and the next run takes it."""
    fake_node.mine([fake_node.send(b"ntoHi")])
    height = fake_node.height

    def stop(*arguments: Any) -> Any:
        last = arguments[0] if step == "proceed" else arguments[0] and height
        return last != height or leave()

    function = stop if step == "parse" else lambda first, second: stop(first)
    with pytest.raises(KeyboardInterrupt):
        run(notes(**{step: function}))
    [app] = query("SELECT status, error, block_id FROM virtualchain.apps")
    assert (app["status"], app["error"]) == ("running", None)
    assert app["block_id"] == (height if step == "proceed" else height - 1)
    assert run(notes()) == height
    assert query("SELECT count(*) AS n FROM virtualchain.ops") == [{"n": 1}]


def test_a_statement_is_interrupted(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Ctrl-C while the database works is not a failure of that statement."""
    fake_node.mine([fake_node.send(b"ntoHi")])

    def check(op: Any, state: Any) -> bool:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        slow = "SELECT count(*) AS n FROM generate_series(1, 400) AS a, generate_series(1, 500000) AS b"
        return bool(state.one(slow))

    def ring(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(notes(check=check))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert query("SELECT status, error FROM virtualchain.apps") == [{"status": "running", "error": None}]


def test_an_app_that_ends_the_process_is_halted(fake_node: FakeNode, run: Run) -> None:
    """SystemExit that no debugger raised stays the app's error."""

    def leave(op: Any, state: Any) -> None:
        del op, state
        raise SystemExit

    fake_node.mine([fake_node.send(b"ntoHi")])
    with pytest.raises(AppHalted, match="the callback raised SystemExit"):
        run(notes(check=leave))


def test_two_apps_have_a_cause_each(fake_node: FakeNode, database_url: str, tmp_path: Path) -> None:
    """`halted` of a running engine has the exceptions of all apps that failed in it."""
    typed = App("typed", magic=b"nt")
    typed.add(b"o", parse=lambda payload: {"n": len(payload)}, check=failing, fields={"n": Integer(0, 9)})
    fake_node.mine([fake_node.send(b"ntoHi")])
    settings: dict[str, Any] = {"source": fake_node.url, "confirmations": 0, "state_folder": tmp_path}
    with StateEngine(typed, notes(commit=failing), database=database_url, **settings) as engine:
        with pytest.raises(AppHalted):
            engine.build()
        causes = {name: type(error.__cause__) for name, error in engine.halted().items()}
    assert causes == {"typed": KeyError, "notes": KeyError}
