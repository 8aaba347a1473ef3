"""All public names as lines of text, and the program that records them.

    python -m tests.support.public_names

writes tests/data/public_names.txt, with which a test compares the code. docs/releases.md says what is public,
and what may change when. A parameter has a line of its own, so that a new optional one is only an addition.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import psycopg

from virtualchain import errors
from virtualchain.app import declarations
from virtualchain.cli import program
from virtualchain.errors import VirtualchainError
from virtualchain.metrics import METRICS
from virtualchain.notices import EVENTS
from virtualchain.settings import _CHOICES, _KINDS
from virtualchain.store.sql import sql_root
from virtualchain.testing import plugin
from virtualchain.testing.database import running_server
from virtualchain.web import api

RECORD = Path(__file__).parents[1] / "data" / "public_names.txt"
MODULES = (
    "virtualchain",
    "virtualchain.consensus",
    "virtualchain.lib.indexer",
    "virtualchain.lib.python2",
    "virtualchain.testing",
)
FORMAT = re.compile(r'"(virtualchain-[a-z-]+-\d+)"')
PLAIN = (bool, int, str, float, bytes, type(None))


def changes(recorded: Sequence[str], now: Sequence[str]) -> str | None:
    """Describe what differs from the record, and what to do; None if nothing does."""
    gone, new = sorted({*recorded} - {*now}), sorted({*now} - {*recorded})
    lines = []
    if gone:
        lines += ["Public names are gone, or mean something else:", *gone]
        lines.append(
            "Keep them, with a warning that says what to write instead: docs/releases.md#deprecation. "
            "If they were never released, or their time has come, name it in CHANGELOG.md, and record it:"
        )
    if new:
        lines += ["Public names are new:", *new]
        lines.append("If they are meant to be public, describe them, and record them:")
    return "\n".join([*lines, "python -m tests.support.public_names"]) if lines else None


def public_names(url: str) -> list[str]:
    """List the names, sorted; the database at `url` has the schema."""
    kinds = (
        python_names(),
        callbacks(),
        commands(program),
        settings(),
        reported(),
        formats(),
        web(),
        views(url),
    )
    return sorted({name for kind in kinds for name in kind})


def python_names() -> Iterator[str]:
    """List what the public modules export, with parameters, attributes and methods."""
    for module in map(import_module, MODULES):
        for name in module.__all__:
            value = getattr(module, name)
            place = f"python {module.__name__}.{name}"
            yield place
            if isinstance(value, type):
                yield from _class(place, value)
            elif callable(value):
                yield from _parameters(place, value)
    for name, value in vars(plugin).items():
        if type(value).__name__ == "FixtureFunctionDefinition" and not name.startswith("_"):
            yield f"fixture {name}"


def _class(place: str, kind: type) -> Iterator[str]:
    yield from _parameters(place, kind)
    for base in kind.__mro__:
        if not base.__module__.startswith("virtualchain"):
            continue
        for name in sorted({*vars(base), *inspect.get_annotations(base)}):
            if name.startswith("_") or name == "mro":
                continue
            yield f"{place}.{name}"
            value = inspect.getattr_static(base, name, None)
            function = getattr(value, "__func__", value)
            if inspect.isfunction(function):
                yield from _parameters(f"{place}.{name}", function)


def _parameters(place: str, function: Any) -> Iterator[str]:
    """List parameters: those without a keyword by their place, optional ones with their default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    for number, parameter in enumerate(parameters):
        if parameter.name in {"self", "cls"} or parameter.name.startswith("_"):
            continue
        mark = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        at = "" if mark or parameter.kind is parameter.KEYWORD_ONLY else f"{number} "
        default = parameter.default
        shown = repr(default) if isinstance(default, PLAIN) else "…"
        optional = "" if default is parameter.empty else f"={shown}"
        yield f"{place}({at}{mark}{parameter.name}{optional})"


def callbacks() -> Iterator[str]:
    """List the published callbacks."""
    for name in declarations._REQUIRED:
        yield f"callback {name}, required"
    for name in declarations._OPTIONAL:
        yield f"callback {name}"


def commands(group: click.Group, path: str = "virtualchain") -> Iterator[str]:
    """List commands with their arguments, their options, and what each option may be."""
    for parameter in group.params:
        yield from _parameter(path, parameter)
    for name, command in group.commands.items():
        place = f"{path} {name}"
        yield f"command {place}"
        if isinstance(command, click.Group):
            yield from commands(command, place)
            continue
        hidden = {item.name for item in group.params}
        for parameter in command.params:
            if parameter.name not in hidden:
                yield from _parameter(place, parameter)


def _parameter(place: str, parameter: click.Parameter) -> Iterator[str]:
    if isinstance(parameter, click.Argument):
        yield f"command {place} {parameter.make_metavar(click.Context(click.Command(place)))}"
        return
    for name in (*parameter.opts, *parameter.secondary_opts):
        yield f"command {place} {name}"
        if isinstance(parameter.type, click.Choice):
            yield from (f"command {place} {name} {choice}" for choice in parameter.type.choices)


def settings() -> Iterator[str]:
    """List the settings, which variables and virtualchain.toml have alike, and their choices."""
    for name, kind in _KINDS.items():
        yield f"setting {name}"
        yield from (f"setting {name} = {choice}" for choice in _CHOICES.get(kind, ()))


def reported() -> Iterator[str]:
    """List metrics with their labels, events, and the errors with their exit codes."""
    for name, metric in METRICS.items():
        yield f"metric {name} {metric.kind}"
        yield from (f"metric {name} {{{label}}}" for label in metric.labels)
    yield from (f"event {name} {level}" for name, level in EVENTS.items())
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, VirtualchainError):
            yield f"error {name}, exit code {value.exit_code}"


def formats() -> Iterator[str]:
    """List the names of file formats, and the errors of the database."""
    root = Path(errors.__file__).parent
    for file in root.rglob("*.py"):
        yield from (f"format {name}" for name in FORMAT.findall(file.read_text()))
    for file in sql_root().glob("schema/*.sql"):
        yield from (f"sqlstate {code}" for code in re.findall(r"'(VC\d{3})'", file.read_text()))


def web() -> Iterator[str]:
    """List the paths of the API and their parameters."""
    from fastapi.openapi.utils import get_openapi

    routes = [route for module in api._MODULES for route in module.router.routes]
    paths: Mapping[str, Any] = get_openapi(title="", version="", routes=routes)["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            yield f"api {method.upper()} {path}"
            yield from (
                f"api {method.upper()} {path} {item['name']}" for item in operation.get("parameters", ())
            )


def views(url: str) -> Iterator[str]:
    """List views, columns with their types, functions and settings of the schema `virtualchain`."""
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'virtualchain'"
        )
        yield from (f"view virtualchain.{view}.{column} {kind}" for view, column, kind in columns)
        functions = connection.execute(
            "SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc "
            "WHERE pronamespace = 'virtualchain'::regnamespace"
        )
        yield from (
            f"function virtualchain.{name}({arguments}) {result}" for name, arguments, result in functions
        )


if __name__ == "__main__":
    with running_server() as server:
        RECORD.write_text("".join(f"{name}\n" for name in public_names(server.clone())))
