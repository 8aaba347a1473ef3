"""Names and magics that a new app can have: checked before anything is written."""

import keyword
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

from virtualchain.app.declarations import schema_name
from virtualchain.errors import InvalidApp, UsageError, quoted

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_MAGIC: Final = re.compile(r"[!#-&(-\[\]-_a-~]{2,16}")
"""ASCII that can be seen, without quotes, backslash and backtick, which would need care in code."""
_DERIVED: Final = 4
"""How many letters of a name are its magic; OP_RETURN is short, and a shorter magic is met by chance."""
_KNOWN: Final = {
    "id": "the name registry of the Blockstack network",
    "nt": "the example notary",
    "omni": "Omni Layer",
    "X2": "Stacks",
}
"""Magics that are in use: whoever takes one of them, or how it begins, gets the inputs of others."""
_OWN: Final = frozenset({"build", "conftest", "dist", "pages", "setup", "tests"})
"""Names that something else in a project has."""


def check_name(name: str) -> str:
    """Return a name that can be an app's, its module's and its schema's; raise UsageError for any other."""
    if not _NAME.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")
        hint = f": try {near}" if _NAME.fullmatch(near) and near != name else ""
        raise UsageError(
            f"{quoted(name)} cannot be an app's name: it is also a Python module and a schema, so it has the "
            f"letters a to z, digits and _, and begins with a letter{hint}"
        )
    if keyword.iskeyword(name):
        raise UsageError(f"{name} is a word of Python's own, which cannot be imported: choose another name")
    if name in sys.stdlib_module_names:
        raise UsageError(
            f"{name} is a module of Python's own, and a test would import that one: choose another name, "
            f"such as {name}_app"
        )
    try:
        schema_name(name)
    except InvalidApp as error:
        raise UsageError(str(error)) from error
    if name in _OWN:
        raise UsageError(f"{name} is what tools call their own files in a project: choose another name")
    other = PathFinder.find_spec(name, [place for place in sys.path if place not in {"", str(Path.cwd())}])
    if other is not None and other.origin is not None:
        raise UsageError(
            f"{name} is a module that is installed ({other.origin}), and the app would hide it: choose "
            f"another name, such as {name}_app"
        )
    return name


def magic_of(name: str) -> str:
    """Derive a magic from an app's name: its first four letters."""
    return name.replace("_", "")[:_DERIVED].ljust(2, "!")


def check_magic(magic: str) -> str:
    """Return a magic that an app's payloads can start with; raise UsageError for any other."""
    if not _MAGIC.fullmatch(magic):
        raise UsageError(
            f"--magic {quoted(magic)}: it is 2 to 16 characters of ASCII, without spaces, quotes and "
            "backslashes; in the app's file you can write any bytes"
        )
    for known, owner in _KNOWN.items():
        if known.startswith(magic):
            raise UsageError(
                f"the magic {magic} would match the inputs of {owner}, which begin with {known}: choose "
                "another one with --magic"
            )
    return magic
