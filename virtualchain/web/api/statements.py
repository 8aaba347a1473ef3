"""`/api/v1/sql`: one statement of whoever asks, in the SQL box."""

import asyncio
import json
from http import HTTPStatus
from typing import Annotated, Final, Literal

import anyio.to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from virtualchain.errors import UsageError, quoted
from virtualchain.web import sql_box
from virtualchain.web.api.answers import NEVER_KEPT, PROBLEM, AsOf, check_as_of, refuse_unknown, site_of

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)], tags=["sql"])
_LONGEST: Final = 64 * 1024
"""Bytes of a request's body."""
_PATIENCE: Final = 10.0
"""Seconds for which a body may take."""
_MEDIA: Final = {"json": "application/json", "csv": "text/csv; charset=utf-8"}
Form = Literal["json", "csv"]


@router.get("/sql", summary="Run one SQL statement that only reads")
def get_sql(
    request: Request,
    q: Annotated[str, Query(max_length=sql_box.LONGEST, description="The statement.")],
    as_of: AsOf = None,
    form: Annotated[Form, Query(alias="format", description="What the rows are written as.")] = "json",
) -> Response:
    """Return its rows: an array of objects, or CSV.

    Unqualified names are the apps' tables, then the views of schema `virtualchain`. A statement has 10
    seconds, 100,000 rows and 32 MiB.
    """
    return _answer(request, q, as_of, form)


@router.post(
    "/sql",
    summary="Run one SQL statement that only reads",
    responses={
        status: {"description": text, "content": {PROBLEM: {}}}
        for status, text in (
            (408, "The body took too long."),
            (413, "The body is too long."),
            (415, "The body is of another type."),
        )
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/sql": {"schema": {"type": "string"}},
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["query"],
                        "properties": {
                            "query": {"type": "string"},
                            "as_of": {"type": ["string", "integer"]},
                            "format": {"enum": ["json", "csv"]},
                        },
                        "additionalProperties": False,
                    }
                },
            },
        }
    },
)
async def post_sql(
    request: Request,
    as_of: AsOf = None,
    form: Annotated[Form, Query(alias="format", description="What the rows are written as.")] = "json",
) -> Response:
    """Return the same for a statement in the body, or in a JSON object with `query`: it may be long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in {"application/sql", "application/json"}:  # others a page elsewhere may send unasked
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "send the statement as Content-Type: application/sql, or as application/json with `query`",
        )
    statement = await _body(request)
    if kind == "application/json":
        statement, as_of, form = _from_json(statement, as_of, form)
    return await anyio.to_thread.run_sync(_answer, request, statement, as_of, form)


def _answer(request: Request, statement: str, as_of: str | None, form: Form) -> Response:
    exported = sql_box.export(site_of(request).sessions.url, statement, form, as_of)
    return sql_box.Download(exported, _MEDIA[form], NEVER_KEPT)


async def _body(request: Request) -> str:
    """Read the body, which may be neither long nor slow; raises UsageError."""
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > _LONGEST:
                    raise HTTPException(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {_LONGEST:,} bytes"
                    )
        return body.decode()
    except TimeoutError as error:
        raise HTTPException(
            HTTPStatus.REQUEST_TIMEOUT, f"the body took more than {_PATIENCE:g} seconds"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError("the body is not UTF-8") from error


def _from_json(text: str, as_of: str | None, form: Form) -> tuple[str, str | None, Form]:
    """Read a body in JSON; raises UsageError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("query"), str):
        raise UsageError('the body is not an object with "query", the statement')
    if unknown := value.keys() - {"query", "as_of", "format"}:
        raise UsageError(f"the body has {quoted(min(unknown))}; its keys are query, as_of and format")
    if value.get("as_of") is not None:
        as_of = check_as_of([("as_of", str(value["as_of"]))])
    form = value.get("format", form)
    if form not in ("json", "csv"):
        raise UsageError("format is json or csv")
    return value["query"], as_of, form
