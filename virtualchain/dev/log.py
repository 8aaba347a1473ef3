"""What the app's database says: of the blocks that were mined, of tables, and of statements."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Literal

import psycopg

from virtualchain.app.fields import opcode_text
from virtualchain.dev.outcomes import Outcome, change_lines, verdict_lines
from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.reading.catalog import projection
from virtualchain.reading.event_json import item_json
from virtualchain.reading.events import Reader
from virtualchain.reading.rows import parse_filters, read_rows

_MOST_ROWS: Final = 1000
_TIMEOUT: Final = 10.0
"""Seconds that a statement may take."""
_COLUMNS: Final = {
    "ops": ("block_id", "vtxindex", "opcode", "txid", "fields"),
    "rejections": ("block_id", "txindex", "opcode", "txid", "step", "reason"),
}


def block_outcomes(
    url: str, app: str, block_id: int, txids: Sequence[str], labels: Mapping[str, str]
) -> tuple[Json, list[str]]:
    """Describe what became of the inputs of a block, and what it did to rows.

    `txids` are transactions of the block that were sent as inputs: one that is nothing to the app is said to
    be. `labels` are names of opcodes for people. The JSON has `inputs`, and `changes`: those of the block, of
    which it is not recorded which input made them.
    """
    with _open(url) as connection:
        events = Reader(connection).blocks(block_id, block_id, [app])
        chosen = views.Selection(apps=[app], first=block_id, last=block_id)
        refused = list(views.rejections(connection, chosen))
    judged: list[tuple[Any, ...]] = [
        (op.txindex, op.txid, op.opcode, op.payload, op.fields, None, None)
        for event in events
        for op in event.ops
    ]
    judged += [
        (row["txindex"], row["txid"], row["opcode"], b"", None, row["step"], row["reason"]) for row in refused
    ]
    changes = [_change(item_json(change)) for event in events for change in event.changes]
    inputs, texts = [], []
    for _, txid, opcode, payload, fields, step, reason in sorted(judged, key=lambda item: item[:2]):
        text = opcode_text(opcode, payload)
        verdict: Json = {
            "verdict": "accepted" if step is None else "refused",
            "step": step,
            "reason": reason,
            "block_id": block_id,
            "txid": txid,
            "opcode": text,
            "fields": fields,
        }
        inputs.append(verdict)
        shown = {**verdict, "opcode": labels.get(text, text), "changes": []}
        texts += verdict_lines(shown, f"block {block_id}")
    for txid in (txid for txid in txids if txid not in {item["txid"] for item in inputs}):
        inputs.append({"verdict": "ignored", "block_id": block_id, "txid": txid})
        texts.append(f"block {block_id}: transaction {txid} is nothing to the app")
    return {"inputs": inputs, "changes": changes}, [*texts, *change_lines(changes)]


def rows(url: str, app: str, table: str, filters: Sequence[str]) -> Outcome:
    """Show the rows of a table that fit filters; raises UsageError."""
    items = [(name, value) for name, _, value in (each.partition("=") for each in filters)]
    with _open(url) as connection:
        shown = projection(connection, app, table)
        page = read_rows(connection, shown, parse_filters(shown, items, limit=100))
    names = [column.name for column in page.columns]
    more = ["there are more: limit=1000 shows up to so many"] if page.next is not None else []
    return Outcome("rows", {"table": table}, more, names, page.rows)


def log(url: str, what: Literal["ops", "rejections"], limit: int) -> Outcome:
    """List the last ops or rejections, in the order of the chain."""
    columns = _COLUMNS[what]
    with _open(url) as connection:
        chosen = views.Selection(limit=limit, newest_first=True)
        matching = list((views.ops if what == "ops" else views.rejections)(connection, chosen))[::-1]
    shown = [{**row, "opcode": opcode_text(row["opcode"], row.get("payload", b""))} for row in matching]
    return Outcome(what, {}, [], columns, [[row[name] for name in columns] for row in shown])


def run_sql(url: str, statement: str) -> Outcome:
    """Run a statement that reads; raises UsageError with the database's message, StoreError."""
    with _open(url) as connection:
        columns, matching = views.query(connection, statement, timeout=_TIMEOUT)
        shown = list(islice(matching, _MOST_ROWS + 1))
    more = [f"the first {_MOST_ROWS} rows; there are more"] if len(shown) > _MOST_ROWS else []
    return Outcome("sql", {}, more, columns, shown[:_MOST_ROWS])


@contextmanager
def _open(url: str) -> Iterator[psycopg.Connection]:
    with views.snapshot(url) as connection:
        views.exact_json(connection)
        yield connection


def _change(item: Json) -> Json:
    return {name: item[name] for name in ("table", "action", "key", "old", "new")}
