"""The two lists of all pages, in README.md and in docs/index.md, are complete."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages that are files at the top of the repository."""


def linked(text: str, folder: Path) -> set[Path]:
    """Return the files that a text in a folder links to."""
    targets = re.findall(r"\]\(([^()\s#:]+)(?:#[^()\s]*)?\)", text)
    return {(folder / target).resolve() for target in targets}


def pages() -> set[Path]:
    """Return the pages that readers find by a list; decisions are listed by a page of their own."""
    everything = {page for page in DOCS.rglob("*.md") if not re.match(r"\d{4}-", page.name)}
    return everything - {DOCS / "index.md"} - {DOCS / f"{name}.md" for name in ELSEWHERE}


@pytest.mark.parametrize("where", ["README.md", "docs/index.md"])
def test_each_page_is_listed(where: str) -> None:
    """README's table of the documentation and the index of the built documentation lead to every page."""
    text = (ROOT / where).read_text(encoding="utf-8")
    if where == "README.md":
        text = text.partition("\nIn the documentation:\n")[2]
    missing = pages() - linked(text, (ROOT / where).parent)
    assert sorted(str(page.relative_to(ROOT)) for page in missing) == []


def test_each_part_of_the_index_has_a_list_of_its_own() -> None:
    """A page is in one part of the index, where the table of contents has it."""
    parts = (DOCS / "index.md").read_text(encoding="utf-8").split("\n## ")[1:]
    listed = [page for part in parts for page in linked(re.sub(r"\]\([^()]*#[^()]*\)", "]", part), DOCS)]
    assert len(listed) == len(set(listed))
    assert set(listed) == pages() | {DOCS / f"{name}.md" for name in ELSEWHERE}


def test_no_page_has_a_heading_twice() -> None:
    """A part that is there twice is the trace of a merge that went wrong."""
    for page in DOCS.rglob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        titles = re.findall(r"^## .*$", text, re.MULTILINE)
        assert len(titles) == len(set(titles)), page


def test_each_decision_is_listed() -> None:
    """The page of decisions leads to each record."""
    folder = DOCS / "decisions"
    records = set(folder.glob("0*.md"))
    assert linked((folder / "README.md").read_text(encoding="utf-8"), folder) == records
