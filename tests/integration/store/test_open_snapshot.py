"""A reader that stands still while the writer goes on: it sees its moment, the writer does no more work."""

from collections.abc import Callable

import psycopg

from tests.integration.conftest import Rows
from tests.support.moving import an_app, story
from virtualchain.testing import FakeNode

Query = Callable[..., Rows]
Run = Callable[..., int]

READ = """SELECT sum(idx_tup_read)::int AS read FROM pg_stat_user_indexes
    WHERE schemaname = 'plain__1' AND relname ~ '_(history|births)$'"""


def test_pruning_passes_over_what_a_snapshot_keeps(
    fake_node: FakeNode, run: Run, query: Query, database_url: str
) -> None:
    """Rows that were pruned and may not be cleaned up yet are not read again by each later pruning."""
    story(fake_node, 1, 20)
    run(an_app(), history=10)
    with psycopg.connect(database_url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        [before] = reader.execute("SELECT count(*) FROM virtualchain.ops").fetchone() or (0,)
        story(fake_node, 2, 50)
        first = _read_in(run, query)
        for seed in range(3, 6):
            story(fake_node, seed, 50)
            last = _read_in(run, query)
        assert reader.execute("SELECT count(*) FROM virtualchain.ops").fetchone() == (before,)
    growth = query("SELECT count(*) AS n FROM plain.marks")[0]["n"]
    assert last < 2.5 * first, (first, last, growth)


def _read_in(run: Run, query: Query) -> int:
    """Sync, and give how many entries of the indexes of history were read meanwhile."""
    before = query(READ)[0]["read"]
    run(an_app(), history=10)
    return int(query(READ)[0]["read"]) - int(before)
