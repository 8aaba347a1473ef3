"""An app is known by its rules: other ones are noticed, and never run on what the old ones found."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Query, Run
from tests.support.tables import tables
from virtualchain import App, State, StateEngine, first_op_return
from virtualchain.app.declarations import read_contract
from virtualchain.bitcoin.script import op_return_payload
from virtualchain.engine.deployment import Deployment
from virtualchain.engine.options import Listener, Options
from virtualchain.engine.versions import build_beside, remove, swap
from virtualchain.errors import UsageError
from virtualchain.model import FindPayload
from virtualchain.testing import FakeNode, op_return

DDL = """
    CREATE TABLE notes (note text COLLATE "C" PRIMARY KEY, size bigint NOT NULL);
    COMMENT ON TABLE notes IS 'What was noted.';
    COMMENT ON COLUMN notes.size IS 'How long it''s.';
"""


def after(skipped: int) -> Callable[..., bytes | None]:
    """Make a payload rule that takes the first OP_RETURN without its first bytes."""

    def find(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
        for output in outputs:
            payload = op_return_payload(bytes.fromhex(output["script_pubkey"]))
            if payload is not None:
                return payload[skipped:]
        return None

    return find


def an_app(skipped: int | None = 0, name: str = "notes", *, factor: int = 1, **options: Any) -> App:
    """Make an app that notes texts; `skipped` chooses its payload rule, and `factor` changes its commit."""
    rule = {} if skipped is None else {"payload_rule": after(skipped)}
    app = App(name, **{"magic": b"no", "projections": DDL, **rule, **options})

    def commit(op: dict[str, Any], state: State) -> None:
        state.execute(
            "INSERT INTO notes VALUES (%s, %s) ON CONFLICT DO NOTHING",
            [op["note"], factor * len(op["note"])],
        )

    app.add(b"t", parse=lambda payload: {"note": payload.decode()}, commit=commit)
    return app


def mine(node: FakeNode, *payloads: bytes) -> None:
    """Mine a block with a transaction for each payload."""
    node.mine([node.send(payload) for payload in payloads])


def story(node: FakeNode) -> None:
    """Mine inputs of three rules, some of which several find."""
    mine(node, b"notone", b"xnottwo")
    mine(node, b"yynotthree")
    node.mine([node.send(b"notfour", to=[(op_return(b"notlast"), 0)])])
    mine(node, b"nonotfive", b"zz", b"notsix")


def derived(url: str, app: str = "notes") -> dict[str, list[str]]:
    """Read what must follow from an app's rules and the chain: its part of the log, and its tables."""
    with psycopg.connect(url) as connection:
        build = connection.execute("SELECT build FROM vc.apps WHERE name = %s AND is_live", [app]).fetchone()
        assert build is not None
        log = {
            table: [
                json.dumps(row, sort_keys=True)
                for (row,) in connection.execute(
                    f"SELECT to_jsonb(t) - 'app' - 'build' FROM vc.{table} AS t"
                    " WHERE app = %s AND build = %s ORDER BY t.block_id, to_jsonb(t)::text".encode(),
                    [app, build[0]],
                )
            ]
            for table in ("ops", "rejections", "snapshots")
        }
    rows = tables(url)
    return {
        **log,
        "notes": rows[f"{app}__{build[0]}.notes"],
        "history": rows[f"{app}__{build[0]}.notes_history"],
    }


@pytest.mark.parametrize("skipped", [1, 2, None])
def test_another_payload_rule_is_noticed(
    fake_node: FakeNode, run: Run, database_url: str, skipped: int | None
) -> None:
    """It is refused by all that would run it on the tables of the old one."""
    story(fake_node)
    run(an_app())
    before = tables(database_url)
    with pytest.raises(UsageError, match=r"app notes .* now declares other rules"):
        run(an_app(skipped))
    with pytest.raises(UsageError, match="now declares other rules"):
        Deployment(database_url, [read_contract(an_app(skipped))], None, Options(), repairs="notes")
    with pytest.raises(UsageError, match="were not searched for the inputs of version 1"):
        build_beside(database_url, read_contract(an_app(skipped)), "v2")
    assert tables(database_url) == before
    run(an_app())


@pytest.mark.parametrize("first", [0, None, 2])
@pytest.mark.parametrize("second", [1, None])
def test_an_app_that_was_removed_begins_again_with_another_rule(
    fake_node: FakeNode,
    run: Run,
    database_url: str,
    fresh_index: Callable[..., str],
    first: int | None,
    second: int | None,
) -> None:
    """All blocks are searched again, and the result is that of a fresh database."""
    story(fake_node)
    run(an_app(first))
    remove(database_url, "notes")
    mine(fake_node, b"notnew", b"xnotnewer")
    run(an_app(second))
    assert derived(database_url) == derived(fresh_index(an_app(second)))


def test_another_rule_is_built_beside_once_its_inputs_are_searched(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """Under a name of its own the rule searches the tape; then it takes the old one's place."""
    story(fake_node)
    run(an_app())
    run(an_app(), an_app(1, "trial"))
    contract = read_contract(an_app(1, version="2"))
    made = build_beside(database_url, contract, "v2")
    assert made.block_id == fake_node.height
    swap(database_url, "notes", "v2")
    mine(fake_node, b"xnotlater", b"notlater")
    run(an_app(1, version="2"), an_app(1, "trial"))
    fresh = fresh_index(an_app(1, version="2"))
    assert derived(database_url) == derived(fresh)
    assert derived(database_url, "trial") == derived(fresh)
    assert len(derived(fresh)["notes"]) == 2


def test_a_build_ends_where_the_search_for_its_inputs_did(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """Blocks that a writer of other rules appends meanwhile are searched before the build takes them."""
    story(fake_node)
    run(an_app(), an_app(1, "trial"))
    searched = fake_node.height
    contract = read_contract(an_app(1, version="2"))

    def append(*_: Any) -> None:
        if fake_node.height == searched:
            mine(fake_node, b"xnotmissed")
            run(an_app())

    assert (
        build_beside(database_url, contract, "v2", listener=Listener(on_catch_up=append)).block_id == searched
    )
    assert fake_node.height == searched + 1
    swap(database_url, "notes", "v2")
    run(an_app(1, version="2"))
    assert derived(database_url) == derived(fresh_index(an_app(1, version="2")))
    assert any("missed" in row for row in derived(database_url)["notes"])


def test_apps_with_one_magic_and_different_rules_do_not_see_each_other(
    fake_node: FakeNode, run: Run, database_url: str, fresh_index: Callable[..., str]
) -> None:
    """Together each derives what it derives alone, also if one joins late."""
    story(fake_node)
    apps = {"a": an_app(0, "a"), "b": an_app(1, "b"), "c": an_app(None, "c"), "d": an_app(2, "d")}
    run(apps["a"], apps["b"])
    mine(fake_node, b"xnotlate", b"notlate")
    run(*apps.values())
    for name, app in apps.items():
        assert derived(database_url, name) == derived(fresh_index(app), name)


def test_rules_that_look_alike_are_both_called(fake_node: FakeNode, run: Run, query: Query) -> None:
    """Two apps whose rules differ only in what a digest does not see find what each of them finds."""

    def seen_through(skip: Callable[[bytes], bytes]) -> FindPayload:
        def find(outputs: Sequence[Mapping[str, Any]]) -> bytes | None:
            payload = after(0)(outputs)
            return None if payload is None else skip(payload)

        return find

    cuts = [memoryview(bytes(length)) for length in (0, 1)]
    rules = [seen_through(_Cut(cut)) for cut in cuts]
    apps = [an_app(None, f"app{number}", payload_rule=rule) for number, rule in enumerate(rules)]
    names = {read_contract(app).rule for app in apps}
    story(fake_node)
    run(*apps)
    assert len(names) == 1
    assert query("SELECT note FROM app0.notes ORDER BY 1") != query("SELECT note FROM app1.notes ORDER BY 1")
    assert len(query("SELECT note FROM app1.notes")) == 1


class _Cut:
    """Cuts off as many bytes as a view has; what a view shows is not part of the digest."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __call__(self, payload: bytes) -> bytes:
        return payload[len(self._view) :]


# What version 0.1.0 wrote


def age(url: str, app: App, **changes: Any) -> None:
    """Write what version 0.1.0 recorded of an app in place of what is there."""
    contract = read_contract(app)
    former = contract.former_fingerprint()
    rule = f"app:{contract.name}" if contract.has_own_rule else contract.rule
    values = {"fingerprint": former, "rule": rule, **changes}
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE vc.apps SET fingerprint = decode(%(fingerprint)s, 'hex'), rule = %(rule)s,"
            " code_digest = NULL, last_code_digest = NULL",
            values,
        )
        connection.execute("UPDATE vc.coverage SET rule = %(rule)s", values)


@pytest.mark.parametrize(
    "options",
    [{}, {"skipped": 2}, {"skipped": None}, {"skipped": None, "payload_rule": first_op_return(b"no", b"ye")}],
)
def test_a_deployment_of_the_first_version_is_adopted(
    fake_node: FakeNode, run: Run, database_url: str, options: Any
) -> None:
    """It continues without a search, and then records what a new deployment records."""
    story(fake_node)
    run(an_app(**options))
    kept = tables(database_url)
    age(database_url, an_app(**options))
    assert tables(database_url) != kept
    reasons: list[str] = []
    run(an_app(**options), on_wait=reasons.append)
    assert reasons == []
    assert tables(database_url) == kept
    run(an_app(**options), on_wait=reasons.append)
    assert reasons == []


def test_reworded_comments_are_adopted(fake_node: FakeNode, run: Run, database_url: str) -> None:
    """The comments that the tables have are those that the old fingerprint was computed from."""
    story(fake_node)
    run(an_app())
    kept = tables(database_url)
    age(database_url, an_app())
    reworded = DDL.replace("What was noted.", "Every note; isn''t it?").replace("How long", "Its length, how")
    assert reworded != DDL
    for other in (DDL.replace("bigint", "integer"), reworded.replace("size bigint", "size numeric")):
        with pytest.raises(UsageError, match="now declares other rules"):
            run(an_app(projections=other))
    run(an_app(projections=reworded))
    assert tables(database_url) == kept
    run(an_app(projections='CREATE TABLE notes (note text COLLATE "C" PRIMARY KEY, size bigint NOT NULL);'))


@pytest.mark.parametrize(("then", "now"), [(None, 0), (0, None), ("first", None), (None, "first")])
def test_another_kind_of_rule_is_not_adopted(
    fake_node: FakeNode, run: Run, database_url: str, then: Any, now: Any
) -> None:
    """The old fingerprint did not cover the payload rule, but its name is recorded beside it."""

    def choose(kind: Any) -> App:
        # Without comments the default rule's fingerprint is the old one.
        options: dict[str, Any] = {"projections": DDL.partition("COMMENT")[0]}
        if kind == "first":
            return an_app(None, payload_rule=first_op_return(b"no"), **options)
        return an_app(kind, **options)

    story(fake_node)
    run(choose(then))
    age(database_url, choose(then))
    assert read_contract(choose(then)).former_fingerprint() == read_contract(choose(now)).former_fingerprint()
    with pytest.raises(UsageError, match="now declares other rules"):
        run(choose(now))


def test_a_build_of_the_first_version_is_continued(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """A build beside the live one that version 0.1.0 began is recognized, too."""
    story(fake_node)
    run(an_app(), an_app(0, "trial"))
    contract = read_contract(an_app(version="2"))
    taken: list[int] = []
    stop = Listener(on_catch_up=lambda _: taken.append(0), may_continue=lambda: len(taken) < 3)
    assert build_beside(database_url, contract, "v2", listener=stop).block_id < fake_node.height
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE vc.apps SET fingerprint = decode(%s, 'hex'), rule = 'app:notes', code_digest = NULL"
            " WHERE build = 'v2'",
            [contract.former_fingerprint()],
        )
    assert build_beside(database_url, contract, "v2").block_id == fake_node.height
    [row] = query("SELECT encode(fingerprint, 'hex') AS fingerprint, rule FROM vc.apps WHERE build = 'v2'")
    assert (row["fingerprint"], row["rule"]) == (contract.fingerprint(), contract.rule)


# Code


def test_changed_code_is_reported_until_it_is_replaced(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """Each start says that the code changed, until the old code is back or the app has a new version."""
    changed = "SELECT code_changed FROM virtualchain.apps"
    story(fake_node)
    run(an_app())
    assert query(changed) == [{"code_changed": False}]
    for _ in range(2):
        reasons: list[str] = []
        run(an_app(factor=3), on_wait=reasons.append)
        assert len(reasons) == 1
        assert "the code of app notes changed, but its version 1 did not" in reasons[0]
        assert query(changed) == [{"code_changed": True}]
    run(an_app(), on_wait=reasons.append)
    assert len(reasons) == 1
    assert query(changed) == [{"code_changed": False}]
    build_beside(database_url, read_contract(an_app(factor=3, version="2")), "v2")
    swap(database_url, "notes", "v2")
    reasons.clear()
    run(an_app(factor=3, version="2"), on_wait=reasons.append)
    assert reasons == ["settings changed since the last writer: version of notes 1 → 2"]


def test_a_strict_app_is_refused_with_changed_code(
    fake_node: FakeNode, run: Run, database_url: str, query: Query
) -> None:
    """Neither its tables nor a build of them are continued with other code under one version."""
    story(fake_node)
    run(an_app(strict_code=True))
    with pytest.raises(UsageError, match="the code of app notes changed, but its version 1 did not, and"):
        run(an_app(factor=2, strict_code=True))
    run(an_app(strict_code=True))
    run(an_app())
    build_beside(database_url, read_contract(an_app(version="2", strict_code=True, factor=2)), "v2")
    with pytest.raises(UsageError, match="build v2 of app notes was begun with other code"):
        build_beside(database_url, read_contract(an_app(version="2", factor=3)), "v2")
    swap(database_url, "notes", "v2")
    run(an_app(version="2", factor=2, strict_code=True))
    assert query("SELECT version, code_changed FROM virtualchain.apps") == [
        {"version": "2", "code_changed": False}
    ]


def test_a_replay_does_not_continue_a_build_by_other_code(
    fake_node: FakeNode, run: Run, database_url: str, tmp_path: Path, query: Query
) -> None:
    """A replay that was interrupted begins again if the code changed since; its result is of the new code."""
    from virtualchain.engine.rebuild import replay

    story(fake_node)
    run(an_app())
    taken: list[int] = []
    stop = Listener(on_catch_up=lambda _: taken.append(0), may_continue=lambda: len(taken) < 3)

    def again(app: App, listener: Listener) -> Any:
        deployment = Deployment(
            database_url, [read_contract(app)], None, Options(state_folder=tmp_path), repairs="notes"
        )
        try:
            return replay(deployment, "notes", listener)
        finally:
            deployment.close()

    assert again(an_app(), stop) is None
    assert again(an_app(factor=5), Listener()) is not None
    assert query("SELECT build, code_changed FROM virtualchain.apps") == [
        {"build": "3", "code_changed": False}
    ]
    assert {row["size"] % 5 for row in query("SELECT size FROM notes.notes")} == {0}


def test_an_engine_reports_changed_code_once(fake_node: FakeNode, database_url: str, tmp_path: Path) -> None:
    """A warning comes with the start, not with each new session after a transient fault."""
    reasons: list[str] = []
    settings: Any = {"database": database_url, "source": fake_node.url, "confirmations": 0}
    settings |= {"state_folder": tmp_path, "on_wait": reasons.append}
    with StateEngine(an_app(), **settings) as engine:
        engine.build()
    with StateEngine(an_app(factor=2), **settings) as engine:
        engine._reopen([0.0])
        engine.build()
    assert ["changed" in reason for reason in reasons] == [True]
