"""HTML from templates: the environment that all pages share, and an answer for each outcome."""

import logging
from collections.abc import Callable
from functools import cache, wraps
from hashlib import sha256
from http import HTTPStatus
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from virtualchain.web.problems import Problem, problem_of
from virtualchain.web.site import Site
from virtualchain.web.words import FILTERS

_FOLDER: Final = Path(__file__).parent
_log = logging.getLogger(__name__)

MENU: Final = (
    ("/", "Overview"),
    ("/blocks", "Blocks"),
    ("/reorgs", "Reorganizations"),
    ("/plots", "Plots"),
    ("/sql", "SQL"),
    ("/api", "API"),
)

Handler = Callable[[Request], Response]


@cache
def environment() -> Environment:
    """Return the environment of the site's own templates: everything is escaped, nothing may be undefined."""
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
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
            "menu": MENU,
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


def link(*parts: object, **parameters: object) -> Markup:
    """Return a path of this site: each part is one segment, and parameters that are None are left out.

    A parameter whose value is a list is repeated; `pairs` is a list of further parameters, in order.
    """
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    pairs: Any = parameters.pop("pairs", ())
    query = [(name, value) for name, value in parameters.items() if value not in (None, "")]
    query = [*pairs, *query]
    # Markup: the quoted text has no character that HTML gives a meaning, but for &.
    return Markup((path + ("?" + urlencode(query, doseq=True) if query else "")).replace("&", "&amp;"))  # noqa: S704


def render(
    template: str,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
    **context: Any,  # noqa: ANN401 - what the template shows
) -> HTMLResponse:
    """Answer with a template."""
    return HTMLResponse(environment().get_template(template).render(context), status, headers)


def page(handler: Handler) -> Handler:
    """Make a handler of a page answer errors as pages."""

    @wraps(handler)
    def answer(request: Request) -> Response:
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


def site_of(request: Request) -> Site:
    """Return what the handlers share."""
    site: Site = request.app.state.site
    return site
