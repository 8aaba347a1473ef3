"""The help texts: every command and option has one, and help appears at once."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from virtualchain.cli import program
from virtualchain.cli.examples import LESSONS
from virtualchain.cli.options import EPILOG, Options

ROOT = Path(__file__).parents[3]
HEAVY = (
    "psycopg",
    "alembic",
    "sqlalchemy",
    "urllib3",
    "rich",
    "embit",
    "virtualchain.engine.engine",
    "pyarrow",
)


def commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command and group below `group`, with its path."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = list(commands(program))


def test_the_commands_are_the_documented_ones() -> None:
    """The commands are listed in the order in which a user needs them."""
    assert [" ".join(path) for path, _ in ALL] == [
        *("init", "dev", "demo", "sync", "run", "status", "doctor", "ops", "consensus", "sql", "watch"),
        *("serve", "webhooks", "webhooks list", "webhooks replay", "webhooks run", "preview", "send"),
        *("resume", "rollback", "pin", "unpin"),
        *("upgrade", "replay", "compare", "swap", "drop", "remove"),
        *("prove", "state-root", "prove-row", "check-proof", "verify", "compare-nodes"),
        *("checkpoint", "checkpoint create", "checkpoint publish", "checkpoint show"),
        *("checkpoint apply", "checkpoint keygen"),
        *("export", "scan", "import", "advance", "prune"),
        *("migrate", "db"),
        *("db start", "db stop", "db status", "db create", "db url", "db upgrade", "db drop-old"),
        *("db standby", "db promote"),
        *("db grant-reader", "db revoke-reader", "completion"),
    ]


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_and_option_has_help(path: tuple[str, ...], command: click.Command) -> None:
    """Each text is a sentence; a command's help shows its own options and refers to the global ones."""
    assert command.help
    assert command.get_short_help_str(100).endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help
            assert parameter.help.endswith(".")
    shown = CliRunner().invoke(program, [*path, "--help"])
    assert shown.exit_code == 0
    assert " ".join(EPILOG.split()) in " ".join(shown.output.split())
    assert "--bitcoin URL" not in shown.output


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_s_help_has_examples_that_can_be_run(
    path: tuple[str, ...], command: click.Command
) -> None:
    """Each example is of that command and has options and arguments that it takes; the page is there."""
    name = " ".join(path)
    lesson = LESSONS[name]
    assert (ROOT / lesson.page).is_file()
    assert lesson.examples or isinstance(command, click.Group)
    shown = CliRunner().invoke(program, [*path, "--help"], terminal_width=80).output
    assert f"Read next: {lesson.page}\n" in shown
    for example in lesson.examples:
        assert f"  virtualchain {example}\n" in shown
        words = shlex.split(example)
        assert tuple(words[: len(path)]) == path
        command.make_context(name, words[len(path) :], obj=Options())


def test_no_example_is_of_a_command_that_is_gone() -> None:
    """The table of examples has the commands that there are."""
    assert set(LESSONS) == {" ".join(path) for path, _ in ALL}


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (["staus"], "'status'"),
        (["db", "ur"], "'url'"),
        (["sync", "--confirmation", "1"], "'--confirmations'"),
    ],
)
def test_the_nearest_command_or_option_is_suggested(words: list[str], suggested: str) -> None:
    """A misspelled command or option is answered with those that are spelled alike."""
    shown = CliRunner().invoke(program, words)
    assert shown.exit_code == 2
    assert suggested in shown.output


@pytest.mark.parametrize("path", [(), *(path for path, command in ALL if isinstance(command, click.Group))])
def test_every_summary_fits_80_columns(path: tuple[str, ...]) -> None:
    """The lists of commands show each command's whole summary, in lines of at most 80 columns."""
    shown = CliRunner().invoke(program, [*path, "--help"], terminal_width=80).output
    for (*parents, name), command in ALL:
        if tuple(parents) == path:
            assert re.search(
                rf"^  {name} +{re.escape(command.get_short_help_str(1000))}$", shown, re.MULTILINE
            )
    assert max(map(len, shown.splitlines())) <= 80


def test_the_help_of_the_program_shows_the_global_options() -> None:
    """Without a command, the program prints its help."""
    shown = CliRunner().invoke(program, [])
    assert shown.exit_code == 0
    for option in (
        "--app",
        "--bitcoin",
        "--cookie",
        "--cacert",
        "--zmq",
        "--blocks",
        "--verify",
        "--senders",
        "--database",
        "--confirmations",
        "--network",
        "--config",
    ):
        assert f"  {option} " in shown.output


def test_help_imports_nothing_heavy() -> None:
    """Help imports no large library, so that it appears at once."""
    code = (
        "import sys; sys.argv = ['virtualchain', '--help']\n"
        "from virtualchain.cli import main\n"
        "try: main()\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
