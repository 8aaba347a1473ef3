"""The conformance runner: recorded runs of the network pass, and differences are reported.

A few of the recorded scenarios are replayed here; with NAMES_SCENARIOS=all in the environment, all of them.
`python -m virtualchain.examples.names.conformance` replays any files.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.shared_data import shared
from tests.support.tables import tables
from virtualchain.examples.names.conformance.__main__ import main
from virtualchain.examples.names.conformance.replay import replay, replay_with_forks
from virtualchain.examples.names.conformance.scenario import read_file, read_scenario
from virtualchain.testing.conformance.checking import cloned_database
from virtualchain.testing.database import DatabaseServer

SAMPLE = {
    "scenarios-0.13.json.gz": ["namespace_preorder_reveal_import_ready"],
    "scenarios-0.14.json.gz": [
        "name_preorder_register_collisions",
        "name_import_transfer_update_transfer_condensed_multisig",
    ],
    "scenarios-0.14.1.json.gz": ["name_import"],
}
SMALL = ("scenarios-0.14.1.json.gz", "namespace_preorder_reveal_nodups")


def scenario(file: str, name: str) -> dict[str, Any]:
    """Read a recorded scenario as its file has it."""
    (content,) = (item for item in read_file(shared(f"blockstack/{file}")) if item["scenario"] == name)
    return dict(content)


def write(path: Path, content: object) -> str:
    """Write a file of scenarios; return its name."""
    path.write_text(json.dumps(content))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Run the command in this process; return its exit status and the lines that it prints."""
    status = main(arguments)
    return status, capsys.readouterr().out.splitlines()


def test_recorded_runs_of_the_network_pass(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verdicts, operations and hashes of runs under three releases are reproduced, also over forks."""
    files = [str(shared(f"blockstack/{file}")) for file in SAMPLE]
    if os.environ.get("NAMES_SCENARIOS") != "all":
        chosen = [scenario(file, name) for file, names in SAMPLE.items() for name in names]
        files = [write(tmp_path / "sample.json", {"scenarios": chosen})]
    status, lines = run(capsys, *files, "--database", database_url, "--jobs", "2", "--forks", "7")
    assert [line for line in lines[:-1] if not line.startswith("pass ")] == []
    assert lines[-1] == f"{len(lines) - 1} passed, 0 failed"
    assert status == 0


def test_forks_are_taken_and_leave_the_tables_of_a_straight_run(database_server: DatabaseServer) -> None:
    """After rival blocks were processed and undone, all rows and each block's digests are the same."""
    recorded = read_scenario(
        scenario("scenarios-0.14.json.gz", "name_import_renew_update_expire_reregister"), "x"
    )
    with cloned_database(database_server) as one, cloned_database(database_server) as other:
        straight, forked = replay(recorded, one), replay_with_forks(recorded, other, seed=1)
        assert max(straight) == max(forked) - 1  # one more block outworks the rivals of the last one
        assert {block_id: forked[block_id] for block_id in straight} == straight
        with psycopg.connect(other) as connection:
            row = connection.execute("SELECT count(*), max(depth) FROM virtualchain.reorgs").fetchone()
        assert row is not None
        assert row[0] >= 3
        assert row[1] >= 2
        left, right = (
            {n: r for n, r in tables(url).items() if n.startswith("names__")} for url in (one, other)
        )
        assert sum(len(rows) for rows in left.values()) > 10
        assert left == right


def test_the_first_difference_is_reported(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line has block, operation, field and both values; the exit status is 1."""
    differences = []
    changed = []

    def expect(difference: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
        recorded = scenario(*SMALL)
        change(recorded["blocks"])
        changed.append(recorded)
        differences.append(difference)

    expect(
        "block 257, transaction 1 (*), verdict: recorded refused, found accepted",
        lambda blocks: blocks[1]["txs"][0].update(verdict="REJECT"),
    )
    expect(
        "block 259, transaction 1, verdict: recorded accepted, found refused (check: it collides",
        lambda blocks: blocks[3]["txs"][0].update(verdict="ACCEPT"),
    )
    expect(
        "block 257, accepted op 0 (*), op_fee: recorded '1', found '400000000'",
        lambda blocks: blocks[1]["ops"][0]["fields"].__setitem__(3, ["op_fee", "1"]),
    )
    expect(
        "block 257, accepted op 0 (*), field 9: recorded nothing, found 'm",
        lambda blocks: blocks[1]["ops"][0]["fields"].pop(),
    )
    expect(
        "block 257, accepted op 1, opcode: recorded ?, found nothing",
        lambda blocks: blocks[1]["ops"].append({"opcode": "?", "fields": []}),
    )
    expect("block 256, ops_hash: recorded 00, found 5df6", lambda blocks: blocks[0].update(ops_hash="00"))
    expect(
        "block 259, consensus_hash: recorded ab, found ",
        lambda blocks: blocks[3].update(consensus_hash="ab"),
    )
    file = write(tmp_path / "altered.json", [*changed, scenario(*SMALL)])
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "1")
    label = f"{file}: 0.14.1 namespace_preorder_reveal_nodups"
    for difference, line in zip(differences, lines, strict=False):
        assert line.startswith(f"FAIL {label}: {difference}")
    assert lines[-2:] == [f"pass {label}", f"1 passed, {len(differences)} failed"]
    assert status == 1


def broken_scenarios() -> dict[str, Any]:
    """Return malformed scenarios by a part of their error message."""
    good = {"blocks": [{"block_id": 256, "txs": [], "ops": [], "ops_hash": "", "consensus_hash": ""}]}
    tx = {"txindex": 1, "txid": "00" * 32, "verdict": "ACCEPT"}

    def with_tx(**changes: Any) -> dict[str, Any]:
        return {"blocks": [{**good["blocks"][0], "txs": [{**tx, "raw": "00", **changes}]}]}

    return {
        "not a JSON object": 7,
        "blocks is None": {},
        "blocks: heights must be unique and not below 256": {"blocks": []},
        "heights above the first": {"blocks": [{**good["blocks"][0], "block_id": 2**40}]},
        "block_id is '256'": {"blocks": [{**good["blocks"][0], "block_id": "256"}]},
        "ops is {}": {"blocks": [{**good["blocks"][0], "ops": {}}]},
        "is not a pair of a field's name and text": {
            "blocks": [{**good["blocks"][0], "ops": [{"opcode": "?", "fields": [["a", 1]]}]}]
        },
        "cannot be read: ": with_tx(),
        "raw is None": with_tx(raw=None),
        "every txindex must be unique": with_tx(txindex=0, raw=_RAW, txid=_TXID),
        "has the txid": with_tx(raw=_RAW),
        "is not a pair of numbers": {**good, "params": {"lifetime_multiplier": ["1"]}},
        "initial_snapshots: ": {**good, "initial_snapshots": {"x": "y"}},
        "get_initial_snapshots": {**good, "initial_snapshots": {"255": "y"}},
        "parent_txs: ": {**good, "parent_txs": {"00": 5}},
    }


_TXID = "3de74d2fd174fb4efbf8c529b42211fffee335896dc2d43850fdabe004fed389"
_RAW = "0100000001" + "00" * 36 + "00ffffffff01" + "00" * 8 + "00" + "00" * 4


def test_a_malformed_scenario_fails_without_a_crash(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has a line that says what is wrong, and the others are still checked."""
    broken = broken_scenarios()
    file = write(tmp_path / "broken.json", [*broken.values(), scenario(*SMALL)])
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "1")
    for message, line in zip(broken, lines, strict=False):
        assert line.startswith(f"FAIL {file}: scenario ")
        assert message in line
    assert lines[-2].startswith("pass ")
    assert lines[-1] == f"1 passed, {len(broken)} failed"
    assert status == 1


def test_an_unreadable_file_fails_without_a_crash(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be missing, a folder, empty, truncated, not JSON, nested too deeply, or without scenarios."""
    contents = {
        "empty": b"",
        "text": b"scenario",
        "cut": gzip.compress(b"[]" * 100)[:-9],
        "bits": b"\x1f\x8b" + bytes(20),
        "deep": b"[" * 100_000,
        "none": b"[]",
        "number": b"5",
    }
    files = [str(tmp_path / "missing"), str(tmp_path)]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        files.append(str(tmp_path / name))
    status, lines = run(capsys, *files, "--database", database_url, "--jobs", "2")
    assert [line.partition(": ")[0] for line in lines[:-1]] == [f"FAIL {file}" for file in files]
    assert lines[-1] == f"0 passed, {len(files)} failed"
    assert status == 1


def test_json_has_the_same_results(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object has the counts, and each scenario's difference field by field."""
    altered = scenario(*SMALL)
    altered["blocks"][0]["ops_hash"] = "00"
    file = write(tmp_path / "altered.json", altered)
    status = main([file, str(tmp_path / "missing"), "--database", database_url, "--jobs", "1", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["failed"], status) == (0, 2, 1)
    first, second = report["scenarios"]
    assert first["difference"] | {"found": ""} == {
        "block_id": 256,
        "op": None,
        "field": "ops_hash",
        "recorded": "00",
        "found": "",
    }
    assert first["scenario"] == "0.14.1 namespace_preorder_reveal_nodups"
    assert second["difference"] is None
    assert "missing" in second["error"]


def test_nothing_is_left_on_the_server(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a database nor a role is left, whether scenarios pass or fail."""
    altered = scenario(*SMALL)
    altered["blocks"][1]["txs"][0]["verdict"] = "REJECT"
    file = write(tmp_path / "two.json", [altered, scenario(*SMALL)])
    before = inventory(database_url)
    assert run(capsys, file, "--database", database_url, "--jobs", "2")[0] == 1
    assert inventory(database_url) == before


def inventory(url: str) -> list[tuple[Any, ...]]:
    """Return a server's databases and roles."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT datname::text FROM pg_database UNION SELECT rolname FROM pg_roles ORDER BY 1"
        ).fetchall()


def test_as_a_command_with_an_embedded_server(tmp_path: Path) -> None:
    """Without `--database` it starts a server for the run."""
    file = write(tmp_path / "one.json", scenario(*SMALL))
    command = [sys.executable, "-m", "virtualchain.examples.names.conformance", file, "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed"
    assert done.returncode == 0


def test_an_unreachable_database_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 3, as elsewhere."""
    file = write(tmp_path / "one.json", scenario(*SMALL))
    assert main([file, "--database", "postgresql://nobody@127.0.0.1:1/x", "--jobs", "2"]) == 3
    assert "no database: " in capsys.readouterr().err
