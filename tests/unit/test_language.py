"""Plain English: words and patterns that this project does not use, in everything that a person reads.

`docs/glossary.md` says which word stands for what.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROSE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*.md")
CODE = ("virtualchain/**/*.py", "tests/**/*.py", "migrations/*.py", "sql/**/*.sql", ".ci/run")

BANNED = {
    "say again, new, or from the start": r"\banew\b",
    "say notified or reported": (
        r"\b(?:is|are|was|were|be|been) told\b"
        r"|\btold (?:of|by|in|below)\b"
        r"|\btells? of\b"
    ),
    "say after, or lagging": (
        r"\bbehind (?:the|a|an|its|it|each|that|this|these|every|all|block|which|whom|them)\b"
        r"(?! (?:connection )?(?:pooler|proxy|PgBouncer))"
    ),
    "say if or when": (
        r"\bRaises [^.:;]*\bwhere\b"
        r"|\b(?:None|True|False),? (?:too, )?where\b"
        r"|[,.:;(] where (?:there|it|they|none)\b"
        r"|(?:[.:;] |# )Where (?:an?|the|it|its|there|no|one|that|this|they|two|both|somebody|nothing)\b"
    ),
    "say compare, or recover": (
        r"\bis (?:got over|met with|held against)\b"
        r"|\bgot over\b"
        r"|\b(?:hold|held|holds) \S+(?: \S+)? against\b"
    ),
    "say run it again": r"\bsa(?:y|id|ys) it again\b",
    "say is not a": r"(?<!there )\bis no (?:block|hash|input|magic|app|text|name|child|version|node|JSON)\b",
    "use American spelling": (
        r"\b(?:un)?(?:recogni|normali|seriali|summari|organi|initiali|optimi|finali|synchroni|minimi|maximi)s"
        r"(?:e|ed|es|ing|ation|able)\b"
        r"|\b(?:behaviour|colour|licence|neighbour|honour|favour|catalogue|centre)s?\b"
    ),
}  # fmt: skip
"""What to write instead, and the pattern that it replaces."""

NAMES = frozenset({"told", "said", "wanted", "found", "given"})
"""Participles that need their caller to be understood."""

OPENINGS = ("Give ", "Tell ", "Say ")
"""How no docstring begins: it returns, reports, describes, or checks whether."""


def _files(patterns: tuple[str, ...]) -> list[Path]:
    here = Path(__file__)
    return sorted({file for pattern in patterns for file in ROOT.glob(pattern) if file != here})


def _names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every name that the file defines, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.Name(ctx=ast.Store()) | ast.arg():
                yield node.lineno, node.id if isinstance(node, ast.Name) else node.arg
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def _docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def complaints(file: Path) -> Iterator[str]:
    """Yield what is wrong with one file: line, words, and what to write instead."""
    text = file.read_text(encoding="utf-8")
    # A sentence may run over a line's end, with the sign of a comment in between.
    flat = re.sub(r"\n[ \t]*(?:#|--)? ?", lambda gap: " " * len(gap[0]), text)
    for advice, pattern in BANNED.items():
        for hit in re.finditer(pattern, flat):
            words = " ".join(hit[0].split())
            yield f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, hit.start()) + 1}: {words!r}: {advice}"
    if file.suffix == ".py":
        tree = ast.parse(text)
        for line, name in _names(tree):
            if name.strip("_").lower() in NAMES:
                yield f"{file.relative_to(ROOT)}:{line}: the name {name!r}: say what it holds"
        for line, docstring in _docstrings(tree):
            if docstring.startswith(OPENINGS):
                yield f"{file.relative_to(ROOT)}:{line}: a docstring begins {docstring.split(maxsplit=2)[:2]}"


@pytest.mark.parametrize("patterns", [PROSE, CODE], ids=["prose", "code"])
def test_no_banned_word_is_used(patterns: tuple[str, ...]) -> None:
    """Documentation, messages, docstrings, comments and names keep to the glossary."""
    assert [complaint for file in _files(patterns) for complaint in complaints(file)] == []


@pytest.mark.parametrize(
    "line",
    [
        "# The block is derived anew.",
        "# It is called behind the commit.",
        '"""Give the block."""',
        "found = 1",
        "# Raises UsageError where the app is gone.",
        "# The listener is\n# told of it.",
    ],
)
def test_a_banned_word_is_noticed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself can fail, also where a sentence runs over a line's end."""
    file = tmp_path / "example.py"
    file.write_text(line + "\n")
    monkeypatch.setattr("tests.unit.test_language.ROOT", tmp_path)
    assert list(complaints(file))
