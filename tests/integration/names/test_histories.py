"""Random histories: the app and an independent model of the protocol compute the same hashes.

The environment variable NAMES_HISTORIES sets how many are tried (default: 2).
"""

import os

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.support.names_history import History
from virtualchain.examples.names import rules
from virtualchain.examples.names.conformance.checking import SUITE
from virtualchain.examples.names.conformance.replay import replay
from virtualchain.examples.names.conformance.scenario import read_scenario
from virtualchain.testing.conformance.checking import Task, check, cloned_database
from virtualchain.testing.database import DatabaseServer

SEEDS = range(int(os.environ.get("NAMES_HISTORIES", "1")))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_history_yields_the_model_s_hashes(database_server: DatabaseServer, seed: int) -> None:
    """40 blocks of valid and invalid operations are replayed on a straight and a forking chain."""
    scenario = History(seed).scenario(40)
    result = check(SUITE, Task("random", f"scenario {seed}", scenario, seed), database_server)
    assert result.has_passed, str(result)
    accepted = {op["opcode"] for block in scenario["blocks"] for op in block["ops"]}
    assert len(accepted) >= 7


@pytest.mark.parametrize("seed", [16, 29])
def test_expiry_in_the_table_follows_the_rules(database_server: DatabaseServer, seed: int) -> None:
    """It does over epochs that double lifetimes, and for namespaces that become ready or lapse."""
    history = History(seed)
    scenario = read_scenario(history.scenario(45), "random")
    with cloned_database(database_server) as database:
        replay(scenario, database)
        with psycopg.connect(database, row_factory=dict_row) as connection:
            rows = connection.execute(_NAMES).fetchall()
    live = [row for row in rows if rules.is_live(row, history.height, history.params)]
    for row in rows:
        expected = rules.expires_at(row, history.height, history.params)
        assert row["expires_at"] == expected if row in live else row["expires_at"] <= history.height
    assert len(live) >= 2


_NAMES = """
    SELECT n.*, s.op AS namespace_op, s.reveal_block, s.ready_block, s.lifetime
    FROM names.names AS n JOIN names.namespaces AS s USING (namespace_id)
"""


def test_a_wrong_verdict_is_noticed(database_server: DatabaseServer) -> None:
    """The comparison can fail: it does if one verdict is inverted."""
    scenario = History(0).scenario(12)
    block = next(block for block in scenario["blocks"] if block["ops"])
    tx = next(tx for tx in block["txs"] if tx["verdict"] == "ACCEPT")
    tx["verdict"] = "REJECT"
    result = check(SUITE, Task("random", "scenario 1", scenario), database_server)
    assert result.difference is not None
    assert (result.difference.block_id, result.difference.field) == (block["block_id"], "verdict")
