"""Runs the checks in order. Each ends in time and with a verdict, whatever node or database answer."""

from collections.abc import Iterator
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from typing import Final

import psycopg

from virtualchain.background import begin
from virtualchain.errors import VirtualchainError, quoted
from virtualchain.operating.doctor.apps import APPS
from virtualchain.operating.doctor.findings import PAGE, Check, Checks, Finding, problem, skipped, warning
from virtualchain.operating.doctor.following import FOLLOWING
from virtualchain.operating.doctor.machine import MACHINE
from virtualchain.operating.doctor.node import NODE
from virtualchain.operating.doctor.patient import Away, Patient, Unknown
from virtualchain.operating.doctor.server import DATABASE, SERVER
from virtualchain.operating.doctor.upkeep import UPKEEP
from virtualchain.store.patience import ServerSilent

CHECKS: Final[Checks] = {**MACHINE, **DATABASE, **NODE, **SERVER, **UPKEEP, **FOLLOWING, **APPS}
"""All checks by their names, in the order in which they run."""
LIMIT: Final = 10.0
"""Seconds for one check."""
_NOT_THERE: Final = ("3F000", "42703", "42883", "42P01")
"""SQLSTATEs of schemas, columns, functions and tables that do not exist."""
_CANCELED: Final = "57014"


@dataclass(frozen=True, slots=True)
class Examined:
    """A check's name and its finding."""

    name: str
    finding: Finding

    @property
    def link(self) -> str:
        """Where the check is described."""
        return f"{PAGE}#{self.name}"


def examine(patient: Patient, limit: float = LIMIT, checks: Checks = CHECKS) -> Iterator[Examined]:
    """Run the checks and yield what each finds; `limit` is the time for one, in seconds."""
    for name, check in checks.items():
        result = begin(lambda check=check: make(check, patient))  # type: ignore[misc]  # mypy infers no lambda
        try:
            finding = result.result(limit)
        except OutOfTime:
            patient.give_up(limit)
            finding = problem(
                f"no answer within {limit:g} seconds", "find out what hangs: the node, the database or a disk"
            )
        yield Examined(name, finding)


def make(check: Check, patient: Patient) -> Finding:
    """Make one check; whatever it raises is a finding, too."""
    try:
        return check(patient)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an app's module may raise anything
        return _of_error(error, patient)
    finally:
        patient.rest()


def _of_error(error: BaseException, patient: Patient) -> Finding:
    """Describe what kept a check from its end."""
    match error:
        case Unknown():
            finding = skipped(str(error))
        case Away():
            finding = problem(str(error), error.advice)
        case VirtualchainError():
            finding = problem(" ".join(str(error).split()), "mend that, and run the doctor again")
        case ServerSilent():
            patient.give_up_database("it does not answer")
            finding = problem("the database does not answer", "find out why the server hangs")
        case psycopg.Error():
            finding = _failed(error)
        case OSError():
            finding = skipped(f"this user may not look there: {quoted(str(error))}")
        case _:
            finding = problem(
                f"the check failed: {type(error).__name__}: {quoted(str(error))}",
                "report this as a bug of virtualchain, unless an app's module raised it",
            )
    return finding


def _failed(error: psycopg.Error) -> Finding:
    """Describe what the database says instead of answering."""
    message = " ".join(str(error.diag.message_primary or error).split())
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return skipped(
            f"the database's user may not see this: {message}",
            "run the doctor with the URL of the writer, or of a member of pg_monitor",
        )
    if error.sqlstate in _NOT_THERE:
        return skipped(f"this database does not have it: {message}")
    if error.sqlstate == _CANCELED:
        return warning(
            f"the server took too long to answer: {message}",
            "find out what it is busy with, or who holds a lock, in pg_stat_activity",
        )
    return problem(f"the database failed: {message}", "look into the server's log")
