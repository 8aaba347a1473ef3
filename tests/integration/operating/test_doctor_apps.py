"""What the doctor finds of a deployment, its apps and the machine: each disorder, provoked."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from tests.support.doctored import NOTARY, examined, finding_of
from tests.support.old_schema import upgrade_to
from virtualchain import StateEngine, __version__
from virtualchain.app.declarations import read_contract
from virtualchain.errors import AppHalted
from virtualchain.examples import notary
from virtualchain.model import Expected
from virtualchain.operating.doctor import following, machine, patient
from virtualchain.operating.doctor.examination import CHECKS
from virtualchain.operating.doctor.findings import Finding
from virtualchain.operating.doctor.node import NODE
from virtualchain.settings import AppSetting, Settings, WebhookSetting, load
from virtualchain.store.builds import add_build
from virtualchain.store.database import connect_writer
from virtualchain.testing import FakeNode

APP = """
from virtualchain import App

def commit(op, state):
    if op["text"] == "bad":
        raise RuntimeError("out of paper")

app = App("notes", b"st", version="{version}", opcodes=())
app.add(b"o", parse=lambda payload: {{"text": payload.decode()}}, {commit})
"""


class Place:
    """A database, a node, settings for both, and files with apps."""

    def __init__(self, node: FakeNode, url: str, folder: Path) -> None:
        self.node, self.url, self.folder = node, url, folder
        self.settings = Settings(bitcoin=(node.url,), database=url, confirmations=0)

    def app(self, name: str, version: str = "1", commit: str = "commit=lambda op, state: None") -> AppSetting:
        """Write a file with an app, and return the setting that names it."""
        file = self.folder / f"{name}.py"
        file.write_text(APP.format(version=version, commit=commit))
        return AppSetting(str(file))

    @contextmanager
    def running(self, *apps: object) -> Iterator[StateEngine]:
        """Run a writer."""
        with StateEngine(*apps, database=self.url, source=self.node.url, confirmations=0) as engine:
            engine.build()
            yield engine

    def one(self, check: str, expect: Any = None, **changes: Any) -> tuple[str, str]:
        """Make one check; return verdict and what was observed."""
        finding = finding_of(check, self.settings, expect, **changes)
        assert (finding.advice is None) == (finding.verdict == "ok") or finding.verdict == "skipped"
        return finding.verdict, finding.observed

    def run(self, *statements: str) -> None:
        """Run statements as the deployment's user."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture
def place(fake_node: FakeNode, database_url: str, tmp_path: Path) -> Place:
    """Provide a deployment without apps, with the current schema."""
    return Place(fake_node, database_url, tmp_path)


def test_the_writer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never ran, that runs, that is silent, that stopped, and one that was killed."""
    assert place.one("writer") == ("warning", "none has run yet")
    assert place.one("lag") == ("ok", "no app is installed")
    assert place.one("writer-version")[0] == "ok"
    with place.running(notary.app):
        assert place.one("writer")[0] == "ok"
        monkeypatch.setattr(following, "_SILENT", -1.0)
        verdict, text = place.one("writer")
        assert (verdict, "has not reported for" in text) == ("warning", True)
    assert "stopped" in place.one("writer")[1]
    place.run("UPDATE vc.writer SET stopped_at = NULL, version = '0.0.1\x1b'")
    verdict, text = place.one("writer")
    assert (verdict, "ended without a word" in text) == ("problem", True)
    assert place.one("writer-version") == (
        "warning",
        f"the writer ran virtualchain '0.0.1\\x1b', and this is {__version__}",
    )


def test_how_far_apps_are(place: Place) -> None:
    """Lag is counted to the node's tip, or to the one that the writer reported."""
    with place.running(notary.app):
        pass
    place.node.mine(n=7)
    assert place.one("lag") == ("warning", "app notary lags by 7 blocks")
    files = {"bitcoin": (), "blocks": place.folder}
    assert place.one("lag", **files)[0] == "ok"
    place.run("UPDATE vc.writer SET node_block_id = NULL")
    assert place.one("lag", **files)[0] == "skipped"


def test_an_app_that_is_halted(place: Place) -> None:
    """It is named with its place, and so is what resumes it."""
    from virtualchain.loading import load_app

    bad = load_app(place.app("bad", commit="commit=commit").use)
    place.node.mine([place.node.send(b"stobad")])
    with pytest.raises(AppHalted), place.running(bad):
        pass
    verdict, text = place.one("halted-apps")
    assert (verdict, "app notes is halted by db_commit in block 102 (" in text) == ("problem", True)
    assert text.endswith("bad.py, line 6, in commit)")
    assert "virtualchain resume notes" in (finding_of("halted-apps", place.settings).advice or "")


def test_code_and_rules(place: Place) -> None:
    """Rules that changed, code that changed, code that is missing, and modules that are not there."""
    from virtualchain.loading import load_app

    old = place.app("old")
    with place.running(load_app(old.use)):
        pass
    same = {"apps": (old,)}
    assert {place.one(check, **same)[0] for check in ("apps", "declared-rules", "code", "missing-code")} == {
        "ok"
    }
    rules = place.one("declared-rules", apps=(place.app("new", version="2"),))
    assert (rules[0], "declares other rules" in rules[1]) == ("problem", True)
    code = place.one("code", apps=(place.app("other", commit="commit=commit"),))
    assert code == ("warning", "the code of app notes changed under version 1")
    assert place.one("missing-code", apps=NOTARY)[0] == "warning"
    assert place.one("missing-code")[0] == "skipped"
    assert place.one("apps")[0] == "skipped"
    (place.folder / "exits.py").write_text("import sys; sys.exit('bye')")
    (place.folder / "prints.py").write_text("raise RuntimeError('no\\x1b[2J')")
    for use in ("nothing.here", str(place.folder / "exits.py"), str(place.folder / "prints.py")):
        named = (AppSetting(use),)
        assert place.one("apps", apps=named)[0] == "problem", use
        assert place.one("declared-rules", apps=named)[0] in {"skipped", "problem"}


def test_digests_that_others_expect(place: Place) -> None:
    """A digest that differs is a problem, whether the writer has found it or the doctor does."""
    with place.running(notary.app):
        pass
    assert place.one("expected-digests")[0] == "ok"
    lists = {"notary": [Expected(101, None, "00" * 16, None, "https://example.com")]}
    verdict, text = place.one("expected-digests", lambda: lists)
    assert (verdict, "https://example.com expects 0000" in text) == ("problem", True)
    place.run(
        'UPDATE vc.apps SET unexpected = \'{"block_id": 1, "digest": "state_hash", "expected": "x", '
        '"found": "y", "origin": "me"}\''
    )
    assert "me expects x" in place.one("expected-digests")[1]


def test_what_is_left_over(place: Place) -> None:
    """A build beside the live one is named."""
    with place.running(notary.app):
        pass
    assert place.one("builds")[0] == "ok"
    with connect_writer(place.url) as connection, connection.transaction():
        add_build(connection, read_contract(notary.app), "v2")
    assert place.one("builds") == ("warning", "builds beside the live ones: v2 of app notary (catching_up)")


def test_webhooks(place: Place, tmp_path: Path) -> None:
    """A secret that is missing, deliveries that fail, and webhooks that nobody delivers."""
    with place.running(notary.app):
        pass
    hook = WebhookSetting("hook", "notary", "http://127.0.0.1:1/token", secret="secret")
    lost = replace(hook, secret=None, secret_file=tmp_path / "none")
    assert place.one("webhooks")[0] == "ok"
    verdict, text = place.one("webhooks", webhooks=(lost,))
    assert (verdict, "cannot be read" in text) == ("problem", True)
    assert place.one("webhooks", webhooks=(hook,)) == ("warning", "no process delivers webhook 'hook'")
    place.run(
        "INSERT INTO vc.webhooks (name, app, block_id, rollbacks, event, version, delivered, failures) "
        "VALUES ('hook', 'notary', 9, 0, 'block', 1, 0, 9)"
    )
    assert place.one("webhooks", webhooks=(hook,)) == ("warning", "webhook 'hook' failed 9 times in a row")


def test_the_schema(place: Place, empty_database_url: str) -> None:
    """An empty database is one for `sync`."""
    assert place.one("schema")[0] == "ok"
    assert place.one("schema", database=empty_database_url)[0] == "warning"
    assert place.one("writer", database=empty_database_url)[0] == "skipped"


@pytest.mark.parametrize("revision", ["0001", "0008", "0016"])
def test_an_older_schema(place: Place, empty_database_url: str, revision: str) -> None:
    """Of a database that waits for its upgrade, that is the problem; what it does not have is skipped."""
    upgrade_to(empty_database_url, revision)
    checks = {name: check for name, check in CHECKS.items() if name not in NODE}
    findings = examined(place.settings, database=empty_database_url, checks=checks)
    assert (findings["schema"].verdict, "is older" in findings["schema"].observed) == ("problem", True)
    others = {name for name, finding in findings.items() if finding.verdict in {"warning", "problem"}}
    assert others <= {"schema", "writer", "durability", "autovacuum"}


def test_checks_that_cannot_be_made(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock, a folder that is closed, and a check that is broken or ends the process: each has a verdict."""

    def closed(_: object) -> Finding:
        raise PermissionError(13, "Permission denied", "closed/\x1b")

    def broken(_: object) -> Finding:
        raise RuntimeError("no\x1b[2J")

    def exits(_: object) -> Finding:
        raise SystemExit(3)

    checks = {"closed": closed, "broken": broken, "exits": exits}
    findings = examined(place.settings, checks=checks)
    assert [finding.verdict for finding in findings.values()] == ["skipped", "problem", "problem"]
    assert all(finding.observed.isprintable() for finding in findings.values())
    monkeypatch.setattr(patient, "_STATEMENT", 100)
    with psycopg.connect(place.url) as connection:
        connection.execute("LOCK TABLE vc.apps IN ACCESS EXCLUSIVE MODE")
        verdict, text = place.one("halted-apps")
    assert (verdict, "took too long" in text) == ("warning", True)


def test_the_machine(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untested Python, interpreted code, missing extras, and small limits and disks."""
    checks = ("python", "compiled-code", "extras", "settings-file", "open-files", "memory", "home-folder")
    monkeypatch.setenv("VIRTUALCHAIN_HOME", str(tmp_path / "not yet"))
    monkeypatch.setattr(machine, "IS_COMPILED", True)
    assert {place.one(check)[0] for check in checks} == {"ok"}
    monkeypatch.setattr(machine, "IS_COMPILED", False)
    assert place.one("compiled-code")[0] == "warning"
    monkeypatch.setattr(machine, "_TESTED", ((3, 8), (3, 9)))
    assert place.one("python")[0] == "warning"
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    verdict, text = place.one("extras", zmq="tcp://127.0.0.1:1", database=None, trust=("00" * 32,))
    assert (verdict, "need embedded, zmq, sign" in text) == ("problem", True)
    group = tmp_path / "memory.max"
    group.write_text("268435456\n")
    monkeypatch.setattr(machine, "_GROUPS", (str(group),))
    assert place.one("memory") == ("warning", "at most 256 MB")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        assert place.one("open-files") == ("warning", "at most 512 open files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    assert place.one("home-folder")[0] == "warning"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert place.one("home-folder")[0] == "skipped"


def test_a_settings_file_that_others_can_use(tmp_path: Path) -> None:
    """A password that others can read, and a file that others can change; the password is not shown."""
    file = tmp_path / "virtualchain.toml"
    file.write_text('[virtualchain]\ndatabase = "postgresql://user:hunter2@127.0.0.1:1/name"\n')
    for mode, verdict in ((0o600, "ok"), (0o644, "warning"), (0o622, "warning")):
        file.chmod(mode)
        finding = finding_of("settings-file", load({}, {}, tmp_path))
        assert finding.verdict == verdict
        assert "hunter2" not in repr(finding)
