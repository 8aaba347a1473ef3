"""What a failed statement means: a hostile value, a passing fault of the database, or neither."""

from typing import Final

import psycopg

_DATA: Final = ("22", "54")
"""SQLSTATE classes of values that the database cannot take: data exceptions, limits exceeded."""
_PASSING: Final = ("08", "40", "53", "57", "58")
"""SQLSTATE classes that do not blame the statement: connection, rollback, resources, operator, system."""


def is_data_error(error: BaseException) -> bool:
    """Tell whether a value was refused, which every node's database does alike."""
    if isinstance(error, UnicodeEncodeError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    return (error.sqlstate or "")[:2] in _DATA if error.sqlstate else isinstance(error, psycopg.DataError)


def is_passing(error: BaseException) -> bool:
    """Tell whether the same statement may succeed when tried again: the engine's to retry, no app's fault."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in _PASSING


def told(error: BaseException) -> str:
    """Put an error into one line, without the parts that depend on the server's version or language."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return f"{error.sqlstate} {type(error).__name__}"
    return said(error).splitlines()[0]


def said(error: BaseException) -> str:
    """Give an error's class and text, also of one that fails when it is asked for its text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an app's error may have any code
        return f"{type(error).__name__}, whose text cannot be had"
