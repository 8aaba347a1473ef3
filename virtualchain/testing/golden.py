"""Golden hashes: `check_golden` keeps what an app makes of its samples in a file, and notices a change.

The file belongs to the app's project, like a test. It holds, block by block, the verdicts, the changed rows
and the hashes, so that a change of the rules shows in its diff.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final

from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.bitcoin.script import op_return
from virtualchain.engine.engine import StateEngine
from virtualchain.errors import AppHalted, UsageError, VirtualchainError
from virtualchain.store.database import connect_reader
from virtualchain.store.sql import queries
from virtualchain.testing.cases import AtOnce, Carry, Case, CaseWriter, Place
from virtualchain.testing.database import DatabaseServer, running_server
from virtualchain.testing.tracing import shortened

UPDATE: Final = "VIRTUALCHAIN_UPDATE_GOLDEN"
"""The environment variable with which files are written again; `pytest --update-golden` sets it."""
_Q = queries("testing")
_SPENDS: Final = 24
_HASHES: Final = ("consensus_hash", "state_hash")
_HOW: Final = "run the test with `pytest --update-golden` (or VIRTUALCHAIN_UPDATE_GOLDEN=1)"


class RulesChanged(VirtualchainError, AssertionError):
    """An app makes of its samples something else than its golden file says; the message says what."""


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """What was compared with a golden file, or written to it."""

    path: Path
    blocks: int
    accepted: int
    refused: int
    is_written: bool


def check_golden(
    app: object,
    path: str | Path,
    samples: Sequence[bytes] = (),
    *,
    database_url: str | None = None,
    carry: Carry = op_return,
    guard: bool = True,
) -> GoldenReport:
    """Compare what an app (anything that `StateEngine` accepts) makes of its samples with a file.

    A relative `path` begins at the folder of the file that calls this function. `samples`, `database_url` and
    `carry` are as for `check_poison`; each sample is sent by alice, by alice again, and by bob, and the chain
    is always the same.

    The guard is on, unless `guard` is False: callbacks that read the clock, files and the like are errors
    (docs/mistakes.md).

    The file is written if there is none, except in CI (CI=true), and written again with `--update-golden`, an
    option that pytest has with virtualchain, or with VIRTUALCHAIN_UPDATE_GOLDEN=1 in the environment.

    Raises RulesChanged, which names the first block, input and row that differ, and says whether the app's
    version is still the same; or that there is no file. Raises UsageError for a file that is not such a file,
    if the app halts, or if there is no sample.
    """
    if not samples:
        raise UsageError("check_golden needs samples: good payloads, at least one for each opcode")
    path = Path(sys._getframe(1).f_code.co_filename).parent / path  # noqa: SLF001 - the test's folder
    contract = read_contract(app, "regtest")
    if guard:
        require_no_mistake(contract)
    is_missing, is_update = not path.exists(), _is_set(UPDATE)
    if is_missing and _is_set("CI") and not is_update:
        raise RulesChanged(
            f"there is no golden file {path}: run the test once outside of CI, and commit what it writes"
        )
    actual = _course(app, contract, samples, database_url, carry, guard=guard)
    is_written = is_missing or is_update
    if is_written:
        _write(path, actual)
    else:
        _compare(path, _read(path), actual)
    verdicts = [line for block in actual["blocks"] for line in block["inputs"]]
    accepted = sum(": accepted " in line for line in verdicts)
    return GoldenReport(path, len(actual["blocks"]), accepted, len(verdicts) - accepted, is_written)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in {"", "0", "false", "no"}


def _course(
    app: object, contract: Contract, samples: Sequence[bytes], url: str | None, carry: Carry, *, guard: bool
) -> dict[str, Any]:
    """Run the app over its samples; return what belongs into the file."""
    writer = CaseWriter(contract, samples, carry)
    blocks = [list(writer.samples([sender])) for sender in ("alice", "alice", "bob")]
    spends = list(islice(writer.spends(), _SPENDS))
    blocks += [spends] if spends else []
    place = Place.of(contract)
    with ExitStack() as opened:
        server = (
            opened.enter_context(running_server()) if url is None else DatabaseServer(url, prefix="golden")
        )
        opened.callback(server.drop_template)
        database = server.clone()
        opened.callback(server.drop, database)
        node = opened.enter_context(place.node())
        place.mine(node, blocks, 0)
        last = place.first + len(blocks) - 1
        _run(
            place.app(AtOnce(app) if contract.confirmations else app),
            contract,
            database,
            node.url,
            last,
            opened,
            guard=guard,
        )
        return {
            "app": contract.name,
            "version": contract.version,
            "fingerprint": contract.fingerprint(),
            "samples": [sample.hex() for sample in samples],
            "blocks": _blocks(database, contract.name, place.first, blocks),
        }


def _run(
    app: object,
    contract: Contract,
    database: str,
    source: str,
    last: int,
    opened: ExitStack,
    *,
    guard: bool,
) -> None:
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
    with StateEngine(
        app, database=database, source=source, confirmations=0, state_folder=folder, history=None, guard=guard
    ) as engine:
        try:
            engine.build(last)
        except AppHalted as error:
            raise UsageError(
                f"app {contract.name} halts, so that there is nothing to compare; check_poison finds more: "
                f"{error}"
            ) from error.__cause__


def _blocks(database: str, app: str, first: int, blocks: Sequence[Sequence[Case]]) -> list[dict[str, Any]]:
    """Read what became of each block, as lines of text."""
    names = {case.tx.txid: case.name for block in blocks for case in block}
    by_block: dict[int, dict[str, Any]] = {
        first + number: {"block_id": first + number, "inputs": [], "rows": []}
        for number in range(len(blocks))
    }
    with closing(connect_reader(database)) as connection:
        for block_id, txid, verdict, details in connection.execute(_Q["verdicts"], {"above": first - 1}):
            if block_id in by_block and txid is not None:
                by_block[block_id]["inputs"].append(f"{names.get(txid, txid)}: {verdict} {details}")
        for block_id, text in connection.execute(_Q["changes_by_block"], {"app": app}):
            if block_id in by_block:
                by_block[block_id]["rows"].append(text)
        for block_id, *hashes in connection.execute(_Q["hashes_by_block"], {"app": app}):
            if block_id in by_block:
                by_block[block_id].update(zip(_HASHES, hashes, strict=True))
    return list(by_block.values())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write the file whole or not at all, unless it is the same."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=path.name, newline="\n", delete=False
        ) as file:
            file.write(text)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise UsageError(f"the golden file {path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no golden file: {error}; to write it again, {_HOW}") from error
    keys = {"app", "version", "fingerprint", "samples", "blocks"}
    is_whole = isinstance(content, dict) and keys <= content.keys() and isinstance(content["blocks"], list)
    if not is_whole or not all(isinstance(block, dict) for block in content["blocks"]):
        raise UsageError(f"{path} is no golden file: it lacks parts; to write it again, {_HOW}")
    return dict(content)


def _compare(path: Path, kept: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Raise RulesChanged, or UsageError if there is nothing that can be compared."""
    app, version = actual["app"], actual["version"]
    if kept["app"] != app:
        raise UsageError(f"the golden file {path} is of app {kept['app']}, not of {app}")
    if kept["samples"] != actual["samples"]:
        raise RulesChanged(f"app {app} is tried with other samples than those of {path}: {_HOW}")
    differences = _differences(kept["blocks"], actual["blocks"])
    if kept == actual:
        return
    listed = "".join(f"\n- {line}" for line in differences) or "\n- no verdict and no row is another"
    if kept["version"] != version:
        raise RulesChanged(
            f"app {app} has version {version}, and {path} is of version {kept['version']}. What changes "
            f"first:{listed}\nIf that is what the new version is for, {_HOW}"
        )
    if [_hashes(block) for block in kept["blocks"]] == [_hashes(block) for block in actual["blocks"]] and (
        kept["fingerprint"] == actual["fingerprint"]
    ):
        raise RulesChanged(
            f"app {app} has the hashes of {path}, but the log words something in another way:{listed}\n"
            f"No node differs because of that: {_HOW}"
        )
    what = "declares other rules" if kept["fingerprint"] != actual["fingerprint"] else "has other results"
    raise RulesChanged(
        f"app {app} {what} than in {path}, and its version is still {version}. What changes first:{listed}\n"
        f"Nodes with the old code and nodes with the new would differ and not know why. Undo the change, or "
        f"give the app a new version; then {_HOW}"
    )


def _hashes(block: Mapping[str, Any]) -> list[object]:
    return [block.get(name) for name in ("block_id", *_HASHES)]


def _differences(kept: Sequence[Mapping[str, Any]], actual: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe the first block that differs: its first input, its first row, and its hashes."""
    nothing: Mapping[str, Any] = {}
    for before, now in zip_longest(kept, actual, fillvalue=nothing):
        if before == now:
            continue
        block_id = now.get("block_id", before.get("block_id"))
        lines = [f"block {block_id}"]
        for name, what in (("inputs", "input"), ("rows", "row")):
            pairs = zip_longest(before.get(name, ()), now.get(name, ()), fillvalue="none")
            pair = next((each for each in pairs if each[0] != each[1]), None)
            if pair is not None:
                lines.append(f"{what}: {shortened(pair[0])} <> {shortened(pair[1])}")
        lines += [
            f"{name}: {before.get(name)} <> {now.get(name)}"
            for name in _HASHES
            if before.get(name) != now.get(name)
        ]
        return lines
    return []
