"""What is measured after each day of a soak, and whether its end is that of an undisturbed deployment."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.soak.apps import app as ledger
from tests.soak.service import CONFIRMATIONS, Service
from virtualchain import StateEngine
from virtualchain.examples.notary import app as notary

_STATE: Final = """
    SELECT a.name, a.block_id, s.consensus_hash, s.state_hash,
        (SELECT count(*) FROM virtualchain.ops AS o WHERE o.app = a.name),
        (SELECT count(*) FROM virtualchain.rejections AS r WHERE r.app = a.name)
    FROM virtualchain.apps AS a JOIN virtualchain.snapshots AS s ON s.app = a.name AND s.block_id = a.block_id
    ORDER BY a.name
"""
_SIZES: Final = """
    SELECT (SELECT count(*) FROM virtualchain.ops), pg_database_size(current_database()),
        (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c
            WHERE c.relnamespace = 'vc'::regnamespace AND c.relkind = 'r'),
        (SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables WHERE relname = 'accounts'),
        (SELECT sum(n_dead_tup) FROM pg_stat_user_tables), (SELECT sum(n_live_tup) FROM pg_stat_user_tables)
"""
_SESSIONS: Final = """
    SELECT count(*), max(pid) FILTER (WHERE application_name LIKE 'virtualchain writer%')
    FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Sample:
    """The state after a day; sizes are in bytes."""

    day: int
    event: str
    height: int
    ops: int
    memory: int
    """Of `virtualchain run`."""
    handles: int
    threads: int
    sessions: int
    server_memory: int
    """Of the writer's server process, without what is shared."""
    log_lines: int
    """Written on this day."""
    database: int
    log_tables: int
    accounts_table: int
    """A table of 500 rows, with its index."""
    dead: float
    """Dead rows for each live one, in all tables."""
    write_ahead_log: int
    restarts: int


def sample(service: Service, day: int, event: str, before: Sample | None) -> Sample:
    """Measure a deployment that has caught up."""
    service.until(lambda: _writer(service) is not None, "there is no writer")
    sessions, writer = service.ask(_SESSIONS)[0]
    ops, database, log_tables, accounts, dead, live = service.ask(_SIZES)[0]
    lines = service.log.read_bytes().count(b"\n")
    service.log.write_bytes(b"")  # appended to, so that the process continues at the start
    status = Path(f"/proc/{service.pid}/status").read_text()
    wal = service.server.folder / "data" / "pg_wal"
    return Sample(
        day=day,
        event=event,
        height=service.node.height,
        ops=int(str(ops)),
        memory=_kilobytes(status, "VmRSS"),
        handles=len(list(Path(f"/proc/{service.pid}/fd").iterdir())),
        threads=int(_field(status, "Threads")),
        sessions=int(str(sessions)),
        server_memory=_private(int(str(writer))),
        log_lines=lines,
        database=int(str(database)),
        log_tables=int(str(log_tables)),
        accounts_table=int(str(accounts)),
        dead=float(str(dead)) / max(float(str(live)), 1),
        write_ahead_log=sum(file.stat().st_size for file in wal.iterdir() if file.is_file()),
        restarts=service.restarts,
    )


def differences(service: Service) -> list[str]:
    """Compare with a deployment that takes the final chain at once, and have the tables verified."""
    disturbed = service.ask(_STATE)
    other = service.server.create_database("undisturbed")
    with StateEngine(
        ledger, notary, database=other, source=service.node.url, confirmations=CONFIRMATIONS
    ) as engine:
        engine.build()
    service.url, url = other, service.url
    expected = service.ask(_STATE)
    service.url = url
    lines = [
        f"{mine} instead of {theirs}"
        for mine, theirs in zip(disturbed, expected, strict=True)
        if mine != theirs
    ]
    command = [sys.executable, "-m", "virtualchain", "verify", "--database", url]
    command += ["--app", "tests.soak.apps", "--app", "virtualchain.examples.notary"]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    return lines if verified.returncode == 0 else [*lines, verified.stdout + verified.stderr]


def _writer(service: Service) -> object:
    return service.ask(_SESSIONS)[0][1]


def _field(status: str, name: str) -> str:
    [value] = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
    return value


def _kilobytes(status: str, name: str) -> int:
    return int(_field(status, name)) * 1024


def _private(pid: int) -> int:
    """Return the memory of a process that it does not share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return _kilobytes(rollup, "Private_Clean") + _kilobytes(rollup, "Private_Dirty")
