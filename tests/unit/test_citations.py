"""Citations: whatever a comment, a docstring or a page refers to is in the repository.

Files and folders are found from the place that cites them or from the top of the repository, Markdown links
and their anchors as a browser follows them, and § as a section of the names' wire rules. In Python only
comments and docstrings count: a path in a string is the code's own business.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITING = (
    *("*.md", "docs/**/*.md", "tests/**/*.md"),
    *("virtualchain/**/*.py", "tests/**/*.py", "migrations/**/*.py"),
    *("virtualchain/**/*.sql", "sql/**/*.sql", "migrations/**/*.sql"),
    *(".ci/run", ".github/**/*.yml", "Dockerfile", "docker-compose.yml"),
)
ELSEWHERE = frozenset(
    {
        *(
            "guestbook.py",
            "test_guestbook.py",
            "book.py",
            "apps.py",
            "virtualchain.toml",
            "./virtualchain.toml",
        ),
        *("token.py", "./token.py", "./guestbook.py", "./names.py", "words.py", "./words.py"),
        *("points.py", "points.sql", "tests/test_points.py", "tests/golden.json", "pages/account.html"),
        *("tests/that/concern/you", "migrations/versions/000N_name.py"),  # stand for any such path
        *("examplecoin.py", "ledger.py", "./ledger.py", "old.toml", "new.toml", "key", "ledger.checkpoint"),
        *("book.py", "tool.py"),  # the examples of docs/mistakes.md
        "psycopg.sql",  # a module
    }
)
"""What is cited and cannot be in the repository, above all files that users and tests write."""
FOLDERS = ("docs", "migrations", "sql", "tests", "virtualchain", ".")
BASES = {
    "docs/architecture.md": (
        "virtualchain",
        "virtualchain/engine",
        "virtualchain/examples",
        "virtualchain/store/guard",
    ),
    "docs/names.md": ("virtualchain/examples/names",),
    "docs/reducers.md": ("virtualchain/examples/points",),
    "docs/runes.md": ("virtualchain/examples/runes",),
    "docs/wasm.md": ("virtualchain/examples/points", "virtualchain/examples/points/wasm"),
}
"""Pages about some folders, which name files without them."""
SHARED = re.compile(r"(?:\.\./)?shared/(?:data|tools)\b")
"""The folder beside the checkout, which need not be there; CONTRIBUTING.md lists the tests that use it."""

_CITED = re.compile(
    r"(?<![\w./<>{}*@~-])"  # neither the rest of a longer path nor a host
    r"(?P<path>(?:\.{1,2}/)*(?:[\w.<>{}*-]+/)*[\w<>{}*-][\w.<>{}*-]*\.(?:md|py|sql|toml)\b"
    r"|(?:virtualchain|tests|sql|migrations|docs|\.ci|\.github)/[\w.<>{}*/-]*[\w*>}])"
    r"(?![\w(])"
    r"(?:#(?P<anchor>[\w-]+)|`?,? (?:section )?\"(?P<title>[^\"\n]+)\")?"
)
_DESIGN = re.compile(r"shared/design|\bdesign (?:page|folder)s?\b")
_SECTION = re.compile(r"§+ ?(\d+)")
_URL = re.compile(r"\b\w+://\S+")
_FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *#*$", re.MULTILINE)


def faults(file: Path, root: Path = ROOT) -> list[str]:
    """Find what a file cites that does not exist: a list of `file:line: what`."""
    place = file.relative_to(root)
    complaints = [
        f"{place}:{line + text.count(chr(10), 0, at)}: {complaint}"
        for line, text in _prose(file)
        for at, complaint in _broken(text, file, root)
    ]
    return list(dict.fromkeys(complaints))


def anchors(page: str) -> set[str]:
    """Compute the anchors of a page's headings, as GitHub makes them."""
    seen: dict[str, int] = {}
    result = set()
    for heading in _HEADING.finditer(_blank(_FENCE, page)):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading["title"])
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        result.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return result


def _prose(file: Path) -> Iterator[tuple[int, str]]:
    """Read what a file says to people: texts, each with the line on which it begins."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield 1, text
        return
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                yield node.lineno, "".join(lines[node.lineno - 1 : node.end_lineno])
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _broken(text: str, file: Path, root: Path) -> Iterator[tuple[int, str]]:
    """Find what does not resolve in one text, with its place in it."""
    text = _blank(_URL, text)
    if file.suffix == ".md":
        yield from _broken_links(text, file)
        text = _blank(_LINK, text)
    for cited in _CITED.finditer(text):
        yield from ((cited.start(), complaint) for complaint in _missing(cited, file, root))
    for hit in _DESIGN.finditer(text):
        yield hit.start(), f"{hit[0]!r} is not in the repository"
    sections = set(re.findall(r"^## (\d+)\.", _read(root / "docs/protocol/names.md"), re.MULTILINE))
    for hit in _SECTION.finditer(text):
        if hit[1] not in sections:
            yield hit.start(), f"{hit[0]!r} is not a section of docs/protocol/names.md"


def _broken_links(page: str, file: Path) -> Iterator[tuple[int, str]]:
    """Follow the links of a page, but for those in code."""
    prose = re.sub(r"`[^`\n]*`", lambda code: " " * len(code[0]), _blank(_FENCE, page))
    for link in _LINK.finditer(prose):
        path, _, anchor = link["target"].partition("#")
        target = file.parent / path if path else file
        if not target.exists():
            yield link.start(), f"the link {link['target']!r} leads nowhere"
        elif anchor and anchor not in anchors(_read(target)):
            yield link.start(), f"the link {link['target']!r} leads to no heading"


def _missing(cited: re.Match[str], file: Path, root: Path) -> Iterator[str]:
    """Check that a cited path exists, and the heading of it that is named."""
    path = cited["path"]
    if path in ELSEWHERE or SHARED.match(path):
        return
    bases = BASES.get(str(file.relative_to(root)), ())
    pattern = re.sub(r"<[^<>]*>|\{[^{}]*\}", "*", path)
    folders = [file.parent, root, *(root / base for base in bases)]
    targets = [target for folder in folders for target in _matches(folder, pattern)]
    if not targets:
        yield f"{path!r} is not in the repository"
    elif cited["anchor"] and cited["anchor"] not in anchors(_read(targets[0])):
        yield f"{path} has no heading #{cited['anchor']}"
    elif cited["title"] and path.endswith(".md"):
        titles = {heading["title"] for heading in _HEADING.finditer(_read(targets[0]))}
        if " ".join(cited["title"].split()) not in titles:
            yield f"{path} has no heading {cited['title']!r}"


def _matches(folder: Path, pattern: str) -> list[Path]:
    if "*" not in pattern:
        return [folder / pattern] if (folder / pattern).exists() else []
    return sorted(folder.glob(pattern))


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.is_file() else ""


def _blank(pattern: re.Pattern[str], text: str) -> str:
    """Replace what a pattern matches by blanks, so that all else keeps its place."""
    return pattern.sub(lambda hit: re.sub(r"\S", " ", hit[0]), text)


def _citing() -> list[Path]:
    return sorted({file for pattern in CITING for file in ROOT.glob(pattern)})


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_that_is_cited_exists(folder: str) -> None:
    """Files, folders, headings and links that comments, docstrings and pages refer to are there."""
    files = [file for file in _citing() if _folder(file) == folder]
    assert files
    assert [fault for file in files for fault in faults(file)] == []


def _folder(file: Path) -> str:
    """Find which of the folders a file belongs to; all else is at the top."""
    first = file.relative_to(ROOT).parts[0]
    return first if first in FOLDERS else "."


GOOD = """
See [the rules](docs/protocol/names.md#1-reading), [below](#a-part), `docs/protocol/names.md`, docs/protocol,
`virtualchain/<room>/core.py`, `docs/*.md`, §1, https://example.org/gone.md and virtualchain.toml.

# A `part`

```
[a link in code](gone.md)
```
""".replace("(gone.md)", "(nowhere)")
BAD = {
    "house.md": "a page that was never here",
    "consensus.md": "a page that is here under another path",
    "`docs/gone.md`": "a page that is gone",
    "virtualchain/app/gone.py": "a file that is gone",
    "virtualchain/gone": "a folder that is gone",
    "sql/*.sql": "a pattern that nothing fits",
    "§7": "a section that the page does not have",
    "the design page": "a page outside the repository",
    "docs/protocol/names.md#9-gone": "a heading that is gone, by its anchor",
    'docs/protocol/names.md, "Gone"': "a heading that is gone, by its title",
}
LINKS = ("[a](gone)", "[a](#gone)", "[a](docs/protocol/names.md#gone)", "[a](../names.md)")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a small repository to cite."""
    for name, content in {
        "docs/protocol/names.md": "# Names\n\n## 1. Reading\n",
        "docs/protocol/consensus.md": "# Hashes\n",
        "docs/index.md": "",
        "virtualchain/app/core.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_what_is_there_may_be_cited(repository: Path) -> None:
    """Paths from the top or from the citing file, patterns, sections, anchors, and what users write."""
    (repository / "README.md").write_text(GOOD)
    (repository / "docs/protocol/consensus.md").write_text('See names.md, "Names", and `names.md`.')
    (repository / "virtualchain/app/more.py").write_text('"""See core.py."""\nOTHER = "gone.md"\n')
    files = ["README.md", "docs/protocol/consensus.md", "virtualchain/app/more.py"]
    assert [fault for file in files for fault in faults(repository / file, repository)] == []


@pytest.mark.parametrize("cited", BAD)
@pytest.mark.parametrize("form", ['"""Read {}."""\n', "x = 1  # as in {}\n", "x = 1\n'''By {}.'''\n"])
def test_what_is_not_there_is_noticed(repository: Path, cited: str, form: str) -> None:
    """In docstrings of modules and attributes and in comments, with file and line."""
    file = repository / "virtualchain" / "app" / "citing.py"
    file.write_text(form.format(cited))
    found_at = form[: form.index("{}")].count("\n") + 1
    [fault] = faults(file, repository)
    assert fault.startswith(f"virtualchain/app/citing.py:{found_at}: ")


@pytest.mark.parametrize("link", LINKS)
def test_a_broken_link_is_noticed(repository: Path, link: str) -> None:
    """Also one to a heading, in the page itself or in another one."""
    page = repository / "README.md"
    page.write_text(f"# A page\n\nSee {link}.\n")
    assert any("leads" in fault or "heading" in fault for fault in faults(page, repository))
