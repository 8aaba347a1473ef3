"""The table of docs/audit.md is what the commands do: each damage is found by those that it names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.audit.conftest import Clone
from tests.support import damage as support
from tests.support.damage_cases.table import TABLE, Damage
from virtualchain.app.declarations import read_contract
from virtualchain.audit.nodes import Divergence, compare_nodes
from virtualchain.audit.sample import verify_sample
from virtualchain.audit.verify import verify
from virtualchain.engine.options import Options
from virtualchain.errors import UsageError
from virtualchain.store.embedded.server import EmbeddedServer

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"
COMMANDS = ("verify", "verify --sample", "verify --deep", "compare-nodes")
NOTES, LEDGER = read_contract(support.notes()), read_contract(support.Ledger())
SEED = 1
"""The one stretch that it chooses has all blocks."""


def documented() -> dict[str, tuple[bool, ...]]:
    """Return which commands find what, by the words of the page."""
    rows = re.findall(
        r"^\| (?!changed)([^|`-][^|]*) \|((?: (?:yes|-) \|){4})$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    return {name.strip(): tuple(cell == "yes" for cell in re.findall("yes|-", cells)) for name, cells in rows}


def test_the_table_has_every_damage() -> None:
    """There are as many rows as kinds of damage, and each is found by at least one command."""
    assert list(documented()) == [damage.name for damage in TABLE]
    assert len(TABLE) > 60
    assert all(map(any, documented().values()))


@pytest.mark.parametrize("damage", TABLE, ids=[damage.name for damage in TABLE])
def test_damage_is_found_by_the_commands_in_the_table(
    clone: Clone, server: EmbeddedServer, tmp_path: Path, damage: Damage
) -> None:
    """It is found by these and no others, and one of them names its place."""
    url = clone(*damage.statements, of=damage.of, lies=damage.lies)
    findings = look(url, server.url_for("kept"), tmp_path, damage.place)
    assert tuple(map(bool, findings)) == documented().get(damage.name), (damage.name, findings)
    flat = [item for of_command in findings for item in of_command]
    assert any(is_at(item, damage.place) for item in flat), flat


def look(url: str, other: str, tmp_path: Path, place: Mapping[str, Any]) -> list[list[Any]]:
    """Return what each command finds; what `verify` finds with its place, `verify --deep` finds as well."""
    options = Options(history=1000, state_folder=tmp_path)
    contracts = [LEDGER if place.get("app") == "ledger" else NOTES]
    whole: list[Any] = list(verify(url, contracts).faults)
    sample: list[Any] = list(verify_sample(url, 1, SEED, contracts, options=options).faults)
    is_named = any(is_at(fault, place) for fault in whole)
    deep = whole if is_named else list(verify(url, contracts, deep=True, options=options).faults)
    try:
        divergence = compare_nodes(url, other).divergence
    except UsageError as error:
        return [whole, sample, deep, [error]]
    return [whole, sample, deep, [] if divergence is None else [divergence]]


def is_at(item: Any, place: Mapping[str, Any]) -> bool:
    """Return whether a finding names a place; an app is not in what two nodes differ in, but above it."""
    if isinstance(item, Divergence):
        place = {key: value for key, value in place.items() if key in {"block_id", "txindex"}}
    return all(getattr(item, name, None) == value for name, value in place.items())
