"""The same pages and answers through a pooler, and from another version of PostgreSQL."""

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.integration.web.test_serving import Answer, get
from tests.support.pooler import pooled
from tests.support.serving import served
from virtualchain import StateEngine
from virtualchain.examples import notary
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer, other_version
from virtualchain.web.login import reader_url

DOCUMENT = "01" * 32
PATHS = (
    "/blocks/103",
    "/apps/notary/ops/102/0",
    f"/apps/notary/tables/documents/row?sha256={DOCUMENT}",
    "/apps/notary/tables/documents?as_of=102",
    "/apps/notary/changes?from=101&to=104",
    "/search?q=nothing",
    "/sql?q=SELECT+owner+FROM+documents&as_of=103",
    "/plots",
    "/reorgs",
    f"/api/v1/apps/notary/documents?sha256=eq.{DOCUMENT}",
    f"/api/v1/apps/notary/documents/history?sha256={DOCUMENT}",
    "/api/v1/apps/notary/changes?from=101&to=104",
    "/api/v1/apps/notary/documents?as_of=103",
    "/api/v1/search?q=103",
)

Run = Callable[..., int]


def feed(node: FakeNode) -> None:
    """Claim a document, and give it away."""
    content = bytes.fromhex(DOCUMENT)
    node.mine([node.send(b"ntc" + content, "alice")])
    node.mine()
    node.mine([node.send(b"ntt" + content, "alice", to=[("bob", 10_000)])])


def answers(database: str) -> dict[str, Answer]:
    """Ask for everything."""
    with served(database) as base:
        received = {path: get(base, path) for path in PATHS}
    assert {path: answer.status for path, answer in received.items()} == dict.fromkeys(PATHS, 200)
    return received


def test_through_a_pooler(run: Run, database_url: str, fake_node: FakeNode) -> None:
    """In transaction mode, with two sessions of the server for all: the past stays where it was asked for."""
    feed(fake_node)
    run(notary.app)
    direct = answers(database_url)
    reader = conninfo_to_dict(reader_url(database_url))
    place = urlsplit(database_url)
    netloc = f"{reader['user']}:{reader['password']}@{place.hostname}:{place.port}"
    with pooled(place._replace(netloc=netloc).geturl(), "transaction") as url:
        through = answers(url)
    for path in PATHS:
        if path.startswith("/api/"):
            assert through[path].body == direct[path].body, path


def test_from_another_version(
    database_server: DatabaseServer, run: Run, database_url: str, fake_node: FakeNode
) -> None:
    """The oldest PostgreSQL and the newest have the same answers, and each a role that only reads."""
    feed(fake_node)
    run(notary.app)
    expected = answers(database_url)
    with other_version(database_server) as server:
        if server is None:
            pytest.skip("there is one version of PostgreSQL only")
        url = server.clone()
        with StateEngine(notary.app, database=url, source=fake_node.url, confirmations=0) as engine:
            engine.build()
        others = answers(url)
    for path in PATHS:
        if path.startswith("/api/"):
            assert others[path].body == expected[path].body, path
