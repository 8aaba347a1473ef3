"""What a failed statement means: a value that does not fit, a transient fault of the database, or neither."""

from typing import Final

import psycopg
from psycopg.errors import PipelineAborted

from virtualchain.errors import DatabaseUnavailable, InvalidOp, StoreError, Unserializable, VirtualchainError

PAUSES: Final = (0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt after a transient fault of the database."""

_DOES_NOT_FIT: Final = ("22001", "22003", "22012")
"""SQLSTATEs of values that do not fit: string too long, number out of range, division by zero."""
_TRANSIENT: Final = ("08", "40", "53", "57", "58")
"""SQLSTATE classes of transient faults: connection, rollback, resources, operator, system."""
_OF_A_VALUE: Final = ("08", "22", "53", "54")
"""SQLSTATE classes that a value alone may cause: connection, data, resources, limits of the program."""
_NOT_OF_A_VALUE: Final = ("53300",)
"""Those of them that no value causes: too many connections."""

_ADVICE: Final = {
    "22": "look at values in Python before a statement uses them: docs/mistakes.md#values",
    "23": "reject in check what breaks a constraint: docs/mistakes.md#constraints",
}
"""By SQLSTATE class, what an author should write instead."""

_AWAY: Final = ("57P01", "57P02", "57P03")
"""SQLSTATEs of a server that is shutting down, was reset, or is starting."""
_OF_A_CONNECTION: Final = (psycopg.OperationalError, psycopg.InternalError)
"""Errors without SQLSTATE that end a session; the second, if a pooler adds to what its server says."""
_BUILD_CHANGED: Final = "VC008"
"""What `AppLog.keep` fails with."""
_PROTOCOL_VIOLATION: Final = "08P01"
"""A statement whose parameters are not those that were sent: it fails however often it is tried."""


class ValueDoesNotFit(VirtualchainError):
    """A statement failed because of a value alone, as it does on every node: the input is rejected.

    Its text is always the same: which of several such errors comes first may depend on a plan.
    """

    def __init__(self) -> None:
        super().__init__("a value is out of range, too long, or divided by zero")


class Refused(VirtualchainError):
    """A helper such as `Table.spend` refuses the input, with this reason, before it has written anything."""


def does_not_fit(error: BaseException) -> bool:
    """Return whether the server refused a value, by the closed list of docs/determinism.md."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _DOES_NOT_FIT


def is_rejection(error: BaseException) -> bool:
    """Return whether an error of a callback rejects the input, and does not halt the app."""
    return isinstance(error, ValueDoesNotFit | Unserializable | Refused) and not isinstance(error, InvalidOp)


def is_transient(error: BaseException) -> bool:
    """Return whether the fault is transient: the engine retries, and no app is to blame."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        # In an aborted pipeline an earlier statement has failed, with an error of its own.
        return isinstance(error, _OF_A_CONNECTION) and not isinstance(error, PipelineAborted)
    return error.sqlstate[:2] in _TRANSIENT and error.sqlstate != _PROTOCOL_VIOLATION


def is_of_changed_build(error: BaseException) -> bool:
    """Return whether what was sent was of a build that somebody had swapped or dropped."""
    errors = (error, error.__cause__)  # EarlierFailed has one
    return any(isinstance(each, psycopg.Error) and each.sqlstate == _BUILD_CHANGED for each in errors)


def may_be_of_a_value(error: BaseException) -> bool:
    """Return whether a fault may be due to one app's values alone, so that it comes back with its block.

    Among these are passing faults: a query that needs more memory, temporary files or a longer message than
    the server allows fails each time, and may end the session.
    """
    if not isinstance(error, psycopg.Error) or error.sqlstate in _NOT_OF_A_VALUE:
        return False
    if error.sqlstate is None:
        return isinstance(error, (*_OF_A_CONNECTION, psycopg.DataError))
    return error.sqlstate == "XX000" or error.sqlstate[:2] in _OF_A_VALUE


def store_error(error: BaseException, what: str = "the database") -> StoreError:
    """Describe a failure of `what`, on one line; it is DatabaseUnavailable if the server is away."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else ""
    is_away = isinstance(error, _OF_A_CONNECTION) and (
        state is None or state in _AWAY or (state.startswith("08") and state != _PROTOCOL_VIOLATION)
    )
    return (DatabaseUnavailable if is_away else StoreError).from_database(error, what)


def summarize_error(error: BaseException) -> str:
    """Describe an error on one line, without the parts that depend on the server's version or language."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return f"{error.sqlstate} {type(error).__name__}"
    return describe_error(error).splitlines()[0]


def describe_error(error: BaseException) -> str:
    """Return an error's class, text and notes, even if asking for its text fails."""
    advice = _ADVICE.get((error.sqlstate or "")[:2]) if isinstance(error, psycopg.Error) else None
    try:
        first, *others = str(error).splitlines() or [""]
        text = "\n".join([first + (f" ({advice})" if advice else ""), *others])
        return "; ".join([f"{type(error).__name__}: {text}", *getattr(error, "__notes__", ())])
    except Exception:  # noqa: BLE001 - an app's error may run any code
        return f"{type(error).__name__}, whose text cannot be read"
