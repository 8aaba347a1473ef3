"""Global options: given before a command, behind it, or in both places."""

from collections.abc import Callable
from typing import Any

import click
import pytest

import virtualchain
from virtualchain.cli.options import Command, Given, Group, pass_given

Flags = dict[str, Any]


@pytest.fixture
def flags() -> Callable[..., Flags]:
    """Give a function that runs a small program and tells what its command was given."""
    seen: list[Flags] = []

    @click.group(cls=Group, whole=True)
    def program() -> None:
        """Run."""

    @program.group()
    def inner() -> None:
        """Group."""

    @click.command(cls=Command)
    @pass_given
    def leaf(given: Given) -> None:
        """Take note."""
        seen.append(given.flags)

    program.add_command(leaf)
    inner.add_command(leaf)

    def run(*arguments: str) -> Flags:
        program.main(list(arguments), standalone_mode=False)
        return seen.pop()

    return run


def test_an_option_may_stand_before_and_behind(flags: Callable[..., Flags]) -> None:
    """Also behind a group of commands."""
    expected = {"network": "regtest", "json": True}
    assert flags("--network", "regtest", "--json", "leaf") == expected
    assert flags("leaf", "--json", "--network", "regtest") == expected
    assert flags("--json", "inner", "--network", "regtest", "leaf") == expected


def test_the_one_behind_the_command_counts_and_apps_add_up(flags: Callable[..., Flags]) -> None:
    """What is nearer is meant."""
    assert flags("--network", "main", "leaf", "--network", "test") == {"network": "test"}
    assert flags("--app", "a", "leaf", "--app", "b", "--app", "c") == {"app": ("a", "b", "c")}
    assert flags("-v", "leaf") == {"verbose": True}
    assert flags("leaf") == {}


def test_the_version_is_shown_anywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flags: Callable[..., Flags]
) -> None:
    """Nothing else is done then."""
    monkeypatch.setitem(vars(virtualchain), "__version__", "1.2.3")
    for arguments in (("--version",), ("leaf", "--version")):
        with pytest.raises(IndexError):
            flags(*arguments)
        assert capsys.readouterr().out == "virtualchain 1.2.3\n"
