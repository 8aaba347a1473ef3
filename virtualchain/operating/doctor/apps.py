"""Checks of the apps: that they run, that their code is here and the same, and that others agree."""

from contextlib import suppress
from typing import Final

import psycopg

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.engine.expectations import describe_mismatch
from virtualchain.engine.halting import place_of
from virtualchain.errors import UsageError
from virtualchain.loading import load_app
from virtualchain.operating.doctor.findings import Checks, Finding, combined, problem, skipped, warning
from virtualchain.operating.doctor.patient import Patient, Unknown
from virtualchain.operating.expected import compare_digests
from virtualchain.store.builds import Build, code_warning, is_by
from virtualchain.store.builds import builds as all_builds


def halted(patient: Patient) -> Finding:
    """Check that no app is halted."""
    rows = patient.apps()
    findings = []
    for row in rows:
        error = row["error"]
        if row["status"] == "halted":
            where = "" if error is None else f" by {error['callback']} in block {error['block_id']}"
            place = None if error is None else place_of(error)
            findings.append(
                problem(
                    f"app {row['name']} is halted{where}{'' if place is None else f' ({place})'}",
                    "mend the cause that `virtualchain status` shows, stop the writer, run "
                    f"`virtualchain resume {row['name']}`, and start it again",
                )
            )
    return combined(findings, f"none of {len(rows)}")


def importable(patient: Patient) -> Finding:
    """Check that the named apps can be imported, and are apps."""
    named = patient.settings.apps
    if not named:
        return skipped("no app is named here", "name those that the writer runs: --app, or virtualchain.toml")
    findings, names = [], []
    for app in named:
        try:
            names.append(read_contract(load_app(app.use)).name)
        except UsageError as error:
            findings.append(
                problem(str(error), "correct --app or virtualchain.toml, or install what is missing")
            )
    return combined(findings, ", ".join(names))


def _installed(patient: Patient) -> list[tuple[Contract, Build]]:
    """Return the named apps that are installed, with their live builds; raises Unknown for a reader."""
    _ = patient.deployment
    if not patient.settings.apps:
        raise Unknown("no app is named here")
    try:
        contracts = patient.contracts
    except UsageError:
        raise Unknown("the named apps cannot be imported") from None
    live = {build.app: build for build in _builds(patient) if build.is_live}
    return [(contract, live[contract.name]) for contract in contracts if contract.name in live]


def _builds(patient: Patient) -> list[Build]:
    try:
        return all_builds(patient.deployment)
    except psycopg.errors.InsufficientPrivilege:
        raise Unknown("this user only reads, and cannot see how apps were installed") from None


def rules(patient: Patient) -> Finding:
    """Check that the named apps declare what was installed."""
    installed = _installed(patient)
    findings = [
        problem(
            f"app {contract.name} declares other rules than were installed (version {build.version})",
            f"run `virtualchain upgrade {contract.name}`, or run the code that was installed",
        )
        for contract, build in installed
        if not is_by(patient.database.connection, build, contract)
    ]
    return combined(
        findings, f"as installed: {', '.join(contract.name for contract, _ in installed) or 'none'}"
    )


def code(patient: Patient) -> Finding:
    """Check that apps run the code that they began with, and will with the code that is here."""
    changed = {row["name"]: row["version"] for row in patient.apps() if row["code_changed"]}
    with suppress(Unknown):
        for contract, build in _installed(patient):
            if build.code_digest not in {None, contract.code_digest()} and contract.version == build.version:
                changed[contract.name] = build.version
    findings = [
        warning(f"the code of app {name} changed under version {version}", code_warning(name, version))
        for name, version in sorted(changed.items())
    ]
    return combined(findings, "unchanged")


def missing_code(patient: Patient) -> Finding:
    """Check that the code of all installed apps is named, which a deep fork needs."""
    builds = _builds(patient)
    if not patient.settings.apps:
        return skipped("no app is named here")
    try:
        named = {contract.name for contract in patient.contracts}
    except UsageError:
        raise Unknown("the named apps cannot be imported") from None
    missing = [build for build in builds if build.is_live and build.app not in named]
    findings = [
        warning(
            f"app {build.app} is installed, but its code is not named: it is not advanced",
            f"name it with --app, or remove it with `virtualchain remove {build.app}`",
        )
        for build in missing
    ]
    return combined(findings, "the code of all installed apps is named")


def expected(patient: Patient) -> Finding:
    """Check that apps have the digests that others expect."""
    rows = patient.apps()
    lists = {} if patient.expect is None else patient.expect()
    compare_digests(patient.database.connection, rows, lists)
    findings = [
        problem(
            f"app {row['name']}: {describe_mismatch(row['unexpected'])}",
            "run `virtualchain verify`, and `virtualchain compare-nodes` with a node that you trust",
        )
        for row in rows
        if row["unexpected"] is not None
    ]
    count = sum(map(len, lists.values()))
    return combined(findings, f"{count} digests are expected" if count else "no digests are expected here")


APPS: Final[Checks] = {
    "halted-apps": halted,
    "apps": importable,
    "declared-rules": rules,
    "code": code,
    "missing-code": missing_code,
    "expected-digests": expected,
}
