"""The contract as others use it: a plain module of functions, with and without optional callbacks."""

import types
from collections.abc import Collection
from typing import Any

import pytest

from tests.integration.conftest import Query, Run
from tests.support import plain_app
from virtualchain import consensus, first_op_return
from virtualchain.engine.versions import remove
from virtualchain.errors import UsageError
from virtualchain.testing import FakeNode, op_return

CALLBACKS = [name for name in vars(plain_app) if name.startswith(("get_", "db_", "find_"))]
OPTIONAL = {
    "get_opfields",
    "get_initial_snapshots",
    "get_valid_transaction_window",
    "get_confirmations",
    "get_projections",
    "find_payload",
    "get_db_state",
    "db_scan_block",
    "db_final",
    "db_save",
    "db_continue",
}
FIRST = 102


def implementation(names: Collection[str], kind: str = "module", **replaced: Any) -> Any:
    """Make an implementation of these functions of the plain module, with `replaced` in place of its own."""
    functions = {name: getattr(plain_app, name) for name in CALLBACKS if name in names} | replaced
    if kind == "class":
        return type("Plain", (), {name: staticmethod(function) for name, function in functions.items()})
    if kind == "object":
        return types.SimpleNamespace(**functions)
    module = types.ModuleType("plain_app_of_a_test")
    vars(module).update(functions)
    return module


def mine_the_blocks(node: FakeNode) -> None:
    """Mine four blocks from 102 on, of which the third is empty."""
    words = [b"pm+alpha", b"pm+alpha", b"pm?beta", b"pm+", b"pm+\xff"]
    twice = node.send(b"pm+first", to=[(op_return(b"pm+second"), 0)])
    node.mine([*(node.send(word) for word in words), twice])
    node.mine([node.send(word) for word in (b"pm?alpha", b"pm-alpha", b"pm!x")])
    node.mine()
    node.mine([node.send(word) for word in (b"pm?alpha", b"pm+gamma")])


def expected(names: Collection[str]) -> list[tuple[int, str | None, str]]:
    """Compute the snapshots of the four blocks for an app that has these callbacks."""
    data = "first" if "find_payload" in names else "second"
    accepted = [[b"+alpha", b"+" + data.encode()], [b"?alpha", b"-alpha"], [], [b"+gamma"]]
    known: dict[int, str] = plain_app.get_initial_snapshots() if "get_initial_snapshots" in names else {}
    snapshots: list[tuple[int, str | None, str]] = [
        (block_id, None, text) for block_id, text in known.items()
    ]
    for block_id, words in enumerate(accepted, start=FIRST):
        ops = []
        for word in words:
            op = {"word": word[1:].decode(), "size": len(word) - 1}
            fields = plain_app.get_opfields()[word[:1].decode()] if "get_opfields" in names else sorted(op)
            ops.append(consensus.serialize_op(word[:1], op, fields))
        prior = [known[item] for item in consensus.prior_block_ids(block_id, FIRST)]
        known[block_id] = consensus.consensus_hash(consensus.ops_hash(ops), prior)
        snapshots.append((block_id, consensus.ops_hash(ops), known[block_id]))
    return snapshots


WITH_TABLES = OPTIONAL - {"get_db_state", "db_save"}
CASES = {
    "all of them": OPTIONAL,
    "all for tables": WITH_TABLES,
    "the least for tables": {"get_projections"},
    "the least for a state": {"get_db_state"},
    **{f"tables without {name}": WITH_TABLES - {name} for name in WITH_TABLES - {"get_projections"}},
    "a state without db_save": OPTIONAL - {"get_projections", "db_save"},
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_plain_module_runs_unchanged(fake_node: FakeNode, run: Run, query: Query, case: str) -> None:
    """With any of the optional callbacks, and over a restart, the hashes are the expected ones."""
    names = (set(CALLBACKS) - OPTIONAL) | CASES[case]
    mine_the_blocks(fake_node)
    plain_app.calls.clear()
    run(implementation(names), to=FIRST + 1)
    run(implementation(names))
    snapshots = query(
        "SELECT block_id, ops_hash, consensus_hash FROM virtualchain.snapshots ORDER BY block_id"
    )
    assert [tuple(row.values()) for row in snapshots] == expected(names)
    rejections = query(
        "SELECT block_id, txindex, step FROM virtualchain.rejections ORDER BY block_id, txindex"
    )
    steps = [(row["block_id"] - FIRST, row["step"]) for row in rejections]
    assert steps == [(0, "check"), (0, "commit"), (0, "parse"), (0, "parse"), (3, "commit")]
    for name in ("db_scan_block", "db_final", "db_continue"):
        blocks = [block_id for called, block_id in plain_app.calls if called == name]
        assert sorted(set(blocks)) == (list(range(FIRST, FIRST + 4)) if name in names else [])
    if "get_db_state" not in names:
        data = "first" if "find_payload" in names else "second"
        words = query("SELECT word, block_id FROM plain.words ORDER BY block_id")
        assert [tuple(row.values()) for row in words] == [(data, FIRST), ("gamma", FIRST + 3)]


@pytest.mark.parametrize("kind", ["module", "class", "object"])
def test_every_kind_of_implementation_has_the_same_hashes(
    fake_node: FakeNode, run: Run, query: Query, kind: str
) -> None:
    """A module, a class that is not instantiated yet, and an object all produce the same hashes."""
    names = (set(CALLBACKS) - OPTIONAL) | WITH_TABLES
    mine_the_blocks(fake_node)
    run(implementation(names, kind))
    hashes = query("SELECT block_id, consensus_hash FROM virtualchain.snapshots ORDER BY block_id")
    assert [tuple(row.values()) for row in hashes] == [
        (block_id, consensus_hash) for block_id, _, consensus_hash in expected(names)
    ]


def accept_all(**replaced: Any) -> Any:
    """Make an implementation that accepts any payload and stores nothing."""
    return implementation(
        set(CALLBACKS) - OPTIONAL,
        db_parse=lambda *arguments: {"payload": arguments[2].hex()},
        db_check=lambda *arguments: True,
        db_commit=lambda *arguments: None,
        **replaced,
    )


def ops(query: Query, app: str = "plain") -> list[tuple[bytes, bytes]]:
    """Read opcode and payload of an app's ops."""
    rows = query(
        "SELECT opcode, payload FROM virtualchain.ops WHERE app = %s ORDER BY block_id, vtxindex", [app]
    )
    return [(row["opcode"], row["payload"]) for row in rows]


def test_several_magics(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Any magic makes an input; of two that match, the first with an opcode of the app counts."""
    payloads = (b"pm+a", b"zz+b", b"pmx+c", b"pmx-d", b"p+e", b"zzz", b"pm")
    fake_node.mine([fake_node.send(payload) for payload in payloads])
    run(accept_all(get_magic_bytes=lambda: ("pm", b"zz", b"pmx"), get_opcodes=lambda: "+-"))
    assert ops(query) == [(b"+", b"a"), (b"+", b"b"), (b"+", b"c"), (b"-", b"d")]


def test_empty_magic_and_every_opcode(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Every OP_RETURN payload of at least a byte is an input, except in coinbases."""
    every = [bytes([opcode]) for opcode in range(256)]
    fake_node.mine(
        [fake_node.send(opcode + opcode * 2, sender=f"s{n % 7}") for n, opcode in enumerate(every)]
    )
    fake_node.mine([fake_node.send(b""), fake_node.send(b"x"), fake_node.send(None, to=[("bob", 1000)])])
    run(accept_all(get_magic_bytes=lambda: b"", get_opcodes=lambda: bytes(range(256))))
    assert ops(query) == [*((opcode, opcode * 2) for opcode in every), (b"x", b"")]


def test_the_second_shipped_payload_rule(fake_node: FakeNode, run: Run, query: Query) -> None:
    """`first_op_return` takes the first OP_RETURN that starts with the magic, not the last one."""
    second, stranger = (op_return(b"pm+second"), 0), (op_return(b"xx"), 0)
    fake_node.mine([fake_node.send(b"pm+first", to=[second]), fake_node.send(b"xx", to=[second, stranger])])
    run(accept_all(find_payload=first_op_return(b"pm")))
    assert ops(query) == [(b"+", b"first"), (b"+", b"second")]


def test_a_payload_rule_that_raises_halts_its_app_alone(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """A fixed rule is another rule: the app begins again, and then has what the other app has."""

    def find_payload(outputs: list[dict[str, Any]]) -> bytes | None:
        if len(outputs) == 3:
            raise RuntimeError("three outputs")
        return plain_app.find_payload(outputs)

    other = accept_all(get_virtual_chain_name=lambda: "other")
    broken = accept_all(find_payload=find_payload)
    fake_node.mine([fake_node.send(b"pm+a")])
    fake_node.mine([fake_node.send(b"pm+b"), fake_node.send(b"pm+c", to=[("bob", 1000)])])
    fake_node.mine([fake_node.send(b"pm+d")])
    last = run(broken, other)
    halted = query("SELECT block_id, error FROM virtualchain.apps WHERE status = 'halted'")
    assert [row["block_id"] for row in halted] == [last - 2]
    assert (halted[0]["error"]["callback"], halted[0]["error"]["error"]) == (
        "find_payload",
        "RuntimeError: three outputs",
    )
    assert [payload for _, payload in ops(query, "other")] == [b"a", b"b", b"c", b"d"]
    with pytest.raises(UsageError, match=r"app plain .* now declares other rules"):
        run(accept_all(find_payload=plain_app.find_payload), other)
    remove(database_url, "plain")
    run(accept_all(find_payload=plain_app.find_payload), other)
    assert ops(query) == ops(query, "other")


@pytest.mark.parametrize("wrong", ["text", bytearray(b"pm+a"), 5])
def test_a_payload_that_is_not_bytes_halts(fake_node: FakeNode, run: Run, query: Query, wrong: Any) -> None:
    """The result of a payload rule is checked, and the error names the callback."""
    fake_node.mine([fake_node.send(b"pm+a")])
    other = accept_all(get_virtual_chain_name=lambda: "other")
    run(accept_all(find_payload=lambda outputs: wrong), other)
    (row,) = query("SELECT error FROM virtualchain.apps WHERE status = 'halted'")
    assert row["error"]["callback"] == "find_payload"
    assert "expected bytes or None" in row["error"]["error"]
    assert len(ops(query, "other")) == 1


def test_a_state_that_cannot_be_created_halts_its_app_alone(
    fake_node: FakeNode, run: Run, query: Query
) -> None:
    """The app is halted before its next block, and the other one continues."""

    def get_db_state(filename: str | None = None) -> None:
        raise OSError("no such state")

    fake_node.mine([fake_node.send(b"pm+a")])
    other = accept_all(get_virtual_chain_name=lambda: "other")
    last = run(accept_all(get_db_state=get_db_state, db_save=plain_app.db_save), other)
    (row,) = query("SELECT name, block_id, error FROM virtualchain.apps WHERE status = 'halted'")
    assert (row["name"], row["block_id"]) == ("plain", None)
    assert (row["error"]["block_id"], row["error"]["callback"]) == (FIRST, "get_db_state")
    assert query("SELECT block_id FROM virtualchain.apps WHERE name = 'other'") == [{"block_id": last}]
