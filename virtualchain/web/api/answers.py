"""What the API's handlers share: parameters, JSON, links to the next page, and problems."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from virtualchain.errors import UsageError, VirtualchainError, quoted
from virtualchain.reading.json_text import json_text
from virtualchain.reading.pages import WRONG_CURSOR
from virtualchain.reading.views import HIGHEST
from virtualchain.web.problems import Problem, problem_of
from virtualchain.web.site import Site

PREFIX: Final = "/api/v1"
MOST: Final = 1000
"""The most rows of a page."""
NEVER_KEPT: Final = {"Cache-Control": "no-store"}
"""Headers of an answer that another request may not be given."""
PROBLEM: Final = "application/problem+json"

AppName = Annotated[str, Path(max_length=200, description="The app's name.")]
TableName = Annotated[str, Path(max_length=200, description="A projection of the app.")]
BlockId = Annotated[int, Path(ge=0, le=HIGHEST, description="The block's height.")]
_PLACE: Final = "^([0-9]{1,10}|[0-9a-fA-F]{64})$"
AsOf = Annotated[
    str | None,
    Query(
        pattern=_PLACE,
        description="Show everything as of this block, a height or a hash. Default: now.",
    ),
]
Limit = Annotated[int, Query(ge=1, le=MOST, description="The most items of a page.")]
After = Annotated[
    str | None,
    Query(
        max_length=20_000,
        description="The cursor of the page before; take it from that page's `Link` header.",
    ),
]


def site_of(request: Request) -> Site:
    """Return the deployment that this server shows."""
    site: Site = request.app.state.site
    return site


def json_answer(value: object, *, following: str | None = None, keep: bool = True) -> Response:
    """Answer with a value as JSON, and with a link to the page that follows."""
    return body_answer(json_text(value).encode(), following=following, keep=keep)


def body_answer(body: bytes, *, following: str | None = None, keep: bool = True) -> Response:
    """Answer with JSON that is there already."""
    headers = {} if keep else dict(NEVER_KEPT)
    if following is not None:
        headers["Link"] = f'<{following}>; rel="next"'
    return Response(body, media_type="application/json", headers=headers)


def next_page(request: Request, cursor: str | None) -> str | None:
    """Return the path of the page after the cursor: the same question otherwise. None if there is none."""
    if cursor is None:
        return None
    items = [(name, value) for name, value in request.query_params.multi_items() if name != "after"]
    # As it was asked for: behind a proxy, scheme and host may be others.
    path = request.scope.get("raw_path", request.scope["path"].encode()).decode("ascii", "replace")
    return f"{path.partition('?')[0]}?{urlencode([*items, ('after', cursor)])}"


def read_height(cursor: str | None) -> int | None:
    """Return the number that is the cursor of lists of blocks and rollbacks."""
    if cursor is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", cursor, re.ASCII):
        raise UsageError(WRONG_CURSOR)
    return int(cursor)


def write_path(*parts: object, **parameters: str) -> str:
    """Return a path of this API; each part is one segment."""
    path = "/".join((PREFIX, *(quote(str(part), safe="") for part in parts)))
    return f"{path}?{urlencode(parameters)}" if parameters else path


def check_as_of(parameters: Sequence[tuple[str, str]]) -> str | None:
    """Return the block that parameters name by `as_of`, None if none is; raises UsageError."""
    blocks = [value for name, value in parameters if name == "as_of"]
    if not blocks:
        return None
    if len(blocks) > 1 or not re.fullmatch(_PLACE, blocks[0], re.ASCII):
        raise UsageError("as_of is not a block's height or hash")
    return blocks[0]


async def refuse_unknown(request: Request) -> None:
    """Raise UsageError for a parameter that the path does not have, or has twice, and for NUL bytes.

    A misspelled filter would otherwise find everything.
    """
    _refuse_nul(request)
    dependant = getattr(request.scope.get("route"), "dependant", None)
    known = [item.alias for item in dependant.query_params] if dependant is not None else []
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            names = ", ".join(known) or "none"
            raise UsageError(f"there is no parameter {quoted(name)}; this path has {names}")
        if name in seen:
            raise UsageError(f"the parameter {name} is there twice")
        seen.add(name)


async def take_any(request: Request) -> None:
    """Let a path have any parameters, such as columns."""
    _refuse_nul(request)


def _refuse_nul(request: Request) -> None:
    if any("\0" in text for text in (request.scope["path"], *chain(*request.query_params.multi_items()))):
        raise UsageError("the request has a NUL byte, which nothing in the database has")


def problem_answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with a problem, as RFC 9457 describes it."""
    body = json_text(problem.as_json()).encode()
    return Response(body, int(problem.status), {**(headers or {}), **problem.headers}, PROBLEM)


async def answer_error(_: Request, error: Exception) -> Response:
    """Answer a request that raised an error."""
    match error:
        case VirtualchainError():
            return problem_answer(problem_of(error))
        case RequestValidationError():
            detail = "; ".join(map(_invalid, error.errors()))
            return problem_answer(Problem(HTTPStatus.BAD_REQUEST, "This request cannot be answered", detail))
        case HTTPException():
            status = HTTPStatus(error.status_code)
            detail = {
                HTTPStatus.NOT_FOUND: f"there is no such path; {PREFIX}/openapi.json lists all",
                HTTPStatus.METHOD_NOT_ALLOWED: "this path does not have that method",
            }.get(status, str(error.detail))
            return problem_answer(Problem(status, status.phrase, detail), error.headers)
    return problem_answer(problem_of(error))


def _invalid(error: Mapping[str, Any]) -> str:
    """Describe a parameter that is not as it should be."""
    place = ".".join(str(part) for part in error["loc"][1:]) or "the request"
    return f"{place}: {error['msg']}"
