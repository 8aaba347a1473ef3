"""Whatever a stranger makes transactions of, they fit the tables, and syncing them takes little memory."""

import json
import subprocess
import sys

import pytest

from tests.integration.conftest import Query
from tests.support.large_transactions import CASES

ALLOWED = {"many transactions": 500_000_000}
"""Bytes of memory beyond what the process took before; a block may spend 120 MB of scripts that are kept."""
USUALLY_ALLOWED = 200_000_000


@pytest.mark.parametrize("case", CASES)
def test_large_transactions_are_taken_with_little_memory(database_url: str, query: Query, case: str) -> None:
    """All inputs and outputs are there, for the app that runs and for one that joins later."""
    blocks, count, inputs, outputs, size = CASES[case]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.large_transactions", case, database_url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout)
    assert measured["peak"] - measured["before"] < ALLOWED.get(case, USUALLY_ALLOWED), measured
    [sizes] = query(
        "SELECT count(*) AS n, min(jsonb_array_length(senders)) AS senders,"
        " min(jsonb_array_length(outputs)) AS outputs, max(octet_length(senders::text)) AS bytes"
        " FROM virtualchain.inputs"
    )
    assert (sizes["n"], sizes["senders"], sizes["outputs"]) == (blocks * count, inputs, outputs)
    assert sizes["bytes"] < 20_000_000
    [last] = query(
        "SELECT senders -> -1 AS sender FROM virtualchain.inputs ORDER BY block_id, txindex LIMIT 1"
    )
    assert len(last["sender"]["script_pubkey"]) == (2 * size if size <= 100 or count > 1 else 78)
    assert last["sender"]["type"] == "nonstandard"
    ops = query("SELECT app, count(*) FROM virtualchain.ops GROUP BY app ORDER BY app")
    assert [row["count"] for row in ops] == [blocks * count] * 2
