"""One deployment for all tests of the API, with a fork and with columns of every kind, and a server of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.moving import an_app, story
from tests.support.serving import served
from virtualchain import App, Jsonb, State, StateEngine
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

ODD = """
    CREATE TABLE ops (
        id integer PRIMARY KEY, "order" text, "limit" numeric, "as_of" bytea, "100% of 'it'" jsonb,
        moment timestamptz, flag boolean, ratio numeric(9,3), words text[], "{x}""y" varchar(9)
    );
    COMMENT ON TABLE ops IS 'A table whose name is that of a path.';
    COMMENT ON COLUMN ops."order" IS 'A column whose name is that of a parameter.';
    CREATE TABLE pairs (at integer, "key.at" text, note text, PRIMARY KEY (at, "key.at"));
"""
_WORDS = (None, "a", "B", "ä", "a,b", 'q"q', "it's", "", "\U0001f600")


def odd_app() -> App:
    """Make an app whose tables and columns have names that mean something else in a URL."""
    app = App("odd", magic=b"od", projections=ODD)

    def commit(op: dict[str, Any], state: State) -> None:
        number = op["number"]
        words = _WORDS[number % len(_WORDS)]
        state.execute(
            "INSERT INTO ops VALUES (%s, %s, %s, %s, %s, '2020-01-01 00:00:00.5+02', %s, %s, %s, %s)",
            [
                number,
                words,
                None if number % 4 == 0 else Decimal(number) / 8,
                bytes([number]) * (number % 3),
                Jsonb({"n": number, "w": words}),
                number % 2 == 0,
                Decimal(number) / 16,
                [words, "x"],
                str(number),
            ],
        )
        state.execute("INSERT INTO pairs VALUES (%s, %s, %s)", [number % 5, str(number), words])

    app.add(b"n", parse=lambda payload: {"number": payload[0]}, commit=commit)
    return app


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def next(self) -> str | None:
        """The path of the page that follows."""
        link = self.headers.get("link")
        if link is None:
            return None
        assert link.endswith('>; rel="next"')
        return link[1 : link.index(">")]


@dataclass(frozen=True)
class Served:
    """A deployment that is served."""

    base: str
    url: str
    node: FakeNode

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Ask for a path below /api/v1, or for any that begins with /api; _ in headers stands for -."""
        connection = HTTPConnection(urlsplit(self.base).netloc, timeout=20)
        try:
            whole = path if path.startswith("/api") else f"/api/v1/{path}"
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, whole, body, named)
            response = connection.getresponse()
            fields = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()


def mine(node: FakeNode) -> None:
    """Mine ops of both apps, and rejections."""
    for block in range(12):
        story(node, block, 1)
        node.mine([node.send(b"odn" + bytes([3 * block + place])) for place in range(3)])


@pytest.fixture(scope="module")
def deployment(database_server: DatabaseServer) -> Iterator[Served]:
    """Serve a deployment of two apps whose chain has forked."""
    url, node = database_server.clone(), FakeNode()
    apps = an_app(), odd_app()
    mine(node)
    with StateEngine(*apps, database=url, source=node.url, confirmations=0) as engine:
        engine.build()
        node.reorg(3)
        node.mine([node.send(b"odn\xc8"), node.send(b"mvoadd late")])
        engine.build()
    with served(url) as base:
        yield Served(base, url, node)
    node.close()
    database_server.drop(url)


Ask = Callable[..., Answer]


@pytest.fixture
def ask(deployment: Served) -> Ask:
    """Return the function that asks the served deployment."""
    return deployment.ask
