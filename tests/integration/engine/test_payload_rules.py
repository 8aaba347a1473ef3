"""Payload rules in the engine: several payloads in a transaction, and rules that fail."""

from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from virtualchain import App, Rejected, State
from virtualchain.bitcoin.script import op_return
from virtualchain.errors import AppHalted
from virtualchain.testing import FakeNode

TABLES = "CREATE TABLE seen (txid text, vout integer, PRIMARY KEY (txid, vout))"


def all_op_returns(outputs: list[dict[str, Any]]) -> list[bytes]:
    """Find the pushes of all OP_RETURNs, however short."""
    scripts = [bytes.fromhex(output["script_pubkey"]) for output in outputs]
    return [script[2:] for script in scripts if script.startswith(b"\x6a")]


def lists_app(name: str = "lists", rule: Any = all_op_returns, **options: Any) -> App:
    """Make an app that rejects payloads beginning with `-`."""
    app = App(name, **{"magic": b"li", "payload_rule": rule, **options})

    @app.opcode(b"x" if options.get("opcodes", ()) == () else None, fields=["text"])
    class Text:
        def parse(self, payload: bytes) -> dict[str, str] | Rejected:
            return Rejected("it begins with -") if payload.startswith(b"-") else {"text": payload.decode()}

        def check(self, op: dict[str, Any], state: State) -> bool:
            return not op["text"].startswith("?")

    return app


def test_each_payload_of_a_transaction_is_a_candidate(fake_node: FakeNode, run: Run, query: Query) -> None:
    """In order; ops and rejections say which one of them they were, other magics and opcodes counted."""
    payloads = [b"lixa", b"other", b"lix-", b"lix?", b"li", b"liyb", b"lixc", b"lixa"]
    fake_node.mine([fake_node.send(to=[(op_return(each), 0) for each in payloads])])
    run(lists_app())
    ops = query("SELECT payload_index, vtxindex, fields->>'text' AS text FROM virtualchain.ops ORDER BY 1")
    assert [tuple(row.values()) for row in ops] == [(0, 0, "a"), (6, 2, "c"), (7, 3, "a")]
    rejections = query("SELECT payload_index, step FROM virtualchain.rejections ORDER BY 1")
    assert [tuple(row.values()) for row in rejections] == [(2, "parse"), (3, "check")]
    assert query("SELECT count(*) FROM virtualchain.inputs") == [{"count": 1}]


def test_payloads_of_one_transaction_share_what_it_is(fake_node: FakeNode, run: Run) -> None:
    """A transaction may have thousands of payloads, inputs and outputs: nothing is there for each pair."""
    app = App(
        "shared", magic=b"", opcodes=None, payload_rule=all_op_returns, tracks="seen", projections=TABLES
    )
    ops: list[dict[str, Any]] = []

    class Keep:
        def parse(self, payload: bytes | None) -> dict[str, Any]:
            return {}

        def commit(self, op: dict[str, Any], state: State) -> None:
            ops.append(op)

    app.opcode()(Keep)
    app.spend(Keep)
    sent = [fake_node.send(to=[(op_return(each), 0) for each in (b"a", b"b", b"c")]), fake_node.send(b"d")]
    fake_node.mine(sent)
    run(app)
    assert len(ops) == 4
    for name in ("virtualchain_senders", "virtualchain_outputs"):
        first, second, third, other = (op[name] for op in ops)
        assert first is second
        assert first is third
        assert first is not other
    scripts = [output["script_pubkey"] for output in ops[0]["virtualchain_outputs"]]
    assert scripts[:3] == [op_return(each).hex() for each in (b"a", b"b", b"c")]
    assert list(ops[0]["virtualchain_outputs"][0]) == ["n", "value", "script_pubkey", "type", "addresses"]


def _raises(outputs: list[dict[str, Any]]) -> bytes:
    if any(output["script_pubkey"].endswith(b"lixbad".hex()) for output in outputs):
        raise LookupError("a mistake")
    return b""


def _returns_text(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> Any:
    assert inputs
    return ["text"] if any(output["script_pubkey"].endswith(b"lixbad".hex()) for output in outputs) else None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (_raises, "a mistake"),
        (_returns_text, "returned a list: expected bytes or None, or a list of bytes"),
    ],
)
def test_a_rule_that_fails_halts_its_app_alone(
    fake_node: FakeNode, run: Run, query: Query, rule: Any, message: str
) -> None:
    """Before the block with the transaction; others go on."""
    fake_node.mine([fake_node.send(b"lixgood")])
    fake_node.mine([fake_node.send(b"lixbad")])
    height = run(lists_app())
    fails = lists_app("fails", rule)
    run(lists_app(), fails)
    rows = query("SELECT name, block_id, error FROM virtualchain.apps ORDER BY name")
    assert [(row["name"], row["block_id"]) for row in rows] == [("fails", height - 1), ("lists", height)]
    assert message in str(rows[0]["error"])
    with pytest.raises(AppHalted, match=message):
        run(fails)


@pytest.mark.parametrize("coinbase", [False, True])
def test_only_a_rule_that_says_so_sees_coinbases(
    fake_node: FakeNode, run: Run, query: Query, coinbase: bool
) -> None:
    """The app then has an input without senders in each block."""

    def rule(outputs: list[dict[str, Any]]) -> bytes:
        return b"lixhello"

    rule.coinbase = coinbase  # type: ignore[attr-defined]
    fake_node.mine([fake_node.send(), fake_node.send()])
    height = run(lists_app(rule=rule))
    rows = query("SELECT txindex, fee FROM virtualchain.inputs WHERE block_id = %s ORDER BY 1", [height])
    assert [row["txindex"] == 0 for row in rows] == [True] * coinbase + [False] * (len(rows) - coinbase)
    assert len(rows) >= 2
    assert query("SELECT count(*) FROM virtualchain.ops WHERE txindex = 0") == [
        {"count": (height + 1) * coinbase}
    ]
