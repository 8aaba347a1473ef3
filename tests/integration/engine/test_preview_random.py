"""What previews say of random inputs is what happens to them, also if several meet in one block."""

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Run
from tests.support.foreseeing import Foreseeing
from tests.support.zoo import zoo
from virtualchain.engine.foreseeing import Verdict
from virtualchain.store import foreseen as foreseen_tables
from virtualchain.testing import FakeNode

Changes = dict[str, tuple[Any, Any]]
loads = partial(json.loads, parse_float=Decimal)


def place_of(table: str, key: Any) -> str:
    """Name a row so that equal keys have one name."""
    text = json.dumps(key, sort_keys=True, default=float)
    return f"{table} {json.loads(text, parse_int=float)}"


def shown(row: Any) -> str | None:
    """Write a row so that 1.0 and 1.00 differ."""
    return None if row is None else repr(sorted(row.items()))


def applied(verdicts: Iterable[Verdict]) -> Changes:
    """Return what verdicts do together; each must find rows as those before left them."""
    before: dict[str, str | None] = {}
    now: dict[str, str | None] = {}
    for verdict in verdicts:
        touched = [place_of(change.table, change.key) for change in verdict.changes]
        assert len(touched) == len(set(touched)), "a row appears twice in one verdict"
        for place, change in zip(touched, verdict.changes, strict=True):
            old = before.setdefault(place, shown(change.old))
            assert now.get(place, old) == shown(change.old), f"{place} is not what the input before left"
            now[place] = shown(change.new)
    return {place: (old, now[place]) for place, old in before.items() if old != now[place]}


def happened(url: str, app: str, block_id: int) -> Changes:
    """Return what a block did to rows, by the view."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            'SELECT "table", key::text, old::text, new::text FROM virtualchain.changes '
            "WHERE app = %s AND block_id = %s",
            [app, block_id],
        ).fetchall()
    changes = {
        place_of(table, loads(key)): tuple(None if row is None else shown(loads(row)) for row in (old, new))
        for table, key, old, new in rows
    }
    # Rows of type json may differ in spaces alone, which no JSON shows.
    return {place: (old, new) for place, (old, new) in changes.items() if old != new}


def verdicts_of(url: str, app: str, block_id: int) -> list[tuple[Any, ...]]:
    """Return what became of a block's candidates, in their order."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            """SELECT txid, payload_index, opcode, NULL, NULL, fields, txindex FROM virtualchain.ops
                WHERE app = %(app)s AND block_id = %(block)s
            UNION ALL SELECT txid, payload_index, opcode, step, reason, NULL, txindex
                FROM virtualchain.rejections WHERE app = %(app)s AND block_id = %(block)s
            ORDER BY txindex, payload_index""",
            {"app": app, "block": block_id},
        ).fetchall()
    return [row[:-1] for row in rows]


def foreseen(verdicts: Sequence[Verdict]) -> list[tuple[Any, ...]]:
    """Return the same of verdicts."""
    return [
        (
            each.txid,
            each.payload_index,
            each.opcode,
            each.step,
            each.reason,
            each.fields if each.is_accepted else None,
        )
        for each in verdicts
    ]


@pytest.mark.parametrize("hooks", [False, True])
@pytest.mark.parametrize("seed", [1])
def test_random_blocks(
    seed: int,
    hooks: bool,
    fake_node: FakeNode,
    run: Run,
    foresee: Foreseeing,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole block is foreseen, and each input in it as one in a block of its own."""
    app, dice = zoo(hooks=hooks), Random(seed)
    if seed % 2:  # as large tables are
        monkeypatch.setattr(foreseen_tables, "_Q", {**foreseen_tables._Q, "is_large": "SELECT true"})
    fake_node.mine()
    run(app)
    for _ in range(4):
        txs = [fake_node.send(b"zos%d" % dice.randrange(10**6)) for _ in range(dice.randrange(1, 13))]
        verdicts = foresee(app, txs)
        fake_node.mine(txs)
        block_id = run(app)
        assert foreseen(verdicts) == verdicts_of(database_url, "zoo", block_id)
        assert applied(verdicts) == happened(database_url, "zoo", block_id)


@pytest.mark.parametrize("seed", [1])
def test_each_input_has_its_own_changes(
    seed: int, fake_node: FakeNode, run: Run, foresee: Foreseeing, database_url: str
) -> None:
    """A block is foreseen input by input as it happens if each has a block of its own."""
    app, dice = zoo(), Random(f"own {seed}")
    fake_node.mine()
    run(app)
    for _ in range(2):
        txs = [fake_node.send(b"zos%d" % dice.randrange(10**6)) for _ in range(9)]
        verdicts = foresee(app, txs)
        assert len(verdicts) == len(txs)
        for tx, verdict in zip(txs, verdicts, strict=True):
            fake_node.mine([tx])
            block_id = run(app)
            assert foreseen([verdict]) == verdicts_of(database_url, "zoo", block_id)
            assert applied([verdict]) == happened(database_url, "zoo", block_id)
