"""`/api/v1/watch`: blocks, their ops and changes, and rollbacks, as server-sent events."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from virtualchain.errors import UsageError
from virtualchain.reading.position import Position
from virtualchain.reading.views import HIGHEST
from virtualchain.web.api.answers import NEVER_KEPT, refuse_unknown

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)], tags=["live"])
_MEDIA: Final = "text/event-stream"
_HEADERS: Final = {**NEVER_KEPT, "X-Accel-Buffering": "no"}
"""The second keeps a reverse proxy from collecting events."""


@router.head("/watch", include_in_schema=False)
@router.get(
    "/watch",
    response_class=StreamingResponse,
    summary="Follow blocks and rollbacks as they happen",
    responses={200: {"content": {_MEDIA: {"schema": {"type": "string"}}}}},
)
async def watch(
    request: Request,
    app: Annotated[
        str | None,
        Query(max_length=200, description="Only this app. A block is sent once the app has taken it."),
    ] = None,
    first: Annotated[
        int | None,
        Query(alias="from", ge=0, le=HIGHEST, description="Begin with this block. Default: the next one."),
    ] = None,
    after: Annotated[
        str | None,
        Query(
            max_length=120,
            description="Resume after this position, the `id` of an event. The header `Last-Event-ID`, which "
            "browsers send, takes precedence.",
        ),
    ] = None,
    pending: Annotated[
        int, Query(ge=0, le=1, description="1: send pending inputs, too, if a writer shows them.")
    ] = 0,
) -> Response:
    """Each event has a JSON object as its data, and as its `id` the position that it leads to.

    After `rollback` all blocks above its `block_id` are undone; those that replace them follow. A client that
    reads too slowly is cut off, and resumes without a loss.
    """
    last = request.headers.get("last-event-id") or after
    if after is not None and first is not None:
        raise UsageError("use either from or after: both say where to begin")
    position = Position.parse(last) if last else None if first is None else Position(first - 1)
    if request.method == "HEAD":
        return Response(media_type=_MEDIA, headers=_HEADERS)
    events = await request.app.state.hub.follow(app, position, pending=bool(pending))
    return StreamingResponse(events, media_type=_MEDIA, headers=_HEADERS)
