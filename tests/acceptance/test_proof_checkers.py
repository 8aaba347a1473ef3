"""Three checkers of proofs agree: ours, an independent one, and the one for browsers, in a real Chromium.

The independent one, `tests/support/independent_proofs.py`, was written from docs/protocol alone.
"""

import base64
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support import independent_proofs
from tests.support.proof_cases import chain_proof, op_proof
from tests.support.proof_changes import Case, cases, changed
from tests.support.proof_forgeries import forgeries
from tests.support.shared_data import shared
from virtualchain.bitcoin import spv
from virtualchain.bitcoin.header import HEADER_SIZE, headers_from, target
from virtualchain.bitcoin.inclusion import inclusions
from virtualchain.bitcoin.layout import walk
from virtualchain.bitcoin.networks import Network, network
from virtualchain.bitcoin.spv import make_spv
from virtualchain.cli.prove import _ops_json
from virtualchain.consensus.row_proofs import RowClaim
from virtualchain.errors import InvalidProof, MalformedBlock
from virtualchain.model import Block
from virtualchain.proof.checking import Known, check_file
from virtualchain.testing.blocks import genesis_block

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "virtualchain" / "proof" / "check-proof.js"
COUNT = 1000
WORK = 'BigInt("0x" + hash) <= target'
"""The check of work in the script, which tests of the other rules for headers leave out."""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --dump-dom"
)
PAGE = """<!DOCTYPE html><meta charset="utf-8"><pre id="results"></pre>
<script src="workless.js"></script><script>const workless = checkProof;</script>
<script src="check-proof.js"></script><script src="cases.js"></script><script>
const results = cases.map(([data, trusted, known, isWorkless]) => {
  try {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    return [(isWorkless ? workless : checkProof)(bytes, trusted, known), ""];
  } catch (error) {
    const isError = error.constructor === Error && error.message;
    return [null, isError ? error.message : `NOT AN ERROR: ${error.stack}`];
  }
});
document.getElementById("results").textContent = encodeURIComponent(JSON.stringify(results));
</script>
"""

RETARGETING = ("mainnet", "testnet3", "testnet4", "signet")
START, LIMIT, HARD = 1_700_000_000, 0x1D00FFFF, 0x1C00FFFF
"""A time, the bits of mainnet's limit, and those of a 256th of it."""
Stretch = tuple[str, int, list[int], list[int]]
"""Headers: the network, the height of the first one, the times and the bits."""
Verdict = tuple[Any, str]
"""What is proven, or None and why not."""


def ours(case: Case) -> Verdict:
    """Ask `check-proof`'s own function."""
    known = dict(case.known)
    names = {"at": "block_id", "header": "last_hash"}
    if "absent" in known:
        known["absent"] = bytes.fromhex(known["absent"])
    if "key" in known:
        known["key"] = tuple(known["key"])
    try:
        checked = check_file(
            case.data, case.trusted, Known(**{names.get(name, name): value for name, value in known.items()})
        )
    except InvalidProof as error:
        return None, str(error)
    if isinstance(checked, RowClaim):
        return {"kind": "row", **checked._asdict()}, ""
    shown = _ops_json(checked)
    return {**shown, "op": shown["op"] and shown["op"].hex(), "ops": [op.hex() for op in shown["ops"]]}, ""


def independent(case: Case) -> Verdict:
    """Ask the checker that was written from the documentation."""
    try:
        return independent_proofs.check(case.data, case.trusted, case.known), ""
    except independent_proofs.Refused as error:
        return None, str(error)


@dataclass(frozen=True)
class Tried:
    """Cases, and what the script said of each."""

    made_up: dict[Case, Verdict]
    forged: dict[Case, Verdict]
    real: dict[Case, Verdict]
    workless: dict[Case, Verdict]


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """Try all cases in one run of a browser; skip the tests if there is none, except in CI."""
    program = shutil.which("chromium")
    if program is None:
        reason = "no chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} (in CI these tests must run)")
        pytest.skip(reason)
    folder, text = tmp_path_factory.mktemp("browser"), SCRIPT.read_text()
    assert text.count(WORK) == 1
    made_up = [list(cases(15, COUNT)), list(forgeries(Random(2)))]
    kinds = [*made_up, list(real_cases(Random(3))), [*workless_cases(Random(4)), *edge_cases(Random(5))]]
    written = [_written(case, kind is kinds[-1]) for kind in kinds for case in kind]
    files = {
        "check-proof.js": text,
        "workless.js": text.replace(WORK, "target > 0n"),
        "cases.js": f"const cases = {json.dumps(written)};",
        "page.html": PAGE,
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    page, profile = (folder / "page.html").as_uri(), folder / "profile"
    command = [program, *FLAGS.split(), f"--user-data-dir={profile}", page]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    results = re.search('<pre id="results">(.+?)</pre>', done.stdout)
    assert results, done.stdout[:1000] + done.stderr[-2000:]
    verdicts = iter(json.loads(unquote(results[1])))
    return Tried(*({case: tuple(next(verdicts)) for case in kind} for kind in kinds))


def _written(case: Case, is_workless: bool) -> list[Any]:
    return [base64.b64encode(case.data).decode(), case.trusted, case.known, is_workless]


def compare(verdicts: dict[Case, Verdict]) -> float:
    """Compare the three verdicts on each case; return which part of them is good."""
    good = 0
    for case, third in verdicts.items():
        first, second = ours(case), independent(case)
        described = f"{case.name}: {first[1]!r}, {second[1]!r}, {third[1]!r} {case.data[:2000]!r}"
        assert not third[1].startswith("NOT AN ERROR"), described
        assert first[0] == second[0] == third[0], described
        good += first[0] is not None
    return good / len(verdicts)


def test_the_script_is_small_and_needs_nothing_else() -> None:
    """It has less than 15,000 bytes, and asks for no file and no network."""
    text = SCRIPT.read_text()
    assert len(text.encode()) < 15_000
    assert not re.search(r"\b(import|require|fetch|XMLHttpRequest|WebSocket|eval|Function|crypto)\b", text)
    assert max(map(len, text.splitlines())) <= 140


def test_three_checkers_agree_on_made_up_proofs(tried: Tried) -> None:
    """The same verdict on each, and the same proven values on the good ones."""
    assert 0.25 < compare(tried.made_up) < 0.5


def test_three_checkers_agree_on_forged_proofs(tried: Tried) -> None:
    """All hashes are right, and a rule that no hash enforces is broken."""
    assert 0.1 < compare(tried.forged) < 0.6


def test_three_checkers_agree_on_real_headers(tried: Tried) -> None:
    """Mainnet's first blocks, and the genesis blocks of signet and testnet3 with what is on top of them."""
    shared("headers")
    assert 0.2 < compare(tried.real) < 0.75


def test_three_checkers_agree_on_targets_and_times(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers without work, made up for all networks, so that only the other rules decide."""
    monkeypatch.setattr(spv, "check_work", _check_limit)
    monkeypatch.setattr(independent_proofs, "has_work", lambda _digest, _target: True)
    assert 0.2 < compare(tried.workless) < 0.8


def _check_limit(block: Block, on: Network) -> None:
    if target(block.bits) > on.largest_target:
        raise MalformedBlock("above the limit")


def real_cases(random: Random) -> Iterator[Case]:
    """Yield proofs with real headers, and the same with other headers and heights."""
    if not (ROOT.parent / "shared" / "data").exists():
        return
    file, at, raw = shared("mainnet/blocks-0-599.dat").read_bytes(), 0, []
    while at < len(file):
        size = struct.unpack_from("<I", file, at + 4)[0]
        raw.append(file[at + 8 : at + 8 + size])
        at += 8 + size
    main = headers_from(0, b"".join(block[:HEADER_SIZE] for block in raw))
    for _ in range(40):
        height = random.choice([0, 1, 170, 170, 181, 546, 546])
        shown = list(inclusions(walk(raw[height]), range(1)))
        shown += list(inclusions(walk(raw[height]), [1])) if height in {170, 181, 546} else []
        headers = main[height : height + random.choice([1, 2, 12, 13, 30])]
        yield from _with_changes(random, height, make_spv(random.choice(shown), headers, network("mainnet")))
    for name, count in (("testnet3_0_10000", 4036), ("testnet3_0_10000", 30), ("signet_0_2015", 2016)):
        on = network(name.partition("_")[0])
        headers = headers_from(0, shared(f"headers/{name}.bin").read_bytes()[: count * HEADER_SIZE])
        [inclusion] = inclusions(walk(genesis_block(on)), [0])
        made = make_spv(inclusion, headers, on)
        yield from _with_changes(random, 0, made)


def _with_changes(random: Random, height: int, made: dict[str, Any]) -> Iterator[Case]:
    yield _case(random, height, made)
    headers = list(made["headers"])
    at = random.randrange(len(headers))
    kind = random.randrange(5)
    if kind == 0:
        headers.pop(at)
    elif kind == 1:
        headers.insert(at, headers[at])
    elif kind == 2:
        headers[at] = headers[at][:-1] + f"{int(headers[at][-1], 16) ^ 1:x}"
    elif kind == 3:
        headers[at:] = headers[at:][::-1]
    yield _case(random, height, {**made, "headers": headers})
    others = ["mainnet", "testnet3", "testnet4", "signet", "regtest", "signet-00112233"]
    yield _case(random, height, {**made, "network": random.choice(others)})
    yield _case(random, random.choice([height + 1, height + 2016, 2016 - at, 227_931]), made)


def _case(random: Random, height: int, made: dict[str, Any]) -> Case:
    proof, trusted = op_proof(random, block=height)
    return Case(f"{made['network']} at {height}", json.dumps({**proof, "spv": made}).encode(), trusted)


def workless_cases(random: Random) -> Iterator[Case]:
    """Yield proofs with made-up headers of all networks, mostly where a period ends."""
    networks = ["mainnet", "testnet3", "testnet4", "signet", "regtest", "signet-00112233", "signet-0a03cf40"]
    for number in range(300):
        name = random.choice(networks)
        count = 2020 if number % 60 == 0 else random.choice([2, 3, 5, 13, 14, 30])
        height = 2016 * random.randrange(1, 9) + random.choice([-1, -2, -5, -11, -12, 0, 1, 7, 1000])
        height = random.choice([0, 0, 1, 3]) if number % 5 == 1 else height
        proof, trusted = chain_proof(
            random, network=name, height=height, headers=count, bits=_drift(random, name, height)
        )
        if number % 60 and random.random() < 0.2:
            _, data, trusted = changed(random, proof, trusted)
            yield Case(f"{name} at {height}, changed", data, trusted)
        else:
            yield Case(f"{name} at {height}", json.dumps(proof).encode(), trusted)


def edge_cases(random: Random) -> Iterator[Case]:
    """Yield proofs whose last header is just right, or just wrong, in its time or target."""
    stretches = (*_median_edges(random), *_period_edges(), *_whole_periods())
    for name, lowest, times, bits in stretches:
        proof, trusted = chain_proof(
            random, network=name, height=lowest, headers=len(times), bits=_listed(times, bits)
        )
        yield Case(f"{name} from {lowest}, {times[-1]} {bits[-1]:x}", json.dumps(proof).encode(), trusted)


def _listed(times: list[int], bits: list[int]) -> Callable[[int, int], tuple[int, int]]:
    rows = iter(zip(times, bits, strict=True))
    return lambda _height, _before: next(rows)


def _median_edges(random: Random) -> Iterator[Stretch]:
    for name, count, lowest in product(RETARGETING, (*range(1, 14), 30), (0, 1, 2000)):
        times = sorted(START + 1000 * random.randrange(100) for _ in range(count))
        median = times[-11:][len(times[-11:]) // 2]
        for last in (median, median + 1):
            yield name, lowest, [*times, last], [HARD] * (count + 1)


def _period_edges() -> Iterator[Stretch]:
    """Yield headers around the start of a period, of which the one before is not shown."""
    times = [START + 1000 * place for place in range(12)]
    targets = (0x1C03FFFC, 0x1C03FFFD, 0x1B3FFFC0, 0x1B3FFFBF, HARD, LIMIT, LIMIT - 1)
    for name, seconds, lowest in product(RETARGETING, (-601, -600, 1, 1200, 1201), (2003, 2004, 2005)):
        for before, last in product((HARD, LIMIT), targets):
            yield name, lowest, [*times, times[-1] + seconds], [before] * 12 + [last]


def _whole_periods() -> Iterator[Stretch]:
    """Yield whole periods: what counts is how long they took, and from which target."""
    for name, (step, eased) in product(RETARGETING[:3], ((900, True), (3000, False), (100, True))):
        times = [START + step * place for place in range(2016)]
        times[-1] += 1201 * eased
        bits = [HARD] * 2015 + [LIMIT if eased and name != "mainnet" else HARD]
        base = bits[0] if name == "testnet4" else bits[-1]
        seconds = min(max(times[-1] - times[0], 302_400), 4_838_400)
        new = min(independent_proofs._target(base) * seconds // 1_209_600, independent_proofs._target(LIMIT))
        for last in (independent_proofs._bits(new), independent_proofs._bits(new) - 1):
            yield name, 2016, [*times, times[-1] + 1], [*bits, last]


def _drift(random: Random, name: str, lowest: int) -> Callable[[int, int], tuple[int, int]]:
    """Return what makes times and bits of headers which follow the rules, but for a mistake now and then."""
    limit = {"regtest": 0x207FFFFF, "signet": 0x1E0377AE}.get(name.partition("-")[0], 0x1D00FFFF)
    usual = random.choice([limit, limit, 0x1C00FFFF, 0x1B0404CB, 0x1A7FFFFF, 0x19008000])
    wrong, first = random.choice([0, 0, 0.002, 0.1, 0.3]), 0

    def draw(height: int, before: int) -> tuple[int, int]:
        nonlocal usual, first
        time = before + random.choice([1, 300, 600, 1200, 1201, 5000])
        if random.random() < wrong:
            time = before - random.choice([1, 599, 600, 601, 100_000])
        bits = usual
        if height % 2016 == 0 and height > lowest:
            seconds = before - first if height - lowest >= 2016 else 1_209_600 * random.choice([0, 1, 2, 9])
            seconds = min(max(seconds, 302_400), 4_838_400)
            easiest = independent_proofs._target(limit)
            made = min(independent_proofs._target(usual) * seconds // 1_209_600, easiest)
            bits = usual = independent_proofs._bits(made)
        elif name.startswith("testnet") and time > before + 1200:
            bits = limit
        if height % 2016 == 0:
            first = time
        if random.random() < wrong:
            bits = random.choice(
                [bits + 1, bits - 1, limit, usual, 0x1D010000, 0x1C800000, 0x0300FFFF, 0, 0xFF7FFFFF]
            )
        return time, bits

    return draw
