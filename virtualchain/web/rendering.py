"""HTML from templates: the environment that all pages share, and an answer for each outcome."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache, wraps
from hashlib import sha256
from http import HTTPStatus
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from virtualchain.consensus.proof_file import write_proof
from virtualchain.model import Json
from virtualchain.web.problems import Problem, problem_of
from virtualchain.web.words import FILTERS, plain

if TYPE_CHECKING:
    from virtualchain.web.site import Site

_FOLDER: Final = Path(__file__).parent
_log = logging.getLogger(__name__)

_MENU: Final = [
    ("/", "Overview"),
    ("/blocks", "Blocks"),
    ("/reorgs", "Reorganizations"),
    ("/plots", "Plots"),
    ("/sql", "SQL"),
    ("/api", "API"),
]

_RESERVED: Final = frozenset(
    {"select", "order", "limit", "after", "before", "at", "as_of", "or", "and", "offset", "not.or", "not.and"}
)
"""Parameters of a table's page: a column of such a name is written otherwise."""

Handler = Callable[[Request], Response]


def add_to_menu(path: str, words: str) -> None:
    """Add a page to the menu of this process, for a program that serves more than the site."""
    _MENU.append((path, words))


@cache
def environment(*folders: Path) -> Environment:
    """Return the environment of the site's own templates, and of those in other folders.

    Everything is escaped, and nothing may be undefined.
    """
    made = Environment(
        loader=FileSystemLoader([*folders, _FOLDER / "templates"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    equip(made)
    return made


def equip(made: Environment) -> None:
    """Add filters, links and macros to an environment whose loader finds the site's templates."""
    made.filters.update(FILTERS)
    made.globals.update(
        {
            "asset": asset,
            "link": link,
            "with_query": with_query,
            "row_link": row_link,
            "menu": _MENU,
            "program_version": installed_version("virtualchain"),
            "here": "",
            "live": False,
        }
    )
    made.globals["ui"] = made.get_template("parts.html").module


@cache
def asset(name: str) -> str:
    """Return the path of a static file, which is another one when its content changes."""
    content = (_FOLDER / "static" / name).read_bytes()
    return f"/static/{name}?v={sha256(content).hexdigest()[:12]}"


def link(*parts: object, pairs: Iterable[tuple[str, object]] = (), **parameters: object) -> str:
    """Return a path of this site: each part is one segment; parameters that are None or empty are left out.

    A slash in a part is encoded twice, as the server decodes a path before it looks for slashes in it.

    `pairs` are further parameters, which come first, in their order.
    """
    path = "/" + "/".join([_encoded(str(part)) for part in parts])
    named = [(name, value) for name, value in parameters.items() if value not in (None, "")]
    return with_query(path, [*pairs, *named])


@lru_cache(maxsize=4096)
def _encoded(part: str) -> str:
    return quote(part.replace("%", "%25").replace("/", "%2F"), safe="")


def row_link(app: str, table: str, key: Mapping[str, object], as_of: str | None = None) -> str:
    """Return the path of a row's page."""
    pairs = [(filter_name(name), plain(value)) for name, value in key.items()]
    return link("apps", app, "tables", table, "row", pairs=pairs, as_of=as_of)


def filter_name(column: str) -> str:
    """Return the parameter that filters by a column."""
    return f"filter.{column}" if column in _RESERVED or column.startswith("filter.") else column


def with_query(path: str, pairs: Iterable[tuple[str, object]]) -> str:
    """Return a path with parameters."""
    listed = list(pairs)
    query = urlencode(listed) if listed else ""
    return f"{path}?{query}" if query else path


def render(
    template: str,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
    **context: Any,  # noqa: ANN401 - what the template shows
) -> HTMLResponse:
    """Answer with a template."""
    return HTMLResponse(environment().get_template(template).render(context), status, headers)


def file_of(proof: Json, name: str) -> Response:
    """Answer with a proof that a browser saves as a file."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(write_proof(proof), media_type="application/json", headers=headers)


def page(handler: Handler) -> Handler:
    """Make a handler of a page answer errors as pages."""

    @wraps(handler)
    def answer(request: Request) -> Response:
        request.scope["path_params"] = {name: unquote(text) for name, text in request.path_params.items()}
        try:
            return handler(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is a page for it
            problem = problem_of(error)
            if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
                _log.exception("%s failed", request.url.path)
            return problem_page(problem)

    return answer


def problem_page(problem: Problem) -> HTMLResponse:
    """Answer with what went wrong, and what to do; an open page follows what becomes of it."""
    is_away = problem.status == HTTPStatus.SERVICE_UNAVAILABLE
    return render(
        "problem.html", status=problem.status, headers=problem.headers, problem=problem, live=is_away
    )


def site_of(request: Request) -> "Site":
    """Return what the handlers share."""
    site: Site = request.app.state.site
    return site
