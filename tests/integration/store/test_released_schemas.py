"""Deployments of every earlier schema, with data in it, are upgraded and continued."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest

from tests.support.dumped_apps import titles, words
from tests.support.schema_dumps import DUMPED, END, dumps, nodes, restore
from virtualchain import StateEngine
from virtualchain.audit.verify import verify
from virtualchain.store.database import connect_migrator
from virtualchain.store.migrate import migrate
from virtualchain.store.migration_plan import Step, describe, plan
from virtualchain.store.revision import head
from virtualchain.store.sql import migrations_root
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

DIGESTS = "SELECT app, block_id, ops_hash, consensus_hash, state_hash FROM vc.snapshots ORDER BY 1, 2"
ROWS = "SELECT place, owner, sender, raw FROM titles.titles ORDER BY place"
"""What the two deployments must agree on."""
LOCKED = """
SELECT DISTINCT l.relation::regclass::text FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
WHERE l.mode = 'AccessExclusiveLock' AND l.pid = pg_backend_pid() AND c.relkind IN ('r', 'v')
    AND c.relnamespace::regnamespace::text IN ('vc', 'virtualchain') AND c.oid::bigint <= %s ORDER BY 1
"""


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
    restore(revision, empty_database_url)
    assert migrate(empty_database_url) == head()
    assert continued(empty_database_url, node) == expected
    assert verify(empty_database_url).faults == []


def test_each_step_locks_what_it_says(empty_database_url: str) -> None:
    """`migrations/steps.toml` names all tables and views that nobody can read while a step runs."""
    restore("0003", empty_database_url)
    locks: dict[str, list[str]] = {}
    with closing(connect_migrator(empty_database_url)) as connection:
        steps = plan(connection, "0003")
        for step in steps:
            (file,) = (migrations_root() / "versions").glob(f"{step.revision}_*.sql")
            before = connection.execute("SELECT max(oid::bigint) FROM pg_class").fetchone()
            connection.execute(file.read_bytes())
            locks[step.revision] = [name for (name,) in connection.execute(LOCKED, before).fetchall()]
            connection.commit()
    assert {step.revision: sorted(step.locks) for step in steps} == locks
    assert steps[-1].revision == head()


def test_a_long_upgrade_names_its_longest_step() -> None:
    """The line names minutes, and the table that takes most of them."""
    step = Step("0010", ("vc.inputs", "virtualchain.inputs"), {"vc.inputs": 2_100_000}, 136.5)
    short = Step("0016", (), {"vc.snapshots": 10}, 0.1)
    assert describe([short, step], "0009") == (
        f"upgrading the schema from 0009 to {head()}: about 2 minutes; 0010 passes over vc.inputs, 2,100,000 "
        "rows; readers of inputs wait meanwhile"
    )


def test_the_present_revision_has_a_dump() -> None:
    """So that the next one is tested with it: `python -m tests.support.schema_dumps` makes it."""
    assert list(dumps())[-1] == head()
