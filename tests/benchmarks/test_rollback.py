"""The benchmarks of undoing and of history run; how long anything takes is not judged here."""

from tests.benchmarks import history, rollback
from virtualchain.testing.database import DatabaseServer


def test_blocks_are_undone_and_shown(database_server: DatabaseServer) -> None:
    """Each depth, the case with many changes, and the reorg at the tip, on one size of table."""
    results = rollback.measure(database_server, 3_000, [2, 5], 2_000, 1)
    assert [result.case for result in results] == [
        "2 blocks",
        "5 blocks",
        "2,000 changes",
        "reorg of one block",
    ]
    assert all(result.index > 0 and result.undo > 0 for result in results)
    assert rollback.table(results, 1).row_count == 4


def test_every_way_of_keeping_history_is_measured(database_server: DatabaseServer) -> None:
    """Each way inserts, changes, deletes and undoes the same rows."""
    found = history.measure(database_server, 500, 200, 120, 1)
    assert set(found) == {"none", "key", "plain", "brin"}
    assert all(row["bulk insert, µs a row"] > 0 for row in found.values())
    assert all(found[way]["undo 100 blocks, ms"] > 0 for way in found if way != "none")
    assert history.table(found).row_count == 8
