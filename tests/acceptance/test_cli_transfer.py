"""The commands export, import and advance."""

import hashlib
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.conftest import APPS, Commands, Inside
from tests.support.servers import value
from tests.support.tables import deployment as rows_of
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer

APP = ("--app", "apps:notes", "--app", "apps:plain")
HASHES = ("name", "block_id", "block_hash", "consensus_hash", "state_hash")


class Origin(NamedTuple):
    """A deployment of two apps, and its tip."""

    url: str
    tip: int


@pytest.fixture
def origin(inside: Inside, fake_node: FakeNode, database_server: DatabaseServer) -> Iterator[Origin]:
    """Provide a deployment whose node has stopped."""
    url = database_server.clone()
    for texts in ((b"one", b"no"), (), (b"two", b"\xff", b"three")):
        fake_node.mine([fake_node.send(b"sto" + text) for text in texts])
    common = ("--bitcoin", fake_node.url, "--confirmations", 0, "--database", url)
    inside("sync", *APP, *common)
    tip = fake_node.height
    fake_node.stop()
    yield Origin(url, tip)
    database_server.drop(url)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_deployment_moves_to_another_database(
    cli: Commands, inside: Inside, origin: Origin, empty_database_url: str, form: str
) -> None:
    """Three commands reproduce hashes and tables without a node, and each reports what it did."""
    run = cli if form == "parquet" else inside
    out = run("export", "moved", "--format", form, "--what", "all", "--database", origin.url).out
    last = out.splitlines()[-1]
    digest = hashlib.sha256((run.folder / "moved" / "manifest.json").read_bytes()).hexdigest()
    assert last == f"blocks 0 to {origin.tip}; moved/manifest.json has the SHA-256 {digest}"
    assert f"blocks.{form} " in out
    assert f"notes.notes.{form} " in out

    there = ("--database", empty_database_url)
    imported = run("import", "moved", *there).out
    added = f"{origin.tip + 1} blocks and 5 inputs were new"
    assert imported == f"blocks 0 to {origin.tip} of regtest are on the tape: {added}\n"
    again = run("import", "moved", *there).out
    assert again.endswith("0 blocks and 0 inputs were new\n")

    done = run("advance", *APP, "--confirmations", 0, *there)
    assert done.out.startswith(f"notes: running\n  block           {origin.tip}\n")
    assert f"{2 * (origin.tip + 1)} blocks and 10 inputs in " in done.out
    assert "app notes is catching up from the tape to block " in done.err
    assert rows_of(empty_database_url) == rows_of(origin.url)
    assert run("advance", *APP, *there).out.splitlines()[-1].startswith("0 blocks and 0 inputs in ")


def test_each_prints_one_json_value(inside: Inside, origin: Origin, empty_database_url: str) -> None:
    """With --json, each prints one value, and the advanced apps have the hashes of the manifest."""
    there = ("--database", empty_database_url, "--json")
    exported = json.loads(inside("export", "moved", "--database", origin.url, "--json").out)
    assert exported.keys() == {"folder", "manifest_sha256", "manifest"}
    assert exported["manifest"] == json.loads((inside.folder / "moved" / "manifest.json").read_text())
    assert [file["name"] for file in exported["manifest"]["files"]] == [
        "blocks.parquet",
        "inputs.parquet",
        "ops.parquet",
    ]
    imported = json.loads(inside("import", "moved", *there).out)
    assert imported == {
        "network": "regtest",
        "first": 0,
        "last": origin.tip,
        "blocks": origin.tip + 1,
        "inputs": 5,
    }
    advanced = json.loads(inside("advance", *APP, *there).out)
    assert advanced.keys() == {"blocks", "inputs", "seconds", "waits_for", "warnings", "apps"}
    assert advanced["waits_for"] is None
    for ours, theirs in zip(advanced["apps"], exported["manifest"]["apps"], strict=True):
        assert {key: ours[key] for key in HASHES} == {key: theirs[key] for key in HASHES}


def test_a_range_and_a_view_are_exported(inside: Inside, origin: Origin) -> None:
    """--from, --to, --what and --format select what is exported."""
    options = ("--from", 100, "--to", 102, "--what", "ops", "--what", "notes.notes", "--format", "csv")
    out = inside("export", "part", *options, "--database", origin.url).out
    assert out.splitlines()[-1].startswith("blocks 100 to 102; ")
    assert (inside.folder / "part" / "notes.notes.csv").read_text() == (
        "block_id,vtxindex,text\n102,0,one\n104,0,two\n104,1,three\n"
    )
    assert (inside.folder / "part" / "ops.csv").read_text().count("\n") == 1 + 3


def test_an_app_that_halts_ends_advance_with_4(
    inside: Inside, origin: Origin, empty_database_url: str
) -> None:
    """The other app continues to the end, and after resume the first one follows."""
    there = ("--database", empty_database_url, "--confirmations", 0)
    inside("export", "moved", "--database", origin.url)
    inside("import", "moved", *there)
    (inside.folder / "broken").touch()
    halted = inside("advance", *APP, *there, code=4)
    assert "notes: halted\n  block           101\n" in halted.out
    assert f"plain: running\n  block           {origin.tip}\n" in halted.out
    assert re.search("app notes is halted before block 102, .*: db_check failed .*: out of", halted.err)
    (inside.folder / "broken").unlink()
    inside("resume", "notes", *there)
    inside("advance", *APP, *there)
    assert rows_of(empty_database_url) == rows_of(origin.url)


def test_mistakes_get_one_line(inside: Inside, origin: Origin, empty_database_url: str) -> None:
    """The exit code is 1 for damaged files, 2 for wrong usage and 3 for the database."""
    there = ("--database", empty_database_url)
    here = ("--database", origin.url)
    inside("export", "moved", *here)
    (inside.folder / "moved" / "inputs.parquet").write_bytes(b"PAR1")
    for arguments, code, complaint in (
        (("import", "moved", *there), 1, "moved/inputs.parquet is not the file that was exported"),
        (
            ("import", "nowhere", *there),
            2,
            "nowhere/manifest.json cannot be read (No such file or directory)",
        ),
        (("export", "moved", *here), 2, "moved is not empty"),
        (("export", "new", "--what", "blokcs", *here), 2, "there is no blokcs to export"),
        (("export", "new", "--format", "xml", *here), 2, "'xml' is not one of 'parquet', 'csv'"),
        (("export", "new", "--from", "900", *here), 2, "the tape has no blocks from 900 to"),
        (("export", "new", *there), 3, "holds nothing of virtualchain's yet"),
        (("advance", *APP, *there), 3, "holds nothing of virtualchain's yet"),
        (("advance", *here), 2, "name an app to run"),
        (("advance", *APP, "--network", "signet", *here), 2, "follows regtest, but signet was asked for"),
        (
            ("advance", "--app", "virtualchain.examples.notary", *here),
            3,
            "there is no node here: `virtualchain",
        ),
    ):
        done = inside(*arguments, code=code)
        *others, line = done.err.splitlines()
        assert complaint in line
        assert all("settings changed since the last writer" in other for other in others)
        assert done.out == ""
    assert not (inside.folder / "new").exists()


def test_a_database_without_a_tape_cannot_be_advanced(inside: Inside, database_url: str) -> None:
    """The message says which commands create a tape."""
    done = inside("advance", *APP, "--database", database_url, code=2)
    assert (
        "this database has no tape yet: `virtualchain import` or `virtualchain sync` creates one" in done.err
    )


def test_without_pyarrow_parquet_is_refused(
    inside: Inside, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says how to install it; CSV needs no library."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    done = inside("export", "new", "--database", origin.url, code=2)
    assert "pip install 'virtualchain[export]', or use --format csv" in done.err
    inside("export", "new", "--format", "csv", "--database", origin.url)


def test_an_import_waits_for_another_writer(
    cli: Commands, fake_node: FakeNode, origin: Origin, database_url: str
) -> None:
    """With --wait, it waits; without, it ends with exit code 5."""
    cli("export", "moved", "--database", origin.url)
    fake_node.start()
    writer = cli.start("run", "--app", "apps", "--bitcoin", fake_node.url, "--database", database_url)
    writer.until_said("at the stable tip")
    assert "another writer is at work" in cli("import", "moved", "--database", database_url, code=5).err
    waiting = cli.start("import", "moved", "--wait", "--database", database_url)
    waiting.until_said("waiting for it to end")
    assert writer.signal(signal.SIGTERM).code == 0
    assert "6 blocks and 5 inputs were new" in waiting.end().out
    assert Path(cli.folder / "apps.py").read_text() == APPS
    assert value(database_url, "SELECT max(block_id) FROM vc.blocks") == origin.tip
