"""Ops and rejections of an app, one op with all that is known of it, and its proof."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from virtualchain.proof.ops import prove
from virtualchain.reading import history, journal
from virtualchain.web.pages.asking import as_of_of, integer, opcode_of, require_app, unit_of
from virtualchain.web.problems import NotFound
from virtualchain.web.proving import proving
from virtualchain.web.rendering import file_of, page, render, site_of


@page
def show_ops(request: Request) -> Response:
    """List an app's ops, newest first."""
    name, asked = request.path_params["app"], request.query_params
    opcode, block_id, as_of = opcode_of(asked), integer(asked, "block"), as_of_of(asked)
    with site_of(request).sessions.snapshot(as_of) as connection:
        app = require_app(connection, name)
        opcodes = [item.value for item in journal.opcodes(connection, name)]
        shown = journal.ops(
            connection, name, block_id=block_id, opcode=opcode, before=asked.get("before") or None
        )
    return render(
        "ops.html",
        live=as_of is None and "before" not in asked,
        app=app,
        opcodes=opcodes,
        ops=shown.rows,
        next=shown.next,
        asked=dict(asked),
        as_of=as_of,
    )


@page
def show_rejections(request: Request) -> Response:
    """List the inputs that an app rejected, newest first."""
    name, asked = request.path_params["app"], request.query_params
    opcode, block_id, as_of = opcode_of(asked), integer(asked, "block"), as_of_of(asked)
    with site_of(request).sessions.snapshot(as_of) as connection:
        app = require_app(connection, name)
        shown = journal.rejections(
            connection,
            name,
            block_id=block_id,
            opcode=opcode,
            step=asked.get("step") or None,
            before=asked.get("before") or None,
        )
    return render(
        "rejections.html",
        live=as_of is None and "before" not in asked,
        app=app,
        rejections=shown.rows,
        next=shown.next,
        steps=journal.STEPS,
        asked=dict(asked),
        as_of=as_of,
    )


@page
def show_op(request: Request) -> Response:
    """Show one op: what it says, its transaction, and the rows that it changed."""
    places = request.path_params
    name, block_id, vtxindex = places["app"], _height(places["block"]), _height(places["vtxindex"])
    with site_of(request).sessions.snapshot() as connection:
        app = require_app(connection, name)
        item = journal.op(connection, name, block_id, vtxindex)
        if item is None:
            raise NotFound(f"{name} has no op {vtxindex} in block {block_id}: it may have been undone.")
        changes = [change.value for change in history.op_changes(connection, name, block_id, vtxindex)]
        unit = unit_of(connection)
        others = len(journal.ops(connection, name, block_id=block_id, limit=2).rows) > 1
    return render(
        "op.html",
        live=True,
        app=app,
        op=item.value,
        unit=unit,
        fields=fields_of(item.value["fields"]),
        changes=changes,
        mentioned=[change for change in changes if change["mentions"] or not others],
        unmentioned=[change for change in changes if not change["mentions"] and others],
        others=others,
        is_kept=block_id > app["history_from"] if app["history_from"] is not None else False,
    )


def fields_of(fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    """Return the ops that a commit made, each as its fields; usually one."""
    listed = fields if isinstance(fields, list) else [fields]
    return [item if isinstance(item, dict) else {"": item} for item in listed]


@page
def proof(request: Request) -> Response:
    """Make the proof of an op, for whoever trusts the consensus hash of a block."""
    places = request.path_params
    name, block_id, vtxindex = places["app"], _height(places["block"]), _height(places["vtxindex"])
    with proving(site_of(request).sessions) as connection:
        require_app(connection, name)
        made = prove(
            connection,
            name,
            block_id,
            vtxindex,
            part=integer(request.query_params, "part") or 0,
            trusted_block_id=integer(request.query_params, "from"),
        )
    return file_of(made.proof, f"proof-{block_id}-{vtxindex}-from-{made.trusted_block_id}.json")


def _height(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise NotFound(f"{text!r} is not a number.")
    return int(text)


ROUTES: Final = (
    ("/apps/{app}/ops", show_ops),
    ("/apps/{app}/rejections", show_rejections),
    ("/apps/{app}/ops/{block}/{vtxindex}", show_op),
    ("/apps/{app}/ops/{block}/{vtxindex}/proof.json", proof),
)
