"""The command scan: from block files to a deployment, without a node."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Commands, Inside, check_one_line
from tests.support.servers import value
from tests.unit.bitcoin.files.writing import write_node
from virtualchain.testing import ChainBuilder

TEXTS = "SELECT string_agg(text, ',' ORDER BY block_id) FROM notes.notes"
SCAN: tuple[Any, ...] = ("scan", "--app", "apps", "--blocks", "node", "--confirmations", 0)


@pytest.fixture
def node(tmp_path: Path) -> ChainBuilder:
    """Write the files of a node whose last two blocks have an op each."""
    (tmp_path / "node").mkdir()
    chain = ChainBuilder()
    for text in (b"one", b"two"):
        chain.mine([chain.send(b"sto" + text)])
    write_node(tmp_path / "node", chain)
    return chain


def test_scan_import_advance(cli: Commands, inside: Inside, node: ChainBuilder, database_url: str) -> None:
    """The three commands make a deployment; scan says what comes next."""
    database = ("--app", "apps", "--database", database_url)
    done = cli(*SCAN, "--out", "tape", "--workers", 1)
    assert f"blocks 0 to {node.height} of regtest and 2 inputs in " in done.out
    assert "virtualchain import tape" in done.out
    assert "scanning 1 file" in done.err
    inside("import", "tape", "--unchecked", "--workers", 1, *database)
    inside("advance", *database)
    assert value(database_url, TEXTS) == "one,two"


def test_json_and_mistakes(inside: Inside, node: ChainBuilder) -> None:
    """With --json there is one object, here of a file without undo data; each mistake is one line."""
    node.save(inside.folder / "chain")
    file = ("--blocks", "chain", "--network", "regtest")
    printed = json.loads(inside(*SCAN, *file, "--out", "tape", "--magic", "7374", "--json").out)
    assert printed["manifest"]["blocks"]["last"] == {"block_id": node.height, "hash": node.tip}
    assert printed["folder"] == "tape"
    for arguments, complaint in (
        ((*SCAN, "--out", "tape"), "holds a complete export"),
        (("scan", "--app", "apps", "--out", "new"), "name the files to scan: --blocks PATH"),
        ((*SCAN, "--out", "node"), "is not empty, and no scan has begun in it"),
        ((*SCAN, "--out", "new", "--workers", 2, "--dask", "tcp://127.0.0.1:1"), "leave out --workers"),
    ):
        check_one_line(inside(*arguments, code=2), complaint)
