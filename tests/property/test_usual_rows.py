"""Compiled code takes only rows that are right, and writes them as the code that checks each by itself."""

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa
import pytest

from tests.support.exported_rows import Rows
from virtualchain.bitcoin import compiled
from virtualchain.bitcoin.networks import NETWORKS, Network
from virtualchain.model import Block
from virtualchain.transfer.checked_rows import Batch, checked
from virtualchain.transfer.files import INPUT_COLUMNS, Row, arrow_type
from virtualchain.transfer.usual_rows import columns_of

BLOCK_ID = 500


def taken(rows: Sequence[Row], network: Network) -> list[bytes | None]:
    """Have compiled code check each row alone, as a slice of a batch; None for one that it leaves."""
    assert compiled.check_rows is not None
    arrays = [
        pa.array(values, arrow_type(kind))
        for values, (_, kind) in zip(zip(*rows, strict=True), INPUT_COLUMNS, strict=True)
    ]
    batch = pa.RecordBatch.from_arrays(arrays, [name for name, _ in INPUT_COLUMNS])
    values = (network.p2pkh, network.p2sh, network.bech32_hrp, network.segwit_block_id is not None)
    results: list[bytes | None] = []
    for n in range(len(rows)):
        columns = columns_of(batch.slice(n, 1))
        assert columns is not None
        bounds = (0, 1, (BLOCK_ID, -1), BLOCK_ID, BLOCK_ID, 0)
        end, data = compiled.check_rows(*columns, *bounds, (*values, network.largest_amount))
        results.append(data if end else None)
    return results


def compare(name: str, seed: int, count: int) -> tuple[int, int, int]:
    """Compare both ways on some rows; return how many were right, taken, and wrong."""
    network = NETWORKS[name]
    make = Rows(seed, network)
    block = Block(BLOCK_ID, "11" * 32, "22" * 32, "33" * 32, 0, 0, bytes(80))
    rows = [make.row(BLOCK_ID, 1 + n % 3) for n in range(count)]
    rows = [row if n % 2 else make.changed(row) for n, row in enumerate(rows)]
    right = wrong = 0
    results = taken(rows, network)
    for row, data in zip(rows, results, strict=True):
        expected = None
        with suppress(ValueError, LookupError, TypeError):
            (expected,) = checked(Batch([row], {BLOCK_ID: block}, network, 0, is_checked=True))
        right += expected is not None
        wrong += expected is None
        assert data in {None, expected}, row
    return right, sum(data is not None for data in results), wrong


@pytest.mark.skipif(compiled.check_rows is None, reason="it is not compiled")
@pytest.mark.parametrize(("name", "count", "share"), [("mainnet", 3000, 4), ("dogecoin", 1000, 20)])
def test_only_right_rows_are_taken(name: str, count: int, share: int) -> None:
    """Of random rows, half of them changed, it takes a good share, but none that is wrong."""
    right, took, wrong = compare(name, 1, count)
    assert right > count / 5
    assert wrong > count / 3
    assert took > right / share
