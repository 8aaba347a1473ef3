"""The explorer in a real browser: each page looked at, read aloud, searched, slid, followed and attacked."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, expect

from tests.support.browsing import NARROW, OF_A_LOOK, WIDE, Visitor, chromium, open_tab, visit
from tests.support.explored import CONTRACT, HTML, late, mine, stumbling, wall
from tests.support.own_pages import names_served, runes_served
from tests.support.serving import served
from virtualchain import StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.cli import program
from virtualchain.examples import notary
from virtualchain.testing import FakeNode, key
from virtualchain.testing.database import DatabaseServer
from virtualchain.web.rendering import link

WALL = link("apps", wall.name)


class Site(NamedTuple):
    """A served deployment whose node can still mine."""

    base: str
    database: str
    node: FakeNode

    def take(self) -> int:
        """Have the apps take what the node has; return the last block."""
        options: Any = {"database": self.database, "source": self.node.url, "confirmations": 0}
        with StateEngine(notary.app, wall, **options) as engine:
            return engine.build()

    def one(self, statement: str) -> Any:
        """Return the first value of a query."""
        with psycopg.connect(self.database) as connection:
            row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser for all tests of this file."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def site(database_server: DatabaseServer) -> Iterator[Site]:
    """Serve a deployment with a fork, hostile text and a halted app."""
    database = database_server.clone()
    with FakeNode() as node:
        mine(node, database)
        with served(database, contracts={"notary": read_contract(notary.app)}) as base:
            yield Site(base, database, node)
    database_server.drop(database)


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Visitor]:
    """Open a tab: a new one for each test would take most of the time."""
    with open_tab(browser) as opened:
        yield opened


@pytest.fixture
def visitor(tab: Visitor, site: Site) -> Iterator[Visitor]:
    """Visit the site."""
    with visit(tab, site.base) as visiting:
        yield visiting


PAGES = {
    "overview": "/",
    "app": "/apps/notary",
    "app-halted": link("apps", stumbling.name),
    "app-late": link("apps", late.name),
    "ops": "/apps/notary/ops",
    "ops-odd": f"{WALL}/ops?block=103",
    "op": "/apps/notary/ops/102/0",
    "rejections": "/apps/notary/rejections",
    "table": "/apps/notary/tables/documents",
    "table-past": "/apps/notary/tables/documents?as_of=104",
    "table-odd": f"{WALL}/tables/notes",
    "table-empty": f"{WALL}/tables/empty",
    "row": f"/apps/notary/tables/documents/row?sha256={CONTRACT}",
    "changes": "/apps/notary/changes?from=100&to=106",
    "own-page": "/apps/notary/pages/document",
    "own-page-key": f"/apps/notary/pages/document/{CONTRACT}",
    "blocks": "/blocks",
    "block": "/blocks/102",
    "transaction": "/tx/TXID",
    "reorgs": "/reorgs",
    "plots": "/plots",
    "search": "/search?q=" + quote(key("alice").address()),
    "search-nothing": "/search?q=nothing",
    "sql": "/sql",
    "sql-result": "/sql?q=" + quote("SELECT app, block_id, txid, opcode, fields FROM ops LIMIT 5"),
    "sql-mistake": "/sql?q=" + quote("SELECT * FROM nowhere"),
    "api": "/api",
    "problem": "/nothing",
}
"""Each kind of page, in each of its states."""
STATUSES = {"problem": 404, "sql-mistake": 400}


class TestEveryPage:
    """On a desk and on a phone, by day and by night."""

    @pytest.mark.parametrize("name", PAGES)
    def test_look(self, site: Site, visitor: Visitor, name: str) -> None:
        """Nothing is wrong for a screen reader, in either theme; the page does not scroll sideways."""
        txid = site.one("SELECT txid FROM virtualchain.ops WHERE app = 'notary' ORDER BY block_id LIMIT 1")
        assert visitor.goto(PAGES[name].replace("TXID", txid)) == STATUSES.get(name, 200)
        assert looked_at(visitor, name) == []

    @pytest.mark.parametrize("app", ["names", "runes"])
    def test_pages_of_the_examples(self, tab: Visitor, database_server: DatabaseServer, app: str) -> None:
        """A name with its history, and a rune with its holders."""
        with ExitStack() as opened:
            if app == "names":
                base = opened.enter_context(names_served(database_server))
                pages = {"name": "first.test", "namespace": "test"}
            else:
                runes = opened.enter_context(runes_served(database_server))
                base = runes.base
                pages = {"rune": f"{runes.etched}:1", "output": f"{runes.etching}:2"}
            visitor = opened.enter_context(visit(tab, base))
            for page, key_of_page in pages.items():
                assert visitor.goto(link("apps", app, "pages", page)) == 200
                assert looked_at(visitor, f"{app}-{page}s") == []
                assert visitor.goto(link("apps", app, "pages", page, key_of_page)) == 200
                assert looked_at(visitor, f"{app}-{page}") == []


def looked_at(visitor: Visitor, name: str) -> list[str]:
    """Look at an open page on a desk and on a phone, by day and by night; return what is wrong with it.

    What does not depend on width and colors is checked once, and long pages are checked so only.
    """
    return [
        *visitor.look(WIDE, "light", name, rules=()),
        *visitor.look(NARROW, "dark", name, rules=None if name.endswith("-odd") else OF_A_LOOK),
        *visitor.look(NARROW, "light", name),
        *visitor.look(WIDE, "dark", name),
    ]


def command(site: Site, *arguments: str) -> Any:
    """Run a command on the deployment; return its JSON."""
    done = CliRunner().invoke(program, ["--database", site.database, "--json", *arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


class TestThePast:
    """Any kept block can be shown."""

    def test_the_slider_shows_what_the_command_does(self, site: Site, visitor: Visitor) -> None:
        """Moved to a block, the table is what `--as-of` prints; the keyboard moves it as well."""
        visitor.goto("/apps/notary/tables/documents")
        for block_id in (101, 102, 104, 106):
            visitor.page.locator("#as-of-slider").fill(str(block_id))
            visitor.page.wait_for_url(f"**as_of={block_id}*")
            statement = "SELECT * FROM notary.documents"
            rows = command(site, "sql", "--as-of", str(block_id), statement)
            cells = [
                [" ".join(cell.split()) for cell in row.locator("td").all_text_contents()]
                for row in visitor.page.locator("table.data tbody tr").all()
            ]
            assert len(cells) == len(rows)
            for shown, row in zip(cells, rows, strict=True):
                for value in row.values():
                    assert any(_written(value) in cell.replace(",", "") for cell in shown), (value, shown)
        visitor.page.locator("#as-of-slider").focus()
        visitor.page.keyboard.press("ArrowLeft")
        visitor.page.wait_for_url("**as_of=105*")

    def test_who_owned_it_and_what_changed_that(self, site: Site, visitor: Visitor) -> None:
        """From the first page, by clicks alone: the owner at a block, and the transaction that changed it."""
        visitor.goto("/")
        visitor.page.locator("main").get_by_role("link", name="notary", exact=True).first.click()
        visitor.page.get_by_role("link", name="documents", exact=True).click()
        visitor.page.locator("#as-of").fill("104")
        visitor.page.get_by_role("button", name="Show", exact=True).click()
        assert key("alice").address() in visitor.main
        visitor.page.locator("table.data tbody").get_by_role("link").first.click()
        assert key("alice").address() in visitor.main
        assert key("bob").address() not in visitor.main
        visitor.page.get_by_role("link", name="Show the present").click()
        assert key("bob").address() in visitor.main
        transfer = site.one("SELECT txid FROM virtualchain.ops WHERE app = 'notary' AND opcode = 't'")
        visitor.page.locator(f'main a[href="/tx/{transfer}"]').first.click()
        assert visitor.path == f"/tx/{transfer}"


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class TestSearch:
    """What is typed into the box leads there."""

    def test_of_each_kind(self, site: Site, visitor: Visitor) -> None:
        """A block by height and hash, a transaction, an address, a consensus hash, and an app's key."""
        txid = site.one("SELECT txid FROM virtualchain.ops WHERE app = 'notary' ORDER BY block_id LIMIT 1")
        block_hash = site.one("SELECT hash FROM virtualchain.blocks WHERE block_id = 103")
        consensus_hash = site.one(
            "SELECT consensus_hash FROM virtualchain.snapshots WHERE app = 'notary' AND block_id = 103"
        )
        visitor.goto("/")
        for text, words in (
            ("95", "Block 95"),
            (block_hash, "Block 103"),
            (txid, txid),
            (key("bob").address(), "in block 102"),
            (consensus_hash, "103"),
            (CONTRACT, CONTRACT),
            ("documents", "documents"),
            ("no such thing", "no such thing"),
        ):
            box = visitor.page.get_by_role("searchbox")
            box.fill(text)
            box.press("Enter")
            expect(visitor.page.locator("main")).to_contain_text(words)


class TestLive:
    """An open page follows the chain."""

    def test_a_block_and_a_rollback(self, site: Site, visitor: Visitor) -> None:
        """Both appear by themselves, each called what it is, without the page being loaded again."""
        page = visitor.page
        visitor.follow("/")
        page.evaluate("window.sameDocument = true")
        site.node.mine()
        height = site.take()
        visitor.hear(f"Block {height:,} was taken")
        expect(page.locator("main")).to_contain_text(f"{height:,}")
        site.node.reorg(2)
        new_height = site.take()
        visitor.hear(f"blocks above {height - 2:,} were undone")
        expect(page.locator("main")).to_contain_text(f"{new_height:,}")
        assert page.evaluate("window.sameDocument")

    def test_the_past_stays(self, site: Site, visitor: Visitor) -> None:
        """A page as of a block is not replaced; neither is one in whose form somebody types."""
        page = visitor.page
        visitor.goto("/apps/notary/tables/documents?as_of=104")
        assert page.locator("main[data-live]").count() == 0
        visitor.follow("/apps/notary/tables/documents")
        page.locator("#new-value").fill("half a wo")
        site.node.mine()
        height = site.take()
        visitor.hear(f"Block {height:,} was taken")
        page.wait_for_timeout(2200)
        assert page.locator("#new-value").input_value() == "half a wo"


class TestSql:
    """The box runs one statement, and refuses what is not a question."""

    def test_results(self, site: Site, visitor: Visitor) -> None:
        """As a table, as of a block, and as files."""
        page = visitor.page
        visitor.goto("/sql")
        page.get_by_label("Statement").fill("SELECT owner, claimed_at FROM documents")
        page.get_by_label("As of block").fill("104")
        page.get_by_role("button", name="Run").click()
        assert key("alice").address() in visitor.main
        for form, beginning in (("CSV", "owner,claimed_at"), ("JSON", "[")):
            with page.expect_download() as download:
                page.get_by_role("link", name=form, exact=True).click()
            content = download.value.path().read_text()
            assert content.startswith(beginning)
            assert key("alice").address() in content

    def test_refusals(self, site: Site, visitor: Visitor) -> None:
        """Each says why, beside the statement, which is still there."""
        page = visitor.page
        visitor.goto("/sql")
        for statement, words in (
            ("DELETE FROM notary.documents", "cannot delete"),
            ("CREATE TABLE mine ()", "read-only"),
            ("SELECT 1; SELECT 2", "multiple commands"),
            ("SELECT pg_read_file('PG_VERSION')", "permission denied"),
            ("SELECT * FROM vc.blocks", "permission denied"),
            ("SELECT * FROM nowhere", "does not exist"),
            ("SELEC 1", "syntax error"),
        ):
            page.get_by_label("Statement").fill(statement)
            page.get_by_role("button", name="Run").click()
            expect(page.get_by_role("alert")).to_contain_text(words)
            assert page.get_by_label("Statement").input_value() == statement
        assert page.locator("mark").inner_text() == "SELEC"


class TestKeyboard:
    """Nobody needs a mouse."""

    def test_from_the_skip_link_to_a_search(self, site: Site, visitor: Visitor) -> None:
        """Tab reaches the skip link first, then everything in order, and shows where it is."""
        page = visitor.page
        visitor.goto("/apps/notary/tables/documents")
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")
        visitor.goto("/")
        seen = []
        for _ in range(40):
            page.keyboard.press("Tab")
            seen.append(
                page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")
            )
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", seen
            if page.evaluate("document.activeElement.id") == "q":
                break
        page.keyboard.type("95")
        page.keyboard.press("Enter")
        page.wait_for_url("**/blocks/95")
        assert seen[-1] == "q"
        assert seen[1:4] == ["virtualchain", "Overview", "Blocks"]


class TestWithoutScripts:
    """All but live updates and the slider works without JavaScript."""

    def test_forms_and_links(self, browser: Browser, site: Site) -> None:
        """The past by a number, a filter, sorting, a search, a statement."""
        with open_tab(browser, scripts=False) as opened, visit(opened, site.base) as visitor:
            page = visitor.page
            visitor.goto("/apps/notary/tables/documents")
            assert not page.locator("#as-of-slider").is_visible()
            page.locator("#as-of").fill("104")
            page.get_by_role("button", name="Show", exact=True).click()
            assert key("alice").address() in visitor.main
            page.locator("#new-column").select_option("owner")
            page.locator("#new-value").fill(key("bob").address())
            page.get_by_role("button", name="Filter").click()
            assert "No row fits these filters" in visitor.main
            page.get_by_role("link", name="remove").click()
            page.locator("thead a").first.click()
            assert "order=sha256" in visitor.path
            assert key("alice").address() in visitor.main
            page.get_by_role("searchbox").fill("95")
            page.get_by_role("button", name="Search").click()
            assert visitor.path == "/blocks/95"
            visitor.goto("/sql")
            page.get_by_label("Statement").fill("SELECT 6 * 7 AS answer")
            page.get_by_role("button", name="Run").click()
            assert "42" in visitor.main


class TestHostileInputs:
    """Whatever strangers write is shown, and does nothing."""

    def test_nothing_runs(self, site: Site, visitor: Visitor) -> None:
        """No dialog opens, no script is added, and nothing is fetched from elsewhere (see `visit`)."""
        text = HTML[0].decode()
        pages = [
            WALL,
            f"{WALL}/ops",
            f"{WALL}/rejections",
            f"{WALL}/tables/notes",
            f"{WALL}/changes?from=100&to=106",
            link("apps", stumbling.name),
            "/blocks/103",
            *(f"/search?q={quote(each)}" for each in HTML),
            *(f"/sql?q={quote('SELECT ' + _literal(each) + ' AS x')}" for each in HTML),
            f"/sql?q={quote(text)}&as_of={quote(text)}",
            link(text),
            link("apps", text),
            link("apps", "notary", "pages", "document", text),
            f"/apps/notary/tables/documents?owner=eq.{quote(text)}",
            *(f"{WALL}/ops/103/{place}" for place in range(len(HTML))),
        ]
        for path in pages:
            visitor.goto(path)
            scripts, links = visitor.page.evaluate(
                "[document.scripts.length, [...document.links].map((link) => link.protocol + link.host)]"
            )
            assert scripts == 1, path
            assert set(links) == {"http:" + site.base.removeprefix("http://")}, path

    def test_a_hash_is_copied_whole(self, site: Site, visitor: Visitor) -> None:
        """The button copies all digits, though the page shows some of them."""
        page = visitor.page
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.base)
        visitor.goto(f"/apps/notary/pages/document/{CONTRACT}")
        page.get_by_role("button", name="Copy").first.click()
        expect(page.get_by_role("button", name="Copy").first).to_have_text("copied")
        assert page.evaluate("navigator.clipboard.readText()") == CONTRACT


def _literal(payload: bytes) -> str:
    return "'" + payload.decode().replace("'", "''") + "'"
