"""Pages of apps' own (`App(pages=…)`): filled from a few bounded queries, and made in a sandbox."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from traceback import extract_tb
from types import MappingProxyType
from typing import Any, Final, NoReturn

import jinja2
import psycopg
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.app.contract import Contract
from virtualchain.app.pages import Page, parameters
from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.reading import views
from virtualchain.reading.search import Hit
from virtualchain.store.failures import is_transient
from virtualchain.store.sql import queries
from virtualchain.web.problems import NotFound, PageFailed
from virtualchain.web.rendering import environment, equip, link
from virtualchain.web.sessions import TIMEOUT, TooSlow
from virtualchain.web.words import shown

_Q = queries("web")
_LOG: Final = logging.getLogger(__name__)
MOST_ROWS: Final = 1000
"""Rows of a query that a page has."""
_MOST_HITS: Final = 10
"""What a page adds to a search at most."""
_SEARCH: Final = 1.0
"""Seconds that a page's search may take: the visitor waits for all of them."""
_LIMIT: Final = "rows of a page"
"""The parameter that bounds a query."""
_BAD_VALUE: Final = "22"
"""SQLSTATE class of a value that does not fit."""
_TEXT: Final = "text of the page"
"""What a template without a file is called."""


class Moved(Exception):
    """What a page shows is at another path of this site."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Row(dict[str, Any]):
    """A row: `row.NAME` in a template is its column, also if it is called `items`."""


class Rows(list[Row]):
    """The rows of a query; `more` says that it has further ones, which the page does not have."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A place on the site, and what it is called."""

    path: str
    label: str


def path_of(
    app: str, page: str, key: str | None = None, parameters: Mapping[str, str | None] = MappingProxyType({})
) -> str:
    """Return where a page is, for a key and parameters; those that are None are left out."""
    parts, values = _place_of(app, page, key, parameters)
    return link(*parts, pairs=values.items())


def _place_of(
    app: str, page: str, key: str | None, parameters: Mapping[str, str | None]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the parts of a path, and its parameters."""
    parts = ("apps", app, "pages", page)
    values = {name: value for name, value in parameters.items() if value is not None}
    if key is None:
        return parts, values
    if not key.isprintable() or key in {"", ".", ".."}:  # a browser, or a route, would change such a path
        return parts, {"key": key, **values}
    return (*parts, key), values


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page has to show: the app at a block, the parameters of the address, and rows by query."""

    block_id: int | None
    """The app's last block that is shown."""
    span: tuple[int, int] | None
    """The blocks that can be shown; None if there is none."""
    as_of: str | None
    key: str | None
    args: Mapping[str, str]
    rows: Mapping[str, Rows]


class OwnPages:
    """The pages of the apps whose code is at hand, by app."""

    def __init__(self, contracts: Mapping[str, Contract]) -> None:
        """Take the apps."""
        self._pages = {name: contract.pages for name, contract in contracts.items() if contract.pages}
        self._templates = _Templates()

    def digest(self) -> str:
        """Return another text for other pages: what a browser kept of those before is outdated."""
        digest = sha256(repr(self._pages).encode())
        folders = {page.file.parent for _, page in self._all() if page.file is not None}
        for file in sorted(file for folder in folders for file in folder.glob("*.html")):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def find(self, app: str, name: str) -> Page:
        """Return a page; raises NotFound."""
        for page in self._pages.get(app, ()):
            if page.name == name:
                return page
        if app not in self._pages:
            raise NotFound(
                f"no page of an app {app!r} is known here: a server has the pages of apps that it is started "
                "with, as in `virtualchain --app MODULE serve`"
            )
        raise NotFound(f"app {app!r} has no page {name!r}")

    def menu(self, app: str) -> list[Link]:
        """Return the pages that the app's own page lists."""
        return [Link(path_of(app, page.name), page.title) for page in self._pages.get(app, ()) if page.menu]

    def of_row(self, app: str, table: str, key: Mapping[str, str], as_of: str | None = None) -> Link | None:
        """Return the page for a row of a projection; None if there is none."""
        for page in self._pages.get(app, ()):
            if page.table == table:
                is_single = len(key) == 1
                own, others = (next(iter(key.values())), {}) if is_single else (None, key)
                return Link(path_of(app, page.name, own, {**others, "as_of": as_of}), page.title)
        return None

    def hits(self, connection: psycopg.Connection, text: str) -> list[Hit]:
        """Return what the pages' searches find; one that fails is logged, and finds nothing."""
        hits: list[Hit] = []
        for app, page in self._all():
            if page.search is None or "\0" in text:
                continue
            try:
                with connection.transaction(force_rollback=True):  # with its time limit and its search path
                    hits += _search(connection, app, page, text)
            except psycopg.errors.QueryCanceled:
                _LOG.warning("the search of the page %r of app %s takes too long", page.name, app)
            except psycopg.Error as error:
                if is_transient(error):
                    raise
                if not (error.sqlstate or "").startswith(_BAD_VALUE):
                    _LOG.warning("the search of the page %r of app %s fails", page.name, app, exc_info=True)
        return hits

    def _all(self) -> Iterator[tuple[str, Page]]:
        for app, pages in self._pages.items():
            for page in pages:
                yield app, page

    def render(self, app: str, page: Page, shown: Shown) -> str:
        """Make a page; raises NotFound or Moved if its template says so, and PageFailed if it is wrong."""

        def page_path(name: str = page.name, /, key: object = None, **parameters: object) -> str:
            values = {"as_of": shown.as_of, **parameters}
            return path_of(app, name, _text(key), {name: _text(value) for name, value in values.items()})

        try:
            return self._templates.of(page).render(
                app=app,
                page=page,
                key=shown.key,
                args=dict(shown.args),
                as_of=shown.as_of,
                block_id=shown.block_id,
                span=shown.span,
                rows=Row(shown.rows),
                one=Row({name: rows[0] if rows else None for name, rows in shown.rows.items()}),
                page_path=page_path,
                live=shown.as_of is None,
            )
        except (VirtualchainError, Moved):
            raise
        except Exception as error:
            raise PageFailed(
                f"the template of the page {page.name!r} of app {app!r} fails{_place(error)}: "
                f"{type(error).__name__}: {error}"
            ) from error


def read(
    connection: psycopg.Connection,
    app: str,
    page: Page,
    *,
    key: str | None,
    args: Mapping[str, str],
    as_of: str | None = None,
) -> Shown:
    """Run a page's queries within a transaction that shows a block.

    Raises NotFound if the deployment has no such app, UsageError if a parameter does not fit, PageFailed if
    the query is wrong, and TooSlow.
    """
    block_id, span = _enter(connection, app)
    key = args.get("key") if key is None else key
    values = {**args, "key": key, "app": app, "block_id": block_id}
    if any("\0" in value for value in values.values() if isinstance(value, str)):
        raise UsageError("the address has a NUL, which no text in the database has")
    rows = {}
    for name, statement in page.queries.items():
        what = f"the query {name!r} of the page {page.name!r} of app {app!r}"
        try:
            rows[name] = _run(connection, statement, values, MOST_ROWS)
        except psycopg.errors.QueryCanceled as error:
            raise TooSlow(f"{what} was canceled because it took more than {TIMEOUT:g} seconds") from error
        except psycopg.Error as error:
            if is_transient(error) or error.sqlstate == views.NOT_SHOWN:
                raise
            message = (error.diag.message_primary or str(error)).strip()
            if (error.sqlstate or "").startswith(_BAD_VALUE) and parameters(statement) - {"app", "block_id"}:
                raise UsageError(f"{what} cannot use what the address says: {message}") from error
            raise PageFailed(f"{what} fails: {message}") from error
    return Shown(block_id, span, as_of, key, args, rows)


def _enter(connection: psycopg.Connection, app: str) -> tuple[int | None, tuple[int, int] | None]:
    """Resolve unqualified names to an app's views; return the block that is shown, and which can be."""
    row = connection.execute(_Q["enter_app"], {"app": app}).fetchone()
    if row is None:
        raise NotFound(f"this deployment has no app {app!r}")
    block_id, lowest, highest, _ = row
    return block_id, None if highest is None or lowest is None else (lowest, highest)


def _run(connection: psycopg.Connection, statement: str, values: Mapping[str, object], most: int) -> Rows:
    """Run a query of an app's author; `most` bounds its rows."""
    query = sql.SQL(statement.strip().removesuffix(";"))  # the author's, as the app's code is
    # With a parameter, the server accepts a single statement only. No query has one with such a name.
    bounded = sql.SQL(_Q["page_rows"]).format(query=query, limit=sql.Placeholder(_LIMIT))
    bound = {_LIMIT: most + 1} | {name: values.get(name) for name in parameters(statement)}
    with connection.cursor(row_factory=dict_row) as cursor:
        fetched = cursor.execute(bounded, bound).fetchall()
    rows = Rows(Row(row) for row in fetched[:most])
    rows.more = len(fetched) > most
    return rows


def _search(connection: psycopg.Connection, app: str, page: Page, text: str) -> Iterator[Hit]:
    assert page.search is not None, "the caller looked"
    connection.execute(queries("views")["timeout"], {"milliseconds": str(int(_SEARCH * 1000))})
    try:
        block_id, _ = _enter(connection, app)
    except NotFound:
        return
    for row in _run(connection, page.search, {"text": text, "app": app, "block_id": block_id}, _MOST_HITS):
        label = row.pop("label", None)
        key = {name: str(value) for name, value in row.items()}
        first = next(iter(key.values()), None)
        words = f"{page.title} {first if label is None else label}"
        parts = (
            _place_of(app, page.name, first, {}) if len(key) == 1 else _place_of(app, page.name, None, key)
        )
        yield Hit("page", app, words, *parts)


class _Sandbox(ImmutableSandboxedEnvironment):
    """What a template of an app can do: less than Python, since what it shows comes from anyone."""

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - as in Jinja
        """Return a column of a row, even one with the name of a method of dictionaries."""
        if isinstance(obj, Row):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


class _Templates:
    """Templates of pages, each compiled once."""

    def __init__(self) -> None:
        self._made: dict[int, jinja2.Template] = {}
        self._folders: dict[Path, jinja2.Environment] = {}

    def of(self, page: Page) -> jinja2.Template:
        """Return the template of a page, which can extend and include the site's, and those beside it."""
        made = self._made.get(id(page))
        if made is None:
            made = self._made[id(page)] = self._make(page)
        return made

    def _make(self, page: Page) -> jinja2.Template:
        if page.folder is None or page.file is None:
            return _sandbox(jinja2.DictLoader({_TEXT: page.source()})).get_template(_TEXT)
        if page.folder not in self._folders:
            self._folders[page.folder] = _sandbox(jinja2.FileSystemLoader(page.folder))
        return self._folders[page.folder].get_template(page.file.relative_to(page.folder).as_posix())


def _sandbox(own: jinja2.BaseLoader) -> jinja2.Environment:
    site = environment()
    assert site.loader is not None, "it has templates"
    made = _Sandbox(
        loader=jinja2.ChoiceLoader([site.loader, own]),
        autoescape=True,
        undefined=site.undefined,
        trim_blocks=site.trim_blocks,
        lstrip_blocks=site.lstrip_blocks,
        auto_reload=False,
    )
    equip(made)
    made.globals |= {"not_found": _not_found, "moved": _moved}
    made.filters["units"] = units
    return made


def units(value: Any, digits: int = 0, symbol: str = "") -> Markup:  # noqa: ANN401 - any number of a row
    """Write a number of smallest units as an amount, with up to `digits` digits after the point."""
    if value is None:
        return Markup("–")  # noqa: RUF001 - a dash
    whole, rest = divmod(abs(int(value)), 10 ** max(digits, 0))
    fraction = f"{rest:0{digits}d}".rstrip("0") if digits > 0 else ""
    number = f"{'-' if value < 0 else ''}{whole:,}{'.' if fraction else ''}{fraction}"
    return Markup("{}\u00a0{}").format(number, shown(symbol, 10)) if symbol else Markup(number)  # noqa: S704 - digits


def _moved(path: str) -> NoReturn:
    """Answer with the path where this is shown."""
    raise Moved(path)


def _not_found(message: str) -> NoReturn:
    """Answer that there is nothing with this key."""
    raise NotFound(message)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _place(error: Exception) -> str:
    """Name the line of the template in which an error was raised; nothing if it is not known."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f" in {error.name or _TEXT}, line {error.lineno}"
    places = [
        f" in {Path(frame.filename).name}, line {frame.lineno}"
        for frame in extract_tb(error.__traceback__)
        if frame.filename.endswith((".html", "<template>"))
    ]
    return places[-1].replace("<template>", _TEXT) if places else ""
