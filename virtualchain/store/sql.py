"""Where the project's SQL lies, and its statements by name.

SQL is written in `.sql` files, so that it can be read, checked and tried without Python. A file of queries
is a row of blocks::

    -- name: current_block
    -- The last block that was taken.
    SELECT max(block_id) FROM vc.blocks;
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import LiteralString, cast

from virtualchain.errors import StoreError

_BLOCK = re.compile(r"^-- name: (?P<name>\w+)\n-- \S.*\n(?P<statement>(?:(?!-- name:).*\n?)+)", re.MULTILINE)


def sql_root() -> Path:
    """Give the folder of the SQL files; StoreError where the installation lacks it."""
    return _root("sql")


def migrations_root() -> Path:
    """Give the folder of the alembic migrations; StoreError where the installation lacks it."""
    return _root("migrations")


@cache
def queries(name: str) -> Mapping[str, LiteralString]:
    """Read `sql/queries/<name>.sql`: statements by their names, without comments before and `;` after.

    Raises StoreError where the file is missing, or holds anything but named and described statements.
    """
    file = sql_root() / "queries" / f"{name}.sql"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}): install virtualchain again") from error
    return MappingProxyType(_parse(text, str(file)))


def _parse(text: str, origin: str) -> dict[str, LiteralString]:
    """Split a file of queries into its statements."""
    found: dict[str, LiteralString] = {}
    for block in _BLOCK.finditer(text):
        if block["name"] in found:
            raise StoreError(f"{origin}: two statements are named {block['name']}")
        statement = block["statement"].strip().removesuffix(";").rstrip()
        if not statement:
            raise StoreError(f"{origin}: {block['name']} has no statement")
        # The files are part of the program, so their text is as trustworthy as a literal in it.
        found[block["name"]] = cast("LiteralString", statement)
    rest = _BLOCK.sub("", text).strip()
    if rest:
        raise StoreError(f"{origin}: not a named and described statement: {rest.splitlines()[0]}")
    return found


def _root(name: str) -> Path:
    """Find a top-level folder: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    for root in (package / name, package.parent / name):
        if root.is_dir():
            return root
    raise StoreError(f"virtualchain's folder {name} is missing: install virtualchain again")
