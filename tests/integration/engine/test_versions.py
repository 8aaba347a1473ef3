"""New versions of an app are built beside the live build, compared and swapped in; apps are removed."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.tables import tables
from virtualchain import App, Rejected, State, StateEngine
from virtualchain.engine.compare import compare
from virtualchain.engine.options import Progress
from virtualchain.engine.versions import drop, remove, swap
from virtualchain.errors import InUse, UsageError, WriterBusy
from virtualchain.reading import views
from virtualchain.testing import FakeNode


def an_app(version: str = "1", **options: Any) -> App:
    """Make an app that keeps texts; from version 2 on, in upper case and with their length."""
    new = version != "1"
    columns = "text text PRIMARY KEY" + (", size integer NOT NULL" if new else "")
    app = App("texts", magic=b"vs", version=version, projections=f"CREATE TABLE texts ({columns})", **options)

    def commit(op: dict[str, Any], state: State) -> None:
        if new:
            state.execute(
                "INSERT INTO texts VALUES (%s, %s) ON CONFLICT DO NOTHING", [op["text"], len(op["text"])]
            )
        else:
            state.execute("INSERT INTO texts VALUES (%s) ON CONFLICT DO NOTHING", [op["text"]])

    def parse(payload: bytes) -> dict[str, Any]:
        return {"text": payload.decode().upper() if new else payload.decode()}

    app.add(b"o", parse=parse, commit=commit)
    return app


def mine(node: FakeNode, *texts: bytes) -> None:
    """Mine a block with an op for each text."""
    node.mine([node.send(b"vso" + text) for text in texts])


def test_a_new_version_takes_the_old_ones_place(
    fake_node: FakeNode, run: Run, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """A version is built from the tape without a node and swapped in; the old build stays until dropped."""
    mine(fake_node, b"a", b"b")
    run(an_app())
    before = query("SELECT consensus_hash FROM virtualchain.apps")
    with pytest.raises(UsageError, match=r"declares other rules .* `virtualchain replay texts --into NAME`"):
        run(an_app("2"))
    made = make_build(an_app("2"), "v2")
    assert (made.block_id, made.is_live) == (fake_node.height, False)
    assert query("SELECT * FROM texts.texts") == [{"text": "a"}, {"text": "b"}]
    assert query("SELECT consensus_hash FROM virtualchain.apps") == before
    assert swap(database_url, "texts", "v2").name == "1"
    assert query("SELECT * FROM texts.texts ORDER BY 1") == [
        {"text": "A", "size": 1},
        {"text": "B", "size": 1},
    ]
    assert query("SELECT fields ->> 'text' AS t FROM virtualchain.ops") == [{"t": "A"}, {"t": "B"}]
    mine(fake_node, b"c")
    assert run(an_app("2")) == fake_node.height
    assert query("SELECT version, build, block_id FROM virtualchain.apps") == [
        {"version": "2", "build": "v2", "block_id": fake_node.height}
    ]
    with pytest.raises(UsageError, match="the views of app texts show build v2"):
        drop(database_url, "texts", "v2")
    drop(database_url, "texts", "1")
    assert query("SELECT DISTINCT build FROM vc.snapshots") == [{"build": "v2"}]
    assert query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'texts%' ORDER BY 1") == [
        {"nspname": "texts"},
        {"nspname": "texts__v2"},
    ]


def test_the_same_rules_make_the_same_build(
    fake_node: FakeNode, run: Run, database_url: str, make_build: Callable[..., Any]
) -> None:
    """A second build by the same rules does not differ from the live one in hashes or rows."""
    mine(fake_node, b"a", b"b")
    run(an_app())
    make_build(an_app(), "again")
    with views.snapshot(database_url) as connection:
        result = compare(connection, "texts", "again")
    assert (result.difference, result.verdict, result.row) == (None, None, None)
    assert result.rows == {"texts": (2, 2)}
    assert result.places["1"] == result.places["again"]


def test_a_comparison_names_the_first_difference(
    fake_node: FakeNode, run: Run, database_url: str, make_build: Callable[..., Any]
) -> None:
    """A comparison names the block, the candidate that was judged differently, and a missing row."""
    mine(fake_node, b"A")
    txs = [fake_node.send(b"vso" + text) for text in (b"\xff", b"c", b"B")]
    [block_hash] = fake_node.mine(txs)
    run(an_app())
    other = an_app("3", valid_transaction_window=7)
    other.projections = an_app().projections
    other.add(b"x", parse=lambda payload: {})
    other._handlers[b"o"] = an_app()._handlers[b"o"]
    handler = other._handlers[b"o"].at(0)
    assert handler is not None
    other.db_commit = lambda block_id, *rest, **named: (  # type: ignore[method-assign]
        False if rest[1]["text"] == "c" else App.db_commit(other, block_id, *rest, **named)
    )
    other.db_parse = lambda block_id, *rest, **named: (  # type: ignore[method-assign]
        Rejected("worded otherwise") if rest[1] == b"\xff" else App.db_parse(other, block_id, *rest, **named)
    )
    make_build(other, "v3")
    with views.snapshot(database_url) as connection:
        result = compare(connection, "texts", "v3")
    assert result.difference is not None
    assert (result.difference.block_id, result.difference.block_hash) == (fake_node.height, block_hash)
    assert result.verdict is not None
    assert (result.verdict["block_id"], result.verdict["txindex"]) == (fake_node.height, 2)
    assert result.verdict["txid"] == txs[1].txid
    assert result.transactions == ()
    assert result.verdict["verdict"]["accepted"] == {"text": "c"}
    assert result.verdict["other_verdict"] == {"refused": "commit", "reason": "refused"}
    assert result.row == {"table": "texts", "build": "1", "row": "(c)"}
    assert result.rows == {"texts": (3, 2)}


def test_a_comparison_names_what_may_have_written_otherwise(
    fake_node: FakeNode, run: Run, database_url: str, make_build: Callable[..., Any]
) -> None:
    """If all verdicts are the same but the rows are not, the block's accepted transactions are named."""
    mine(fake_node, b"A")
    txs = [fake_node.send(b"vso" + text) for text in (b"b", b"C", b"\xff")]
    fake_node.mine(txs)
    run(an_app())
    other = an_app("4")
    other.projections = an_app().projections
    other._handlers[b"o"] = an_app()._handlers[b"o"]

    def commit(block_id: int, opcode: bytes, op: dict[str, Any], *rest: Any, **named: Any) -> None:
        rest[-1].execute("INSERT INTO texts VALUES (%s)", [op["text"].upper()])

    other.db_commit = commit  # type: ignore[method-assign]
    make_build(other, "v4")
    with views.snapshot(database_url) as connection:
        result = compare(connection, "texts", "v4")
    assert result.difference is not None
    assert (result.difference.block_id, result.verdict) == (fake_node.height, None)
    assert result.transactions == (txs[0].txid, txs[1].txid)


def test_a_build_is_made_while_the_writer_runs(
    fake_node: FakeNode, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """Although the writer takes blocks and rolls some back meanwhile, the build equals a fresh one."""
    for number in range(40):
        mine(fake_node, b"t%d" % number)
    with StateEngine(an_app(), database=database_url, source=fake_node.url, confirmations=0) as engine:
        engine.build()
        forked = threading.Event()

        def fork(progress: Progress) -> None:
            if progress.block.block_id == fake_node.height - 2 and not forked.is_set():
                forked.set()
                fake_node.reorg(8)
                mine(fake_node, b"new")
                engine.build()

        made = make_build(an_app("2"), "v2", on_catch_up=fork)
        assert forked.is_set()
        assert made.block_id == fake_node.height
        make_build(an_app("2"), "fresh")
    rows = query("SELECT build, block_id, consensus_hash, state_hash FROM vc.snapshots WHERE build <> '1'")
    digests = [
        sorted(
            (row["block_id"], row["consensus_hash"], row["state_hash"])
            for row in rows
            if row["build"] == build
        )
        for build in ("v2", "fresh")
    ]
    assert digests[0] == digests[1]
    assert query("SELECT * FROM texts__v2.texts EXCEPT SELECT * FROM texts__fresh.texts") == []


def test_an_interrupted_build_resumes(fake_node: FakeNode, run: Run, make_build: Callable[..., Any]) -> None:
    """An interrupted build resumes where it was; with other rules, it is refused."""
    mine(fake_node, b"a")
    run(an_app())
    taken: list[int] = []
    first = make_build(
        an_app("2"), "v2", may_continue=lambda: len(taken) < 10, on_catch_up=lambda _: taken.append(0)
    )
    assert first.block_id == 9
    assert make_build(an_app("2"), "v2").block_id == fake_node.height
    with pytest.raises(UsageError, match="was made by other rules"):
        make_build(an_app("3"), "v2")
    for name in ("2", "V", "", "a" * 17, "a_b"):
        with pytest.raises(UsageError, match="is not a build's name"):
            make_build(an_app("2"), name)


def test_only_one_process_makes_a_build(
    fake_node: FakeNode, run: Run, make_build: Callable[..., Any]
) -> None:
    """A second process that makes the same build is refused."""
    mine(fake_node, b"a")
    run(an_app())
    errors: list[str] = []

    def again(*_: Any) -> None:
        if not errors:
            with pytest.raises(WriterBusy) as caught:
                make_build(an_app("2"), "v2")
            errors.append(str(caught.value))

    make_build(an_app("2"), "v2", on_catch_up=again)
    assert "another process is already making texts:v2" in errors[0]


def test_a_build_needs_a_searched_tape(fake_node: FakeNode, run: Run, make_build: Callable[..., Any]) -> None:
    """A version with another magic and an app that is not installed each raise a clear error."""
    mine(fake_node, b"a")
    with pytest.raises(UsageError, match="is not installed"):
        make_build(an_app(), "v1")
    run(an_app())
    with pytest.raises(UsageError, match="were not searched for the inputs of version 2"):
        make_build(other_magic(), "v2")


def other_magic() -> App:
    """Make a version with another magic."""
    app = App("texts", magic=b"zz", version="2")
    app.add(b"o", parse=lambda payload: {})
    return app


def test_a_swap_yields_to_long_readers(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    make_build: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A swap waits at most a second for a lock, tries again, and gives up with an error."""
    monkeypatch.setattr("virtualchain.store.giving_way._TRIES", 2)
    mine(fake_node, b"a")
    run(an_app())
    make_build(an_app("2"), "v2")
    reasons: list[str] = []
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT * FROM texts.texts")
        with pytest.raises(InUse, match=r"the views of app texts are in use by .* idle in transaction"):
            swap(database_url, "texts", "v2", reasons.append)
    assert len(reasons) == 1
    assert swap(database_url, "texts", "v2").name == "1"


def test_a_writer_leaves_a_swapped_app_alone(
    fake_node: FakeNode, database_url: str, make_build: Callable[..., Any]
) -> None:
    """A writer that runs the old code reports the swap, and ends if no app is left."""
    mine(fake_node, b"a")
    reasons: list[str] = []
    with StateEngine(
        an_app(), database=database_url, source=fake_node.url, confirmations=0, on_wait=reasons.append
    ) as engine:
        engine.build()
        make_build(an_app("2"), "v2")
        swap(database_url, "texts", "v2")
        engine.follow()
    assert reasons == ["app texts shows another build now: restart with that build's code"]


def test_a_swapped_app_does_not_stop_the_others_after_a_lost_connection(
    fake_node: FakeNode, database_url: str, query: Query, make_build: Callable[..., Any]
) -> None:
    """The new session leaves it alone as well: it does not refuse its code, and does not report it again."""
    other = App("other", magic=b"vs")
    other.add(b"o", parse=lambda payload: {"n": 1})
    mine(fake_node, b"a")
    reasons: list[str] = []
    with StateEngine(
        an_app(),
        other,
        database=database_url,
        source=fake_node.url,
        confirmations=0,
        on_wait=reasons.append,
    ) as engine:
        engine.build()
        make_build(an_app("2"), "v2")
        swap(database_url, "texts", "v2")
        engine.build()
        query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        fake_node.mine(n=2)
        assert engine.build() == fake_node.height
    assert sum("texts shows another build now" in reason for reason in reasons) == 1
    assert any("connected again" in reason for reason in reasons)
    assert query("SELECT block_id FROM virtualchain.apps WHERE name = 'other'") == [
        {"block_id": fake_node.height}
    ]


def test_removing_an_app_removes_its_data_and_nothing_else(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """An app's tables, views, role and log go; the tape and the other app's rows stay."""
    other = App("other", magic=b"vs", projections="CREATE TABLE t (a integer PRIMARY KEY)")
    other.add(b"o", parse=lambda payload: {"n": 1})
    mine(fake_node, b"a")
    run(other)
    kept = tables(database_url)
    run(an_app(), other)
    with psycopg.connect(database_url, autocommit=True) as user:
        user.execute("CREATE SCHEMA mine")
        user.execute("CREATE VIEW mine.view AS SELECT * FROM texts.texts")
        with pytest.raises(UsageError, match=r"something else depends on .* view mine.view depends on"):
            remove(database_url, "texts")
        user.execute("DROP VIEW mine.view")
        user.execute("DROP SCHEMA mine")
    remove(database_url, "texts")
    assert tables(database_url) == kept
    assert query("SELECT rolname FROM pg_roles WHERE rolname LIKE '%:texts'") == []
    with pytest.raises(UsageError, match="there is no app texts"):
        remove(database_url, "texts")
    run(an_app(), other)
