"""What handlers of pages read from the path and the query string."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import psycopg

from virtualchain.bitcoin import networks
from virtualchain.errors import UsageError, quoted
from virtualchain.model import Json
from virtualchain.reading import journal, views
from virtualchain.reading.views import HIGHEST
from virtualchain.web.problems import NotFound

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def as_of_of(asked: Mapping[str, str]) -> str | None:
    """Return the block that is asked for, by height or hash; separators of thousands are left out."""
    text = asked.get("as_of", "").replace(",", "").strip()
    if "\0" in text:
        raise UsageError("as_of is not a block's height or hash")
    return text or None


def integer(asked: Mapping[str, str], name: str) -> int | None:
    """Return a parameter that is a block's height or another such number; None if there is none."""
    text = asked.get(name, "").replace(",", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= HIGHEST):
        raise UsageError(f"{name} is not a number of a block: {quoted(text)}")
    return int(text)


def opcode_of(asked: Mapping[str, str]) -> bytes | None:
    """Return the opcode that is asked for: one character, or 0x and hex digits."""
    text = asked.get("opcode", "")
    if not text:
        return None
    if text.startswith("0x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            pass
    if len(text) == 1 and text.isascii():
        return text.encode()
    raise UsageError(f"an opcode is one character, or 0x and two hex digits: {quoted(text)}")


def require_app(connection: psycopg.Connection, name: str) -> Json:
    """Return an app, with the columns of virtualchain.apps; raises NotFound."""
    item = None if "\0" in name else journal.app(connection, name)
    if item is None:
        raise NotFound(f"This deployment has no app {name}.")
    return item.value


def unit_of(connection: psycopg.Connection) -> str:
    """Return the unit of the deployment's amounts; of a chain whose package is not installed here, none."""
    try:
        return networks.network(views.network(connection) or "mainnet").unit
    except UsageError:
        return ""


def order_name(column: str) -> str:
    """Return a column as the parameter `order` has it."""
    if _PLAIN.fullmatch(column):
        return column
    return '"' + column.replace("\\", "\\\\").replace('"', '\\"') + '"'


def without(pairs: Iterable[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    """Return the parameters without those of some names, and without empty ones."""
    return [(name, value) for name, value in pairs if name not in names and value]
