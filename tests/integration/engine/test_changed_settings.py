"""A writer says which of its settings differ from those of the last one."""

from typing import Any

from tests.integration.conftest import Query
from virtualchain import App, StateEngine
from virtualchain.notices import Notice
from virtualchain.testing import FakeNode


def an_app(name: str) -> App:
    """Make an app without projections."""
    app = App(name, magic=b"st", version="1")
    app.add(b"o", parse=lambda payload: {"text": payload.decode()})
    return app


def test_a_writer_says_what_changed_since_the_last_one(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """Settings and versions of apps, once; not at the first start, and not in a new session of one writer."""

    def reported(*apps: App, **options: Any) -> list[str]:
        notices: list[str] = []
        source: dict[str, Any] = {"source": fake_node.url, "on_wait": notices.append}
        source["database"] = database_url
        with StateEngine(*apps, **source, **options) as engine:
            engine.build(3)
            query("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
            engine.build(4)
        return [line for line in notices if isinstance(line, Notice) and line.event == "settings_changed"]

    one, other = an_app("one"), an_app("other")
    assert reported(one, confirmations=6, on_deep_fork="halt") == []
    assert reported(one, confirmations=6) == []  # the policy stays as it is
    start = "settings changed since the last writer: "
    changed = reported(one, other, confirmations=3, history=None, verify="merkle", senders="bound")
    levels = "verify default → merkle, senders node → bound"
    rest = f"history 1000 → all, {levels}, version of other none → 1"
    assert changed == [f"{start}confirmations 6 → 3, {rest}"]
    same: dict[str, Any] = {"history": None, "verify": "merkle", "senders": "bound"}
    [notice] = reported(one, confirmations=3, deepest_rollback=9, **same)
    assert isinstance(notice, Notice)
    assert notice.fields == {"changes": {"deepest_rollback": ["none", 9], "version of other": ["1", "none"]}}


def test_what_the_last_writer_did_not_record_is_not_compared(
    fake_node: FakeNode, database_url: str, query: Query
) -> None:
    """After an upgrade, whose writer had recorded nothing, there is nothing to say."""
    options: dict[str, Any] = {"database": database_url, "source": fake_node.url}
    with StateEngine(an_app("one"), **options) as engine:
        engine.build(1)
    query("UPDATE vc.writer SET settings = NULL RETURNING settings")
    notices: list[str] = []
    with StateEngine(an_app("one"), **options, confirmations=0, on_wait=notices.append) as engine:
        engine.build(1)
    assert notices == []
    [row] = query("SELECT settings FROM vc.writer")
    assert row["settings"]["confirmations"] == 0
