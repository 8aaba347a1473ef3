"""The built documentation: it builds without a warning, needs no network, and its links lead somewhere."""

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag

import click
import pytest

import virtualchain
from virtualchain import consensus, testing
from virtualchain.app.declarations import _OPTIONAL, _REQUIRED
from virtualchain.cli import program
from virtualchain.settings import _KINDS
from virtualchain.web.api import _MODULES

ROOT: Final = Path(__file__).parents[2]
LOADED: Final = {"img": "src", "link": "href", "script": "src"}
"""What a browser loads with a page."""


class Page(HTMLParser):
    """What a page of the site links to, loads and is linked by."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = {""}
        self.unreachable: list[str | None] = []
        """What a keyboard cannot scroll, and headings without a level."""
        self.words = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the attributes that lead somewhere, and those to which a link can lead."""
        values = {name: value or "" for name, value in attrs}
        is_wide = tag == "pre" or "table-wrapper" in values.get("class", "")
        if (is_wide and "tabindex" not in values) or (
            values.get("role") == "heading" and "aria-level" not in values
        ):
            self.unreachable.append(self.get_starttag_text())
        self.anchors.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADED.get(tag) in values:
            self.loads.append(values[LOADED[tag]])

    def handle_data(self, data: str) -> None:
        """Note what can be read."""
        self.words += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Build the documentation as CONTRIBUTING.md says; return its pages by path."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return {file: Page(file) for file in folder.rglob("*.html")}


def page(site: dict[Path, Page], name: str) -> Page:
    """Return a page by its name."""
    [match] = [page for file, page in site.items() if str(file).endswith(f"/{name}.html")]
    return match


def broken(site: dict[Path, Page]) -> Iterator[str]:
    """Find links of a page that lead to no file or no anchor, and what it would load from elsewhere."""
    for file, page in site.items():
        for link in page.links + page.loads:
            path, anchor = urldefrag(link)
            if "://" in link or link.startswith(("mailto:", "data:")):
                if link in page.loads:
                    yield f"{file.name} loads {link}"
                continue
            target = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
            known = site.get(target)
            if not target.is_file() or (known is not None and anchor not in known.anchors):
                yield f"{file.name} links to {link}"


def test_keyboards_and_screen_readers_get_everywhere(site: dict[Path, Page]) -> None:
    """What may be wider than the page can have the focus, and each heading has its level."""
    assert {file: page.unreachable for file, page in site.items() if page.unreachable} == {}


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: dict[Path, Page]) -> None:
    """Pages, anchors and files are there, and a reader without a network sees everything."""
    assert list(broken(site)) == []


def test_a_link_that_leads_nowhere_is_noticed(tmp_path: Path) -> None:
    """The check itself can fail: on a page, an anchor, and a script from elsewhere."""
    file = tmp_path / "page.html"
    file.write_text(
        '<a href="gone.html">1</a><a href="#gone">2</a><script src="https://example.org/x.js"></script>'
    )
    assert len(list(broken({file: Page(file)}))) == 3


def test_every_public_name_is_described(site: dict[Path, Page]) -> None:
    """The reference has all names that the package, its test kit and its digests export."""
    described = {anchor for each in site.values() for anchor in each.anchors}
    public = {
        f"{module.__name__}.{name}"
        for module in (virtualchain, testing, consensus)
        for name in module.__all__
        if not name.startswith("__")
    }
    assert sorted(public - described) == []


def test_every_command_setting_callback_and_path_is_described(site: dict[Path, Page]) -> None:
    """The generated pages have all of them."""
    cli, settings = page(site, "reference/cli"), page(site, "reference/settings")
    apps, paths = page(site, "reference/app"), page(site, "reference/paths")
    assert [name for name in commands(program, "virtualchain") if name not in cli.anchors] == []
    assert [key for key in _KINDS if key not in settings.words] == []
    assert [name for name in (*_REQUIRED, *_OPTIONAL) if f"{name}(" not in apps.words] == []
    routes = {route.path for module in _MODULES for route in module.router.routes}
    shown = {path for path in routes if "{table" not in path}
    assert [path for path in shown if f"GET {path}" not in paths.words] == []


def commands(command: click.Command, name: str) -> Iterator[str]:
    """Yield the anchors of all commands."""
    yield name
    for inner, each in getattr(command, "commands", {}).items():
        yield from commands(each, f"{name}-{inner}")
