"""Proofs of ops and rows. They are made at a cost, so few are made at once, and each has little time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import psycopg
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from virtualchain.consensus.proof_file import write_proof
from virtualchain.errors import UsageError
from virtualchain.proof.ops import prove
from virtualchain.proof.rows import prove_row
from virtualchain.reading import views
from virtualchain.reading.catalog import Projection
from virtualchain.reading.history import key_values
from virtualchain.web.api.answers import AppName, BlockId, body_answer, refuse_unknown, site_of
from virtualchain.web.api.deployment import find_app
from virtualchain.web.problems import NotFound
from virtualchain.web.sessions import TIMEOUT, Busy, Sessions, TooSlow

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)])
_AT_ONCE: Final = 2
_turns: Final = threading.BoundedSemaphore(_AT_ONCE)
_LOOK: Final = 0.2
"""Seconds between two attempts to cancel a proof whose time is over."""


@contextmanager
def proving(sessions: Sessions) -> Iterator[psycopg.Connection]:
    """Open a transaction for a proof, which is canceled once the time for a statement is over.

    Raises Busy if too many are being made, and TooSlow.
    """
    if not _turns.acquire(blocking=False):
        raise Busy(f"{_AT_ONCE} proofs are being made already")
    try:
        with sessions.snapshot() as connection:
            finished, expired = threading.Event(), threading.Event()
            watchdog = threading.Thread(
                target=_cancel_later, args=(connection, finished, expired), daemon=True
            )
            watchdog.start()
            try:
                yield connection
            finally:
                finished.set()
                watchdog.join()
            if expired.is_set():
                raise TooSlow(
                    f"the proof took more than {TIMEOUT:g} seconds: `virtualchain prove` has no limit"
                )
    finally:
        _turns.release()


def _cancel_later(
    connection: psycopg.Connection, finished: threading.Event, expired: threading.Event
) -> None:
    """Cancel what the connection does after its time, as often as it takes: it may do nothing just then."""
    if finished.wait(TIMEOUT):
        return
    expired.set()
    while not finished.is_set():
        connection.cancel_safe(timeout=_LOOK)
        finished.wait(_LOOK)


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
        with _not_found():
            made = prove(connection, app, block_id, vtxindex, part=part, trusted_block_id=trusted)
    return body_answer(write_proof(made.proof).encode())


def row_proof(request: Request, projection: Projection, key: dict[str, str], at: int | None) -> Response:
    """Answer with the proof of the row with a key, or that there is none."""
    values = key_values(projection, key)
    texts = [values[name] for name in projection.key]
    with proving(site_of(request).sessions) as connection, _not_found():
        proof = prove_row(connection, projection.app, projection.name, texts, at)
    return body_answer(write_proof(proof).encode())


@contextmanager
def _not_found() -> Iterator[None]:
    """Raise NotFound for what cannot be proved, but not for a text that is no value of a key's column."""
    try:
        yield
    except UsageError as error:
        if isinstance(error.__cause__, psycopg.DataError):
            raise
        raise NotFound(str(error)) from error
