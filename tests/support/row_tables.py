"""Made-up tables of rows, their state, and proofs of their keys, for tests without a database."""

import json
from hashlib import sha256
from typing import Any, NamedTuple

from virtualchain.consensus.row_proofs import OrderedRows, Values, make_row_proof


class Table(NamedTuple):
    """A table: its columns, those of its key, and its rows in any order."""

    columns: list[str]
    key: list[str]
    rows: list[Values]


def ordered(table: Table) -> list[Values]:
    """Sort rows as the protocol does: column by column of the key, by the bytes in UTF-8."""
    places = [table.columns.index(column) for column in table.key]
    return sorted(table.rows, key=lambda row: [(row[place] or "").encode() for place in places])


def state_of(tables: dict[str, Table], **fields: Any) -> dict[str, Any]:
    """Make the state of an app that has these tables."""
    return _read(tables, None, None, fields)[0]


def prove(tables: dict[str, Table], name: str, key: list[str], **fields: Any) -> Any:
    """Make a proof of a key, as it is read from a file."""
    state, rows = _read(tables, name, key, fields)
    return json.loads(json.dumps(make_row_proof(state, name, key, rows)))


def _read(
    tables: dict[str, Table], sought: str | None, key: list[str] | None, fields: dict[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    summaries, neighbors = [], []
    for name in sorted(tables):
        table = tables[name]
        rows = OrderedRows(name, table.columns, table.key, key if name == sought else None)
        for row in ordered(table):
            rows.add(row)
        summaries.append(rows.summary())
        neighbors += rows.neighbors()
    state = {
        "app": "made-up",
        "block_hash": "b1" * 32,
        "block_id": 700,
        "consensus_hash": "c0" * 16,
        "genesis_hash": "9e" * 32,
        "state_hash": "57" * 32,
        "tables": summaries,
    }
    return state | fields, neighbors


def naive_root(rows: list[bytes]) -> bytes:
    """Compute the root of RFC 6962 as the protocol's page writes it."""
    if len(rows) < 2:
        return sha256(b"\x00" + rows[0] if rows else b"").digest()
    split = 1
    while 2 * split < len(rows):
        split *= 2
    return sha256(b"\x01" + naive_root(rows[:split]) + naive_root(rows[split:])).digest()


def naive_path(index: int, rows: list[bytes]) -> list[bytes]:
    """Compute the siblings of a row on its way to the root, from the bottom up."""
    if len(rows) < 2:
        return []
    split = 1
    while 2 * split < len(rows):
        split *= 2
    if index < split:
        return [*naive_path(index, rows[:split]), naive_root(rows[split:])]
    return [*naive_path(index - split, rows[split:]), naive_root(rows[:split])]
