"""The command `init`: a new app's project, which runs at once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from virtualchain.cli.options import Command, Options, pass_options
from virtualchain.cli.output import visible, write_json
from virtualchain.errors import UsageError
from virtualchain.scaffold.project import STARTS, create

if TYPE_CHECKING:
    from virtualchain.scaffold.project import Project


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--from",
    "start",
    type=click.Choice(list(STARTS)),
    default="app",
    show_default=True,
    help="What to start from: an app of two opcodes, the same as a plain module, or an example.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The project's folder, which must not exist. Default: ./NAME.",
)
@click.option(
    "--magic",
    metavar="TEXT",
    help="The bytes that the app's payloads start with. Default: the first four letters of NAME.",
)
@pass_options
def init(options: Options, /, name: str, start: str, into: Path | None, magic: str | None) -> None:
    """Make a project for a new app that runs at once.

    NAME is the app's name, and that of its module and of its schema in the database. The project has the app
    with its tables, tests, settings, and what pip and a CI need. Nothing that exists is overwritten.
    """
    from virtualchain.scaffold.naming import check_magic, check_name, magic_of

    as_json = options.settings.json  # reports mistakes in the settings before anything is written
    check_name(name)
    if not STARTS[start].has_magic and magic is not None:
        raise UsageError(f"--magic: payloads of {start} have none: leave it out")
    chosen = check_magic(magic_of(name) if magic is None else magic) if STARTS[start].has_magic else None
    folder = Path(os.path.expanduser(into or name))  # noqa: PTH111 - Path's own fails for unknown users
    project = create(name, folder, chosen, start)
    if as_json:
        write_json(_described(project))
    else:
        _show(project, is_derived=magic is None)


def _described(project: "Project") -> dict[str, object]:
    return {
        "name": project.name,
        "magic": project.magic,
        "folder": str(project.folder.absolute()),
        "files": list(project.files),
        "next": _next(project),
    }


def _next(project: "Project") -> list[str]:
    import shlex

    return [f"cd {shlex.quote(str(project.folder))}", "pytest", "virtualchain dev"]


def _show(project: "Project", *, is_derived: bool) -> None:
    click.echo(f"Made the app {project.name} in {visible(str(project.folder))}:")
    for file in project.files:
        click.echo(f"  {file}")
    if project.magic is not None:
        source = "the first letters of its name" if is_derived else "as you chose"
        click.echo(
            f"Its payloads start with the magic {project.magic} ({source}). To have another one, change it\n"
            f"in {project.name}.py before the first input is on a public chain."
        )
    click.echo("\nNext:")
    for command in _next(project):
        click.echo(f"  {command}")
