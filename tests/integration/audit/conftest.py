"""Deployments that tests of audits damage: each test has a copy of one of them."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from psycopg import sql

from tests.support import damage as support
from tests.support.damage import Lie
from tests.support.ride_story import ride, ride_apps
from tests.support.servers import reachable_folder
from virtualchain import StateEngine
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.store.migrate import migrate
from virtualchain.testing import FakeNode


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """Run a server of one's own, with two deployments that differ in how far history reaches.

    A third one has apps that track outputs.
    """
    with reachable_folder() as folder, FakeNode() as node, FakeNode() as rides_node:
        server = EmbeddedServer(folder, durable=False)
        server.start()
        support.feed(node)
        for name, history in (("kept", 1000), ("pruned", 2)):
            url = server.create_database(name)
            migrate(url)
            with StateEngine(
                support.notes(),
                support.Ledger(),
                database=url,
                source=node.url,
                confirmations=0,
                history=history,
                state_folder=folder.parent / name,
            ) as engine:
                assert engine.build() == 108
        ride(rides_node)
        migrate(url := server.create_database("rides"))
        with StateEngine(*ride_apps(), database=url, source=rides_node.url, confirmations=0) as engine:
            assert engine.build() == 108
        yield server


Clone = Callable[..., str]


@pytest.fixture
def clone(server: EmbeddedServer) -> Iterator[Clone]:
    """Return a function that copies a deployment, damages the copy, and returns its URL."""
    names: list[str] = []

    def make(*statements: str, of: str = "kept", lies: Sequence[Lie] = ()) -> str:
        names.append(f"copy_{len(names)}")
        with server.connect_superuser("postgres") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER virtualchain TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(names[-1]), sql.Identifier(of)
                )
            )
        if statements or lies:
            support.damage(server, names[-1], *statements, lies=lies)
        return server.url_for(names[-1])

    yield make
    with server.connect_superuser("postgres") as connection:
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
