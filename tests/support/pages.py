"""Pages of the documentation that are executed: their code blocks, and a shell that runs commands."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PATIENCE = 120.0
"""Seconds after which a test gives up on a block of commands."""


class Block(NamedTuple):
    """A code block of a page."""

    language: str
    text: str


def code_blocks(page: str) -> list[Block]:
    """Return the code blocks of a page, in order."""
    return [Block(language, text) for language, text in _BLOCK.findall(page)]


def write_block(folder: Path, block: Block) -> None:
    """Put a block into the file that its first line names: a change, more at the end, or a new file.

    ``--- FILE`` begins a change: lines with a minus are replaced by those with a plus. ``# FILE`` begins what
    is added to a file's end, and ``# in FILE`` what is there already, but for docstrings.
    """
    first, _, rest = block.text.partition("\n")
    if block.language == "diff":
        file = folder / first.removeprefix("--- ")
        lines = rest.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if line[:1] in {" ", "-"})
        new = "".join(f"{line[1:]}\n" for line in lines if line[:1] in {" ", "+"})
        text = file.read_text()
        assert text.count(old) == 1, f"{file} has {text.count(old)} times:\n{old}"
        file.write_text(text.replace(old, new))
    elif first.startswith("# in "):
        file = folder / first.removeprefix("# in ")
        bare = re.sub(r'^ *""".*?"""\n+', "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert rest in bare, f"{file} does not have:\n{rest}"
    else:
        name = first.removeprefix("# ").removeprefix("<!-- ").removesuffix(" -->")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            file.write_text(f"{file.read_text()}\n\n{rest}")
        else:
            file.write_text(rest if block.language == "html" else block.text)


class Shell:
    """A shell that runs one block of commands after the other, and keeps its variables."""

    def __init__(self, folder: Path, output: Path, variables: Mapping[str, str]) -> None:
        self._output = output
        with output.open("w") as file:
            self._process = subprocess.Popen(
                ["bash", "-eu"],
                cwd=folder,
                env={**environment(), **variables},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, commands: str) -> str:
        """Run commands until the last one ends; return what they print. Each of them must succeed."""
        begins, ended = self._output.stat().st_size, "(this block has ended)\n"
        assert self._process.stdin is not None
        self._process.stdin.write(f"{commands}\nprintf '{ended.strip()}\\n'\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + _PATIENCE
        while not (shown := self._output.read_bytes()[begins:].decode()).endswith(ended):
            assert self._process.poll() is None, f"{commands}\nfailed:\n{shown}"
            assert time.monotonic() < deadline, f"{commands}\ndid not end:\n{shown}"
            time.sleep(0.02)
        return shown.removesuffix(ended)


def environment() -> dict[str, str]:
    """Return an author's environment: this installation of virtualchain is first on PATH, without settings.

    It is not that of CI, where a new project's golden file would be missing.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not name.startswith(("VIRTUALCHAIN_", "PYTEST_"))
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "COLUMNS": "200"}
