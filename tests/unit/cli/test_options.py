"""The global options: before a command, after it, or in both places."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

import virtualchain
from virtualchain.cli.options import Command, Group, Options, pass_options

Flags = dict[str, Any]


@pytest.fixture
def flags() -> Callable[..., Flags]:
    """Return a function that runs a small program and returns the options that its command received."""
    received: list[Flags] = []

    @click.group(cls=Group, is_root=True)
    def program() -> None:
        """Run."""

    @program.group()
    def inner() -> None:
        """Group."""

    @click.command(cls=Command)
    @pass_options
    def leaf(options: Options) -> None:
        """Record the options."""
        received.append(options.flags)

    program.add_command(leaf)
    inner.add_command(leaf)

    def run(*arguments: str) -> Flags:
        program.main(list(arguments), standalone_mode=False)
        return received.pop()

    return run


def test_an_option_works_before_and_after_the_command(flags: Callable[..., Flags]) -> None:
    """An option works before and after a command, and after a group of commands."""
    expected = {"network": "regtest", "json": True}
    assert flags("--network", "regtest", "--json", "leaf") == expected
    assert flags("leaf", "--json", "--network", "regtest") == expected
    assert flags("--json", "inner", "--network", "regtest", "leaf") == expected


def test_the_option_after_the_command_wins_and_apps_add_up(flags: Callable[..., Flags]) -> None:
    """The value after the command replaces the one before it, except that apps add up."""
    assert flags("--network", "main", "leaf", "--network", "test") == {"network": "test"}
    assert flags("--app", "a", "leaf", "--app", "b", "--app", "c") == {"app": ("a", "b", "c")}
    assert flags("-v", "leaf") == {"verbose": True}
    assert flags("leaf") == {}


def test_version_works_before_and_after_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: Callable[..., Flags]
) -> None:
    """--version prints the version, and the command does not run."""
    monkeypatch.setitem(vars(virtualchain), "__version__", "1.2.3")
    for arguments in (("--version",), ("leaf", "--version")):
        with pytest.raises(IndexError):
            flags(*arguments)
        assert capsys.readouterr().out == "virtualchain 1.2.3\n"


def test_what_is_deprecated_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that a later version refuses counts, and one line says what to write instead."""
    monkeypatch.chdir(tmp_path)
    options = Options()
    options.add("verify", "header")
    assert options.settings.verify == "headers"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("virtualchain: verify: 'header' is called 'headers' now")
    assert line.endswith("write 'headers'")
