"""An untrusted export is accepted only if its tape leads to the hash that is trusted."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.support import damage as support
from tests.support.exports import Lines, change_manifest, change_rows
from virtualchain import StateEngine
from virtualchain.errors import DamagedExport, StoreError, UsageError
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.transfer.exporting import export
from virtualchain.transfer.trial import Outcome, try_import


class Origin(NamedTuple):
    """A deployment of two apps, with an export and their hashes at its last block."""

    url: str
    folder: Path
    hashes: dict[str, str]


@pytest.fixture(scope="module")
def origin(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """Return the deployment that the exports are of."""
    url, folder = database_server.clone(), tmp_path_factory.mktemp("origin")
    with FakeNode() as node:
        support.feed(node)
        with StateEngine(
            *apps(), database=url, source=node.url, confirmations=0, state_folder=folder
        ) as engine:
            engine.build()
            hashes = {app: engine.get_consensus_at(108, app=app) for app in ("notes", "ledger")}
    export(url, folder / "export", form="csv", what=["tape", "snapshots"])
    yield Origin(url, folder / "export", {name: str(value) for name, value in hashes.items()})
    database_server.drop(url)


@pytest.fixture
def folder(origin: Origin, tmp_path: Path) -> Path:
    """Return a copy of the export, which a test may change."""
    return Path(shutil.copytree(origin.folder, tmp_path / "export"))


def apps() -> list[object]:
    """Return the apps of the deployment."""
    return [support.notes(), support.Ledger()]


def databases(url: str) -> tuple[list[str], list[str]]:
    """Return the databases and roles of the server."""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT datname FROM pg_database ORDER BY 1").fetchall()
        roles = connection.execute("SELECT rolname FROM pg_roles ORDER BY 1").fetchall()
    return [name for (name,) in names], [role for (role,) in roles]


def attempt(origin: Origin, folder: Path, **options: Any) -> dict[str, Outcome]:
    """Try an export of two apps with the hashes that are right."""
    before = databases(origin.url)
    _, outcomes = try_import(origin.url, folder, apps(), origin.hashes, **options)
    assert databases(origin.url) == before
    return {outcome.app: outcome for outcome in outcomes}


def without(block_id: int, txindex: int | None = None) -> Any:
    """Return a change that leaves inputs of a block out."""

    def change(lines: Lines) -> None:
        at = {name: lines[0].index(name) for name in ("block_id", "txindex")}
        lines[1:] = [
            line
            for line in lines[1:]
            if line[at["block_id"]] != str(block_id) or txindex not in {None, int(line[at["txindex"]])}
        ]

    return change


def test_an_honest_export_is_accepted(origin: Origin, folder: Path) -> None:
    """Each app arrives at its hash, and neither database nor role is left behind."""
    outcomes = attempt(origin, folder, ours=origin.url)
    assert {name: outcome.is_accepted for name, outcome in outcomes.items()} == {
        "notes": True,
        "ledger": True,
    }
    assert outcomes["notes"].block_id == 108


def test_an_input_that_was_left_out(origin: Origin, folder: Path) -> None:
    """The app that it was for is refused, with the first block that differs, by two ways to know it."""
    change_rows(folder, "inputs", without(103, 1))
    outcomes = attempt(origin, folder)
    assert outcomes["ledger"].is_accepted
    reason = outcomes["notes"].reason
    assert reason is not None
    assert "the digests in the export are others from block 103 on" in reason
    reason = attempt(origin, folder, ours=origin.url)["notes"].reason
    assert reason is not None
    assert "differs from this node first at block 103" in reason
    assert "no such input there" in reason


def test_digests_that_were_forged_as_well_help_nobody(origin: Origin, folder: Path) -> None:
    """What the export says of its own hashes counts for nothing."""
    change_rows(folder, "inputs", without(104))
    change_rows(folder, "snapshots", lambda lines: lines.__delitem__(slice(1, None)))
    change_manifest(folder, lambda document: document.update(apps=[]))
    assert not any(outcome.is_accepted for outcome in attempt(origin, folder).values())


def test_the_hash_of_another_block(origin: Origin, folder: Path) -> None:
    """A hash that the app had earlier is not that of the last block, and the message says which it is of."""
    with psycopg.connect(origin.url) as connection:
        row = connection.execute(
            "SELECT consensus_hash FROM virtualchain.snapshots WHERE app = 'notes' AND block_id = 105"
        ).fetchone()
    assert row is not None
    _, [outcome] = try_import(origin.url, folder, apps(), {"notes": row[0]})
    assert outcome.reason is not None
    assert "the trusted hash is that of block 105" in outcome.reason


def test_blocks_that_were_not_searched(origin: Origin, folder: Path) -> None:
    """An export without an app's inputs, or that begins after its first block, shows nothing of the app."""
    change_manifest(
        folder,
        lambda document: document.update(
            coverage=[row for row in document["coverage"] if row["magic"] != b"no".hex()]
        ),
    )
    outcomes = attempt(origin, folder)
    assert outcomes["ledger"].is_accepted
    assert "does not have what app notes needs of blocks 102 to 108" in str(outcomes["notes"].reason)
    export(origin.url, folder / "part", form="csv", what=["tape"], first=104)
    assert "blocks 102 to 103" in str(attempt(origin, folder / "part")["notes"].reason)


def test_an_app_that_the_export_halts(origin: Origin, folder: Path) -> None:
    """An exception in a callback is a reason to refuse, and the other app is tried none the less."""
    app = support.notes()

    @app.final
    def stop(ops: list[dict[str, Any]], state: Any, block_id: int) -> None:
        if block_id == 104:
            raise RuntimeError("out of paper")

    _, outcomes = try_import(origin.url, folder, [app, support.Ledger()], origin.hashes)
    assert [outcome.is_accepted for outcome in outcomes] == [False, True]
    assert "out of paper" in str(outcomes[0].reason)


def test_hostile_exports(origin: Origin, folder: Path) -> None:
    """Files that do not fit their manifest, or values that cannot be, are errors; no database stays."""
    before = databases(origin.url)
    (folder / "blocks.csv").write_text("x")
    with pytest.raises(DamagedExport):
        try_import(origin.url, folder, apps(), origin.hashes)
    (folder / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DamagedExport):
        try_import(origin.url, folder, apps(), origin.hashes)
    (folder / "manifest.json").write_bytes(b" " * (2**24 + 1))
    with pytest.raises(DamagedExport, match="more than 16,777,216 bytes"):
        try_import(origin.url, folder, apps(), origin.hashes)
    (folder / "manifest.json").unlink()
    with pytest.raises(UsageError):
        try_import(origin.url, folder, apps(), origin.hashes)
    (folder / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(DamagedExport, match="is not a file"):
        try_import(origin.url, folder, apps(), origin.hashes)
    assert databases(origin.url) == before


def test_a_role_that_may_not_create_databases(origin: Origin, folder: Path) -> None:
    """The message names what is needed."""
    with psycopg.connect(origin.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE weak_of_trial LOGIN PASSWORD 'weak'")
    weak = psycopg.conninfo.make_conninfo(origin.url, user="weak_of_trial", password="weak")
    with pytest.raises(StoreError, match="CREATEDB"):
        try_import(weak, folder, apps(), origin.hashes)
