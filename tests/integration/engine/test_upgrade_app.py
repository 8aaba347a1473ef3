"""An app whose rules or code changed: what a start says, and that one call puts the new code in place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.integration.conftest import Query, Run
from tests.integration.engine.test_opaque_state import Ledger
from tests.support.rides import rides_app
from tests.support.tables import tables
from virtualchain import App, Rejected, State, StateEngine, Text, first_op_return
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.node.node import open_source
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.upgrade import Upgraded, upgrade
from virtualchain.errors import AppHalted, InUse, NodeUnavailable, UsageError, WriterBusy
from virtualchain.store import giving_way
from virtualchain.testing import FakeNode, op_return

START = 102
Upgrade = Callable[..., Upgraded | None]


def upper(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
    """Keep a text in upper case."""
    state.execute("INSERT INTO texts VALUES (%s, %s, %s)", [block_id, vtxindex, op["text"].upper()])


def plain(op: dict[str, Any], state: State, block_id: int, vtxindex: int) -> None:
    """Keep a text as it is."""
    state.execute("INSERT INTO texts VALUES (%s, %s, %s)", [block_id, vtxindex, op["text"]])


def short(op: dict[str, Any], state: State) -> bool | Rejected:
    """Accept short texts."""
    del state
    return len(op["text"]) < 4 or Rejected("too long")


def third(outputs: list[dict[str, Any]]) -> bytes | None:
    """Find a payload in the third byte of the first OP_RETURN."""
    script = bytes.fromhex(outputs[0]["script_pubkey"])
    return script[2:] if script.startswith(b"\x6a") else None


def texts(
    *,
    magic: Any = b"up",
    opcodes: bytes = b"o",
    fields: Any = ("text",),
    check: Any = None,
    commit: Any = plain,
    column: str = "text",
    **declared: Any,
) -> App:
    """Make an app that keeps texts."""
    table = f"CREATE TABLE texts (block_id integer, vtxindex integer, {column} text, PRIMARY KEY (1, 2))"
    table = table.replace("(1, 2)", "(block_id, vtxindex)")
    app = App("texts", magic=magic, projections=table, **{"first_block_id": START, **declared})
    for code in opcodes:
        app.add(
            bytes([code]),
            parse=lambda payload: {"text": payload.decode()},
            check=check,
            commit=commit,
            fields=fields,
        )
    return app


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "magic": ({"magic": b"UP"}, r"\(magic 'up' became 'UP'\)"),
    "more magics": ({"magic": (b"up", b"UP")}, r"\(magic 'up' became 'up', 'UP'\)"),
    "the other rule": ({"payload_rule": first_op_return(b"up")}, r"\(another payload rule\)"),
    "a rule of its own": ({"payload_rule": third}, r"\(another payload rule\)"),
    "an earlier start": ({"first_block_id": START - 1}, r"\(first block 102 became 101\)"),
    "a later start": ({"first_block_id": START + 1}, r"\(first block 102 became 103\)"),
    "version": ({"version": "2"}, r"\(version 1 became 2\)"),
    "window": ({"valid_transaction_window": 30}, r"\(window 24 became 30\)"),
    "fields": (
        {"fields": {"text": Text(80)}},
        r"\(in opcodes, fields, heights, snapshots, limits, or tables\)",
    ),
    "opcodes": ({"opcodes": b"ox"}, "opcodes, fields"),
    "tables": ({"column": "word"}, "opcodes, fields"),
    "limits": ({"max_payload": 3}, "opcodes, fields"),
    "several": (
        {"magic": b"UP", "version": "1.1", "payload_rule": third},
        r"\(version 1 became 1.1, magic 'up' became 'UP', another payload rule\)",
    ),
    "a body that commits otherwise": ({"commit": upper}, ""),
    "a body that accepts otherwise": ({"check": short}, ""),
}
"""By what changes: how the app is made then, and what a start says of its rules, if they changed."""


@pytest.fixture
def put_in_place(database_url: str, fake_node: FakeNode, tmp_path: Path) -> Upgrade:
    """Return a function that upgrades an app in the test's database."""

    def put(app: App, **listener: Any) -> Upgraded | None:
        options = Options(state_folder=tmp_path)
        contract = read_contract(app)
        return upgrade(
            database_url, contract, lambda: open_source(fake_node.url), options, Listener(**listener)
        )

    return put


def mine(node: FakeNode) -> None:
    """Mine inputs that one or another of the apps takes."""
    node.mine([node.send(payload) for payload in (b"upoone", b"UPotwo", b"upxthree", b"upolonger")])
    hidden = node.send(b"upofirst", to=[(op_return(b"xx"), 0)])
    node.mine([hidden, node.send(b"upofour")])


@pytest.mark.parametrize("change", CHANGES)
def test_one_call_puts_any_change_in_place(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    fresh_index: Callable[..., str],
    database_url: str,
    put_in_place: Upgrade,
    change: str,
) -> None:
    """The start says what to do; afterwards, log and tables are those of a fresh index by the new code."""
    declared, message = CHANGES[change]
    neighbor = App("neighbor", magic=b"upo")
    neighbor.add(b"n", parse=lambda payload: {})
    mine(fake_node)
    run(texts(), neighbor)
    reasons: list[str] = []
    if message:
        with pytest.raises(UsageError, match=f"{message}.*: `virtualchain upgrade texts` derives"):
            run(texts(**declared), neighbor)
    else:
        run(texts(**declared), neighbor, on_wait=reasons.append)
        assert "`virtualchain upgrade texts` puts it in place" in reasons[0]
    done = put_in_place(texts(**declared))
    assert done is not None
    assert (done.before.name, done.now.name) == ("1", "v2")
    assert query("SELECT build FROM virtualchain.builds WHERE app = 'texts'") == [{"build": "v2"}]
    mine(fake_node)
    reasons.clear()
    assert run(texts(**declared), neighbor, on_wait=reasons.append) == fake_node.height
    assert not any("virtualchain upgrade" in reason for reason in reasons)
    fresh = fresh_index(texts(**declared), neighbor)
    ours, theirs = tables(database_url), tables(fresh)
    rows = [[value for name, value in index.items() if "texts" in name] for index in (ours, theirs)]
    assert rows[0] == rows[1]
    for view in ("ops", "rejections", "snapshots"):
        order = "ORDER BY app, block_id" + ("" if view == "snapshots" else ", txindex")
        assert query(f"SELECT * FROM virtualchain.{view} {order}") == _read(fresh, view, order)


def _read(url: str, view: str, order: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(f"SELECT * FROM virtualchain.{view} {order}".encode()).fetchall()


def test_it_says_where_the_digests_differ(fake_node: FakeNode, run: Run, put_in_place: Upgrade) -> None:
    """The first block that is judged otherwise is part of the result; None if there is none."""
    fake_node.mine(n=3)
    mine(fake_node)
    run(texts())
    done = put_in_place(texts(version="2"))
    assert done is not None
    assert done.difference is None
    done = put_in_place(texts(version="2", check=short))
    assert done is not None
    assert done.difference is not None
    assert done.difference.block_id == fake_node.height - 1
    assert (done.before.name, done.now.name) == ("v2", "v3")


def test_new_code_that_fails_leaves_the_app_as_it_was(
    fake_node: FakeNode, run: Run, query: Query, put_in_place: Upgrade
) -> None:
    """The error names the op; no unfinished build stays, and the fixed code is put in place."""
    mine(fake_node)
    run(texts())

    def broken(op: dict[str, Any], state: State) -> bool:
        del state
        return bool(op["txt"])

    with pytest.raises(AppHalted, match="db_check failed with KeyError: 'txt'") as caught:
        put_in_place(texts(version="2", check=broken))
    assert isinstance(caught.value.__cause__, KeyError)
    assert query("SELECT build, version, status FROM virtualchain.apps") == [
        {"build": "1", "version": "1", "status": "running"}
    ]
    assert query("SELECT build FROM virtualchain.builds") == [{"build": "1"}]
    assert put_in_place(texts(version="2", check=short)) is not None


def test_a_halted_app_is_put_in_place_fixed(
    fake_node: FakeNode, run: Run, query: Query, put_in_place: Upgrade
) -> None:
    """The new code runs from the first block on; `resume` is not needed."""

    def broken(op: dict[str, Any], state: State) -> bool:
        del op, state
        raise ValueError("no")

    mine(fake_node)
    with pytest.raises(AppHalted):
        run(texts(check=broken))
    assert put_in_place(texts(check=short)) is not None
    assert query("SELECT status, error FROM virtualchain.apps") == [{"status": "running", "error": None}]
    assert run(texts(check=short)) == fake_node.height


@pytest.mark.parametrize("change", ["magic", "version"])
def test_an_interrupted_upgrade_continues(
    fake_node: FakeNode, run: Run, query: Query, put_in_place: Upgrade, change: str
) -> None:
    """Nothing is replaced meanwhile, and the next call continues with the build that was begun."""
    mine(fake_node)
    fake_node.mine(n=120)
    run(texts())
    answers = iter([True] * 3)
    new = texts(**CHANGES[change][0])
    assert put_in_place(new, may_continue=lambda: next(answers, False)) is None
    assert query("SELECT build FROM virtualchain.apps") == [{"build": "1"}]
    done = put_in_place(new)
    assert done is not None
    assert done.now.name == "v2"
    assert query("SELECT build FROM virtualchain.builds") == [{"build": "v2"}]


def test_an_upgrade_is_whole_or_not_at_all(
    fake_node: FakeNode,
    run: Run,
    query: Query,
    database_url: str,
    put_in_place: Upgrade,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a reader, a dependent object or a signal in the way, the app stays; a later call replaces it."""
    monkeypatch.setattr(giving_way, "_TRIES", 2)
    mine(fake_node)
    run(texts())
    before = query("SELECT * FROM vc.apps")
    new = texts(version="2", column="word")
    stopping: list[str] = []
    for table in ("texts.texts", "texts__1.texts"):
        with psycopg.connect(database_url, application_name="a dashboard") as reader:
            reader.execute(f"SELECT * FROM {table}".encode())
            with pytest.raises(InUse, match="in use by a dashboard"):
                put_in_place(new)
            stopping.clear()
            assert put_in_place(new, on_wait=stopping.append, may_continue=lambda: not stopping) is None
        assert query("SELECT * FROM vc.apps WHERE is_live") == before
    with psycopg.connect(database_url, autocommit=True) as user:
        user.execute("CREATE VIEW public.own AS SELECT text FROM texts.texts")
        with pytest.raises(UsageError, match=r"something else depends on .* view public.own"):
            put_in_place(new)
        user.execute("DROP VIEW public.own")
    assert query("SELECT * FROM vc.apps WHERE is_live") == before
    assert put_in_place(new) is not None
    assert query("SELECT build FROM virtualchain.builds") == [{"build": "v2"}]
    assert query("SELECT word FROM texts.texts ORDER BY block_id, vtxindex LIMIT 1") == [{"word": "one"}]


def test_what_cannot_be_upgraded_is_refused(
    fake_node: FakeNode, run: Run, database_url: str, put_in_place: Upgrade
) -> None:
    """An app that is not installed, one with a writer, and a node that lags."""
    with pytest.raises(UsageError, match="app texts is not installed: the first sync"):
        put_in_place(texts())
    mine(fake_node)
    run(texts())
    with (
        StateEngine(texts(), database=database_url, source=fake_node.url),
        pytest.raises(WriterBusy),
    ):
        put_in_place(texts(version="2"))
    fake_node.fall_behind(2)
    with pytest.raises(NodeUnavailable, match="lags"):
        put_in_place(texts(magic=b"UP"))
    fake_node.catch_up()
    assert put_in_place(texts(magic=b"UP")) is not None


def test_what_no_digest_shows_is_put_in_place(
    fake_node: FakeNode, run: Run, query: Query, put_in_place: Upgrade
) -> None:
    """A change outside of the app's package, which no digest shows, is put in place like any other."""
    limit = bytearray(b"9")  # a type of which the digest shows no value

    def limited(op: dict[str, Any], state: State) -> bool:
        del state
        return len(op["text"]) < int(limit)

    mine(fake_node)
    run(texts(check=limited))
    limit[:] = b"4"
    done = put_in_place(texts(check=limited))
    assert done is not None
    assert done.difference is not None
    assert run(texts(check=limited)) == fake_node.height
    assert query("SELECT count(*) AS n FROM virtualchain.rejections WHERE step = 'check'") == [{"n": 2}]


@pytest.mark.parametrize("tracks", [True, False])
def test_an_upgrade_while_the_node_is_on_another_branch(
    fake_node: FakeNode, run: Run, put_in_place: Upgrade, tracks: bool
) -> None:
    """The node lacks blocks of the tape then, as it does when it lags, and not because it has pruned them."""

    def make(first: int) -> App:
        if tracks:
            return rides_app("rides", first_block_id=first)
        return texts(magic=b"up" if first == START else b"UP")

    fake_node.mine(n=10)
    run(make(START))
    fake_node.reorg(5, 1)
    fake_node.mine(n=5)
    with pytest.raises(NodeUnavailable, match="it lags, or is on another branch"):
        put_in_place(make(START + 1))


def test_an_app_with_an_opaque_state_is_put_in_place(
    fake_node: FakeNode, run: Run, query: Query, put_in_place: Upgrade, tmp_path: Path
) -> None:
    """Its saved file is that of the new build, and no other file stays."""
    ledger, second = Ledger(), Ledger()
    second.get_virtual_chain_version = lambda: "2"  # type: ignore[method-assign]
    fake_node.mine([fake_node.send(b"lg+a"), fake_node.send(b"lg+b")])
    run(ledger)
    assert put_in_place(second) is not None
    run(second)
    assert query("SELECT version, build, block_id FROM virtualchain.apps") == [
        {"version": "2", "build": "v2", "block_id": fake_node.height}
    ]
    assert {file.name for file in tmp_path.iterdir()} == {"ledger.state"}
    assert (tmp_path / "ledger.state").read_text() == '{"a": 1, "b": 1}'
