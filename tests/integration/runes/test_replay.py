"""What forks and restarts leave behind: nothing."""

from tests.support.runes_history import History
from tests.support.tables import deployment
from virtualchain.app.declarations import read_contract
from virtualchain.examples.runes import make_app
from virtualchain.examples.runes.conformance.replay import Replay
from virtualchain.examples.runes.conformance.scenario import read_scenario
from virtualchain.examples.runes.hardcoded import UNCOMMON_GOODS
from virtualchain.testing.conformance.checking import cloned_database
from virtualchain.testing.database import DatabaseServer


def test_forks_leave_no_trace(database_server: DatabaseServer) -> None:
    """Two chains of forks lead to the same rows in every table, and to the same hashes."""
    scenario = read_scenario(History(12).scenario(25), "history")
    with cloned_database(database_server) as one, cloned_database(database_server) as other:
        for seed, database in enumerate((one, other)):
            assert list(Replay(scenario, database).differences_over_forks(seed)) == []
        left, right = deployment(one), deployment(other)
        assert {name for name in left if left[name] != right.get(name)} == set()
        assert len(left["runes.rune_events"]) > 20


def test_an_app_that_starts_elsewhere_is_another_app() -> None:
    """Its version says so; the protocol's own has the first block of each network."""
    versions = [
        read_contract(app).version
        for app in (make_app(), make_app(100), make_app(100, ()), make_app(100, [UNCOMMON_GOODS]))
    ]
    assert versions[:2] == ["1", "1 from 100"]
    assert len(set(versions)) == 4
    starts = [read_contract(make_app(), network).first_block_id for network in ("mainnet", "testnet4")]
    assert starts == [840_000, 0]
