"""Pages of an app's own in the explorer: what `serve` shows of it besides tables and ops.

A page decides nothing: no verdict, digest or fingerprint depends on it.
"""

import dataclasses
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from virtualchain.errors import InvalidApp

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_PLACEHOLDER: Final = re.compile(r"%(?:%|\((\w+)\)s)")
_SUFFIX: Final = ".html"


@dataclass(frozen=True)
class Page:
    """A page of an app: a Jinja template, and the queries whose rows it shows.

    ::

        Page(
            "name",
            title="A name",
            template="pages/name.html",
            queries={"name": "SELECT * FROM names WHERE name = %(key)s"},
            table="names",
            search="SELECT name FROM names WHERE name = %(text)s",
        )

    `serve` shows it at `/apps/APP/pages/name` and `/apps/APP/pages/name/KEY`. In a query, `%(key)s` is the KEY
    of the path, `%(block_id)s` the block that is shown, and any other `%(…)s` a parameter of the address's
    query string; what the address does not have is null. docs/apps.md says what a template can use.
    """

    name: str
    """Its place in addresses: letters, digits, `-` and `_`."""
    template: str | Path
    """The path of an `.html` file, from the folder of the module that writes `Page(…)`; or the template itself."""
    title: str = ""
    """What it is called where it is listed; by default the name."""
    queries: Mapping[str, str] = field(default_factory=dict)
    """SQL by name; the template has the rows under that name."""
    table: str | None = None
    """A projection: each of its rows links to this page, with the row's key as KEY."""
    search: str | None = None
    """SQL that finds what a visitor looks for, `%(text)s`: keys of this page, and in a column `label` their text."""
    menu: bool = False
    """Whether the app's page lists it."""

    def __post_init__(self) -> None:
        """Check all but the template's text; raises InvalidApp, which names the line that writes the page."""
        object.__setattr__(self, "_place", _author())
        if not self.title:
            object.__setattr__(self, "title", self.name)
        problem = self._problem()
        if problem is not None:
            raise self.invalid(problem)

    def invalid(self, problem: str) -> InvalidApp:
        """Make the error for a mistake, with the place of this page in the author's code."""
        file, line = self._place
        return InvalidApp(f"the page {self.name!r} {problem} ({file}, line {line})")

    @property
    def _place(self) -> tuple[str, int]:
        place: tuple[str, int] = vars(self)["_place"]
        return place

    @property
    def file(self) -> Path | None:
        """The template's file; None if the page has its text instead."""
        if isinstance(self.template, str) and ("\n" in self.template or not self.template.endswith(_SUFFIX)):
            return None
        return Path(self._place[0]).parent / self.template

    @property
    def folder(self) -> Path | None:
        """Where the template's file, and those that it includes, are looked for; None if it has no file."""
        file = self.file
        if file is None:
            return None
        return file.parent if Path(self.template).is_absolute() else Path(self._place[0]).parent

    def source(self) -> str:
        """Return the template's text; raises InvalidApp if its file cannot be read."""
        if self.file is None:
            return str(self.template)
        try:
            return self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self.invalid(f"cannot read its template {str(self.template)!r}: {error}") from error

    def _problem(self) -> str | None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            return "has a name that is not 1 to 40 letters, digits, - and _"
        if not isinstance(self.template, str | Path):
            return f"has template={self.template!r}: it must be text, or the path of an .html file"
        if not isinstance(self.title, str):
            return f"has title={self.title!r}: it must be text"
        if not isinstance(self.queries, Mapping):
            return f"has queries={self.queries!r}: it must be a dict of names to SQL"
        for name, statement in self.queries.items():
            if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
                return f"has a query named {name!r}: it must be a name as in Python, and begin with a letter"
            problem = _problem_of_sql(statement)
            if problem is not None:
                return f"has a query {name!r} {problem}"
        if self.table is not None and (not isinstance(self.table, str) or not self.table):
            return f"has table={self.table!r}: it must be the name of a projection"
        if self.search is None:
            return None
        problem = _problem_of_sql(self.search)
        if problem is None and "text" not in parameters(self.search):
            problem = "without %(text)s, what a visitor looks for"
        return None if problem is None else f"has a search {problem}"


def _author() -> tuple[str, int]:
    """Return the file and the line of the code that makes a page."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as namedtuple does
    while frame is not None and frame.f_globals.get("__name__") in {__name__, dataclasses.__name__}:
        frame = frame.f_back
    assert frame is not None, "somebody calls it"
    return frame.f_code.co_filename, frame.f_lineno


def read_pages(pages: object) -> tuple[Page, ...]:
    """Check the pages of an app, and the syntax of their templates if Jinja is installed.

    Raises InvalidApp, with the line of the template.
    """
    if isinstance(pages, str | Mapping) or not isinstance(pages, Iterable):
        raise InvalidApp(f"pages={pages!r}: it must be a list of Page")
    read = tuple(pages)
    names: set[str] = set()
    tables: set[str] = set()
    for page in read:
        if not isinstance(page, Page):
            raise InvalidApp(f"pages has {page!r}: it must be a Page")
        if page.name in names:
            raise page.invalid("has the name of another one")
        if page.table in tables:
            raise page.invalid(f"is for the rows of {page.table}, as another one is")
        names.add(page.name)
        tables |= {page.table} - {None}
        _check_syntax(page)
    return read


def parameters(statement: str) -> frozenset[str]:
    """Return the names of a query's parameters."""
    return frozenset(filter(None, _PLACEHOLDER.findall(statement)))


def _problem_of_sql(statement: object) -> str | None:
    if not isinstance(statement, str) or not statement.strip():
        return f"that is {statement!r}: it must be SQL"
    for number, line in enumerate(statement.splitlines(), 1):
        if "%" in _PLACEHOLDER.sub("", line):
            return (
                f"with a percent sign in its line {number} that is no parameter: write %(name)s for one, and "
                "%% for the sign itself"
            )
    return None


def _check_syntax(page: Page) -> None:
    source = page.source()
    try:
        from jinja2 import Environment, TemplateSyntaxError  # noqa: PLC0415 - an extra, and not a quick import
    except ModuleNotFoundError:
        return
    try:
        Environment(autoescape=True).parse(source)
    except TemplateSyntaxError as error:
        name = "its template" if page.file is None else str(page.template)
        raise page.invalid(f"cannot be read: {name}, line {error.lineno}: {error.message}") from error
