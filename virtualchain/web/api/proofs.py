"""Proofs of ops and rows."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from virtualchain.consensus.proof_file import write_proof
from virtualchain.proof.ops import prove
from virtualchain.proof.rows import prove_row
from virtualchain.reading import views
from virtualchain.reading.catalog import Projection
from virtualchain.reading.history import key_values
from virtualchain.web.api.answers import AppName, BlockId, body_answer, refuse_unknown, site_of
from virtualchain.web.api.deployment import find_app
from virtualchain.web.proving import proving

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)])


@router.get("/apps/{app}/ops/{block_id}/{vtxindex}/proof", summary="The proof of an op", tags=["proofs"])
def op_proof(
    request: Request,
    app: AppName,
    block_id: BlockId,
    vtxindex: BlockId,
    trusted: Annotated[
        int | None,
        Query(
            alias="from",
            ge=0,
            le=views.HIGHEST,
            description="The block whose consensus hash the receiver trusts. Default: the app's last one.",
        ),
    ] = None,
    part: Annotated[
        int, Query(ge=0, le=views.HIGHEST, description="Which op, if the app made several of one input.")
    ] = 0,
) -> Response:
    """Return what `virtualchain check-proof` checks, against a consensus hash that its user trusts."""
    with proving(site_of(request).sessions) as connection:
        find_app(connection, app)
        made = prove(connection, app, block_id, vtxindex, part=part, trusted_block_id=trusted)
    return body_answer(write_proof(made.proof).encode())


def row_proof(request: Request, projection: Projection, key: dict[str, str], at: int | None) -> Response:
    """Answer with the proof of the row with a key, or that there is none."""
    values = key_values(projection, key)
    texts = [values[name] for name in projection.key]
    with proving(site_of(request).sessions) as connection:
        proof = prove_row(connection, projection.app, projection.name, texts, at)
    return body_answer(write_proof(proof).encode())
