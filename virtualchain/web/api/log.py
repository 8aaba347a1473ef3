"""The tape and the log: blocks, transactions, ops, rejections, rollbacks, and what changed."""

import re
from typing import Annotated, Final

import psycopg
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from virtualchain.app.fields import NO_OPCODE
from virtualchain.errors import UsageError, quoted
from virtualchain.reading import history, journal, views
from virtualchain.web.api.answers import (
    After,
    AppName,
    AsOf,
    BlockId,
    Limit,
    body_answer,
    next_page,
    read_height,
    refuse_unknown,
    site_of,
)
from virtualchain.web.api.deployment import find_app
from virtualchain.web.problems import NotFound

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)])
OneBlock = Annotated[int | None, Query(ge=0, le=views.HIGHEST, description="Only those of this block.")]
Opcode = Annotated[
    str | None,
    Query(
        max_length=20,
        description="Only those with this opcode: a character, or the byte as two hex digits; none: without "
        "one.",
    ),
]
Step = Annotated[
    str | None, Query(pattern="^(parse|check|commit)$", description="Only those that were rejected there.")
]


@router.get("/blocks", summary="The blocks of the tape", tags=["chain"])
def blocks(
    request: Request, as_of: AsOf = None, limit: Limit = journal.SHOWN, after: After = None
) -> Response:
    """Return blocks, the last one first, with how many ops and rejections they have (up to 1,000)."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        page = journal.blocks(connection, _in_range(read_height(after)), limit)
    return body_answer(page.json, following=next_page(request, page.next))


@router.get("/blocks/{block}", summary="A block", tags=["chain"])
def block(request: Request, block: str, as_of: AsOf = None) -> Response:
    """Return a block by height or hash, with the digests of the apps that took it."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        known = journal.block(connection, block)
    if known is None:
        raise NotFound(f"the tape does not have block {quoted(block)}")
    return body_answer(known.json)


@router.get("/tx/{txid}", summary="A transaction", tags=["chain"])
def transaction(request: Request, txid: str, as_of: AsOf = None) -> Response:
    """Return a transaction that an app had a use for: its places, and what the apps made of it."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        known = journal.transaction(connection, txid)
    if known is None:
        raise NotFound("no app has an input, or a pending one, in this transaction")
    return body_answer(known.json, keep=False)


@router.get("/reorgs", summary="The rollbacks that there were", tags=["chain"])
def reorgs(request: Request, limit: Limit = journal.SHOWN, after: After = None) -> Response:
    """Return the columns of `virtualchain.reorgs`, the last one first; durations are in seconds."""
    with site_of(request).sessions.snapshot() as connection:
        page = journal.reorgs(connection, read_height(after), limit)
    return body_answer(page.json, following=next_page(request, page.next))


@router.get("/apps/{app}/ops", summary="The ops that an app accepted", tags=["apps"])
def ops(
    request: Request,
    app: AppName,
    block_id: OneBlock = None,
    opcode: Opcode = None,
    as_of: AsOf = None,
    limit: Limit = journal.SHOWN,
    after: After = None,
) -> Response:
    """Return the columns of `virtualchain.ops`, but for `canonical`, the last one first."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        find_app(connection, app)
        page = journal.ops(
            connection, app, block_id=block_id, opcode=_read_opcode(opcode), before=after, limit=limit
        )
    return body_answer(page.json, following=next_page(request, page.next))


@router.get("/apps/{app}/rejections", summary="The inputs that an app rejected", tags=["apps"])
def rejections(
    request: Request,
    app: AppName,
    block_id: OneBlock = None,
    opcode: Opcode = None,
    step: Step = None,
    as_of: AsOf = None,
    limit: Limit = journal.SHOWN,
    after: After = None,
) -> Response:
    """Return the columns of `virtualchain.rejections`, the last one first."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        find_app(connection, app)
        page = journal.rejections(
            connection,
            app,
            block_id=block_id,
            opcode=_read_opcode(opcode),
            step=step,
            before=after,
            limit=limit,
        )
    return body_answer(page.json, following=next_page(request, page.next))


@router.get("/apps/{app}/ops/{block_id}/{vtxindex}", summary="An op", tags=["apps"])
def op(request: Request, app: AppName, block_id: BlockId, vtxindex: BlockId, as_of: AsOf = None) -> Response:
    """Return the columns of `virtualchain.ops`, and the transaction."""
    with site_of(request).sessions.snapshot(as_of) as connection:
        known = journal.op(connection, app, block_id, vtxindex)
        if known is None:
            _refuse_op(connection, app, block_id, vtxindex)
            raise NotFound(f"app {app} has no op {vtxindex} in block {block_id}")
    return body_answer(known.json)


@router.get("/apps/{app}/changes", summary="What changed between two blocks", tags=["apps"])
def changes(
    request: Request,
    app: AppName,
    first: Annotated[
        int, Query(alias="from", ge=-1, le=views.HIGHEST, description="The state after this block …")
    ],
    last: Annotated[
        int,
        Query(alias="to", ge=-1, le=views.HIGHEST, description="… is compared with that after this one."),
    ],
    table: Annotated[str | None, Query(max_length=200, description="Only this projection.")] = None,
    limit: Limit = history.SHOWN,
    after: After = None,
) -> Response:
    """Return how rows differ, by table and key: `old` is the row after `from`, `new` the one after `to`.

    `from` may be later than `to`. What was changed and changed back in between is not among them. For what
    one block did, `from` is the block before it.
    """
    with site_of(request).sessions.snapshot() as connection:
        reached = find_app(connection, app)["block_id"]
        if reached is None or max(first, last) > reached:
            at = "has taken no block" if reached is None else f"is at block {reached}"
            raise NotFound(f"app {app} {at}, so block {max(first, last)} cannot be compared")
        page = history.net_changes(connection, app, table, first, last, limit, after)
    return body_answer(page.json, following=next_page(request, page.next))


def _refuse_op(connection: psycopg.Connection, app: str, block_id: int, vtxindex: int) -> None:
    """Raise NotFound if it is not even an app."""
    del block_id, vtxindex
    find_app(connection, app)


def _in_range(before: int | None) -> int | None:
    if before is not None and before > views.HIGHEST:
        raise UsageError("the cursor is not a block's height")
    return before


def _read_opcode(text: str | None) -> bytes | None:
    """Return the opcode that a parameter names; raises UsageError if it names none."""
    if text is None:
        return None
    if text == NO_OPCODE:
        return b""
    if len(text) == 1 and text.isascii():
        return text.encode()
    if re.fullmatch(r"(0x|\\x)?[0-9a-fA-F]{2}", text):
        return bytes.fromhex(text[-2:])
    raise UsageError(f"opcode {quoted(text)}: write one character, or the byte as two hex digits; or none")
