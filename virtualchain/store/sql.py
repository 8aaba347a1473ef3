"""Find the project's SQL files, and load statements from them by name.

SQL is written in `.sql` files, so that it can be read, checked and tried without Python. A query file is a
sequence of blocks::

    -- name: current_block
    -- The last block on the tape.
    SELECT max(block_id) FROM vc.blocks;
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import LiteralString, NamedTuple, cast

from virtualchain.errors import StoreError

_BLOCK = re.compile(r"^-- name: (?P<name>\w+)\n-- \S.*\n(?P<statement>(?:(?!-- name:).*\n?)+)", re.MULTILINE)


_PARAMETER = re.compile(r"%\((?P<name>\w+)\)s")


class Statement(NamedTuple):
    """A statement whose parameters have numbers, and their names in this order."""

    text: bytes
    names: tuple[str, ...]


def sql_root() -> Path:
    """Return the folder of the SQL files; raise StoreError if it is not installed."""
    return _root("sql")


def migrations_root() -> Path:
    """Return the folder of the Alembic migrations; raise StoreError if it is not installed."""
    return _root("migrations")


@cache
def queries(name: str) -> Mapping[str, LiteralString]:
    """Read `sql/queries/<name>.sql`: statements by name, without the comments before and the `;` after them.

    Raises StoreError if the file is missing, or contains anything but named and described statements.
    """
    file = sql_root() / "queries" / f"{name}.sql"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}): reinstall virtualchain") from error
    return MappingProxyType(_parse(text, str(file)))


def statement(query: str) -> Statement:
    """Return a query with numbers for its parameters, which are written `%(name)s`."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(query)))
    text = _PARAMETER.sub(lambda parameter: f"${names.index(parameter['name']) + 1}", query)
    return Statement(text.encode(), names)


def _parse(text: str, origin: str) -> dict[str, LiteralString]:
    """Split a query file into its statements."""
    statements: dict[str, LiteralString] = {}
    for block in _BLOCK.finditer(text):
        if block["name"] in statements:
            raise StoreError(f"{origin}: two statements are named {block['name']}")
        statement = block["statement"].strip().removesuffix(";").rstrip()
        if not statement:
            raise StoreError(f"{origin}: {block['name']} has no statement")
        # The files are part of the program, so their text is as trustworthy as a literal.
        statements[block["name"]] = cast("LiteralString", statement)
    rest = _BLOCK.sub("", text).strip()
    if rest:
        raise StoreError(f"{origin}: not a named and described statement: {rest.splitlines()[0]}")
    return statements


def _root(name: str) -> Path:
    """Find a top-level folder: inside the package in an installed wheel, next to it in a checkout."""
    package = Path(__file__).parents[1]
    for root in (package / name, package.parent / name):
        if root.is_dir():
            return root
    raise StoreError(f"virtualchain's folder {name} is missing: reinstall virtualchain")
