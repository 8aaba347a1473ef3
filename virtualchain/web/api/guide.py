"""`/api`: a page for people that lists what the API has, with examples."""

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from virtualchain.model import Json
from virtualchain.reading import views
from virtualchain.reading.catalog import projections
from virtualchain.web.api.answers import PREFIX
from virtualchain.web.api.document import describe
from virtualchain.web.rendering import page, render, site_of

_ORDER: Final = ("apps", "tables", "chain", "deployment", "proofs", "sql", "live")
_TITLES: Final = {
    "apps": "Apps",
    "tables": "Projections",
    "chain": "Blocks and transactions",
    "deployment": "The deployment",
    "proofs": "Proofs",
    "sql": "SQL",
    "live": "As it happens",
}


@dataclass(frozen=True, slots=True)
class _Path:
    """A path, as the page lists it."""

    method: str
    path: str
    summary: str
    about: str
    parameters: tuple[Json, ...]
    example: str | None
    """A path that can be followed."""


@page
def show(request: Request) -> Response:
    """Answer with the page."""
    with site_of(request).sessions.snapshot() as connection:
        apps = views.apps(connection)
        document = describe(request.app.state.api, apps, projections(connection))
    values = {"app": apps[0]["name"], "block": apps[0]["block_id"]} if apps else {}
    groups: dict[str, list[_Path]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_listed(method, path, operation, values))
    order = sorted(groups, key=lambda tag: (_ORDER.index(tag) if tag in _ORDER else -1, tag))
    return render(
        "api.html",
        prefix=PREFIX,
        here="/api",
        groups=[(_TITLES.get(tag, tag.replace("app ", "Projections of ", 1)), groups[tag]) for tag in order],
    )


def _listed(method: str, path: str, operation: Json, values: dict[str, Any]) -> _Path:
    parameters = tuple(item for item in operation.get("parameters", ()) if item["in"] == "query")
    names = re.findall(r"{(\w+)}", path)
    example = None
    is_complete = not any(item.get("required") for item in parameters)
    if method == "get" and is_complete and all(values.get(name) is not None for name in names):
        example = PREFIX + re.sub(r"{(\w+)}", lambda match: quote(str(values[match[1]]), safe=""), path)
    return _Path(
        method.upper(), path, operation["summary"], operation.get("description", ""), parameters, example
    )
