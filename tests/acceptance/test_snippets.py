"""Every example of the documentation is run, or read by the program that would run it.

Python is executed, commands are read by the command line, SQL is planned by a server that has the apps'
tables, TOML is read as settings, JSON is parsed. `REASONS` has what cannot be.
"""

import doctest
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

import click
import psycopg
import pytest
import sqlalchemy
from fastapi import HTTPException
from psycopg_pool import ConnectionPool

import virtualchain
from tests.support.snippets import (
    ROOT,
    Snippet,
    commands_in_text,
    pages,
    parse_command,
    shell_commands,
    snippets,
    unknown_words,
)
from virtualchain import StateEngine, consensus, testing
from virtualchain.examples import inscriptions, namecoin, names, notary, points, runes
from virtualchain.settings import load
from virtualchain.testing import FakeNode, key
from virtualchain.testing.database import DatabaseServer

REASONS: Final = {
    ("README.md", "from guestbook import app"): "tests/acceptance/test_readme.py runs it with pytest",
    ("docs/api.md", "urllib.request.Request"): "follows a server until it is stopped",
    ("docs/backup.md", "pg_create_restore_point"): "takes a superuser; tests/integration/backup runs it",
    ("docs/embedding.md", "from django.db"): "Django is not installed for tests",
    ("docs/mistakes.md", ""): "shows mistakes; tests/integration/engine/test_mistakes.py makes them",
    ("docs/operating.md", "CREATE DATABASE"): "makes a database; the tests make theirs so",
    ("docs/tutorial.md", "points.py"): "tests/acceptance/test_tutorial.py follows the page",
    ("docs/reducers.md", 'state.table("messages")'): "is a part of a callback",
    ("docs/sql.md", "REVOKE EXECUTE"): "changes the rights of everybody on the server's functions",
    ("docs/testing.md", "fake_node.reorg"): "tests/unit/testing calls all of these methods",
    (
        "docs/wasm.md",
        "wasm_app(",
    ): "its module is compiled elsewhere; virtualchain/examples/points/wasm is it",
    ("docs/writing.md", "entries_pending"): "needs `run --pending`; test_pending_views.py has it",
    ("docs/writing.md", "wait=True, **places"): "spends coins of a wallet; tests/integration/writing sends",
}
"""Examples that are only compiled, or not planned, by page and a part of their text, and why."""
OTHERS: Final = {"", "diff", "graphql", "html", "ini", "js", "nginx", "text"}
"""Languages of other programs, and what is only shown."""
FOLDERS: Final = {"docs/reducers.md": ROOT / "virtualchain/examples/points"}
"""Beside which files an example stands that reads them, by page."""
ADDRESS: Final = key("alice").address()


def reason(snippet: Snippet) -> str | None:
    """Return why an example is not run."""
    for (page, part), why in REASONS.items():
        if snippet.page == page and part in snippet.text:
            return why
    return None


def test_every_language_is_known() -> None:
    """A block says which language it is in, and each language is tested here or is not ours."""
    tested = {"json", "python", "sh", "shell", "sql", "toml"}
    assert [str(each) for each in snippets() if each.language not in tested | OTHERS] == []


def test_every_reason_is_needed() -> None:
    """What stands in the table is in a page."""
    everything = snippets()
    for page, part in REASONS:
        assert [each for each in everything if each.page == page and part in each.text], (page, part)


# Commands.


@pytest.mark.parametrize("snippet", snippets("sh", "shell"), ids=str)
def test_commands(snippet: Snippet) -> None:
    """The command line reads each command; modules, extras and paths of tests that commands name exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in shell_commands(snippet.text):
        match words:
            case [program, *rest] if program.rpartition("/")[2] == "virtualchain":
                try:
                    parse_command(rest)
                except click.ClickException as error:
                    pytest.fail(f"{snippet}: {' '.join(words)}: {error.format_message()}")
            case ["python", "-m", module, *_]:
                assert find_spec(module) is not None, f"{snippet}: {module}"
            case ["pip" | "/opt/virtualchain/bin/pip", "install", *rest]:
                needed = re.findall(r"\[([\w,]+)\]", " ".join(rest))
                assert {name for each in needed for name in each.split(",")} <= set(extras), snippet


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_text(page: Path) -> None:
    """Commands and options that the text mentions exist."""
    assert {code: unknown for code in commands_in_text(page) if (unknown := unknown_words(code))} == {}


@pytest.mark.parametrize("line", ["snyc", "sync --confirmation 1", "rollback", "db upgraed"])
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    """The check itself can fail: on a command, an option, a missing argument, and a command of a group."""
    with pytest.raises(click.ClickException):
        parse_command(line.split())


def test_an_option_that_does_not_exist_is_noticed() -> None:
    """The check of the text can fail, too."""
    assert unknown_words("virtualchain db upgraed --jsno") == ["upgraed"]
    assert unknown_words("virtualchain verify --jsno --deep") == ["--jsno"]


# Settings and JSON.


@pytest.mark.parametrize("snippet", snippets("toml"), ids=str)
def test_settings(snippet: Snippet, tmp_path: Path) -> None:
    """What the pages show of virtualchain.toml is what the program reads."""
    if {"virtualchain", "apps", "webhooks"}.isdisjoint(tomllib.loads(snippet.text)):
        return
    (tmp_path / "virtualchain.toml").write_text(snippet.text, encoding="utf-8")
    assert load({}, {}, tmp_path).config is not None


@pytest.mark.parametrize("snippet", snippets("json"), ids=str)
def test_json(snippet: Snippet) -> None:
    """It is JSON."""
    json.loads(snippet.text)


# SQL and Python, with a deployment that has the apps that pages speak of.


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    """Run a node that has a claim by alice."""
    node = FakeNode()
    node.mine([node.send(b"ntc" + bytes(32), sender="alice")])
    yield node
    node.close()


@pytest.fixture(scope="module")
def deployment(database_server: DatabaseServer, node: FakeNode) -> Iterator[str]:
    """Return the URL of a deployment with the examples, the guest book of README, and the letters."""
    url = database_server.clone()
    own = [run_python(each)["app"] for each in snippets("python") if defines_an_app(each)]
    apps = [notary.app, names.app, points.app, runes.app, inscriptions.app, namecoin.app, *own]
    with StateEngine(*apps, database=url, source=node.url, confirmations=0) as engine:
        engine.build()
    yield url
    database_server.drop(url)


def defines_an_app(snippet: Snippet) -> bool:
    """Return whether a block is one of the apps whose tables pages query."""
    return snippet.text.startswith("# guestbook.py") or (
        snippet.page == "docs/consistency.md" and "App(" in snippet.text
    )


@pytest.mark.parametrize("snippet", [each for each in snippets("sql") if not reason(each)], ids=str)
def test_sql(snippet: Snippet, deployment: str) -> None:
    """A server plans each query, and executes any other statement, which is then undone.

    Statements of reducers, which have parameters, are for the tables of the app points.
    """
    text = re.sub(r"bc1[pq]…", ADDRESS, snippet.text)
    text, parameters = re.subn(r"%\(\w+\)s", "NULL", re.sub(r"--.*", "", text))
    for statement in filter(str.split, text.split(";")):
        verb = statement.split()[0]
        with psycopg.connect(deployment) as connection:
            connection.execute(
                "SET search_path = points__1" if parameters else "SET search_path = virtualchain"
            )
            if parameters or verb in {"SELECT", "WITH"}:
                connection.execute(f"EXPLAIN {statement}".encode())
            elif verb not in {"BEGIN", "COMMIT"}:
                connection.execute(statement.encode())
            connection.rollback()


class Stop(Exception):
    """Ends an example that would go on."""


def context(url: str, node: FakeNode | None) -> dict[str, Any]:
    """Return the names that examples use and a reader knows: what the packages export, and an app."""

    def apply(*_: object) -> None:
        raise Stop

    def anything(*_: object, **__: object) -> None:
        return None

    exported = {
        name: getattr(module, name)
        for module in (consensus, testing, virtualchain)
        for name in module.__all__
    }
    return {
        **exported,
        "__name__": "example",
        "app": virtualchain.App("guestbook", magic=b"gb"),
        "apply": apply,
        "forget_above": anything,
        "parse_x": lambda payload: {},
        "check_x": lambda op, state: True,
        "commit_x": lambda op, state: None,
        "fake_node": node,
        "database_url": url,
    }


def run_python(snippet: Snippet, known: dict[str, Any] | None = None, url: str = "") -> dict[str, Any]:
    """Execute a block; what has a `return` outside of a function is the body of one."""
    names = context(url, None) if known is None else known
    address = url.removeprefix("postgresql")
    text = re.sub(r'(?<=")postgresql(\+psycopg)?://[^"]*', rf"postgresql\1{address}", snippet.text)
    text = re.sub("85000[01]", "100", text)  # a height that the deployment has
    if re.search(r"^ {4}return", text, re.MULTILINE) and text.startswith("if "):
        text = f"def body(sender):\n{textwrap.indent(text, '    ')}"
    exec(compile(text, f"{FOLDERS.get(snippet.page, ROOT)}/{snippet.line}", "exec"), names)
    return names


@pytest.mark.parametrize("page", sorted({each.page for each in snippets("python")}))
def test_python(page: str, deployment: str, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs with what the packages export; a session (>>>) continues the block before it."""
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    names = vars(module)
    names.update(context(deployment, node))
    for snippet in snippets("python"):
        if snippet.page != page:
            continue
        if ">>>" in snippet.text:
            test = doctest.DocTestParser().get_doctest(snippet.text, names, str(snippet), page, snippet.line)
            assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0, snippet
        elif reason(snippet):
            compile(snippet.text, str(snippet), "exec")
        else:
            names.update(context(deployment, node))
            with suppress(Stop):
                run_python(snippet, names, deployment)
    close(names)


def close(names: dict[str, Any]) -> None:
    """Close the connections that examples leave to the end of their program."""
    for value in names.values():
        if isinstance(value, sqlalchemy.Engine):
            value.dispose()
        elif isinstance(value, ConnectionPool):
            value.close()


def test_the_page_on_embedding(deployment: str, database_server: DatabaseServer, node: FakeNode) -> None:
    """The functions of docs/embedding.md return what the deployment has, and follow it over a fork."""
    names = context(deployment, node)
    for snippet in snippets("python"):
        if snippet.page == "docs/embedding.md" and not reason(snippet):
            run_python(snippet, names, deployment)
    sha256 = bytes(32).hex()
    with psycopg.connect(deployment) as connection:
        tape = connection.execute(
            "SELECT hash, block_id FROM virtualchain.blocks ORDER BY block_id"
        ).fetchall()
    claimed_at = tape[-1][1]
    [row] = names["documents_of"](ADDRESS)
    assert row == {"sha256": sha256, "claimed_at": claimed_at}
    assert names["document_at"](sha256, tape[-1][0])["owner"] == ADDRESS
    assert names["document_at"](sha256, tape[-2][0]) is None
    assert [each.sha256 for each in names["newest"](5)] == [sha256]
    names["pool"].open()
    assert names["document"](sha256)["claimed_at"] == claimed_at
    with pytest.raises(HTTPException):
        names["document"]("00")
    assert names["waiting"](sha256) == []
    assert names["output_of_claim"](sha256).endswith("6e7463" + sha256)
    close(names)

    shop = database_server.create()

    def follow(events: int) -> list[Any]:
        @contextmanager
        def watch(*arguments: Any, **options: Any) -> Iterator[Iterator[Any]]:
            with virtualchain.watch(*arguments, **options) as endless:
                yield islice(endless, events)

        names["virtualchain"] = SimpleNamespace(watch=watch, RollbackEvent=virtualchain.RollbackEvent)
        names["follow"](deployment, shop)
        with psycopg.connect(shop) as connection:
            return connection.execute("SELECT sha256, owner FROM claims").fetchall()

    assert follow(len(tape)) == [(sha256, ADDRESS)]
    node.reorg(1)
    with StateEngine(notary.app, database=deployment, source=node.url, confirmations=0) as engine:
        engine.build()
    assert follow(1) == []
    database_server.drop(shop)
