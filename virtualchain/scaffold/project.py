"""Writing a project: all of its files or none, and never over what is there."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

import virtualchain
from virtualchain.errors import UsageError

_TEMPLATES: Final = Path(__file__).with_name("templates")
_EXAMPLES: Final = Path(__file__).parents[1] / "examples"
_EVERY: Final = {
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "virtualchain.toml": "virtualchain.toml",
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "ci.yml",
}
"""What all projects have, and the template that it is made from."""


@dataclass(frozen=True, slots=True)
class Start:
    """An app to start from."""

    summary: str
    """What it is, as the project's README says it."""
    files: Mapping[str, str]
    """Its own files, with $name for the app's name, and the template that each is made from."""
    copies: Mapping[str, str]
    """Files that are copied from the examples of virtualchain, and where they are there."""
    changes: Sequence[tuple[str, str]] = ()
    """What is replaced in the copies."""
    has_magic: bool = True

    def templates(self) -> dict[str, str]:
        """Return the template of each file that is made from one, with $name in the file's path."""
        return {**self.files, **{path: f"every/{source}" for path, source in _EVERY.items()}}

    def files_of(self, name: str) -> list[str]:
        """Return the paths of all files of a project, the app's own first."""
        return [Template(path).substitute(name=name) for path in (*self.files, *self.copies, *_EVERY)]


STARTS: Final = {
    "app": Start(
        "points that anyone can claim once, and pay to others",
        {"$name.py": "app/app.py", "$name.sql": "app/app.sql", "tests/test_$name.py": "app/test.py"},
        {},
    ),
    "module": Start(
        "points that anyone can claim once, and pay to others, as a module of callbacks without `App`",
        {"$name.py": "module/app.py", "$name.sql": "app/app.sql", "tests/test_$name.py": "module/test.py"},
        {},
    ),
    "notary": Start(
        "a notary: who first claimed a document, and who owns it now",
        {"tests/test_$name.py": "notary/test.py"},
        {"$name.py": "notary.py", "pages/document.html": "pages/document.html"},
        (
            ('    "notary",\n', '    "$name",\n'),
            ('magic=b"nt"', 'magic=b"$magic"'),
            ("with the payload ``nt``, one opcode", "with the app's magic, one opcode"),
            ('version="2"', 'version="1"'),
        ),
    ),
    "names": Start(
        "a name registry with the rules of the Blockstack network, and prices of its own",
        {"$name.py": "names/app.py", "tests/test_$name.py": "names/test.py"},
        {},
    ),
    "runes": Start(
        "the Runes of a network, with a page of your own",
        {
            "$name.py": "runes/app.py",
            "pages/holder.html": "runes/holder.html",
            "tests/test_$name.py": "runes/test.py",
        },
        {},
        has_magic=False,
    ),
}
"""The apps that a project can start from, by the name that --from takes."""


@dataclass(frozen=True, slots=True)
class Project:
    """A project that was written."""

    name: str
    magic: str | None
    """None: the app's payloads have none."""
    folder: Path
    files: tuple[str, ...]
    """Paths within the folder, the app's own first."""


def create(name: str, folder: Path, magic: str | None, start: str = "app") -> Project:
    """Write a project into a new folder.

    The files are written beside the folder's place, and then moved there in one step: an interruption or a
    full disk leaves nothing. Raises UsageError if something is there already, or if it cannot be written,
    and OSError if the disk is full.
    """
    if os.path.lexists(folder):
        raise UsageError(
            f"there is {folder} already, and nothing is overwritten: choose another name, or another folder "
            "with --into"
        )
    files = _contents(name, magic, STARTS[start])
    beside: Path | None = None
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        made = beside / "project"  # a folder with the usual rights, which mkdtemp's does not have
        for path, content in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(content, encoding="utf-8")
        made.rename(folder)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        reason = f"there is no folder {folder.parent}: create it first"
        if folder.parent.is_dir():
            reason = f"{error.strerror}: choose another folder with --into"
        raise UsageError(f"cannot write {folder}: {reason}") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
    return Project(name, magic, folder, tuple(files))


def _contents(name: str, magic: str | None, start: Start) -> dict[str, str]:
    """Return the content of all files of a project, by their paths."""
    values = {
        "name": name,
        "magic": magic or "",
        "summary": start.summary,
        "versions": _versions(virtualchain.__version__),
        "packaged": "".join(f'    "{Template(file).substitute(name=name)}",\n' for file in _packaged(start)),
    }
    texts = {path: _template(source) for path, source in start.templates().items()}
    texts |= {path: _copy(source, start) for path, source in start.copies.items()}
    made = {Template(path).substitute(name=name): Template(text) for path, text in texts.items()}
    return {path: made[path].substitute(values) for path in start.files_of(name)}


def _packaged(start: Start) -> list[str]:
    """Return what of a project belongs to its package: all but the tests."""
    paths = [path for path in (*start.files, *start.copies) if not path.startswith("tests/")]
    return sorted({path.partition("/")[0] for path in paths})


def _template(source: str) -> str:
    return (_TEMPLATES / f"{source}.template").read_text(encoding="utf-8")


def _copy(source: str, start: Start) -> str:
    """Read an example's file as a template: with the app's name and magic as placeholders."""
    text = (_EXAMPLES / source).read_text(encoding="utf-8").replace("$", "$$")
    for old, new in start.changes:
        text = text.replace(old, new)
    return text


def _versions(version: str) -> str:
    """Return the versions of virtualchain that a project works with: this one, and all with the same API."""
    public = version.partition("+")[0]  # what follows is the builder's own, and no requirement can have it
    major, minor = map(int, re.findall(r"\d+", f"{public}.0")[:2])
    return f">={public},<{f'0.{minor + 1}' if major == 0 else major + 1}"
