"""The log and the tape as pages: blocks, ops, rejections, transactions, rollbacks, and what happened when.

Rows have the columns of the views in schema `virtualchain`, as PostgreSQL writes them in JSON. Lists are
newest first. Hashes and transaction ids are lower-case hex.
"""

import re
from typing import Any, Final

import psycopg

from virtualchain.errors import UsageError, quoted
from virtualchain.model import Json
from virtualchain.reading.mistakes import require_height, require_text
from virtualchain.reading.pages import WRONG_CURSOR, Item, Page, read_cursor, read_item, read_items, read_page
from virtualchain.reading.views import HIGHEST
from virtualchain.store.sql import queries

_Q = queries("journal")

SHOWN: Final = 50
"""Rows of a page, if nothing else is asked for."""
MOST_POINTS: Final = 200
"""The most points of a plot."""
STEPS: Final = ("parse", "check", "commit")
"""The steps that reject an input."""


def deployment(connection: psycopg.Connection) -> Json:
    """Describe a deployment at a glance.

    Keys: network, genesis_hash, first_block, last_block (block_id, hash, time), apps, builds, pins, writer,
    last_reorg, reorgs (how many), pending (how many), is_standby, now. Those of lists are the columns of the
    views of that name; what there is not yet is None.
    """
    item = read_item(connection, _Q["deployment"], {})
    assert item is not None, "the query returns one row"
    return item.value


def app(connection: psycopg.Connection, name: str) -> Item | None:
    """Return an app, with the columns of virtualchain.apps; None if there is none of that name."""
    return read_item(connection, _Q["app"], {"app": require_text("the app's name", name)})


def blocks(connection: psycopg.Connection, before: int | None = None, limit: int = SHOWN) -> Page:
    """Return blocks below `before`, newest first; the cursor is the last block's height.

    Keys: block_id, hash, time, and how many ops and rejections of all apps there are.
    """
    return read_page(connection, _Q["blocks"], {"before": HIGHEST if before is None else before}, limit)


def block(connection: psycopg.Connection, place: str) -> Item | None:
    """Return a block by height or hash; None if the tape does not have it.

    Keys: block_id, hash, prev_hash, next_hash, time, chainwork, header, first_block_id and last_block_id (of
    the tape), and apps: for each app that took it app, ops_hash, consensus_hash, state_hash, and how many ops
    and rejections there are. Raises UsageError for a text that is neither.
    """
    text = place.strip()
    if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII):
        height = int(text)
        return (
            None
            if height > HIGHEST
            else read_item(connection, _Q["block"], {"block_id": height, "hash": None})
        )
    if not is_hash(text):
        raise UsageError(f"not a block's height or hash: {quoted(place)}")
    return read_item(connection, _Q["block"], {"block_id": None, "hash": text.lower()})


def ops(
    connection: psycopg.Connection,
    app: str | None = None,
    *,
    block_id: int | None = None,
    opcode: bytes | None = None,
    before: str | None = None,
    limit: int = SHOWN,
) -> Page:
    """Return ops of one app or all, newest first, perhaps of one block, or of an app and with one opcode.

    The columns are those of the view, without canonical. `before` is the cursor of a page. If an opcode is
    rare, a page may have fewer ops than asked for, or none, and others follow.
    """
    last, name, vtxindex = _start(block_id, before, 1)
    parameters = {
        **_selected(app, block_id, opcode),
        "last": last,
        "last_app": name,
        "vtxindex": vtxindex,
    }
    return read_page(connection, _Q["ops"], parameters, limit)


def rejections(
    connection: psycopg.Connection,
    app: str | None = None,
    *,
    block_id: int | None = None,
    opcode: bytes | None = None,
    step: str | None = None,
    before: str | None = None,
    limit: int = SHOWN,
) -> Page:
    """Return rejected inputs of one app or all, newest first, with the columns of the view; see `ops`.

    Raises UsageError if `step` is not one of `STEPS`.
    """
    if step is not None and step not in STEPS:
        raise UsageError(f"step is not one of {', '.join(STEPS)}: {quoted(step)}")
    last, name, txindex, payload_index = _start(block_id, before, 2)
    parameters = {
        **_selected(app, block_id, opcode, step),
        "last": last,
        "last_app": name,
        "txindex": txindex,
        "payload_index": payload_index,
    }
    return read_page(connection, _Q["rejections"], parameters, limit)


def op(connection: psycopg.Connection, app: str, block_id: int, vtxindex: int) -> Item | None:
    """Return an op with its transaction; None if there is none.

    The keys are the columns of virtualchain.ops, and transaction: an object with fee, senders, outputs, raw,
    evidence, tracked_by and magics, as in virtualchain.inputs.
    """
    if not (0 <= block_id <= HIGHEST and 0 <= vtxindex <= HIGHEST):
        return None
    place = {"app": require_text("the app's name", app), "block_id": block_id, "vtxindex": vtxindex}
    return read_item(connection, _Q["op"], place)


def transaction(connection: psycopg.Connection, txid: str) -> Item | None:
    """Return what is known of a transaction; None if that is nothing.

    Keys: txid; places: for each block that has it block_id, block_hash, time, txindex, fee, senders, outputs,
    raw, evidence, tracked_by, magics; ops, rejections and pending: rows of these views. Raises UsageError if
    `txid` is not a transaction's id.
    """
    text = txid.strip().lower()
    if not is_hash(text):
        raise UsageError(f"not a transaction id, which has 64 hex digits: {quoted(txid)}")
    return read_item(connection, _Q["transaction"], {"txid": text})


def snapshots(
    connection: psycopg.Connection, app: str, before: int | None = None, limit: int = SHOWN
) -> Page:
    """Return an app's digests at its blocks below `before`, newest first, with the columns of the view."""
    parameters = {"app": require_text("the app's name", app), "before": HIGHEST if before is None else before}
    return read_page(connection, _Q["snapshots"], parameters, limit)


def reorgs(connection: psycopg.Connection, before: int | None = None, limit: int = SHOWN) -> Page:
    """Return rollbacks with numbers below `before`, newest first, with the columns of the view.

    The duration is in seconds; the cursor is the last one's number.
    """
    parameters = {"before": 2**63 - 1 if before is None else before}
    return read_page(connection, _Q["reorgs"], parameters, limit)


def pending(connection: psycopg.Connection, app: str | None = None, limit: int = MOST_POINTS) -> list[Item]:
    """Return pending inputs of one app or all, in the order in which they were judged."""
    name = None if app is None else require_text("the app's name", app)
    return read_items(connection, _Q["pending"], {"app": name, "limit": limit})


def opcodes(connection: psycopg.Connection, app: str) -> list[Item]:
    """Return the opcodes of an app's last 1,000 ops, the most frequent first: opcode, ops, last_block_id."""
    return read_items(connection, _Q["opcodes"], {"app": require_text("the app's name", app)})


def activity(
    connection: psycopg.Connection,
    app: str | None = None,
    first: int | None = None,
    last: int | None = None,
    points: int = MOST_POINTS,
) -> list[Item]:
    """Count ops and rejections over a range of blocks, by default over all of them, for a plot.

    Keys: app, first_block_id and last_block_id of each of at most `points` parts of the range, ops,
    rejections, is_estimate (of a range with very many, some blocks of each part are counted), and time, which
    is that of the last block.
    """
    require_height(first)
    require_height(last)
    parameters = {
        "app": None if app is None else require_text("the app's name", app),
        "first": first,
        "last": last,
        "points": max(1, min(points, MOST_POINTS)),
    }
    return read_items(connection, _Q["activity"], parameters)


def progress(connection: psycopg.Connection, points: int = MOST_POINTS) -> list[Item]:
    """Return how far the writer was during the last day, in at most `points` parts of the same length.

    Keys: at, block_id and node_block_id (of the last sample of a part), and seconds, inputs, ops and
    rejections since the part before.
    """
    return read_items(connection, _Q["progress"], {"points": max(1, min(points, MOST_POINTS))})


def is_hash(text: str) -> bool:
    """Return whether a text is 64 hex digits: a transaction's id or a block's hash."""
    return re.fullmatch(r"[0-9A-Fa-f]{64}", text, re.ASCII) is not None


def _start(block_id: int | None, before: str | None, numbers: int) -> list[Any]:
    """Return the place before which a list begins: block, app, and some numbers in the block."""
    if before is None:
        return [HIGHEST if block_id is None else min(block_id + 1, HIGHEST), "", *[0] * numbers]
    place = read_cursor(before, int, str, *[int] * numbers)
    if block_id is not None and place[0] != block_id:
        raise UsageError(WRONG_CURSOR)
    return place


def _selected(app: str | None, block_id: int | None, opcode: bytes | None, step: str | None = None) -> Json:
    if app is None and (opcode, step) != (None, None):
        raise UsageError("opcode and step select inputs of one app: name it")
    require_height(block_id)
    return {
        "app": None if app is None else require_text("the app's name", app),
        "block_id": block_id,
        "opcode": opcode,
        "step": step,
    }
