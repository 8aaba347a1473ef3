"""What a failed statement means: a hostile value, a transient fault of the database, or neither."""

from typing import Final

import psycopg

PAUSES: Final = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt after a transient fault of the database."""

_DATA: Final = ("22", "54")
"""SQLSTATE classes of values that the database cannot take: data exceptions, limits exceeded."""
_PASSING: Final = ("08", "40", "53", "57", "58")
"""SQLSTATE classes of transient faults: connection, rollback, resources, operator, system."""


def is_data_error(error: BaseException) -> bool:
    """Return whether a value was refused, which every node's database does alike."""
    if isinstance(error, UnicodeEncodeError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    return (error.sqlstate or "")[:2] in _DATA if error.sqlstate else isinstance(error, psycopg.DataError)


def is_passing(error: BaseException) -> bool:
    """Return whether the fault is transient: the engine retries, and no app is to blame."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in _PASSING


def summarize_error(error: BaseException) -> str:
    """Describe an error on one line, without the parts that depend on the server's version or language."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return f"{error.sqlstate} {type(error).__name__}"
    return describe_error(error).splitlines()[0]


def describe_error(error: BaseException) -> str:
    """Return an error's class and text, even if asking for its text fails."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an app's error may run any code
        return f"{type(error).__name__}, whose text cannot be read"
