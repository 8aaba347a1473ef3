"""The conformance runner of Runes: what the reference did passes, and differences are reported.

A part of the recorded scenarios is replayed; with RUNES_SCENARIOS=all in the environment, all of them.
"""

import gzip
import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.support.runes_history import History
from tests.support.shared_data import shared
from virtualchain.examples.runes.conformance.__main__ import main
from virtualchain.testing.blocks import bare_coinbase
from virtualchain.testing.conformance.files import read_json

SAMPLE = {
    *("activation_height", "commitment_push_forms", "failed_etching_side_effects", "several_op_returns"),
    *("cenotaph_etching_needs_all_conditions", "pointer_cases", "fork_commit_depth", "testnet4_from_zero"),
    *("ord-21", "ord-45", "random-4001-8", "random-4001-16", "random-4001-112"),
}


def write(path: Path, content: object) -> str:
    """Write a file of scenarios; return its name."""
    path.write_text(json.dumps(content))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Run the command in this process; return its exit status and the lines that it prints."""
    status = main(arguments)
    return status, capsys.readouterr().out.splitlines()


def history(seed: int, blocks: int = 6, branches: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return a random scenario with the model's results."""
    return History(seed).scenario(blocks, branches)


def test_the_reference_s_vectors_pass(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages, names and integers; no database is started for them."""
    files = [str(shared(f"runes/{name}.json.gz")) for name in ("decipher", "names", "varint")]
    status, lines = run(capsys, *files)
    assert [line for line in lines[:-1] if not line.startswith("pass ")] == []
    assert (status, lines[-1]) == (0, "3282 passed, 0 failed")


def test_the_reference_s_scenarios_pass(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The state after each block is the reference's, on every branch, and over further forks."""
    file = shared("runes/index.json.gz")
    if os.environ.get("RUNES_SCENARIOS") != "all":
        chosen = [item for item in read_json(file)["scenarios"] if item["name"] in SAMPLE]
        file = Path(write(tmp_path / "sample.json", {"scenarios": chosen}))
    status, lines = run(capsys, str(file), "--database", database_url, "--jobs", "2", "--forks", "7")
    assert [line for line in lines[:-1] if not line.startswith("pass ")] == []
    assert lines[-1] == f"{len(lines) - 1} passed, 0 failed"
    assert status == 0


def test_random_histories_pass(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The engine arrives where an independent model of the rules does; RUNES_HISTORIES says how often."""
    seeds = range(int(os.environ.get("RUNES_HISTORIES", "3")))
    scenarios = [history(seed, 30, (4, 2)) for seed in seeds]
    file = write(tmp_path / "histories.json", {"scenarios": scenarios})
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "2", "--forks", "1")
    assert lines[-1] == f"{len(scenarios)} passed, 0 failed", lines
    assert status == 0


def altered(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return a scenario of which something was changed."""
    scenario = history(1, 5)
    change(scenario)
    return scenario


def first_entry(scenario: dict[str, Any]) -> dict[str, Any]:
    """Return the first entry that a scenario expects."""
    entries = [block["expect"]["entries"] for block in scenario["blocks"] if block["expect"]["entries"]]
    entry: dict[str, Any] = next(iter(entries[0].values()))
    return entry


def test_the_first_difference_is_reported(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line has block, rune or output, field and both values; the exit status is 1."""
    outpoint = "11" * 32 + ":0"
    scenarios = [
        altered(lambda scenario: first_entry(scenario).update(burned="77")),
        altered(lambda scenario: first_entry(scenario).update(turbo=5)),
        altered(lambda s: s["blocks"][0]["expect"]["entries"].update({"5:5": {"number": 3}})),
        altered(lambda s: s["blocks"][4]["expect"]["added"].update({outpoint: [["5:5", "1"]]})),
    ]
    status, lines = run(
        capsys, write(tmp_path / "x", {"scenarios": scenarios}), "--database", database_url, "--jobs", "1"
    )
    assert ", burned: recorded 77, found " in lines[0]
    assert ", turbo: recorded 5, found " in lines[1]
    assert "block 100, rune 5:5, content: recorded {'number': '3'}, found nothing" in lines[2]
    assert f"block 104, output {outpoint}, content: recorded [['5:5', '1']], found nothing" in lines[3]
    assert lines[4] == "0 passed, 4 failed"
    assert status == 1


def test_branches_that_part_below_the_first_height(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks that the engine has taken are given up, and it begins once more."""
    scenario = History(5, network="mainnet", height=840_000).scenario(0, (3, 2, 4))
    scenario["blocks"] = [
        {"height": height, "time": 1, "txs": [bare_coinbase(height).hex()], "expect": {}}
        for height in (839_998, 839_999)
    ]
    file = write(tmp_path / "x", scenario)
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "1", "--forks", "4")
    assert lines == [f"pass {file}: history-5", "1 passed, 0 failed"]
    assert status == 0


def test_a_wrong_branch_is_noticed(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each branch is compared, not only the blocks below it."""
    scenario = history(2, 4, (2, 1))
    scenario["branches"][1][0]["expect"]["entries"]["9:9"] = {}
    file = write(tmp_path / "x", {"scenarios": [scenario]})
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "1")
    assert "block 104, rune 9:9" in lines[0]
    assert status == 1


def broken_scenarios() -> dict[str, Any]:
    """Return malformed scenarios by a part of their error message."""
    good = history(1, 2)

    def with_block(**changes: Any) -> dict[str, Any]:
        scenario = deepcopy(good)
        scenario["blocks"][1] |= changes
        return scenario

    return {
        "not a JSON object": 7,
        "network is None": {},
        "there is no network": {**good, "network": "litecoin"},
        "has no block": {**good, "blocks": []},
        "block 105 follows block 100": with_block(height=105),
        "height is '101'": with_block(height="101"),
        "there is no such height": with_block(height=2**40),
        "no such time": with_block(time=-1),
        "it has no coinbase": with_block(txs=[]),
        "cannot be read": with_block(txs=["00"]),
        "is not an outpoint": with_block(prevouts={"x": [1, "", 1]}),
        "is not satoshi, script and height": with_block(prevouts={"x:1": 5}),
        "prevout ": with_block(prevouts={"x:1": [1, "zz", 1]}),
        "is not a list of pairs": with_block(expect={"added": {"x:1": 5}}),
        "is not the id of a rune": with_block(expect={"added": {"x:1": [["a", 1]]}}),
        "removed is not a list of text": with_block(expect={"removed": [5]}),
        "balances before the first block": {**good, "initial": {"balances": {"x:1": []}}},
        "is not an integer": {**good, "initial": {"entries": {"1:0": {"etching": "", "rune": "x"}}}},
        "a branch starts with block 100": {**good, "branches": [good["blocks"]]},
        "has no prevout": with_block(prevouts={}),
    }


def test_a_malformed_scenario_fails_without_a_crash(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has a line that says what is wrong, and the others are still checked."""
    broken = broken_scenarios()
    scenarios = [*broken.values(), history(1, 2)]
    file = write(tmp_path / "broken.json", {"format": "index/1", "scenarios": scenarios})
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "1")
    for message, line in zip(broken, lines, strict=False):
        assert line.startswith(f"FAIL {file}: ")
        assert message in line
    assert lines[-2:] == [f"pass {file}: history-1", f"1 passed, {len(broken)} failed"]
    assert status == 1


def test_what_is_absent_is_not_compared(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys may be missing, of a scenario, of what a block changes or of an entry; block 0 may come first."""
    sparse = history(1, 5)
    for key in ("name", "branches"):
        del sparse[key]
    for block in sparse["blocks"]:
        for entry in block["expect"]["entries"].values():
            del entry["symbol"], entry["rune"], entry["number"]
        block["expect"] = {key: value for key, value in block["expect"].items() if value}
    unknown = history(1, 5)
    for block in unknown["blocks"]:
        del block["expect"]
    early = History(3, height=1).scenario(3)
    early["blocks"].insert(0, {"height": 0, "time": 1, "txs": early["blocks"][0]["txs"][:1]})
    above = History(4, network="mainnet", height=839_998).scenario(2)
    for block in above["blocks"]:
        block["expect"] = {}
    file = write(tmp_path / "x", [sparse, unknown, early, above])
    status, lines = run(capsys, file, "--database", database_url, "--jobs", "1")
    assert [line.removeprefix(f"pass {file}: ") for line in lines[:-1]] == [
        "scenario 1",
        "history-1",
        "history-3",
        "history-4",
    ]
    assert status == 0


def test_wrong_vectors_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A difference names the field or the arguments; what is malformed fails alone."""
    tx = "0200000001" + "00" * 36 + "00ffffffff01" + "00" * 8 + "08" + "6a5d0514e807141a" + "00" * 4
    stone: dict[str, Any] = {
        "type": "runestone",
        "edicts": [],
        "mint": "1000:26",
        "pointer": None,
        "etching": None,
    }
    vectors = [
        {"case": "right", "tx": tx, "artifact": stone},
        {"tx": tx, "artifact": {"type": "runestone", "mint": "1000:26"}},
        {"tx": tx, "artifact": {**stone, "mint": "1000:27"}},
        {"tx": tx, "artifact": None},
        {"tx": "00", "artifact": None},
        5,
    ]
    rules = {
        "format": "names/1",
        "number_to_name": [[0, "A"], ["26", "AB"], ["x", "A"], 5, [[]]],
        "name_to_number": [["a", {"error": "anything"}], ["A", {"error": "character"}]],
        "minimum_at_height": [["litecoin", 1, "0"]],
        "no_such_rule": [[1, 1]],
    }
    files = [write(tmp_path / "v", {"vectors": vectors}), write(tmp_path / "n", rules)]
    status, lines = run(capsys, *files)
    shown = [line.replace(files[0], "v").replace(files[1], "n") for line in lines]
    assert shown[:3] == [
        "pass v: vector 1 (right)",
        "pass v: vector 2",
        "FAIL v: vector 3: mint: recorded 1000:27, found 1000:26",
    ]
    assert "artifact: recorded nothing, found " in shown[3]
    assert "malformed: the transaction cannot be read" in shown[4]
    assert "malformed: the vector: not a JSON object" in shown[5]
    assert [line.split(":")[0] for line in shown[6:-1]] == [
        *("pass n", "FAIL n", "FAIL n", "FAIL n", "FAIL n"),
        *("pass n", "FAIL n"),
        *("FAIL n", "FAIL n"),
    ]
    assert shown[-1] == "4 passed, 11 failed"
    assert status == 1


def test_an_unreadable_file_has_its_own_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is 2, whether the file is missing, truncated, not JSON or without anything to check."""
    good = write(tmp_path / "good", {"encode": [["0", "00"]]})
    contents = {"text": b"x", "cut": gzip.compress(b"{}" * 99)[:-9], "none": b"{}", "list": b"[1]"}
    files = [str(tmp_path / "missing")]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        files.append(str(tmp_path / name))
    status, lines = run(capsys, good, *files)
    assert lines[0] == f"pass {good}: encode 1"
    assert [line.partition(": ")[0] for line in lines[1:-1]] == [f"FAIL {file}" for file in files]
    assert (status, lines[-1]) == (2, f"1 passed, {len(files)} failed")
    assert run(capsys, good)[0] == 0


def test_json_has_the_same_results(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object has the counts, and each difference field by field."""
    wrong = altered(lambda s: s["blocks"][0]["expect"]["entries"].update({"5:5": {"number": 3}}))
    file = write(tmp_path / "x", {"scenarios": [wrong, history(1, 2)]})
    status = main([file, "--database", database_url, "--jobs", "2", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["failed"], status) == (1, 1, 1)
    assert report["scenarios"][0]["difference"] == {
        "block_id": 100,
        "op": "rune 5:5",
        "field": "content",
        "recorded": "{'number': '3'}",
        "found": "nothing",
    }
