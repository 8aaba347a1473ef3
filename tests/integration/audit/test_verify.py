"""Whatever is changed past the engine is found, with its place; what is whole passes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.audit.conftest import Clone
from tests.support import damage as support
from tests.support.damage_cases import CASES, DEEP, JUDGED_AGAIN, RIDES, WITH_CODE
from tests.support.ride_story import ride_apps
from tests.support.tables import tables
from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.audit.fault import Fault
from virtualchain.audit.verify import Report, verify
from virtualchain.engine.options import Listener, Options, Progress
from virtualchain.engine.versions import drop
from virtualchain.errors import UsageError

CONTRACTS = [read_contract(support.notes()), read_contract(support.Ledger())]
RIDE_CONTRACTS = [read_contract(app) for app in ride_apps()]


def audit(url: str, tmp_path: Path, *contracts: Contract, deep: bool = False) -> Report:
    """Verify the deployment at `url`."""
    return verify(url, contracts, deep=deep, options=Options(history=2, state_folder=tmp_path))


def require_fault(faults: Sequence[Fault], message: str, place: Mapping[str, Any]) -> None:
    """Check that one of the faults has this message and is at this place."""
    assert any(
        message in fault.message and all(getattr(fault, name) == value for name, value in place.items())
        for fault in faults
    ), "\n".join(map(str, faults)) or "no fault"


@pytest.mark.parametrize(("statement", "message", "place"), CASES)
def test_damage_is_found_with_its_place(
    clone: Clone, tmp_path: Path, statement: str, message: str, place: dict[str, Any]
) -> None:
    """A row changed, removed or added past the triggers is a fault, with or without the apps' code."""
    url = clone(statement)
    for contracts in ((), CONTRACTS):
        require_fault(audit(url, tmp_path, *contracts).faults, message, place)


@pytest.mark.parametrize(("statement", "message", "place"), RIDES)
def test_damage_to_what_is_tracked_is_found(
    clone: Clone, tmp_path: Path, statement: str, message: str, place: dict[str, Any]
) -> None:
    """What tape and log say of outputs, heights, payloads and coverage is checked, with or without code."""
    url = clone(statement, of="rides")
    for contracts in ((), RIDE_CONTRACTS):
        require_fault(audit(url, tmp_path, *contracts).faults, message, place)


@pytest.mark.parametrize(("statement", "message", "place"), WITH_CODE)
def test_code_shows_more_of_what_is_tracked(
    clone: Clone, tmp_path: Path, statement: str, message: str, place: dict[str, Any]
) -> None:
    """A payload rule of the app's own shows which payloads there are; without it, nothing is made up."""
    url = clone(statement, of="rides")
    require_fault(audit(url, tmp_path, *RIDE_CONTRACTS).faults, message, place)
    assert audit(url, tmp_path).faults == []


@pytest.mark.parametrize(("statement", "message", "place"), JUDGED_AGAIN)
def test_judging_again_shows_what_was_tracked(
    clone: Clone, tmp_path: Path, statement: str, message: str, place: dict[str, Any]
) -> None:
    """Verdicts and spends that nothing else shows are found by deriving the app again."""
    url = clone(statement, of="rides")
    require_fault(audit(url, tmp_path, *RIDE_CONTRACTS, deep=True).faults, message, place)


def test_apps_that_track_outputs_pass(clone: Clone, tmp_path: Path) -> None:
    """Spends, dropped candidates, heights, coinbases and several payloads are no fault."""
    url = clone(of="rides")
    before = tables(url)
    assert audit(url, tmp_path).faults == []
    report = audit(url, tmp_path, *RIDE_CONTRACTS, deep=True)
    assert (report.faults, report.notes) == ([], [])
    assert report.judged_again == ["rides", "several", "stones"]
    assert tables(url) == before


@pytest.mark.parametrize("of", ["kept", "pruned"])
def test_a_whole_deployment_passes(clone: Clone, tmp_path: Path, of: str) -> None:
    """No fault is found in either deployment, and judging again leaves nothing behind."""
    url = clone(of=of)
    before = tables(url)
    report = audit(url, tmp_path, *CONTRACTS, deep=True)
    assert (report.faults, report.notes) == ([], [])
    assert report.judged_again == ["ledger", "notes"]
    assert tables(url) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("statement", "message", "place"), DEEP)
def test_judging_again_finds_the_very_row(
    clone: Clone, tmp_path: Path, statement: str, message: str, place: dict[str, Any]
) -> None:
    """What no digest covers, and rows older than history, are found by deriving the app again."""
    url = clone(statement, of="pruned")
    require_fault(audit(url, tmp_path, *CONTRACTS, deep=True).faults, message, place)


def test_old_damage_is_noticed_without_its_place(clone: Clone, tmp_path: Path) -> None:
    """A wrong row that is older than history shows, and the fault says how to find it."""
    url = clone("UPDATE notes__1.notes SET text = 'forged' WHERE key = 'a'", of="pruned")
    [fault] = audit(url, tmp_path).faults
    assert (fault.app, fault.table, fault.block_id) == ("notes", None, None)
    assert "as of block 106" in fault.message
    assert "verify --deep" in fault.message


def test_a_build_that_is_dropped_while_it_is_judged_again_is_said(clone: Clone, tmp_path: Path) -> None:
    """A writer that rolls back below the history drops what is judged again: the audit goes on without it."""
    url = clone()

    def drop_it(progress: Progress) -> None:
        if progress.app == "ledger" and progress.block.block_id == 105:
            drop(url, "ledger", "_again")

    report = verify(
        url,
        CONTRACTS,
        deep=True,
        options=Options(history=2, state_folder=tmp_path),
        listener=Listener(on_catch_up=drop_it),
    )
    assert (report.judged_again, report.faults) == (["notes"], [])
    assert "app ledger was not judged again: another process replaced or dropped" in report.notes[0]


def test_what_was_not_checked_is_said(clone: Clone, tmp_path: Path) -> None:
    """Code of another version is not used, and apps without code are not judged again."""
    app = support.notes()
    app.get_virtual_chain_version = lambda: "2"  # type: ignore[method-assign]
    report = audit(clone(), tmp_path, read_contract(app), deep=True)
    assert report.judged_again == []
    assert "version that is named, 2, declares other rules" in report.notes[0]
    assert [note.split(":")[0] for note in report.notes[1:]] == [
        "app ledger was not judged again",
        "app notes was not judged again",
    ]
    with pytest.raises(UsageError, match="name it with --app"):
        audit(clone(), tmp_path, deep=True)
