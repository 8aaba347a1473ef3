"""Checks of what grows, ages or is kept elsewhere: disk, dead rows, WAL, standbys, archive and backups."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from virtualchain.errors import quoted
from virtualchain.operating.doctor.findings import Checks, Finding, combined, ok, problem, skipped, warning
from virtualchain.operating.doctor.patient import Patient, Unknown
from virtualchain.operating.doctor.server import is_local

_LITTLE: Final = 1 << 30
_NEXT_TO_NOTHING: Final = 200 << 20
"""Bytes that are left on the database's disk."""
_SOON: Final = 30.0
_VERY_SOON: Final = 3.0
"""Days until that disk is full."""
_LEAST_SPAN: Final = 3600.0
"""Seconds of samples from which growth is estimated."""
_DEAD: Final = 10_000
"""Rows of a table that may be dead; autovacuum removes them when they are a fifth."""
_HELD: Final = 3600.0
"""Seconds that a transaction may last."""
_HELD_TRANSACTIONS: Final = 10_000_000
"""Transactions that a replication slot may hold back."""
_OLDEST: Final = 1_500_000_000
"""Transactions: the server refuses to work shortly after 2 billion."""
_KEPT: Final = 1 << 30
"""Bytes of WAL that an unused slot may keep."""
_LAG: Final = 60.0
_LAG_BYTES: Final = 256 << 20
_FULL: Final = 0.5
_BACKED_UP: Final = 8 * 24 * 3600.0
"""Seconds since the last backup; many are weekly."""
_ANSWERS: Final = 5.0
"""Seconds for pgBackRest."""


def disk(patient: Patient) -> Finding:
    """Check the space on the database's disk, and for how many days it lasts."""
    opened = patient.database
    size = opened.row("size")
    observed = f"the database has {size['bytes'] / 1e9:,.2f} GB"
    folder = _data_folder(patient)
    if folder is None:
        return skipped(
            f"{observed}; the disk is not seen from here",
            "watch the disk of the server's machine there, or run the doctor on it as a superuser",
        )
    free = shutil.disk_usage(folder).free
    observed += f", and {free / 1e9:,.1f} GB are free"
    days = _days_left(patient, free, size["bytes"], size["entries"])
    if days is not None:
        observed += f", enough for {_in_days(days)} at the growth of the last day"
    if free < _NEXT_TO_NOTHING or (days is not None and days < _VERY_SOON):
        return problem(observed, "make room, or move the database to a larger disk, now")
    if free < _LITTLE or (days is not None and days < _SOON):
        return warning(observed, "make room, or move the database to a larger disk")
    return ok(observed)


def _in_days(days: float) -> str:
    return "years" if days > 1000 else f"{days:,.0f} days"


def _data_folder(patient: Patient) -> Path | None:
    """Return the server's data folder if it is on this machine."""
    server = patient.embedded
    if server is not None:
        return server.folder
    opened = patient.database
    connection = opened.connection
    if opened.is_pooled or not is_local(connection.info.hostaddr or connection.info.host):
        return None
    folder = opened.row("data_directory")["folder"]
    try:
        return Path(folder) if folder and Path(folder).is_dir() else None
    except OSError:
        return None


def _days_left(patient: Patient, free: int, size: int, entries: int) -> float | None:
    """Estimate for how long the disk lasts; None if too little is known.

    What tape and log take for each entry so far, tables and indexes of the apps included, times the entries
    that the writer reported in the samples of the last day.
    """
    try:
        _ = patient.deployment
    except Unknown:
        return None
    added = patient.database.row("added")
    if added["seconds"] < _LEAST_SPAN or not entries:
        return None
    a_day = float(added["entries"]) / added["seconds"] * 86_400 * size / entries
    return free / a_day if a_day > 0 else None


def bloat(patient: Patient) -> Finding:
    """Check for tables of ours with more dead rows than live ones."""
    _ = patient.deployment
    rows = patient.database.rows("bloated", least=_DEAD)
    if not rows:
        return ok("no table has more dead rows than live ones")
    tables = ", ".join(
        f"{row['name']} ({row['dead']:,} dead, {row['live']:,} live, {_vacuumed(row['age'])})" for row in rows
    )
    return warning(
        f"many dead rows: {tables}",
        "look for what holds back VACUUM (below), then run VACUUM (ANALYZE) on these tables",
    )


def _vacuumed(age: float | None) -> str:
    return "never vacuumed" if age is None else f"vacuumed {age / 3600:,.1f} hours ago"


def transaction_ids(patient: Patient) -> Finding:
    """Check that old rows are frozen before the server runs out of transaction ids."""
    row = patient.database.row("oldest_rows")
    observed = f"the oldest rows are {row['age']:,} transactions old"
    if row["age"] > _OLDEST:
        return problem(observed, "run VACUUM FREEZE now: the server stops taking writes soon")
    if row["age"] > 2 * row["frozen_at"]:
        return warning(
            f"{observed}, twice the age at which autovacuum freezes them",
            "look for what holds back VACUUM (below), and run VACUUM FREEZE",
        )
    return ok(observed)


def holding_back(patient: Patient) -> Finding:
    """Check for what keeps VACUUM from removing dead rows."""
    opened = patient.database
    rows = opened.rows("holding_back", seconds=_HELD, transactions=_HELD_TRANSACTIONS)
    if not rows:
        seen = "" if opened.server["sees_all"] else " that this user sees"
        return ok(f"nothing{seen}")
    holders = [f"{quoted(row['what'])}{_since(row['seconds'])}" for row in rows]
    return warning(
        f"dead rows are kept by {', '.join(holders)}",
        "end it: pg_terminate_backend, ROLLBACK PREPARED, or pg_drop_replication_slot",
    )


def _since(seconds: float | None) -> str:
    return "" if seconds is None else f" (since {seconds / 3600:,.1f} hours)"


def slots(patient: Patient) -> Finding:
    """Check for replication slots that nobody reads, which keep WAL until the disk is full."""
    rows = patient.database.rows("slots")
    findings = []
    for row in rows:
        size, name = row["bytes"] or 0, quoted(row["name"])
        if row["wal_status"] in {"lost", "unreserved"}:
            findings.append(
                problem(
                    f"the replication slot {name} has lost the WAL that its reader needs",
                    "drop the slot, and make the standby or the subscription again",
                )
            )
        elif not row["active"]:
            advice = "start what reads it, or drop it: SELECT pg_drop_replication_slot(name)"
            text = f"the replication slot {name} is not read and keeps {size / 1e6:,.0f} MB of WAL"
            findings.append((problem if size > _KEPT else warning)(text, advice))
    return combined(findings, f"{len(rows)} in use" if rows else "none")


def replication(patient: Patient) -> Finding:
    """Check how far standbys lag, or this standby."""
    opened = patient.database
    return (
        _standby(opened.row("standby")) if opened.server["is_standby"] else _primary(opened.rows("standbys"))
    )


def _standby(row: dict[str, Any]) -> Finding:
    lag, unreplayed = row["age"] or 0.0, row["bytes"] or 0
    observed = (
        f"the last replayed commit is {lag:,.0f} s old, {unreplayed / 1e6:,.1f} MB are not replayed yet"
    )
    if not row["receives"]:
        return warning(
            f"this standby is not connected to its primary; {observed}",
            "look into its log: primary_conninfo, the network, or a slot that is gone",
        )
    if unreplayed > _LAG_BYTES:
        return warning(f"this standby lags: {observed}", "look for long queries on it, or a slow disk")
    return ok(observed)


def _primary(standbys: list[dict[str, Any]]) -> Finding:
    if not standbys:
        return ok("no standby is connected")
    known = [row for row in standbys if row["bytes"] is not None]
    if not known:
        return skipped(
            "standbys are connected, and this user may not see how far they are",
            "grant the user pg_monitor",
        )
    findings = [
        warning(
            f"the standby {quoted(row['name'])} lags by {row['bytes'] / 1e6:,.1f} MB",
            "look at its disk, its network, and queries on it",
        )
        for row in known
        if row["bytes"] > _LAG_BYTES or (row["seconds"] or 0) > _LAG
    ]
    return combined(findings, f"{len(known)} connected, {max(row['bytes'] for row in known):,} bytes at most")


def archiving(patient: Patient) -> Finding:
    """Check that WAL is archived, if the server is set up for it."""
    opened = patient.database
    if opened.setting("archive_mode") == "off":
        return ok("the server archives no WAL")
    row = opened.row("archiver")
    last = "never" if row["age"] is None else f"{row['age'] / 3600:,.1f} hours ago"
    if row["is_failing"]:
        return problem(
            f"archiving fails at {quoted(row['failed'])}, {row['failures']:,} times; last success: {last}",
            "look into the server's log for archive_command: WAL is kept until the disk is full",
        )
    return ok(f"WAL was archived last: {last}")


def backups(patient: Patient) -> Finding:
    """Check the age of the last backup, if pgBackRest knows it."""
    opened = patient.database
    identifier = opened.row("identifier")["identifier"]
    listed = _pgbackrest()
    ends = list(_ends(listed, identifier))
    if listed is None or (not ends and not _knows(listed, identifier)):
        return skipped(
            "nothing is known of backups here: pgBackRest is not installed, or not set up for this server",
            "make sure that there is a backup on another machine, as docs/backup.md describes",
        )
    if not ends:
        return problem("pgBackRest has no backup of this server yet", "run pgbackrest backup")
    age = time.time() - max(ends)
    observed = f"pgBackRest finished the last backup {age / 3600:,.0f} hours ago"
    if age > _BACKED_UP:
        return warning(observed, "look into why no newer one was made")
    return ok(observed)


def _pgbackrest() -> list[Any] | None:
    """Return what pgBackRest says of its stanzas; None if it is not here, or says nothing."""
    program = shutil.which("pgbackrest")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the program on PATH, with fixed arguments
            [program, "info", "--output=json"],
            capture_output=True,
            check=False,
            timeout=_ANSWERS,
            stdin=subprocess.DEVNULL,
        )
        stanzas = json.loads(done.stdout)
    except (OSError, ValueError, RecursionError, subprocess.TimeoutExpired):
        return None
    return stanzas if isinstance(stanzas, list) and stanzas else None


def _knows(stanzas: list[Any], identifier: str) -> bool:
    """Return whether one of the stanzas is of this server."""
    return any(
        str(server.get("system-id")) == identifier
        for stanza in stanzas
        if isinstance(stanza, dict)
        for server in _list(stanza.get("db"))
        if isinstance(server, dict)
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _ends(stanzas: list[Any] | None, identifier: str) -> Iterator[int]:
    """Yield when the backups of this server ended, in Unix time."""
    for stanza in stanzas or []:
        if not _knows([stanza], identifier):
            continue
        for backup in _list(stanza.get("backup")):
            times = backup.get("timestamp") if isinstance(backup, dict) else None
            end = times.get("stop") if isinstance(times, dict) else None
            if isinstance(end, int) and backup.get("error") is not True:
                yield end


def indexes(patient: Patient) -> Finding:
    """Check for indexes that the server does not use or enforce."""
    _ = patient.deployment
    names = [row["name"] for row in patient.database.rows("invalid_indexes")]
    if names:
        return problem(
            f"invalid: {', '.join(names)}",
            "run REINDEX INDEX on each; drop one that somebody else has made",
        )
    return ok("all are valid")


def notifications(patient: Patient) -> Finding:
    """Check that the server's queue of notifications is not filling up."""
    usage = patient.database.row("notifications")["usage"]
    if usage > _FULL:
        return warning(
            f"the queue of notifications is {usage:.0%} full",
            "end the session that listens and does not end its transaction: pg_stat_activity shows it",
        )
    return ok(f"{usage:.0%} full")


UPKEEP: Final[Checks] = {
    "disk": disk,
    "bloat": bloat,
    "transaction-ids": transaction_ids,
    "vacuum-holders": holding_back,
    "replication-slots": slots,
    "replication": replication,
    "archiving": archiving,
    "backups": backups,
    "indexes": indexes,
    "notifications": notifications,
}
