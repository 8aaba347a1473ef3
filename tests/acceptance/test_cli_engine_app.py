"""A subclass of `StateEngine`, named with --app MODULE:CLASS, under each command that needs an app's code."""

import json
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance.conftest import Inside
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

APP = ("--app", "tests.support.engine_app:Questions")


def ask(node: FakeNode, count: int) -> None:
    """Mine blocks with a question each."""
    for number in range(count):
        node.mine([node.send(f"qu?-{number % 7}".encode())])


def fields(url: str) -> list[tuple[Any, ...]]:
    """Return what the log says of the app."""
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT block_id, fields FROM virtualchain.ops ORDER BY 1").fetchall()


def test_every_command_takes_the_class(
    inside: Inside,
    fake_node: FakeNode,
    database_url: str,
    database_server: DatabaseServer,
    options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """Sync, status, rollback, replay, a build beside the live one, and a checkpoint have equal results."""
    ask(fake_node, 8)
    inside(*APP, *options, "sync")
    before = fields(database_url)
    assert len(before) == 8
    (status,) = json.loads(inside(*APP, *options, "--json", "status").out)["apps"]
    assert (status["name"], status["status"], status["block_id"]) == ("questions", "running", 109)
    printed = json.loads(inside(*APP, *options, "--json", "replay", "questions").out)
    assert printed["state_hash"] == printed["state_hash_before"]
    inside(*APP, *options, "replay", "questions", "--into", "again")
    inside(*options, "compare", "questions", "again")
    inside(*options, "swap", "questions", "again")
    inside(*APP, *options, "rollback", "105")
    inside(*APP, *options, "sync")
    assert fields(database_url) == before
    ask(fake_node, 2)
    inside(*APP, *options, "sync")
    file = tmp_path / "questions.checkpoint"
    inside(*APP, *options, "checkpoint", "create", file, "--block", "108")
    url = database_server.clone()
    elsewhere = (*APP, "--bitcoin", fake_node.url, "--database", url, "--confirmations", "0")
    inside(*elsewhere, "checkpoint", "apply", file)
    inside(*elsewhere, "sync")
    assert fields(url) == [row for row in fields(database_url) if row[0] > 108]
    assert len(fields(url)) == 3
    database_server.drop(url)
