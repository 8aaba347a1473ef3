"""`/api/v1/openapi.json`: what this deployment's API has, with a path for each of its projections."""

import json
from functools import cache
from importlib.metadata import version as installed_version
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from virtualchain.model import Json
from virtualchain.reading import rows, views
from virtualchain.reading.catalog import Column, Projection, projections
from virtualchain.reading.pages import MOST_ROWS
from virtualchain.web.api.answers import PREFIX, PROBLEM, body_answer, refuse_unknown, site_of

router: Final = APIRouter(dependencies=[Depends(refuse_unknown)], tags=["deployment"])
RESERVED: Final = ("ops", "rejections", "consensus", "changes", "tables")
"""Names of paths below an app: a projection of such a name has only its long path."""
_TITLE: Final = "virtualchain"
_ABOUT: Final = (
    "The state of a deployment as JSON. Lists come in pages: the header `Link` has the next one. `as_of` "
    "shows everything as of a block. An answer has an ETag, which changes with the deployment's state. "
    "Errors are problem details (RFC 9457)."
)
_STATUSES: Final = {
    "400": "A parameter is wrong.",
    "404": "There is no such thing, or the block cannot be shown.",
    "429": "Too many requests from this address.",
    "503": "The database cannot be read, or is busy; `Retry-After` says when to try again.",
}
_TYPES: Final[dict[str, Json]] = {
    "smallint": {"type": "integer"},
    "integer": {"type": "integer"},
    "bigint": {"type": "integer"},
    "numeric": {"type": ["number", "string"]},
    "real": {"type": ["number", "string"]},
    "double precision": {"type": ["number", "string"]},
    "boolean": {"type": "boolean"},
    "bytea": {"type": "string", "pattern": r"^\\x([0-9a-f]{2})*$"},
    "json": {},
    "jsonb": {},
}
"""How values are written in JSON, by the type of a column; others are text."""


@router.get("/openapi.json", summary="This document")
def openapi(request: Request) -> Response:
    """Describe the API of this deployment, as OpenAPI 3.1."""
    with site_of(request).sessions.snapshot() as connection:
        described = describe(request.app, views.apps(connection), projections(connection))
    return body_answer(json.dumps(described).encode())


def describe(api: FastAPI, apps: list[Json], tables: list[Projection]) -> Json:
    """Return the document of a deployment with these apps and projections."""
    document: Json = json.loads(_general(api))
    names = [app["name"] for app in apps]
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "app" and names:
                    parameter["schema"] |= {"examples": names}
    for table in tables:
        path = table_path(table)
        document["paths"][path] = {"get": _rows_operation(table)}
        document["paths"][f"{path}/history"] = {"get": _history_operation(table)}
        document["paths"][f"{path}/proof"] = {"get": _proof_operation(table)}
    return document


def table_path(table: Projection) -> str:
    """Return the path of a projection."""
    middle = "tables/" if table.name in RESERVED or "/" in table.name else ""
    return f"/apps/{quote(table.app, safe='')}/{middle}{quote(table.name, safe='')}"


@cache
def _general(api: FastAPI) -> str:
    """Return the part of the document that all deployments share, as JSON."""
    document = get_openapi(
        title=_TITLE,
        version=installed_version("virtualchain"),
        openapi_version="3.1.0",
        description=_ABOUT,
        routes=api.routes,
        servers=[{"url": PREFIX}],
    )
    paths = document["paths"]
    for path in [path for path in paths if "{table}" in path]:
        del paths[path]
    for operations in paths.values():
        operations.pop("head", None)
        for operation in operations.values():
            operation["responses"].pop("422", None)
            _add_problems(operation)
    document["components"] = {
        "schemas": {
            "Problem": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            }
        }
    }
    return json.dumps(document)


def _add_problems(operation: Json) -> None:
    problem = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status, text in _STATUSES.items():
        response = operation["responses"].setdefault(status, {"description": text})
        response["content"] = response.get("content", {}) | problem


def _rows_operation(table: Projection) -> Json:
    parameters = [
        _parameter("select", "The columns to return, separated by commas. Default: all.", {"type": "string"}),
        _parameter(
            "order",
            "The columns to order by, as `height.desc,name`. Default: the primary key.",
            {"type": "string"},
        ),
        _parameter(
            "limit",
            "The most rows of a page.",
            {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": rows.DEFAULT_ROWS},
        ),
        _parameter("after", "The cursor of the page before.", {"type": "string"}),
        _parameter("as_of", "Show rows as of this block, a height or a hash.", {"type": "string"}),
        *(
            _parameter(
                rows.parameter_of(column.name),
                f"OPERATOR.VALUE, such as `eq.…`. {_described(column)}",
                {"type": "string"},
            )
            for column in table.columns
        ),
    ]
    row = {"type": "object", "properties": {column.name: _schema(column) for column in table.columns}}
    return _operation(
        f"The rows of {table.name}", table, parameters, {"type": "array", "items": row}, table.comment
    )


def _history_operation(table: Projection) -> Json:
    parameters = [
        *_key_parameters(table, ("after", "limit")),
        _parameter("limit", "The most versions.", {"type": "integer", "minimum": 1, "maximum": 50}),
        _parameter("after", "The cursor of the page before.", {"type": "string"}),
    ]
    about = "The versions of the row with a key, the last one first, with the ops that may have caused each."
    return _operation(f"The history of a row of {table.name}", table, parameters, {"type": "object"}, about)


def _proof_operation(table: Projection) -> Json:
    parameters = [
        *_key_parameters(table, ("at",)),
        _parameter("at", "The block. Default: the app's last one.", {"type": "integer", "minimum": 0}),
    ]
    about = "What `virtualchain check-proof` checks, against a state root that its user trusts."
    return _operation(f"The proof of a row of {table.name}", table, parameters, {"type": "object"}, about)


def _key_parameters(table: Projection, own: tuple[str, ...]) -> list[Json]:
    """Return the parameters that name a row by its primary key."""
    return [
        _parameter(
            f"key.{name}" if name in own or name.startswith("key.") else name,
            f"A column of the primary key. {_described(table.column(name))}",
            {"type": "string"},
            required=True,
        )
        for name in table.key
    ]


def _operation(
    summary: str, table: Projection, parameters: list[Json], schema: Json, about: str | None
) -> Json:
    operation: Json = {
        "tags": [f"app {table.app}"],
        "summary": summary,
        "description": about or "",
        "parameters": parameters,
        "responses": {
            "200": {"description": "As asked for.", "content": {"application/json": {"schema": schema}}}
        },
    }
    _add_problems(operation)
    return operation


def _parameter(name: str, about: str, schema: Json, *, required: bool = False) -> Json:
    place: Json = {"name": name, "in": "query", "description": about, "schema": schema}
    return {**place, "required": True} if required else place


def _described(column: Column) -> str:
    """Return a column's type and comment."""
    return f"{column.type}. {column.comment}" if column.comment else f"{column.type}."


def _schema(column: Column) -> Json:
    """Return how a column's values are written in JSON."""
    schema: Json = {"type": "string"}
    if column.base.endswith("[]"):
        schema = {"type": "array"}
    elif column.base in _TYPES:
        schema = dict(_TYPES[column.base])
    kinds: Any = schema.get("type")
    if column.nullable and kinds is not None:
        schema["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
    schema["description"] = _described(column)
    return schema
