"""`App`: how handlers are registered, and which arguments they receive."""

from typing import Any

import pytest

from virtualchain import App, Rejected
from virtualchain.errors import InvalidApp


def parse(payload: bytes) -> dict[str, bytes]:
    """Accept any payload."""
    return {"payload": payload}


def test_steps_receive_the_arguments_that_they_name() -> None:
    """After its leading arguments, a function receives by name those that it names, and no others."""
    app = App("x", magic=b"x")
    seen: list[Any] = []

    @app.opcode(b"a", fields=["fee"])
    class Handler:
        def parse(self, payload: bytes, fee: int, block_id: int) -> dict[str, Any]:
            return {"payload": payload, "fee": fee, "block": block_id}

        def check(self, op: dict[str, Any], state: object, checked: list[Any]) -> bool:
            seen.append((op, state, checked))
            return True

        def commit(self, op: dict[str, Any], state: object, txid: str) -> None:
            seen.append((op, state, txid))

    op = app.db_parse(7, b"a", b"pay", [], [], [], 11, "state")
    assert op == {"payload": b"pay", "fee": 11, "block": 7}
    assert app.db_check(7, b"a", op, "ab", 0, ["before"], "state") is True  # type: ignore[list-item]
    assert app.db_commit(7, b"a", op, "ab", 0, "state") is None
    assert seen == [(op, "state", ["before"]), (op, "state", "ab")]
    assert app.get_opfields() == {b"a": ("fee",)}
    assert Handler.__name__ == "Handler"


def test_without_check_and_commit_every_op_is_accepted() -> None:
    """A handler with only a parse accepts every op unchanged."""
    app = App("x", magic=b"x")
    app.add(b"a", parse=parse)
    assert app.db_check(1, b"a", {}, "", 0, [], None) is True
    assert app.db_commit(1, b"a", {}, "", 0, None) is None
    assert app.get_opfields() == {}


def test_hooks_are_callbacks_only_when_registered() -> None:
    """The engine sees that an app has no scan, final or continue, and skips it on empty blocks."""
    app = App("x", magic=b"x")
    assert (app.db_scan_block, app.db_final, app.db_continue) == (None, None, None)
    seen: list[Any] = []

    @app.scan
    def scan(ops: list[Any], state: object) -> None:
        seen.append((ops, state))

    assert app.db_scan_block is not None
    app.db_scan_block(1, ["op"], "state")
    assert seen == [(["op"], "state")]


def test_a_refusal_is_false_and_keeps_its_reason() -> None:
    """`Rejected` is returned and counts as False."""
    assert not Rejected("why")
    assert Rejected("why").reason == "why"


def test_wrong_handlers_are_refused_on_registration() -> None:
    """A wrong opcode, no parse, a second handler, and unknown arguments each raise an error."""
    app = App("x", magic=b"x")
    with pytest.raises(InvalidApp, match="an opcode must be one byte"):
        app.add(b"ab", parse=parse)
    with pytest.raises(InvalidApp, match="has no parse"):
        app.opcode(b"a")(type("Empty", (), {}))
    with pytest.raises(InvalidApp, match=r"called with \(payload\) and, by name, any of .*senders"):
        app.add(b"a", parse=lambda payload, sender: {"payload": payload, "sender": sender})
    with pytest.raises(InvalidApp, match=r"called with \(op, state\).* takes \(op\)"):
        app.add(b"a", parse=parse, check=lambda op: op == {})
    app.add(b"a", parse=parse)
    with pytest.raises(InvalidApp, match="already has a handler"):
        app.add(b"a", parse=parse)
