"""Every test that the threat model names exists, and every "cannot" names one."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
_NAMED = re.compile(r"\[`(test_\w+)`\]\(\.\./([\w/]+\.py)\)")


@pytest.mark.parametrize(("test", "file"), sorted(set(_NAMED.findall(_PAGE))))
def test_a_named_test_exists(test: str, file: str) -> None:
    """A test that is renamed or removed takes its promise along."""
    assert f"def {test}(" in (_ROOT / file).read_text(encoding="utf-8")


def test_whatever_cannot_be_done_was_tried() -> None:
    """In tables of what somebody cannot do, each row names a test."""
    tables = re.findall(r"\n\| \w+ cannot[^\n]*\n\|---\|---\|\n((?:\|[^\n]*\n)+)", _PAGE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) > 30
    assert [row for row in rows if not _NAMED.search(row)] == []
