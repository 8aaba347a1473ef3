"""Pages of apps' own: those of the examples, and what any page may rely on."""

import html
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest
from markupsafe import escape

from tests.integration.runes.test_docs import address
from tests.support.names_chain import ALICE, BOB
from tests.support.own_pages import NAME, OfRunes, names_served, runes_served
from tests.support.runes_chain import owner
from tests.support.serving import served
from virtualchain import App, Page, State, StateEngine
from virtualchain.app.declarations import read_contract
from virtualchain.examples import runes
from virtualchain.store.database import connect_reader
from virtualchain.testing import FakeNode
from virtualchain.testing.database import DatabaseServer
from virtualchain.web.own_pages import OwnPages, path_of, read
from virtualchain.web.sessions import Sessions, TooSlow


class Answer(NamedTuple):
    """What the server answered: a page's text is without tags, entities and repeated spaces."""

    status: int
    headers: dict[str, str]
    source: str

    @property
    def text(self) -> str:
        """What a visitor reads in the page's own part."""
        main = self.source.partition("<main")[2].partition(">")[2].partition("</main>")[0]
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


def get(base: str, path: str) -> Answer:
    """Ask for a path, without following redirects."""
    connection = HTTPConnection(urlsplit(base).netloc, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def of_names(database_server: DatabaseServer) -> Iterator[str]:
    """Serve a registry in which a name was registered, changed, transferred and revoked."""
    with names_served(database_server) as base:
        yield base


class TestNames:
    """A name's page tells its whole history."""

    def test_history(self, of_names: str) -> None:
        """Each operation has its block, its op, its transaction and the owner after it, newest first."""
        page = get(of_names, "/apps/names/pages/name/first.test")
        assert page.status == 200
        words = ("revoked", "transferred", "zone file changed", "registered")
        places = [page.text.rindex(word) for word in words]
        assert places == sorted(places)
        assert "The owner has revoked this name" in page.text
        assert BOB.address in page.text
        assert ALICE.address in page.text
        ops = set(re.findall(r'href="(/apps/names/ops/\d+/\d+)"', page.source))
        assert len(ops) == len(set(re.findall(r'href="(/tx/\w+)"', page.source))) == 4

    def test_as_of(self, of_names: str) -> None:
        """As of an earlier block, the name is as it was then, and the page's links stay there."""
        text = get(of_names, "/apps/names/pages/name").text
        block_id = int(
            text.partition("transferred")[0].rsplit("first.test", 1)[0].split()[-1].replace(",", "")
        )
        page = get(of_names, f"/apps/names/pages/name/first.test?as_of={block_id - 1}")
        assert "This name is registered." in page.text
        assert BOB.address not in page.text
        assert f"/apps/names/pages/namespace/test?as_of={block_id - 1}" in html.unescape(page.source)
        assert get(of_names, "/apps/names/pages/name/first.test?as_of=256").status == 404

    def test_lists(self, of_names: str) -> None:
        """Names are listed by namespace, a hundred a page."""
        assert "everyone" in get(of_names, "/apps/names/pages/namespace").text
        page = get(of_names, "/apps/names/pages/namespace/test")
        assert page.text.index("first.test") < page.text.index("second.test")
        assert "first.test" not in get(of_names, "/apps/names/pages/namespace/test?after=first.test").text

    def test_what_is_not_there(self, of_names: str) -> None:
        """The page says so in the app's words."""
        page = get(of_names, "/apps/names/pages/name/other.test")
        assert page.status == 404
        assert "The name other.test was never registered." in page.text


@pytest.fixture(scope="module")
def of_runes(database_server: DatabaseServer) -> Iterator[OfRunes]:
    """Serve a rune that was etched, minted, burned and handed on, with an odd symbol."""
    with runes_served(database_server) as served_runes:
        yield served_runes


class TestRunes:
    """A rune's page has its terms, its supply, and who holds it."""

    def test_rune(self, of_runes: OfRunes) -> None:
        """Amounts have the rune's digits and symbol, whatever that is; the largest holder is the first."""
        page = get(of_runes.base, f"/apps/runes/pages/rune/{of_runes.etched}:1")
        assert page.status == 200
        assert "A•AAAAAAAAAAAAAB" in page.text
        for words in (
            "Supply 1,235 <", "Burned 0.25 <", "Mints 1 of 3, 2 left", "Premine 1,234.5 <", "Holders 2",
            "Amount of a mint 0.5 <", f"closed from block {of_runes.etched + 100}", "In the next block open",
        ):  # fmt: skip
            assert words in page.text, words
        holders = page.text[page.text.rindex("Holders") :]
        ann, bob = address(owner("ann")), address(owner("bob"))
        assert f"{ann} 1,000 < 80.99% 1 {bob} 234.75 < 19.01% 2" in holders
        assert "<</span>" not in page.source

    @pytest.mark.parametrize("key", [NAME, "A•AAAAAAAAAAAAAB", "a.aaaaaaaaaaaaab", "0"])
    def test_a_rune_has_one_address(self, of_runes: OfRunes, key: str) -> None:
        """By name, with spacers or without, and by number a visitor is led there, at the same block."""
        answer = get(of_runes.base, f"/apps/runes/pages/rune?key={quote(key)}&as_of={of_runes.etched}")
        assert answer.status == 303
        place = f"/apps/runes/pages/rune/{of_runes.etched}%3A1?as_of={of_runes.etched}"
        assert answer.headers["location"] == place
        assert "Burned 0 <" in get(of_runes.base, place).text

    def test_lists(self, of_runes: OfRunes) -> None:
        """All runes are listed by number, and by name."""
        for path in ("", "?by=name", "?before=1", "?by=name&after=AAA"):
            assert "A•AAAAAAAAAAAAAB" in get(of_runes.base, f"/apps/runes/pages/rune{path}").text
        for path in ("?before=0", f"?by=name&after={NAME}"):
            assert "No rune follows." in get(of_runes.base, f"/apps/runes/pages/rune{path}").text

    def test_output(self, of_runes: OfRunes) -> None:
        """An output's page has what it holds now, and what it received."""
        page = get(of_runes.base, f"/apps/runes/pages/output/{of_runes.etching}:2")
        assert re.search(r"What it holds .*A•A+B 234.5 < \w+ What it received", page.text)
        assert get(of_runes.base, f"/apps/runes/pages/output/{of_runes.etching}:x").status == 400
        row = get(of_runes.base, f"/apps/runes/pages/output?txid={of_runes.etching}&vout=1&rune=5:1")
        assert row.headers["location"] == f"/apps/runes/pages/output/{of_runes.etching}%3A1"
        assert "It holds no runes" in get(of_runes.base, "/apps/runes/pages/output/zz:1").text

    def test_search(self, of_runes: OfRunes) -> None:
        """A search finds a rune by its name with any spacers, and an output."""
        own_pages = OwnPages({"runes": read_contract(runes.app)})
        connection = connect_reader(of_runes.database)
        try:
            for text in (f"{NAME[:2]}•{NAME[2:]}", NAME.lower(), f"{of_runes.etched}:1"):
                (hit,) = own_pages.hits(connection, text)
                assert hit.path == ("apps", "runes", "pages", "rune", f"{of_runes.etched}:1")
                assert hit.label == "Runes A•AAAAAAAAAAAAAB"
            (hit,) = own_pages.hits(connection, f"{of_runes.etching}:2")
            assert hit.path[-2:] == ("output", f"{of_runes.etching}:2")
            assert own_pages.hits(connection, "nothing\0") == []
        finally:
            connection.close()


ODD_KEYS = (
    "plain", "a/b", "/", "..", ".", "a/../b", "a b", "ä", "a%2Fb", "a?b#c", "a\nb", "\u202eabc", "a&b=c",
    "<b>", "%s %(key)s", "'; DROP TABLE x; --", "{{ 7 * 7 }}", "+", "a;b",
)  # fmt: skip


class Keep:
    """Keep the payload as a key."""

    def parse(self, payload: bytes) -> dict[str, str]:
        """Read text."""
        return {"key": payload.decode()}

    def commit(self, op: dict[str, Any], state: State) -> None:
        """Keep it."""
        state.execute("INSERT INTO things (key, items) VALUES (%s, %s)", [op["key"], 1])


def pages() -> list[Page]:
    """Return pages that are right and wrong in many ways."""
    show = "<p>key {{ key }}, found {{ one.thing.key if one.thing else 'nothing' }}</p>"
    thing = {"thing": "SELECT * FROM things WHERE key = %(key)s"}
    return [
        Page("thing", show, title="A thing", queries=thing, table="things", menu=True),
        Page("pair", "{{ args.a }}+{{ args.b }}", table="pairs",
             search="SELECT key AS a, items AS b FROM things WHERE key = %(text)s"),
        Page("items", "{% for row in rows.items %}{{ row.items }}{% endfor %}",
             queries={"items": "SELECT items FROM things;"}),
        Page("many", "{{ rows.many|length }} {{ rows.many.more }}",
             queries={"many": "SELECT generate_series(1, 2000)"}),
        Page("few", "{{ rows.few|length }} {{ rows.few.more }}",
             queries={"few": "SELECT generate_series(1, 1000)"}),
        Page("framed", '{% extends "page.html" %}{% block content %}content {{ page.title }} {{ block_id }}'
             "{% endblock %}", title="A framed page"),
        Page("number", "{{ one.number.n }}", queries={"number": "SELECT %(n)s::integer + 1 AS n"}),
        Page("present", "{{ block_id }}", queries={"a": "SELECT %(block_id)s::integer, %(app)s::text"}),
        Page("wrong", "text", queries={"fine": "SELECT 1", "absent": "SELECT * FROM nowhere"}),
        Page("writing", "text", queries={"write": "SELECT set_config('transaction_read_only', 'off', true)"}),
        Page("secret", "text", queries={"engine": "SELECT * FROM vc.blocks"}),
        Page("two", "text", queries={"two": "SELECT 1) AS a; SELECT (1"}),
        Page("slow", "text", queries={"slow": "SELECT pg_sleep(60)"}),
        Page("undefined", "first\n{{ nothing }}"),
        Page("escape", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        Page("change", "{{ args.update({'a': 1}) }}"),
        Page("filter", "{{ key|no_such_filter }}"),
        Page("include", "{% include '../rendering.py' %}"),
        Page("slow_search", "text", search="SELECT pg_sleep(60), %(text)s"),
        Page("wrong_search", "text", search="SELECT * FROM nowhere WHERE %(text)s = 1"),
        Page("number_search", "text", search="SELECT %(text)s::integer AS n"),
    ]  # fmt: skip


APP = App(
    "odd things",
    magic=b"ok",
    projections="CREATE TABLE things (key text PRIMARY KEY, items integer NOT NULL)",
    pages=pages(),
)
APP.opcode(b"k")(Keep)


class OfThings(NamedTuple):
    """A served deployment of the app above."""

    base: str
    database: str
    tip: int


@pytest.fixture(scope="module")
def of_things(database_server: DatabaseServer) -> Iterator[OfThings]:
    """Serve an app whose keys are odd."""
    url = database_server.clone()
    with FakeNode() as node:
        node.mine([node.send(b"okk" + key.encode(), "alice") for key in ODD_KEYS])
        with StateEngine(APP, database=url, source=node.url, confirmations=0) as engine:
            tip = engine.build()
    with served(url, contracts={APP.name: read_contract(APP)}) as base:
        yield OfThings(base, url, tip)
    database_server.drop(url)


def shown(of_things: OfThings, page: str, **parameters: str) -> Answer:
    """Ask for a page of the app."""
    return get(of_things.base, path_of(APP.name, page, parameters.pop("key", None), parameters))


class TestAnyPage:
    """What an author may rely on, and what a visitor cannot do."""

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_every_key_has_an_address(self, of_things: OfThings, key: str) -> None:
        """A key is text of any kind: it comes through the address, is bound, and is shown as it is."""
        answer = shown(of_things, "thing", key=key)
        assert answer.status == 200
        assert answer.source == f"<p>key {escape(key)}, found {escape(key)}</p>"

    def test_parameters_are_bound(self, of_things: OfThings) -> None:
        """No parameter becomes part of a statement; one that does not fit is the visitor's mistake."""
        assert shown(of_things, "thing", key="x' OR ''='").source.endswith("found nothing</p>")
        assert shown(of_things, "number", n="41").source == "42"
        assert shown(of_things, "number").source == "None"
        for value in ("x", "99999999999", "1; SELECT 2"):
            answer = shown(of_things, "number", n=value)
            assert answer.status == 400
            assert "he query 'number' of the page 'number'" in answer.text
        assert shown(of_things, "thing", key="a\0b").status == 400
        assert shown(of_things, "present", block_id="7").source == str(of_things.tip)
        assert shown(of_things, "present", as_of="5").source == "5"
        assert shown(of_things, "present", as_of=f"{of_things.tip:,}").source == str(of_things.tip)
        for as_of in ("x", "a\0b", "-1", "99999999999", "'"):
            assert shown(of_things, "present", as_of=as_of).status in {400, 404}, as_of

    def test_the_frame(self, of_things: OfThings) -> None:
        """It has the key in its title and in the form for the past, where nothing can hide."""
        answer = shown(of_things, "framed", key="\u202e<b>", more="&")
        assert "<title>A framed page \\u202e&lt;b&gt; · odd things" in answer.source
        assert '<input type="hidden" name="key" value="\u202e&lt;b&gt;">' in answer.source
        assert '<input type="hidden" name="more" value="&amp;">' in answer.source
        assert "content A framed page 102 The present: after block 102." in " ".join(answer.text.split())

    def test_rows(self, of_things: OfThings) -> None:
        """A column may be called as a method is; of many rows, a page has the first, and knows that."""
        assert shown(of_things, "items").source == "1" * len(ODD_KEYS)
        assert shown(of_things, "many").source == "1000 True"
        assert shown(of_things, "few").source == "1000 False"

    @pytest.mark.parametrize(
        ("page", "words"),
        [
            (
                "wrong",
                "he query 'absent' of the page 'wrong' of app 'odd things' fails: relation \"nowhere\"",
            ),
            ("writing", "he query 'write' of the page 'writing'"),
            (
                "secret",
                "he query 'engine' of the page 'secret' of app 'odd things' fails: permission denied",
            ),
            ("two", "he query 'two' of the page 'two'"),
            (
                "undefined",
                "he template of the page 'undefined' of app 'odd things' fails in text of the page, line 2",
            ),
            ("escape", "SecurityError"),
            ("change", "SecurityError"),
            ("filter", "no_such_filter"),
            ("include", "TemplateNotFound"),
        ],
    )
    def test_a_page_that_is_wrong(
        self, of_things: OfThings, page: str, words: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The visitor sees what is wrong with which query or line; the server's log has the traceback."""
        answer = shown(of_things, page)
        assert answer.status == 500
        assert words in answer.text
        assert "Traceback" in caplog.text

    def test_a_page_that_is_not_there(self, of_things: OfThings) -> None:
        """Which pages there are depends on the apps that the server was started with."""
        assert shown(of_things, "nothing").status == 404
        answer = get(of_things.base, "/apps/other/pages/thing")
        assert answer.status == 404
        assert "serve" in answer.text

    def test_a_slow_query(self, of_things: OfThings) -> None:
        """It is canceled, and named."""
        page, sessions = (
            next(each for each in pages() if each.name == "slow"),
            Sessions(lambda: of_things.database),
        )
        try:
            with (
                pytest.raises(TooSlow, match="he query 'slow' of the page 'slow'"),
                sessions.snapshot(timeout=0.2) as connection,
            ):
                read(connection, APP.name, page, key=None, args={})
        finally:
            sessions.close()

    def test_links_and_searches(self, of_things: OfThings, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows lead to their pages, the menu has those that ask for it; a search that fails finds nothing."""
        monkeypatch.setattr("virtualchain.web.own_pages._SEARCH", 0.2)
        own = OwnPages({APP.name: read_contract(APP)})
        assert [link.label for link in own.menu(APP.name)] == ["A thing"]
        assert own.menu("other") == []
        row = own.of_row(APP.name, "things", {"key": "a/b"}, as_of="5")
        assert row is not None
        assert row.path == "/apps/odd%20things/pages/thing/a%252Fb?as_of=5"
        pair = own.of_row(APP.name, "pairs", {"a": "1", "b": "&", "app": "2", "name": "3"})
        assert pair is not None
        assert pair.path == "/apps/odd%20things/pages/pair?a=1&b=%26&app=2&name=3"
        assert get(of_things.base, pair.path).source == "1+&amp;"
        assert own.of_row(APP.name, "nothing", {"a": "1"}) is None
        connection = connect_reader(of_things.database)
        try:
            (hit,) = own.hits(connection, "plain")
            assert (hit.kind, hit.path, hit.parameters) == (
                "page", ("apps", "odd things", "pages", "pair"), {"a": "plain", "b": "1"},
            )  # fmt: skip
            assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
            assert [hit.label for hit in own.hits(connection, "17")] == ["number_search 17"]
        finally:
            connection.close()

    def test_other_pages_have_other_tags(self, of_things: OfThings) -> None:
        """What a browser kept of a page is outdated once the server has another template."""
        before = shown(of_things, "present").headers["etag"]
        with served(of_things.database, contracts={APP.name: read_contract(APP)}) as base:
            assert get(base, path_of(APP.name, "present")).headers["etag"] == before
        changed = App(APP.name, magic=b"ok", pages=[Page("present", "other")])
        changed.opcode(b"k")(Keep)
        with served(of_things.database, contracts={APP.name: read_contract(changed)}) as base:
            assert get(base, path_of(APP.name, "present")).headers["etag"] != before
