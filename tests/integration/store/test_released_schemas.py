"""Deployments of every earlier schema, with data in it, are upgraded and continued."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.support.dumped_apps import titles, words
from tests.support.schema_dumps import DUMPED, END, dumps, nodes
from virtualchain import StateEngine
from virtualchain.audit.verify import verify
from virtualchain.store.embedded.host import server_account
from virtualchain.store.embedded.installation import find_binaries
from virtualchain.store.migrate import migrate
from virtualchain.store.revision import head
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

DIGESTS = "SELECT app, block_id, ops_hash, consensus_hash, state_hash FROM vc.snapshots ORDER BY 1, 2"
ROWS = "SELECT place, owner, sender, raw FROM titles.titles ORDER BY place"
"""What the two deployments must agree on."""


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    """Serve the whole chain."""
    with ExitStack() as stack:
        yield [stack.enter_context(node) for node in nodes()][-1]


def continued(url: str, node: FakeNode) -> list[object]:
    """Bring a deployment to the end of the chain, and read what it has."""
    with StateEngine(titles, words, database=url, source=node.url, confirmations=0) as engine:
        assert engine.build() == END
    with psycopg.connect(url) as connection:
        digests, rows = connection.execute(DIGESTS).fetchall(), connection.execute(ROWS).fetchall()
        connection.execute("SELECT set_config('virtualchain.as_of', %s, true)", [str(DUMPED)])
        return [digests, rows, connection.execute(ROWS).fetchall()]


@pytest.fixture(scope="module")
def expected(database_server: DatabaseServer, node: FakeNode) -> Iterator[list[object]]:
    """Read what a deployment has that this version of the code made alone."""
    url = database_server.clone()
    yield continued(url, node)
    database_server.drop(url)


@pytest.mark.parametrize("revision", dumps())
def test_a_deployment_of_each_revision_continues(
    revision: str, empty_database_url: str, node: FakeNode, expected: list[object]
) -> None:
    """It is upgraded, takes the next blocks with the digests and rows of a new one, and verify is clean."""
    psql = [find_binaries(None, server_account()) / "psql", "-q", "-v", "ON_ERROR_STOP=1", empty_database_url]
    subprocess.run(psql, input=dumps()[revision], check=True, stdout=subprocess.DEVNULL)
    assert migrate(empty_database_url) == head()
    assert continued(empty_database_url, node) == expected
    assert verify(empty_database_url).faults == []


def test_the_present_revision_has_a_dump() -> None:
    """So that the next one is tested with it: `python -m tests.support.schema_dumps` makes it."""
    assert list(dumps())[-1] == head()
