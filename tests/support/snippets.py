"""The examples in README, CONTRIBUTING and docs: fenced blocks, and commands in the text."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from virtualchain.cli import program
from virtualchain.cli.options import Options

ROOT: Final = Path(__file__).parents[2]
_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_CODE: Final = re.compile(r"`(virtualchain [^`]*)`")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return all pages."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def snippets(*languages: str) -> list[Snippet]:
    """Return all fenced blocks in some languages, or all of them."""
    return [each for page in pages() for each in _blocks(page) if not languages or each.language in languages]


def _blocks(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for block in _FENCE.finditer(text):
        lines = block["text"].split("\n")
        content = "\n".join(line.removeprefix(block["indent"]) for line in lines)
        line = text.count("\n", 0, block.start()) + 1
        yield Snippet(str(page.relative_to(ROOT)), line, block["language"], content)


def shell_commands(text: str) -> Iterator[list[str]]:
    """Split the lines of a shell into commands, without redirections, comments and here documents."""
    text = re.sub(r"<<'?(\w+)'?(.*)\n(?:.*\n)*?\1$", r"\2", text.replace("\\\n", " "), flags=re.MULTILINE)
    for line in text.splitlines():
        words = shlex.shlex(re.sub(r"\$\([^()]*\)", "SUBSTITUTED", line), posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in words:
            if word and set(word) <= set("();&|"):
                yield command
                command = []
            elif word and set(word) <= set("<>"):
                next(words, None)
            else:
                command.append(word)
        yield command


def parse_command(words: list[str]) -> None:
    """Have the command line read its arguments, as it does before it runs; raises click.ClickException."""
    command: click.Command = program
    context = program.make_context("virtualchain", words, obj=Options())
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, inner, rest = command.resolve_command(context, rest)
        assert inner is not None, "resolve_command raises UsageError for an unknown one"
        context, command = inner.make_context(name, rest, parent=context), inner


def commands_in_text(page: Path) -> list[str]:
    """Return the commands that the text of a page has in backticks."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(code[1].split()) for code in _CODE.finditer(text)]


def unknown_words(code: str) -> list[str]:
    """Find commands and options that do not exist, in a command that may be only a part of one."""
    command: click.Command = program
    options = {name for each in program.params for name in each.opts}
    unknown = []
    for word in code.split()[1:]:
        name = word.strip("'\",;").partition("=")[0]
        if name.startswith("--"):
            if name not in options | {"--help"}:
                unknown.append(name)
        elif isinstance(command, click.Group) and re.fullmatch("[a-z][a-z-]*", name):
            inner = command.commands.get(name)
            if inner is None:
                unknown.append(name)
                break
            command = inner
            options |= {option for each in inner.params for option in each.opts}
    return unknown
