"""Blocks, transactions, and the journal of reorganizations."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from virtualchain.reading import history, journal
from virtualchain.reading.pages import Page
from virtualchain.web.pages.asking import integer, unit_of
from virtualchain.web.problems import NotFound
from virtualchain.web.rendering import page, render, site_of

_NONE: Final = Page((), None)


@page
def show_blocks(request: Request) -> Response:
    """List the blocks of the tape, newest first."""
    before = integer(request.query_params, "before")
    with site_of(request).sessions.snapshot() as connection:
        shown = journal.blocks(connection, before)
    return render(
        "blocks.html",
        here="/blocks",
        live=before is None,
        blocks=shown.rows,
        next=shown.next,
        before=before,
    )


@page
def show_block(request: Request) -> Response:
    """Show a block: its header, what each app made of it, and what it changed."""
    place = request.path_params["block"]
    with site_of(request).sessions.snapshot() as connection:
        item = journal.block(connection, place.replace(",", ""))
        if item is None:
            raise NotFound(
                f"The tape has no block {place}: it may have been replaced, or is not taken yet. Its last "
                "block is on the overview."
            )
        block = item.value
        block_id = block["block_id"]
        has_ops, has_rejections = (any(app[kind] for app in block["apps"]) for kind in ("ops", "rejections"))
        ops = journal.ops(connection, block_id=block_id) if has_ops else _NONE
        rejections = journal.rejections(connection, block_id=block_id) if has_rejections else _NONE
        changes = history.block_changes(connection, None, block_id)
    return render(
        "block.html",
        live=True,
        block=block,
        ops=ops.rows,
        more_ops=ops.next is not None,
        rejections=rejections.rows,
        more_rejections=rejections.next is not None,
        changes=changes.rows,
        more_changes=changes.next is not None,
    )


@page
def show_transaction(request: Request) -> Response:
    """Show a transaction, and what the apps made of it."""
    txid = request.path_params["txid"]
    with site_of(request).sessions.snapshot() as connection:
        item, unit = journal.transaction(connection, txid), unit_of(connection)
    if item is None:
        raise NotFound(
            f"Transaction {txid} is not known here: a deployment keeps only transactions in which an app may "
            "find something."
        )
    return render("transaction.html", live=True, tx=item.value, unit=unit)


@page
def show_reorgs(request: Request) -> Response:
    """List the rollbacks, newest first."""
    before = integer(request.query_params, "before")
    with site_of(request).sessions.snapshot() as connection:
        shown = journal.reorgs(connection, before)
    return render(
        "reorgs.html",
        here="/reorgs",
        live=before is None,
        reorgs=shown.rows,
        next=shown.next,
        before=before,
    )


ROUTES: Final = (
    ("/blocks", show_blocks),
    ("/blocks/{block}", show_block),
    ("/tx/{txid}", show_transaction),
    ("/reorgs", show_reorgs),
)
