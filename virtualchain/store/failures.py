"""What a failed statement means: a value that does not fit, a transient fault of the database, or neither."""

from typing import Final

import psycopg

from virtualchain.errors import InvalidOp, Unserializable, VirtualchainError

PAUSES: Final = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt after a transient fault of the database."""

_DOES_NOT_FIT: Final = ("22001", "22003", "22012")
"""SQLSTATEs of values that do not fit: string too long, number out of range, division by zero."""
_TRANSIENT: Final = ("08", "40", "53", "57", "58")
"""SQLSTATE classes of transient faults: connection, rollback, resources, operator, system."""
_PROTOCOL_VIOLATION: Final = "08P01"
"""A statement whose parameters are not those that were sent: it fails however often it is tried."""


class ValueDoesNotFit(VirtualchainError):
    """A statement failed because of a value alone, as it does on every node: the input is rejected.

    Its text is always the same: which of several such errors comes first may depend on a plan.
    """

    def __init__(self) -> None:
        super().__init__("a value is out of range, too long, or divided by zero")


def does_not_fit(error: BaseException) -> bool:
    """Return whether the server refused a value, by the closed list of docs/determinism.md."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _DOES_NOT_FIT


def is_rejection(error: BaseException) -> bool:
    """Return whether an error of a callback rejects the input, and does not halt the app."""
    return isinstance(error, ValueDoesNotFit | Unserializable) and not isinstance(error, InvalidOp)


def is_transient(error: BaseException) -> bool:
    """Return whether the fault is transient: the engine retries, and no app is to blame."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in _TRANSIENT and error.sqlstate != _PROTOCOL_VIOLATION


def summarize_error(error: BaseException) -> str:
    """Describe an error on one line, without the parts that depend on the server's version or language."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return f"{error.sqlstate} {type(error).__name__}"
    return describe_error(error).splitlines()[0]


def describe_error(error: BaseException) -> str:
    """Return an error's class, text and notes, even if asking for its text fails."""
    try:
        return "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    except Exception:  # noqa: BLE001 - an app's error may run any code
        return f"{type(error).__name__}, whose text cannot be read"
