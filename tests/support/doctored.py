"""Servers, nodes and deployments that the doctor examines."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from tests.support.servers import reachable_folder
from virtualchain.operating.doctor.examination import CHECKS, LIMIT, examine, make
from virtualchain.operating.doctor.findings import Checks, Finding
from virtualchain.operating.doctor.patient import Patient
from virtualchain.settings import AppSetting, Settings
from virtualchain.store.embedded.server import EmbeddedServer

NOTARY = (AppSetting("virtualchain.examples.notary"),)


def finding_of(check: str, settings: Settings, expect: Any = None, **changes: Any) -> Finding:
    """Make one check with changed settings."""
    with closing(Patient(replace(settings, **changes), expect)) as patient:
        return make(CHECKS[check], patient)


def examined(
    settings: Settings, expect: Any = None, *, limit: float = LIMIT, checks: Checks = CHECKS, **changes: Any
) -> dict[str, Finding]:
    """Make all checks with changed settings."""
    with closing(Patient(replace(settings, **changes), expect)) as patient:
        return {each.name: each.finding for each in examine(patient, limit, checks)}


@dataclass(frozen=True)
class Clinic:
    """A server, the settings of a deployment on it, and its superuser."""

    server: EmbeddedServer
    settings: Settings

    def one(self, check: str, expect: Any = None, **changes: Any) -> Finding:
        """Make one check."""
        return finding_of(check, self.settings, expect, **changes)

    def all(self, **changes: Any) -> dict[str, Finding]:
        """Make all checks."""
        return examined(self.settings, **changes)

    def run(self, *statements: str, database: str = "virtualchain") -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        with self.server.connect_superuser(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def value(self, statement: str) -> Any:
        """Return the value of a query, as the superuser."""
        with self.server.connect_superuser("virtualchain") as connection:
            row = connection.execute(statement.encode()).fetchone()
        return row and row[0]


@contextmanager
def server_with(
    settings: Mapping[str, str], *, binaries: Path | None = None, durable: bool = True
) -> Iterator[EmbeddedServer]:
    """Run a server whose configuration has these settings."""
    with reachable_folder() as folder:
        server = EmbeddedServer(folder / "postgresql", binaries=binaries, durable=durable)
        server.start()
        with server.connect_superuser("postgres") as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        server.stop()
        server.start()
        yield server


def login_of(url: str, role: str, password: str) -> str:
    """Return the URL of another user."""
    parameters = psycopg.conninfo.conninfo_to_dict(url)
    return f"postgresql://{role}:{password}@{parameters['host']}:{parameters['port']}/{parameters['dbname']}"


def not_ok(findings: Mapping[str, Finding], *, besides: Sequence[str] = ()) -> dict[str, str]:
    """Return the checks that are neither ok nor skipped with a reason, and what they observed."""
    return {
        name: f"{finding.verdict}: {finding.observed}"
        for name, finding in findings.items()
        if name not in besides
        and (finding.verdict in {"warning", "problem"} or "does not have it" in finding.observed)
    }
