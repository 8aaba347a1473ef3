"""A Sphinx extension: what pages have in the built documentation only.

Pages are plain Markdown, which a repository host shows, too. A comment in a page, such as
`<!-- generated: settings -->`, stands for text that is generated from the code. The links of `docs/index.md`
are the table of contents. `PAGES` are files outside of this folder that become pages.
"""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Final

import click
from sphinx.application import Sphinx

from virtualchain.model import Json
from virtualchain.settings import _ALLOWED, _KINDS, Settings

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
"""Files at the top of the repository that become pages, by the page's name."""

_PLACES: Final = {ROOT / file: f"/{page}.md" for page, file in (*PAGES.items(), ("index", "README.md"))}
_MADE_BY_THE_ENGINE: Final = {"virtualchain.State", "virtualchain.store.tables.Table"}
_LINK: Final = re.compile(r"(?<=\]\()(?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?(?=\))")
_MARK: Final = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


# The command line.


def command_line() -> str:
    """Describe every command as its help does, in the order in which users meet them."""
    from virtualchain.cli import program

    return "\n".join(_commands(program, click.Context(program, info_name="virtualchain"), 2))


def _commands(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}\n"
    yield f"{_prose(command.help or '')}\n"
    yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```\n"
    shown = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if shown:
        yield "| option | is |\n|---|---|"
        yield from (_option(option, context) for option in shown)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.commands[name]
            if not inner.hidden:
                yield from _commands(inner, click.Context(inner, context, info_name=name), level + 1)


def _option(option: click.Option, context: click.Context) -> str:
    names, text = option.get_help_record(context) or ("", "")
    return f"| {_code(names)} | {_cell(text)} |"


def _prose(text: str) -> str:
    r"""Write the text of a help as Markdown: what follows a line with \b keeps its lines."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        mark, _, block = part.partition("\n")
        parts.append(f"```text\n{block}\n```" if mark == "\b" else part)
    return "\n\n".join(parts)


# Settings.


def settings_table() -> str:
    """List the settings: the key in `virtualchain.toml`, what it may be, its default, and what it does."""
    from virtualchain.cli.options import global_options

    defaults = {each.name: each.default for each in fields(Settings)}
    rows = ["| setting | may be | default | is |\n|---|---|---|---|"]
    for option in global_options(hidden=False):
        key = str(option.name)
        if key in _KINDS:
            default = defaults[key]
            shown = "" if default is None or default == () else _code(str(default).lower())
            allowed = _cell(_ALLOWED.get(_KINDS[key], "a path"))
            rows.append(f"| {_code(key)} | {allowed} | {shown} | {_cell(option.help or '')} |")
    return "\n".join(rows)


# The API.


def http_api() -> str:
    """List the paths of the API with their parameters, for a deployment with one projection as an example."""
    from fastapi import FastAPI

    from virtualchain.reading.catalog import Column, Projection
    from virtualchain.web.api import _MODULES
    from virtualchain.web.api.document import describe
    from virtualchain.web.api.guide import _TITLES

    api = FastAPI()
    for module in _MODULES:
        api.include_router(module.router)
    columns = (
        Column("sha256", "text", "text", nullable=False, comment="The document.", is_long=True),
        Column("owner", "text", "text", nullable=False, comment="Whose it is.", is_long=True),
    )
    table = Projection(
        "notary",
        "notary",
        "documents",
        "Documents and their owners.",
        columns,
        ("sha256",),
        ("sha256",),
        None,
    )
    document = describe(api, [], [table])
    titles = {**_TITLES, "app notary": "Projections, such as documents of the app notary"}
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            title = f"{method.upper()} {path}"
            groups.setdefault(operation["tags"][0], []).extend(_operation(title, operation))
    return "\n".join(line for tag, lines in groups.items() for line in (f"## {titles[tag]}\n", *lines))


def _operation(title: str, operation: Json) -> Iterator[str]:
    yield f"### `{title}`\n"
    about = " ".join(str(operation.get("description", "")).split())
    yield f"{operation['summary']}. {about}\n"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "| parameter | in | type | is |\n|---|---|---|---|"
        for each in parameters:
            required = " (required)" if each.get("required") and each["in"] != "path" else ""
            name, kind = _code(each["name"]), _cell(_type(each["schema"]))
            yield f"| {name}{required} | {each['in']} | {kind} | {_cell(each.get('description', ''))} |"
        yield ""


def _type(schema: Json) -> str:
    """Write the type of a parameter in a few words."""
    kinds = [each.get("type", "") for each in schema.get("anyOf", [schema])]
    words = [" or ".join(kind for kind in kinds if kind and kind != "null")]
    if "enum" in schema:
        words.append(f"one of {', '.join(map(str, schema['enum']))}")
    words += [
        f"{key} {schema[key]}" for key in ("minimum", "maximum", "default") if schema.get(key) is not None
    ]
    return ", ".join(filter(None, words))


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", r"\<").replace("*", r"\*")


GENERATED: Final[Mapping[str, Callable[[], str]]] = {
    "command line": command_line,
    "settings": settings_table,
    "API": http_api,
}


# Sphinx.


def contents(page: str) -> str:
    """Add a table of contents to each part of a page, or to one without parts: the pages that it links to."""
    first, *parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    return first + "".join(map(_with_contents, parts)) if parts else _with_contents(page)


def _with_contents(part: str) -> str:
    title = part.partition("\n")[0].lstrip("# ")
    pages = dict.fromkeys(link["path"] for link in _LINK.finditer(part) if not link["anchor"])
    entries = "\n".join(page.removesuffix(".md") for page in pages)
    return f"{part}\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{entries}\n```\n\n"


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace, in the text of a page, what is generated, and the links to pages from outside this folder."""
    text, folder = source[0], Path(app.srcdir, name).parent
    if name in PAGES:
        text, folder = (ROOT / PAGES[name]).read_text(encoding="utf-8"), ROOT
        app.env.note_dependency(str(ROOT / PAGES[name]))
    if name in {"index", "decisions/README"}:
        text = contents(text)
    text = _MARK.sub(lambda mark: GENERATED[mark[1]](), text)
    here = Path(app.srcdir, name).parent
    source[0] = _LINK.sub(lambda link: _target(folder / link["path"], here) + (link["anchor"] or ""), text)


def _target(file: Path, here: Path) -> str:
    """Return the link from a folder of pages to a file, which may be a page of the built documentation."""
    file = Path(os.path.normpath(file))
    return _PLACES.get(file) or os.path.relpath(file, here)


def signature(*event: object) -> tuple[str, object] | None:
    """Write a default that is made for each object as a value; leave out how the engine makes its objects."""
    name, (text, returns) = event[2], event[-2:]
    if name in _MADE_BY_THE_ENGINE:
        return "", returns
    return (text.replace("<factory>", "{}"), returns) if isinstance(text, str) else None


def setup(app: Sphinx) -> Json:
    """Have Sphinx read pages through `read`, and signatures through `signature`."""
    app.connect("source-read", read)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True}
