"""Pages of an app's own in the explorer: what `serve` shows of it besides tables and ops.

A page decides nothing: no verdict, digest or fingerprint depends on it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from virtualchain.app.author import author
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

    `serve` shows it at `/apps/APP/pages/name` and `/apps/APP/pages/name/KEY`. In a query, `%(key)s` is that
    KEY, `%(app)s` the app, `%(block_id)s` its last block that is shown, and any other `%(…)s` a parameter of
    the address; what the address does not have is null. docs/apps.md says what a template can use.
    """

    name: str
    """Its place in addresses: letters, digits, `-` and `_`."""
    template: str | Path
    """The path of an `.html` file, from the folder of the module with this page; or the template itself."""
    title: str = ""
    """What it is called where it is listed; by default the name."""
    queries: Mapping[str, str] = field(default_factory=dict)
    """SQL by name; the template has the rows under that name."""
    table: str | None = None
    """A projection: each of its rows links to this page, with the row's key as KEY."""
    search: str | None = None
    """SQL that finds `%(text)s`, which a visitor looks for: keys, and in a column `label` how they read."""
    menu: bool = False
    """Whether the app's page lists it."""
    place: tuple[str, int] = field(init=False, repr=False, compare=False)
    """The file and the line that write it."""

    def __post_init__(self) -> None:
        """Check all but the template's text; raises InvalidApp, which names the line that writes the page."""
        object.__setattr__(self, "place", author())
        if not self.title:
            object.__setattr__(self, "title", self.name)
        for problem in self._problems():
            raise self.invalid(problem)

    def invalid(self, problem: str) -> InvalidApp:
        """Make the error for a mistake, with the place of this page in the author's code."""
        file, line = self.place
        return InvalidApp(f"the page {self.name!r} {problem} ({file}, line {line})")

    @property
    def file(self) -> Path | None:
        """The template's file; None if the page has its text instead."""
        if isinstance(self.template, str) and ("\n" in self.template or not self.template.endswith(_SUFFIX)):
            return None
        return Path(self.place[0]).parent / self.template

    @property
    def folder(self) -> Path | None:
        """Where the template's file, and those that it includes, are looked for; None if it has no file."""
        file = self.file
        if file is None:
            return None
        return file.parent if Path(self.template).is_absolute() else Path(self.place[0]).parent

    def source(self) -> str:
        """Return the template's text; raises InvalidApp if its file cannot be read."""
        if self.file is None:
            return str(self.template)
        try:
            return self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise self.invalid(f"cannot read its template {str(self.template)!r}: {error}") from error

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong: whoever makes a page may pass anything."""
        values: dict[str, Any] = vars(self)
        name, template, statements = values["name"], values["template"], values["queries"]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield "has a name that is not 1 to 40 letters, digits, - and _"
        if not isinstance(template, str | Path):
            yield f"has template={template!r}: it must be text, or the path of an .html file"
        if not isinstance(values["title"], str):
            yield f"has title={values['title']!r}: it must be text"
        if not isinstance(statements, Mapping):
            yield f"has queries={statements!r}: it must be a dict of names to SQL"
            return
        for key, statement in statements.items():
            if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
                yield f"has a query named {key!r}: it must be a name as in Python, and begin with a letter"
            yield from (f"has a query {key!r} {problem}" for problem in _problems_of_sql(statement))
        if values["table"] is not None and (not isinstance(values["table"], str) or not values["table"]):
            yield f"has table={values['table']!r}: it must be the name of a projection"
        if values["search"] is not None:
            yield from (f"has a search {problem}" for problem in _problems_of_sql(values["search"]))
            if "text" not in parameters(values["search"]):
                yield "has a search without %(text)s, what a visitor looks for"


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
        if page.table is not None:
            tables.add(page.table)
        _check_syntax(page)
    return read


def parameters(statement: str) -> frozenset[str]:
    """Return the names of a query's parameters."""
    return frozenset(filter(None, _PLACEHOLDER.findall(statement)))


def _problems_of_sql(statement: object) -> Iterator[str]:
    if not isinstance(statement, str) or not statement.strip():
        yield f"that is {statement!r}: it must be SQL"
        return
    for number, line in enumerate(statement.splitlines(), 1):
        if "%" in _PLACEHOLDER.sub("", line):
            yield (
                f"with a percent sign in its line {number} that is not a parameter: write %(name)s for one, "
                "and %% for the sign itself"
            )


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
