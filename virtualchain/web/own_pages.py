"""Pages of apps' own (`App(pages=…)`): filled from a few bounded queries, and made in a sandbox."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode

import jinja2
import psycopg
from jinja2.sandbox import ImmutableSandboxedEnvironment
from psycopg import sql
from psycopg.rows import dict_row

from virtualchain.app.contract import Contract
from virtualchain.app.pages import Page, parameters
from virtualchain.errors import UsageError, VirtualchainError
from virtualchain.reading import views
from virtualchain.store.failures import is_transient
from virtualchain.store.sql import queries
from virtualchain.web.problems import NotFound, PageFailed
from virtualchain.web.sessions import TIMEOUT, TooSlow

_Q = queries("web")
_LOG: Final = logging.getLogger(__name__)
MOST_ROWS: Final = 1000
"""Rows of a query that a page has."""
_MOST_HITS: Final = 10
"""What a page adds to a search at most."""
_SEARCH: Final = 1.0
"""Seconds that a page's search may take: the visitor waits for all of them."""
_BAD_VALUE: Final = "22"
"""SQLSTATE class of a value that does not fit."""
_TEXT: Final = "text of the page"
"""What a template without a file is called."""


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


def path_of(app: str, page: str, key: str | None = None, **parameters: str | None) -> str:
    """Return where a page is, for a key and parameters; those that are None are left out."""
    path = f"/apps/{quote(app, safe='')}/pages/{quote(page, safe='')}"
    if key is not None and (not key.isprintable() or key in {"", ".", ".."}):
        parameters = {"key": key, **parameters}  # a browser would change such a path
    elif key is not None:
        path += f"/{quote(key, safe='')}"
    present = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(present)}" if present else path


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page has to show: the app at a block, the parameters of the address, and rows by query."""

    block_id: int | None
    as_of: str | None
    key: str | None
    args: Mapping[str, str]
    rows: Mapping[str, Rows]


class OwnPages:
    """The pages of the apps whose code is at hand, by app."""

    def __init__(self, contracts: Mapping[str, Contract], site: jinja2.Environment) -> None:
        """Take the apps, and the site's templates, with the macros that their pages may use."""
        self._pages = {name: contract.pages for name, contract in contracts.items() if contract.pages}
        self._templates = _Templates(site)

    def find(self, app: str, name: str) -> Page:
        """Return a page; raises NotFound."""
        for page in self._pages.get(app, ()):
            if page.name == name:
                return page
        if app not in self._pages:
            raise NotFound(
                f"no page of an app {app!r} is known here: the server has the pages of apps that it is started "
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
                if len(key) == 1:
                    return Link(path_of(app, page.name, *key.values(), as_of=as_of), page.title)
                return Link(path_of(app, page.name, **{**key, "as_of": as_of}), page.title)
        return None

    def hits(self, connection: psycopg.Connection, text: str) -> list[tuple[str, Link]]:
        """Return, with its app, each page that has what a visitor looks for; a search that fails has nothing."""
        found = []
        for app, page in self._with_search():
            try:
                with connection.transaction():
                    found += [(app, link) for link in _search(connection, app, page, text)]
            except psycopg.errors.QueryCanceled:
                _LOG.warning("the search of the page %r of app %s takes too long", page.name, app)
            except psycopg.Error as error:
                if is_transient(error):
                    raise
                if error.sqlstate is not None and not error.sqlstate.startswith(_BAD_VALUE):
                    _LOG.warning("the search of the page %r of app %s fails", page.name, app, exc_info=True)
        return found

    def _with_search(self) -> Iterator[tuple[str, Page]]:
        for app, pages in self._pages.items():
            for page in pages:
                if page.search is not None:
                    yield app, page

    def render(self, app: str, page: Page, shown: Shown, **more: object) -> str:
        """Make a page; raises NotFound if its template says so, and PageFailed if it is wrong."""
        try:
            return self._templates.of(page).render(
                app=app,
                page=page,
                key=shown.key,
                args=Row(shown.args),
                as_of=shown.as_of,
                block_id=shown.block_id,
                rows=Row(shown.rows),
                one=Row({name: rows[0] if rows else None for name, rows in shown.rows.items()}),
                here=lambda name=page.name, key=None, **values: path_of(
                    app, name, key, **{"as_of": shown.as_of, **values}
                ),
                **more,
            )
        except VirtualchainError:
            raise
        except Exception as error:
            _LOG.exception("the page %r of app %s fails", page.name, app)
            raise PageFailed(
                f"the template of the page {page.name!r} of app {app!r} fails{_line(error)}: "
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
    block_id = _enter(connection, app)
    values = {**args, "key": key if key is not None else args.get("key"), "app": app, "block_id": block_id}
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
            _LOG.exception("%s fails", what)
            raise PageFailed(f"{what} fails: {message}") from error
    return Shown(block_id, as_of, values["key"], args, rows)


def _enter(connection: psycopg.Connection, app: str) -> int | None:
    """Resolve unqualified names to an app's views; return the app's last block that is shown."""
    row = connection.execute(_Q["enter_app"], {"app": app}).fetchone()
    if row is None:
        raise NotFound(f"this deployment has no app {app!r}")
    block_id: int | None = row[1]
    return block_id


def _run(connection: psycopg.Connection, statement: str, values: Mapping[str, object], most: int) -> Rows:
    """Run a query of an app's author; `most` bounds its rows."""
    query = sql.SQL(statement.strip().removesuffix(";"))  # type: ignore[arg-type]  # the app's, as its code is
    bounded = sql.SQL(_Q["page_rows"]).format(query=query, limit=sql.Literal(most + 1))
    bound = {name: values.get(name) for name in parameters(statement)}
    with connection.cursor(row_factory=dict_row) as cursor:
        fetched = cursor.execute(bounded, bound).fetchall()
    rows = Rows(Row(row) for row in fetched[:most])
    rows.more = len(fetched) > most
    return rows


def _search(connection: psycopg.Connection, app: str, page: Page, text: str) -> list[Link]:
    assert page.search is not None, "the caller looked"
    connection.execute(views_timeout(), {"milliseconds": str(int(_SEARCH * 1000))})
    try:
        block_id = _enter(connection, app)
    except NotFound:
        return []
    links = []
    for row in _run(connection, page.search, {"text": text, "app": app, "block_id": block_id}, _MOST_HITS):
        label = row.pop("label", None)
        key = {name: str(value) for name, value in row.items()}
        if not key:
            continue
        path = path_of(app, page.name, *key.values()) if len(key) == 1 else path_of(app, page.name, **key)
        links.append(Link(path, str(label if label is not None else next(iter(key.values())))))
    return links
