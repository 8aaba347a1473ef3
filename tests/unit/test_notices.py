"""Notices: text with an event; the list of events is closed, and docs/logs.md describes it."""

import copy
import pickle
import re
from pathlib import Path

import pytest

import virtualchain
from virtualchain.notices import EVENTS, Notice, notice_of

CODE = Path(virtualchain.__file__).parent
PAGE = CODE.parent / "docs" / "logs.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| ([a-z', ]+) \|", re.MULTILINE)


def test_the_page_describes_every_event_with_its_level() -> None:
    """Each event is in one row, with its level, and each row is an event; their order is free."""
    rows = ROW.findall(PAGE.read_text())
    assert sorted(name for name, _ in rows) == sorted(EVENTS)
    free = {"note": "info, or warning", "log": "the record's"}
    assert dict(rows) == {**EVENTS, **free}


def test_every_event_is_used() -> None:
    """The code names each event somewhere, apart from the list; a name that is not in the list fails."""
    files = [file for file in CODE.rglob("*.py") if file != CODE / "notices.py"]
    code = "\n".join(file.read_text() for file in files)
    assert [name for name in EVENTS if f'"{name}"' not in code] == []
    named = re.findall(r'Notice\((?:[^()]|\([^()]*\))*?, "([a-z_]+)"', code)
    assert len(named) > 30
    assert set(named) <= set(EVENTS)
    with pytest.raises(KeyError):
        Notice("a sentence", "no_such_event")


def test_a_notice_is_text_and_can_be_copied() -> None:
    """It equals its sentence, and copies keep the event; plain text is a note."""
    notice = Notice("the node is away", "waiting_for_node", "error", url="x")
    assert notice == "the node is away"
    for same in (copy.deepcopy(notice), pickle.loads(pickle.dumps(notice)), notice_of(notice)):
        assert (same, same.event, same.level, same.fields) == (
            "the node is away",
            "waiting_for_node",
            "error",
            {"url": "x"},
        )
    assert (notice_of("hello").event, notice_of("hello").level) == ("note", "info")
