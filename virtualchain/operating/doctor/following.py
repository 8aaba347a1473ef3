"""Checks of the deployment: its schema, its writer, its roles, and how far it is."""

import os
from contextlib import suppress
from datetime import timedelta
from typing import Final

from virtualchain.engine.measures import installed_version
from virtualchain.errors import StoreError, UsageError, quoted
from virtualchain.metrics import awaits_decision
from virtualchain.model import Json
from virtualchain.operating.doctor.findings import Checks, Finding, combined, ok, problem, skipped, warning
from virtualchain.operating.doctor.patient import Patient, Unknown
from virtualchain.reading import reported, views
from virtualchain.store.revision import current, head, refuse_newer
from virtualchain.store.roles import missing_grants, reader_excess
from virtualchain.webhooks.listing import listed

_SILENT: Final = 60.0
"""Seconds without a report of the writer, which reports every ten."""
_LAG: Final = 6
"""Blocks by which an app may lag, besides those without enough confirmations."""


def schema(patient: Patient) -> Finding:
    """Check that the schema is the one that this version of the code reads."""
    opened = patient.database
    if not opened.row("has_schema")["is_there"]:
        return warning(
            "the database holds nothing of virtualchain's yet",
            "run `virtualchain sync` with an app, or correct --database",
        )
    revision = current(opened.connection)
    try:
        refuse_newer(revision)
    except StoreError as error:
        return problem(str(error), "upgrade virtualchain on this machine")
    if revision != head():
        return problem(
            f"the schema ({revision}) is older than this virtualchain ({head()})",
            "run `virtualchain migrate`, or any command that writes, with the writer's URL",
        )
    return ok(f"{revision}")


def writer(patient: Patient) -> Finding:
    """Check that a process follows the chain, and reports."""
    connection = patient.deployment
    name, last = views.writer(connection), views.last_start(connection)
    report = views.writer_report(last)
    is_standby = views.is_standby(connection)
    if report is None:
        if name is not None:
            return ok(f"{name} runs, and has not reported yet")
        return warning("none has run yet", "start `virtualchain run`")
    if report["stopped_at"] is not None and name is None:
        return _stopped(report, needs_decision=awaits_decision(reported.samples(connection)))
    age = timedelta(seconds=round(report["age"]))
    waits_for = "" if report["waits_for"] is None else f"; {quoted(report['waits_for'])}"
    if name is None and not is_standby:
        return problem(
            f"none is running; the last one ended without a word, {age} ago",
            "look into its log and the system's (no memory left, a full disk?), and start `virtualchain run`",
        )
    if report["age"] > _SILENT:
        return warning(
            f"{name or 'the writer'} has not reported for {age}{waits_for}",
            "see whether it hangs, or works on one very large block or another long task",
        )
    return ok(f"{name or 'on the primary'}, reported {age} ago{waits_for}")


def _stopped(report: Json, *, needs_decision: bool) -> Finding:
    if needs_decision:
        return problem(
            f"none is running: {quoted(report['waits_for'])}",
            "decide: undo the blocks, apply a checkpoint, or pin the branch to stay on; then start it again",
        )
    return warning(
        f"none is running; the last one stopped {report['stopped_at']}", "start `virtualchain run`"
    )


def versions(patient: Patient) -> Finding:
    """Check that the writer and this command are the same version."""
    last = views.last_start(patient.deployment)
    theirs = None if last is None else last["version"]
    if theirs is None:
        return ok("no writer has reported its version")
    if theirs != installed_version():
        return warning(
            f"the writer ran virtualchain {quoted(theirs)}, and this is {installed_version()}",
            "install the same version for both, and restart the writer",
        )
    return ok(str(theirs))


def lag(patient: Patient) -> Finding:
    """Check how far apps lag, besides the confirmations that are waited for."""
    rows = patient.apps()
    last = views.last_start(patient.deployment)
    name = views.network(patient.deployment)
    confirmations = patient.settings.confirmations_on(name) if last is None else last["confirmations"]
    tip = _tip(patient, last)
    if tip is None:
        return skipped("neither the node nor the writer's report says where the chain ends")
    lags = {row["name"]: max((views.lag(row, tip) or 0) - confirmations, 0) for row in rows}
    if not lags:
        return ok("no app is installed")
    late = [
        warning(f"app {name} lags by {count:,} blocks", "see `virtualchain status`: it may be catching up")
        for name, count in lags.items()
        if count > _LAG
    ]
    return combined(late, f"{max(lags.values())} blocks at most, besides {confirmations} confirmations")


def _tip(patient: Patient, last: Json | None) -> int | None:
    with suppress(Unknown):
        return max(node.chain.number("blocks") for node in patient.nodes())
    return None if last is None else last["node_block_id"]


def rights(patient: Patient) -> Finding:
    """Check that the writer's user may do what a writer does."""
    _ = patient.deployment
    [row] = patient.database.rows("rights")
    if not row["owns"]:
        return skipped(
            "this user only reads", "run the doctor with the writer's URL to check the writer's rights"
        )
    findings = []
    if not row["makes_schemas"]:
        findings.append(
            problem(
                "the user may not create schemas, so that no app can be added", "GRANT CREATE ON DATABASE"
            )
        )
    if not row["makes_roles"]:
        findings.append(
            warning(
                "the user may not create roles, so that new apps run with the engine's own rights",
                "ALTER ROLE … CREATEROLE, and restart the writer",
            )
        )
    return combined(findings, "the user may create schemas and roles")


def roles(patient: Patient) -> Finding:
    """Check that apps' roles are there, and that readers can only read."""
    connection = patient.deployment
    findings = [
        problem(
            f"the role {row['role']} of app {row['app']} is more than an app's: it may log in, or more",
            "take that from the role with ALTER ROLE: the writer does not start until then",
        )
        if row["is_more"]
        else problem(
            f"app {row['app']} has lost its role {row['role']}, or the role its rights",
            "restart the writer, which makes it again",
        )
        for row in patient.database.rows("lost_roles")
    ]
    names = [row["role"] for row in patient.database.rows("readers")]
    missing = missing_grants(connection) if names else 0
    if missing:
        findings.append(
            warning(
                f"readers lack {missing:,} of their privileges, or PUBLIC has more than it should",
                "run `virtualchain migrate`, or restart the writer: either grants them",
            )
        )
    for name in names:
        excess = reader_excess(connection, name)
        if excess:
            findings.append(
                warning(
                    f"the reader {quoted(name)} can do more than read: {', '.join(excess)}",
                    f"have an administrator run `virtualchain db grant-reader {name}`, or revoke it",
                )
            )
    return combined(findings, f"those of apps are there; readers: {', '.join(names) or 'none'}")


def builds(patient: Patient) -> Finding:
    """Check for builds that are left over."""
    beside = [row for row in views.builds(patient.deployment) if not row["is_live"]]
    if beside:
        listed = ", ".join(f"{row['build']} of app {row['app']} ({row['status']})" for row in beside)
        return warning(
            f"builds beside the live ones: {listed}",
            "drop what is not needed: `virtualchain drop APP BUILD`; or run the command that began it again",
        )
    return ok("only live ones")


def webhooks(patient: Patient) -> Finding:
    """Check that webhooks are delivered."""
    findings = []
    for setting in patient.settings.webhooks:
        try:
            setting.key(os.environ)
        except UsageError as error:
            findings.append(problem(str(error), "see docs/webhooks.md"))
    rows = listed(patient.deployment, patient.settings.webhooks)
    for row in rows:
        if row["failures"]:
            findings.append(
                warning(
                    f"webhook {quoted(row['name'])} failed {row['failures']:,} times in a row",
                    "see `virtualchain webhooks list` for the error",
                )
            )
        elif row["receiver"] is not None and not row["is_delivered"]:
            findings.append(
                warning(
                    f"no process delivers webhook {quoted(row['name'])}",
                    "start `virtualchain run` or `virtualchain webhooks run` with these settings",
                )
            )
    return combined(findings, f"{len(rows)} delivered" if rows else "none")


FOLLOWING: Final[Checks] = {
    "schema": schema,
    "writer": writer,
    "writer-version": versions,
    "lag": lag,
    "writer-rights": rights,
    "roles": roles,
    "builds": builds,
    "webhooks": webhooks,
}
