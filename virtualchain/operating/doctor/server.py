"""Checks of the database server: how it is reached, its version, and settings that hurt."""

import ipaddress
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

from virtualchain.errors import StoreError, quoted
from virtualchain.operating.doctor.findings import Checks, Finding, combined, ok, problem, warning
from virtualchain.operating.doctor.patient import Database, Patient, Unknown
from virtualchain.store.database import OLDEST_SERVER, other_locale
from virtualchain.store.fitness import refuse_unsafe

_ENDS: Final = {
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""The last day of each version that is known, from the versioning policy of PostgreSQL."""
_DIFFERENCE: Final = 5.0
"""Seconds by which two clocks may differ."""
_DANGEROUS: Final = (
    ("fsync", "a crash of the machine may destroy the database"),
    ("full_page_writes", "a crash of the machine may damage pages"),
)
_TIMEOUTS: Final = (
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)
_SHORT: Final = 60_000
"""Milliseconds: a query of an analyst may take longer."""
_CROWDED: Final = 0.8
_LEAST_BUFFERS: Final = 64 << 20
_LEAST_WAL: Final = 256 << 20


def database(patient: Patient) -> Finding:
    """Check that the database answers, accepts the login, and can be used."""
    opened = patient.open_database()
    server = opened.server
    kind = ", a standby" if server["is_standby"] else ""
    return ok(f"{opened.name} answers as {quoted(server['user_name'])}{kind}")


def encryption(patient: Patient) -> Finding:
    """Check that the connection is encrypted if it crosses a network."""
    connection = patient.database.connection
    if connection.pgconn.ssl_in_use:
        return ok("TLS")
    host = connection.info.hostaddr or connection.info.host
    if is_local(host):
        return ok("on this machine")
    return warning(
        f"the connection to {host} is not encrypted",
        "add sslmode=verify-full and sslrootcert to the URL, and allow only hostssl in pg_hba.conf",
    )


def is_local(host: str) -> bool:
    """Return whether an address, or a folder with a socket, is on this machine."""
    if not host or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def pooler(patient: Patient) -> Finding:
    """Check that no pooler is in between, which only readers may use."""
    if patient.database.is_pooled:
        return warning(
            "a connection pooler is in between, which only readers may use",
            "give a writer the address of the PostgreSQL server itself",
        )
    return ok("none")


def version(patient: Patient) -> Finding:
    """Check that the server's version is known, and is still mended."""
    server = patient.database.server
    return judge_version(server["major"], f"PostgreSQL {server['version']}", datetime.now(UTC).date())


def judge_version(major: int, observed: str, today: date) -> Finding:
    """Judge a major version of the server as of a day."""
    newest = max(_ENDS)
    if major > newest:
        return warning(observed, f"virtualchain is tested with PostgreSQL {OLDEST_SERVER} to {newest}")
    if today > _ENDS[major]:
        return warning(
            f"{observed}, which has had no fixes since {_ENDS[major]}",
            "upgrade the server, as docs/backup.md describes",
        )
    return ok(observed)


def locale(patient: Patient) -> Finding:
    """Check that the database's locale is C, and that its collation has not changed."""
    opened = patient.database
    other = other_locale(opened.connection)
    collation = opened.row("collation")
    findings = []
    if other is not None:
        findings.append(
            warning(
                f"{other}, so that apps may differ from those of other nodes",
                "move to a new database with the locale C, as docs/operating.md explains",
            )
        )
    if collation["actual"] is not None and collation["recorded"] != collation["actual"]:
        findings.append(
            problem(
                f"the collation was version {collation['recorded']} and is {collation['actual']} now: "
                "indexes of text may be in disorder",
                "run REINDEX DATABASE, and then ALTER DATABASE … REFRESH COLLATION VERSION",
            )
        )
    return combined(findings, "C")


def clock(patient: Patient) -> Finding:
    """Compare the server's clock with this machine's."""
    opened = patient.database
    before = time.time()
    theirs = opened.row("server")["clock"]
    after = time.time()
    difference = max(before - theirs, theirs - after, 0)
    observed = f"{difference:,.1f} s between the server's clock and this machine's"
    if difference > _DIFFERENCE:
        return warning(observed, "have both machines synchronize their clocks")
    return ok(observed)


def durability(patient: Patient) -> Finding:
    """Check that a crash cannot damage the database, and that damage is noticed."""
    opened = patient.database
    findings = [
        problem(f"{name} is off: {effect}", f"turn {name} on")
        for name, effect in _DANGEROUS
        if opened.defaults.get(name) == "off"
    ]
    if opened.defaults.get("data_checksums") == "off":
        findings.append(
            warning(
                "data checksums are off, so that damage by the disk is not noticed",
                "stop the server and run pg_checksums --enable",
            )
        )
    return combined(findings, "commits survive crashes, and damaged pages are noticed")


def commits(patient: Patient) -> Finding:
    """Check that commits do not wait for a standby that is not there."""
    opened = patient.database
    names = opened.setting("synchronous_standby_names")
    if not names or opened.server["is_standby"]:
        return ok("commits wait for this server alone")
    standbys = opened.rows("standbys")
    if any(standby["sync_state"] in {"sync", "quorum"} for standby in standbys):
        return ok("a synchronous standby is connected")
    if standbys and not opened.server["sees_all"]:
        return ok("standbys are connected")
    return problem(
        "commits wait for a synchronous standby, and none is connected",
        "connect it, or empty synchronous_standby_names",
    )


def refused(patient: Patient) -> Finding:
    """Check for what a writer refuses to work with: see docs/database.md."""
    connection = patient.deployment
    if not _is_owner(patient.database):
        raise Unknown("this user only reads")
    try:
        refuse_unsafe(connection, patient.database.name)
    except StoreError as error:
        return problem(str(error), "a writer does not start until then")
    return ok("none")


def _is_owner(opened: Database) -> bool:
    rows = opened.rows("rights")
    return bool(rows and rows[0]["owns"])


def timeouts(patient: Patient) -> Finding:
    """Check for short timeouts: our sessions turn them off for themselves, other programs do not."""
    opened = patient.database
    values = {name: int(opened.defaults.get(name, "0")) for name in _TIMEOUTS}
    listed = ", ".join(f"{name} is {value / 1000:g} s" for name, value in values.items() if value)
    if any(0 < value < _SHORT for value in values.values()):
        return warning(
            f"{listed}: virtualchain's sessions turn it off, and other programs of this user are cut off",
            "set it for the roles that need it, and not for the server, the database or this user",
        )
    return ok(listed or "none")


def transactions(patient: Patient) -> Finding:
    """Check the defaults of transactions: our sessions set their own, other programs do not."""
    opened = patient.database
    isolation = opened.setting("default_transaction_isolation")
    changed = [isolation] if isolation == "serializable" else []
    # A role that only reads should have it: `db grant-reader` sets it.
    if opened.setting("default_transaction_read_only") == "on" and _is_owner(opened):
        changed.append("read-only")
    if changed:
        return warning(
            f"transactions of this user are {' and '.join(changed)} by default: virtualchain's sessions set "
            "their own, and other programs may fail",
            "reset default_transaction_isolation and default_transaction_read_only: see docs/database.md",
        )
    return ok(isolation)


def locks(patient: Patient) -> Finding:
    """Check that the table of locks has room for a dump of everything."""
    _ = patient.deployment
    opened = patient.database
    sessions = int(opened.setting("max_connections")) + int(opened.setting("max_prepared_transactions"))
    room = int(opened.setting("max_locks_per_transaction")) * sessions
    needed = opened.row("relations")["relations"]
    observed = f"room for {room:,} locks; {needed:,} tables, indexes and views"
    if needed > room // 2:
        return warning(
            f"{observed}: a backup with pg_dump, or the change of an app, may fail for want of locks",
            f"raise max_locks_per_transaction to {max(64, 4 * needed // sessions)} or more",
        )
    return ok(observed)


def connections(patient: Patient) -> Finding:
    """Check that there are connections left."""
    opened = patient.database
    row = opened.row("connections")
    kept = int(opened.setting("superuser_reserved_connections"))
    kept += int(opened.defaults.get("reserved_connections", "0"))
    most = int(opened.setting("max_connections")) - kept
    limits = [("the server", row["used"], most)]
    if not row["is_superuser"]:
        limits += [
            ("this database", row["of_database"], row["database_limit"]),
            ("this user", row["of_user"], row["user_limit"]),
        ]
    crowded = [
        warning(f"{used} of {limit} connections of {what} are used", "end some, or raise the limit")
        for what, used, limit in limits
        if limit >= 0 and used >= _CROWDED * limit
    ]
    return combined(crowded, f"{row['used']} of {most} are used")


def autovacuum(patient: Patient) -> Finding:
    """Check that dead rows are removed."""
    opened = patient.database
    off = [name for name in ("autovacuum", "track_counts") if opened.setting(name) == "off"]
    if off:
        return warning(
            f"{' and '.join(off)} off: dead rows are never removed", f"turn {' and '.join(off)} on"
        )
    return ok("on")


def server_memory(patient: Patient) -> Finding:
    """Check for buffers and WAL that are too small for a first sync."""
    opened = patient.database
    buffers = int(opened.setting("shared_buffers")) * int(opened.setting("block_size"))
    wal = int(opened.setting("max_wal_size")) << 20
    findings = []
    if buffers < _LEAST_BUFFERS:
        findings.append(
            warning(f"shared_buffers is {buffers >> 20} MB", "raise it, to a quarter of the memory")
        )
    if wal < _LEAST_WAL:
        findings.append(
            warning(
                f"max_wal_size is {wal >> 20} MB, so that checkpoints never end", "raise it to 1GB or more"
            )
        )
    return combined(findings, f"shared_buffers {buffers >> 20} MB, max_wal_size {wal >> 20} MB")


def wal_level(patient: Patient) -> Finding:
    """Check that physical backups and standbys are possible."""
    level = patient.database.setting("wal_level")
    if level == "minimal":
        return warning(
            "minimal: neither physical backups nor standbys are possible", "set wal_level to replica"
        )
    return ok(level)


def overrides(patient: Patient) -> Finding:
    """List the settings that are made for this database or this user, by name: values may be secret."""
    rows = patient.database.rows("overrides")
    return ok(_listed([f"{row['setting'].partition('=')[0]} ({row['role']})" for row in rows]))


def event_triggers(patient: Patient) -> Finding:
    """Check for event triggers, which may refuse what the writer does to schemas and tables."""
    names = [row["name"] for row in patient.database.rows("event_triggers")]
    if names:
        return warning(
            f"event triggers fire when the writer makes or drops tables: {_listed(names)}",
            "make sure that they let it, or disable them: ALTER EVENT TRIGGER … DISABLE",
        )
    return ok("none")


def publications(patient: Patient) -> Finding:
    """List publications, by which every change of the writer is sent elsewhere."""
    rows = patient.database.rows("publications")
    return ok(_listed([f"{row['name']}{' (all tables)' if row['of_all'] else ''}" for row in rows]))


def libraries(patient: Patient) -> Finding:
    """List the libraries that the server loads into each session."""
    opened = patient.database
    names = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")
    for name in names:
        _ = opened.setting(name)
    return ok(_listed([f"{opened.defaults[name]} ({name})" for name in names if opened.defaults.get(name)]))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


DATABASE: Final[Checks] = {"database": database}
"""Comes first: which network the node must be on is read from there."""
SERVER: Final[Checks] = {
    "database-encryption": encryption,
    "pooler": pooler,
    "server-version": version,
    "locale": locale,
    "server-clock": clock,
    "durability": durability,
    "synchronous-standbys": commits,
    "refused-settings": refused,
    "timeouts": timeouts,
    "transaction-defaults": transactions,
    "locks": locks,
    "connections": connections,
    "autovacuum": autovacuum,
    "server-memory": server_memory,
    "wal-level": wal_level,
    "setting-overrides": overrides,
    "event-triggers": event_triggers,
    "publications": publications,
    "preloaded-libraries": libraries,
}
