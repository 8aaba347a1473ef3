"""The benchmark runs; how long anything takes is not judged here."""

from tests.benchmarks import open_snapshot
from tests.benchmarks.chains import empty_blocks, full_blocks, single_ops
from tests.benchmarks.sync import measure, table
from virtualchain.testing.database import DatabaseServer


def test_the_benchmark_measures_both_chains(database_server: DatabaseServer) -> None:
    """A few blocks of each kind are fetched and synced, and shown."""
    with full_blocks(2, None, fake=True) as chain:
        full = measure(chain, database_server, 1)
    with empty_blocks(20) as chain:
        empty = measure(chain, database_server, 1)
    assert (full.blocks, empty.blocks, empty.inputs) == (2, 20, 0)
    assert full.bytes > 1_000_000 > empty.bytes
    for result in (full, empty):
        assert result.fetch > 0
        assert result.sync > 0
        assert result.peak_at_all > 10_000_000
    assert table([full, empty], 1).row_count == 9


def test_the_benchmark_of_an_open_snapshot_measures_both_kinds(database_server: DatabaseServer) -> None:
    """A few blocks with and without a reader that stands still, and shown."""
    with single_ops(40) as chain:
        result = open_snapshot.measure(chain, database_server, 10, 1)
    assert (result.blocks, result.alone > 0, result.open > 0, result.ratio > 0) == (40, True, True, True)
    assert open_snapshot.table(result, 1).row_count == 4
