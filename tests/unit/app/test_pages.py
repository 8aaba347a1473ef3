"""Pages of an app's own: mistakes are found when the app is read, and nothing depends on them."""

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from virtualchain import App, Page
from virtualchain.app.contract import Contract
from virtualchain.app.declarations import read_contract
from virtualchain.errors import InvalidApp
from virtualchain.examples import names, notary, runes
from virtualchain.loading import load_app

HERE = Path(__file__)


class Kept:
    """A handler that accepts everything."""

    def parse(self, payload: bytes) -> dict[str, str]:
        """Keep the payload."""
        return {"payload": payload.hex()}


def contract(**arguments: Any) -> Contract:
    """Read an app with these arguments."""
    app = App("kept", magic=b"kt", **arguments)
    app.opcode(b"k")(Kept)
    return read_contract(app)


class TestMistakes:
    """Whoever writes a page learns of a mistake before it is served, and where it is."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"name": "a/b"}, "1 to 40 letters, digits, - and _"),
            ({"name": ""}, "1 to 40 letters"),
            ({"template": None}, "must be text, or the path"),
            ({"title": 5}, "must be text"),
            ({"queries": ["SELECT 1"]}, "a dict of names to SQL"),
            ({"queries": {"a-b": "SELECT 1"}}, "a name as in Python"),
            ({"queries": {"_a": "SELECT 1"}}, "begin with a letter"),
            ({"queries": {"a": " "}}, "it must be SQL"),
            ({"queries": {"a": "SELECT 1\nWHERE x LIKE 'a%'"}}, "percent sign in its line 2"),
            ({"queries": {"a": "SELECT %s"}}, "percent sign in its line 1"),
            ({"table": ""}, "the name of a projection"),
            ({"search": "SELECT 1"}, r"without %\(text\)s"),
        ],
    )
    def test_of_a_page(self, arguments: dict[str, Any], message: str) -> None:
        """The message names the page, and the line that writes it."""
        with pytest.raises(InvalidApp, match=message) as caught:
            Page(**{"name": "page", "template": "text", **arguments})
        code = HERE.read_text(encoding="utf-8").splitlines()
        assert any(
            "Page(**{" in line and str(caught.value).endswith(f"({HERE}, line {number})")
            for number, line in enumerate(code, 1)
        )

    def test_of_a_template(self, tmp_path: Path) -> None:
        """The message names the template and its line."""
        broken = tmp_path / "broken.html"
        broken.write_text("<p>\n{% if key %}\n{{ key }\n", encoding="utf-8")
        with pytest.raises(InvalidApp, match=r"app 'kept': the page 'a' .*broken\.html, line 3: "):
            contract(pages=[Page("a", broken)])
        with pytest.raises(InvalidApp, match=r"its template, line 2: .*endfor"):
            contract(pages=[Page("a", "{% for x in rows.a %}\n{% endfur %}")])

    def test_of_a_file(self, tmp_path: Path) -> None:
        """A file that is not there, or is not text, is named."""
        with pytest.raises(InvalidApp, match=r"'pages/none\.html'.*No such file"):
            contract(pages=[Page("a", "pages/none.html")])
        (tmp_path / "odd.html").write_bytes(b"\xff")
        with pytest.raises(InvalidApp, match=r"odd\.html'.*decode"):
            contract(pages=[Page("a", tmp_path / "odd.html")])

    @pytest.mark.parametrize(
        ("pages", "message"),
        [
            ([Page("a", "1"), Page("a", "2")], "'a' has the name of another one"),
            ([Page("a", "1", table="t"), Page("b", "2", table="t")], "'b' is for the rows of t, as another"),
            ("a", "a list of Page"),
            ({"a": "1"}, "a list of Page"),
            ([("a", "1")], "it must be a Page"),
            (5, "a list of Page"),
        ],
    )
    def test_of_all(self, pages: Any, message: str) -> None:
        """No two pages have a name, or the rows of a table, in common."""
        with pytest.raises(InvalidApp, match=message):
            contract(pages=pages)


IMPLEMENTATION = """
from virtualchain import Page

class Own:
    def __init__(self): self.seen = []
    def get_virtual_chain_name(self): return "own"
    def get_virtual_chain_version(self): return "1"
    def get_first_block_id(self): return 0
    def get_magic_bytes(self): return b"ow"
    def get_opcodes(self): return b"n"
    def get_pages(self): return %s
    def db_parse(self, block_id, opcode, op_payload, senders, inputs, outputs, fee, db_state): return {}
    def db_check(self, *arguments): return bool(self.seen) or True
    def db_commit(self, *arguments): return None
"""


class TestWhatCounts:
    """A page decides nothing."""

    def test_no_hash_depends_on_a_page(self) -> None:
        """With other pages, an app is the same app, for its nodes and for its author's `strict_code`."""
        page = Page("a", "{{ key }}", queries={"a": "SELECT 1"}, search="SELECT %(text)s")
        for strict in (False, True):
            bare, paged = contract(strict_code=strict), contract(strict_code=strict, pages=[page])
            assert paged.pages == (page,)
            assert (paged.fingerprint(), paged.code_digest()) == (bare.fingerprint(), bare.code_digest())

    def test_of_an_implementation(self, tmp_path: Path) -> None:
        """The method with the pages does not belong to the code either."""
        contracts = []
        for number, pages in enumerate(("None", "[Page('a', '1')]")):
            file = tmp_path / f"of_{number}" / "own_pages_app.py"
            file.parent.mkdir()
            file.write_text(IMPLEMENTATION % pages, encoding="utf-8")
            contracts.append(read_contract(load_app(f"{file}:Own")))
            del sys.modules["own_pages_app"]
        assert [len(each.pages) for each in contracts] == [0, 1]
        assert len({each.code_digest() for each in contracts}) == 1

    @pytest.mark.parametrize("module", [names, runes, notary], ids=lambda module: module.__name__)
    def test_of_the_examples(self, module: Any) -> None:
        """The examples with pages are the apps that they were without."""
        app = copy.copy(module.app)
        assert app.pages
        app.pages = ()
        before, after = read_contract(app), read_contract(module.app)
        assert before.fingerprint() == after.fingerprint()
        assert before.code_digest() == after.code_digest()


def test_a_file_is_found_beside_its_module(tmp_path: Path) -> None:
    """The path counts from the module that writes the page, also of a copy."""
    (tmp_path / "own.html").write_text("mine", encoding="utf-8")
    code = compile("page = Page('a', 'own.html')", str(tmp_path / "app.py"), "exec")
    space: dict[str, Any] = {"Page": Page, "__name__": "app"}
    exec(code, space)
    page: Page = space["page"]
    assert page.source() == "mine"
    assert (page.file, page.folder) == (tmp_path / "own.html", tmp_path)
    assert pickle.loads(pickle.dumps(page)).source() == "mine"
