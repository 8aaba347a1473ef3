"""The page of mistakes: each snippet gives its message, and what to write instead works."""

import linecache
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, get_args

import pytest

from virtualchain import App, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.app.lint.look import require_no_mistake
from virtualchain.app.lint.rules import RULES, SET_ORDER, STATE
from virtualchain.errors import AppHalted, InvalidApp, UsageError
from virtualchain.store.guard.refusal import Section
from virtualchain.testing import FakeNode, check_determinism, check_poison
from virtualchain.testing.database import DatabaseServer

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = ROOT / "docs" / "mistakes.md"
PACKAGE: Final = ROOT / "virtualchain"
STEPS: Final = ("parse", "check", "commit")
SAMPLES: Final = (b"bksann", b"bksbob")


@dataclass(frozen=True)
class Mistake:
    """A snippet of the page."""

    section: str
    code: str
    when: str
    """When it is caught; empty if it is right."""
    message: str


def mistakes() -> Iterator[Mistake]:
    """Read the page: Python code, and if it is wrong, when it is caught, and the message."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[2:]  # after those about the guard
    for section in sections:
        title, _, text = section.partition("\n")
        for code, when, message in re.findall(
            r"```python\n(.*?)```(?:\s+Caught ([^\n]*):\n+```\n(.*?)\n```)?", text, flags=re.DOTALL
        ):
            yield Mistake(title, code, when.replace("`", ""), message)


MISTAKES: Final = list(mistakes())
WRONG: Final = [each for each in MISTAKES if each.when]
RIGHT: Final = [each for each in MISTAKES if not each.when]
INTRODUCTION: Final = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)[0]


@pytest.fixture(scope="module")
def node() -> Iterator[FakeNode]:
    """Yield a node with inputs for the page's app: of two authors, one of whom comes again, and of nobody."""
    with FakeNode() as node:
        for payloads in ([*SAMPLES, b"bks"], SAMPLES[:1]):
            node.mine([node.send(payload, sender=f"sender {n}") for n, payload in enumerate(payloads)])
        yield node


@pytest.fixture
def url(database_server: DatabaseServer) -> Iterator[Callable[[], str]]:
    """Return a function that makes a database, if one is needed."""
    urls: list[str] = []

    def make() -> str:
        urls.append(database_server.clone())
        return urls[-1]

    yield make
    for each in urls:
        database_server.drop(each)


def load(folder: Path, code: str, name: str = "book") -> App:
    """Run a snippet as a module in a file; return the app, with the page's own for what is missing."""
    file = folder / f"{name}.py"
    module = ModuleType(name)
    module.__dict__.update(App=App, __file__=str(file))
    sys.modules[name] = module
    for path, source in ((folder / "introduction.py", INTRODUCTION), (file, code)):
        path.write_text(source)
        linecache.checkcache(str(path))
        exec(compile(source, str(path), "exec"), vars(module))
    app: App = vars(module)["app"]
    app.name = name
    app.add(b"s", **{step: vars(module)[step] for step in STEPS if step in vars(module)})
    return app


@pytest.fixture(autouse=True)
def without_books() -> Iterator[None]:
    """Forget the modules of the snippets."""
    yield
    for name in [name for name in sys.modules if name.startswith("book")]:
        del sys.modules[name]


def run(apps: Sequence[App], node: FakeNode, url: str) -> None:
    """Take the node's blocks."""
    with StateEngine(*apps, database=url, source=node.url, confirmations=0, guard=True) as engine:
        engine.build()


def caught(mistake: Mistake, node: FakeNode, url: Callable[[], str], folder: Path) -> tuple[str, Exception]:
    """Return when a mistake is caught, and the error."""
    try:
        app = load(folder, mistake.code)
    except InvalidApp as error:
        return "at import", error
    try:
        require_no_mistake(read_contract(app))
        if mistake.when == "by check_determinism":
            check_determinism(app, SAMPLES, database_url=url(), seconds=0)
        elif mistake.when == "by check_poison":
            check_poison(app, SAMPLES, database_url=url())
        else:
            database = url()
            if "deployment" in mistake.when:
                run([load(folder, "")], node, database)
            run([app], node, database)
    except AppHalted as error:
        return "at the first run", error
    except InvalidApp as error:
        return "when the app is installed" if "#projections" in str(error) else "at the start", error
    except (UsageError, AssertionError) as error:
        return mistake.when, error
    raise AssertionError("it is not caught")


@pytest.mark.parametrize("mistake", WRONG, ids=lambda each: f"{each.section}, {each.when}")
def test_a_mistake_is_caught(
    mistake: Mistake, node: FakeNode, url: Callable[[], str], tmp_path: Path
) -> None:
    """It is caught when the page says, with the message that it shows; `…` there stands for anything."""
    when, error = caught(mistake, node, url, tmp_path)
    message = " ".join(str(error).replace(f"{tmp_path}/", "").split())
    assert when == mistake.when
    expected = " ".join(mistake.message.split())
    pattern = ".*".join(map(re.escape, re.split(" ?… ?", expected)))
    assert re.fullmatch(pattern, message), (message, expected)


def test_what_to_write_instead_works(node: FakeNode, url: Callable[[], str], tmp_path: Path) -> None:
    """The guard and the engine take all that the page recommends."""
    run([load(tmp_path, each.code, f"book{number}") for number, each in enumerate(RIGHT)], node, url())


def test_each_section_that_a_message_names_is_there() -> None:
    """Messages end with the address of a section of the page."""
    headings = re.findall(r"^## (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    sections = {rule.anchor for rule in (*RULES, SET_ORDER, STATE)} | set(get_args(Section))
    for file in PACKAGE.glob("**/*.py"):
        sections |= set(re.findall(r"mistakes\.md#([a-z-]+)", file.read_text()))
    assert sections <= anchors
    assert len({each.section for each in WRONG}) >= 20
