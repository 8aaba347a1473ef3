"""The pages: each can be reached, is well formed, and shows whatever strangers wrote without harm."""

import json
import re
import time
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

import psycopg
import pytest

from tests.integration.web.test_serving import Answer, get
from tests.support.explored import CONTRACT, mine
from tests.support.serving import served
from virtualchain.testing import FakeNode, key
from virtualchain.testing.database import DatabaseServer
from virtualchain.web.words import amount, duration, shown, size

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
SVG_VOID = frozenset("rect line circle polyline".split())
ATTRIBUTES = frozenset(
    (
        "action autocapitalize autocomplete charset class colspan content cx cy d datetime defer dir for "
        "height hidden href id inputmode lang max maxlength min name open placeholder points r rel required "
        "role rows scope selected size spellcheck src tabindex text-anchor title type value viewbox width x "
        "x1 x2 y y1 y2"
    ).split()
)
"""The attributes that the templates use, besides those of `aria-` and `data-`."""


class Page(HTMLParser):
    """Reads a page, and notes what is wrong with it.

    A form counts as a link, to what it leads to if nobody fills it in.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self._action = ""
        self._fields: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        if self._open:
            self.faults.append(f"not closed: {self._open}")
        if len(set(self.ids)) != len(self.ids):
            self.faults.append(f"an id is there twice: {sorted(self.ids)}")
        if self.headings.count(1) != 1:
            self.faults.append(f"headings {self.headings}")
        for before, after in zip(self.headings, self.headings[1:], strict=False):
            if after > before + 1:
                self.faults.append(f"heading {after} follows {before}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links, ids and headings, and what no template has."""
        values = dict(attrs)
        for name in values:
            if name not in ATTRIBUTES and not name.startswith(("aria-", "data-")):
                self.faults.append(f"attribute {name} of {tag}")
        if tag in ("script", "link") and not (values.get("src") or values.get("href") or "").startswith(
            "/static/"
        ):
            self.faults.append(f"a foreign {tag}")
        if tag in ("iframe", "object", "embed", "style", "img", "base"):
            self.faults.append(f"a {tag}")
        self.text += [values[name] or "" for name in ("title", "aria-label", "placeholder") if name in values]
        self.links += [values["href"] or ""] if "href" in values else []
        if tag == "form":
            self._action, self._fields = values["action"] or "", []
        elif tag == "input" and values.get("name") and values.get("value"):
            self._fields.append((values["name"] or "", values["value"] or ""))
        self.ids += [values["id"] or ""] if "id" in values else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID and tag not in SVG_VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read an element without content."""
        del attrs
        if tag not in SVG_VOID:
            self.faults.append(f"{tag} closes itself")

    def handle_endtag(self, tag: str) -> None:
        """Check that the element which was begun last ends."""
        if tag == "form":
            self.links.append(f"{self._action}?{urlencode(self._fields)}")
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.text.append(data)

    @property
    def words(self) -> str:
        """The text, with single spaces."""
        return " ".join("".join(self.text).split())


class Explored(NamedTuple):
    """A server that shows the deployment, and its database."""

    base: str
    database: str


@pytest.fixture(scope="module")
def explored(database_server: DatabaseServer) -> Iterator[Explored]:
    """Serve a deployment with a fork, hostile text, odd columns and a halted app."""
    database = database_server.clone()
    with FakeNode() as node:
        mine(node, database)
    with served(database) as base:
        yield Explored(base, database)
    database_server.drop(database)


def read(base: str, path: str, status: int = 200) -> Page:
    """Read a page, and check that it is one."""
    answer = get(base, path)
    assert answer.status == status, (path, answer.status, answer.body[:500])
    return checked(path, answer)


def checked(path: str, answer: Answer) -> Page:
    """Check that a page is well formed, harmless, and has the policy."""
    assert answer.headers["content-type"] == "text/html; charset=utf-8", path
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    text = answer.body.decode()
    page = Page(text)
    assert page.faults == [], path
    assert "\0" not in text, path
    hidden = {
        f"U+{ord(character):04X}"
        for character in "".join(page.text)
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and character != "\n"
    }
    assert hidden == set(), path
    return page


def test_every_link_leads_somewhere(explored: Explored) -> None:
    """Whoever follows all links from the overview finds pages that are well formed, and no error.

    Of the pages of one kind, such as those of ops, some are read.
    """
    seen: set[str] = set()
    waiting = ["/"]
    by_kind: dict[str, int] = {}
    while waiting:
        path = waiting.pop()
        kind = re.sub(r"[0-9a-f]{16,}|\d+|=[^&]*", "*", path)
        if path in seen or by_kind.get(kind, 0) >= 2:
            continue
        seen.add(path)
        by_kind[kind] = by_kind.get(kind, 0) + 1
        answer = get(explored.base, path)
        if answer.status == 303:
            waiting.append(answer.headers["location"])
            continue
        if path.startswith(("/api", "/static")) or re.search(r"proof\.json|format=(csv|json)$", path):
            assert answer.status in (200, 404), path
            continue
        assert answer.status == 200, (path, answer.body[:500])
        for link in checked(path, answer).links:
            target = urlsplit(urljoin(explored.base + path, link))
            assert f"{target.scheme}://{target.netloc}" == explored.base, (path, link)
            waiting.append(target.path + (f"?{target.query}" if target.query else ""))
    kinds = {re.sub(r"/apps/[^/]*", "/apps/*", kind) for kind in by_kind}
    assert {
        "/", "/apps/*", "/apps/*/ops", "/apps/*/rejections", "/apps/*/changes", "/apps/*/ops/*/*", "/blocks",
        "/blocks/*", "/tx/*", "/reorgs", "/plots", "/sql", "/search", "/apps/*/tables/notes",
        "/apps/*/tables/documents", "/apps/*/tables/documents/row?sha**",
    } <= kinds  # fmt: skip


def test_who_owned_a_document(explored: Explored) -> None:
    """From the overview, by links and one form: the owner at a block, and the transaction that changed it."""
    alice, bob = key("alice").address(), key("bob").address()
    app = next(link for link in read(explored.base, "/").links if link == "/apps/notary")
    table = next(link for link in read(explored.base, app).links if link.endswith("/tables/documents"))
    past = read(explored.base, f"{table}?as_of=105")
    assert alice in past.words
    assert bob not in past.words
    row = next(link for link in past.links if "/row?" in link)
    assert "as_of=105" in row
    assert bob not in read(explored.base, row).words
    history = read(explored.base, row.replace("&as_of=105", ""))
    assert f"{alice} → {bob}" in history.words
    assert "In block 108 changed And so it is now." in history.words
    op = read(explored.base, next(link for link in history.links if "/ops/108/" in link))
    assert "The block has no other op of this app" in op.words
    assert alice in op.words
    assert bob in op.words
    proof = get(explored.base, "/apps/notary/ops/108/0/proof.json?from=110")
    assert proof.status == 200
    assert b"virtualchain" in proof.body
    of_row = get(explored.base, f"/apps/notary/tables/documents/row/proof.json?sha256={CONTRACT}&at=108")
    assert of_row.status == 200
    assert bob.encode() in of_row.body


def test_the_halted_app(explored: Explored) -> None:
    """Its page says before which block, what failed, where, on which op, and what to do."""
    words = read(explored.base, "/apps/stumb%3Cling").words
    for part in (
        "It is halted before block 104",
        "cannot keep",
        "explored.py, line",
        "virtualchain resume stumb<ling",
    ):
        assert part in words
    assert "Traceback (most recent call last)" in words
    assert "stumb<ling is halted before block 104" in read(explored.base, "/").words


def test_states_have_words(explored: Explored) -> None:
    """An app before its first block, an empty table, and a writer that has ended are described."""
    assert "starts with block 10,000" in read(explored.base, "/apps/la&te").words
    assert "has not taken its first block" in read(explored.base, "/apps/la&te/changes").words
    assert "The table has no rows" in read(explored.base, "/apps/wall%252Fb/tables/empty").words
    assert "No writer is running" in read(explored.base, "/").words
    assert "more work" in read(explored.base, "/reorgs").words


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nothing/here", 404, "There is no page /nothing/here"),
        ("/apps/none", 404, "has no app none"),
        ("/apps/notary/tables/none", 404, "has no table"),
        ("/apps/notary/tables/documents?as_of=100000", 404, "block 100000 is not here"),
        ("/apps/notary/tables/documents?as_of=abc", 404, "abc"),
        ("/apps/notary/tables/documents?nothing=eq.1", 400, "has no column"),
        ("/apps/notary/tables/documents?claimed_at=eq.x", 400, "claimed_at"),
        ("/apps/notary/tables/documents?after=xyz", 400, "cursor"),
        ("/apps/notary/tables/documents/row?sha256=00", 404, "no row with this key"),
        ("/apps/notary/tables/documents/row", 400, "sha256 is missing"),
        ("/apps/notary/ops/1/1", 404, "has no op 1 in block 1"),
        ("/apps/notary/ops/1/9999999999999", 404, "not a number"),
        ("/apps/notary/ops/108/0/proof.json?from=5", 404, "108"),
        ("/apps/notary/ops?before=zzz", 400, "cursor"),
        ("/apps/notary/ops?opcode=long", 400, "one character"),
        ("/blocks/99999", 404, "has no block 99999"),
        ("/blocks/xyz", 400, "not a block"),
        ("/tx/" + "0" * 64, 404, "is not known here"),
        ("/tx/<b>", 400, "64 hex digits"),
        ("/search?q=%3Cscript%3E%00%E2%80%AE", 200, "Nothing here is exactly <script>\\u202e"),
        ("/sql?q=SELECT+1+FRM+x", 400, "There is a mistake in it"),
        ("/sql?q=DELETE+FROM+notary.documents", 400, "The database rejects this query"),
        ("/sql?q=SELECT+*+FROM+vc.blocks", 400, "permission denied"),
        ("/sql?q=SELECT+1;+SELECT+2", 400, "multiple commands"),
        ("/sql?q=SELECT+1&format=xml", 400, "format is one of"),
        ("/sql?q=SELECT+1+AS+a,+2+AS+a&format=json", 400, "two columns are named a"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown(explored: Explored, path: str, status: int, words: str) -> None:
    """A wrong address or value is answered by a page that says what is wrong."""
    assert (
        words.lower()
        in read(explored.base, path.replace("<", "%3C").replace(">", "%3E"), status).words.lower()
    )


def test_search_leads_to_the_only_hit(explored: Explored) -> None:
    """A height, a hash and a key lead to their pages."""
    block = get(explored.base, "/search?q=106")
    assert (block.status, block.headers["location"]) == (303, "/blocks/106")
    row = get(explored.base, f"/search?q={CONTRACT}")
    assert row.headers["location"] == f"/apps/notary/tables/documents/row?sha256={CONTRACT}"
    several = read(explored.base, f"/search?q={key('alice').address()}")
    assert "Address transaction" in several.words


class TestFilters:
    """The form that filters a table, and the links that sort it and turn its pages."""

    NOTES = "/apps/wall%252Fb/tables/notes"

    def test_the_form_becomes_a_parameter(self, explored: Explored) -> None:
        """A column that is called like a parameter is filtered as well, and the filter can be removed."""
        answer = get(explored.base, f"{self.NOTES}?new-column=order&new-operator=eq&new-value=103")
        assert answer.status == 303
        page = read(explored.base, answer.headers["location"])
        assert "order is 103" in page.words
        assert self.NOTES in page.links
        nothing = read(explored.base, f"{self.NOTES}?filter.order=eq.1")
        assert "No row fits these filters" in nothing.words

    def test_pages_and_order(self, explored: Explored) -> None:
        """Following the links to next pages, in any order, yields each row once."""
        links = read(explored.base, self.NOTES).links
        heads = [link for link in links if link.startswith(f"{self.NOTES}?order=")]
        assert len(heads) == 6
        for head in heads:
            rows: list[str] = []
            path: str | None = head
            while path is not None:
                page = read(explored.base, path)
                rows += [link for link in page.links if "/row?" in link]
                path = next((link for link in page.links if "after=" in link), None)
            assert len(rows) == len(set(rows)) > 100


class TestBox:
    """The SQL box as a page."""

    def test_result(self, explored: Explored) -> None:
        """Columns of the same name, hostile values, null and a past block are shown."""
        page = read(explored.base, "/sql?q=SELECT+owner,+owner+FROM+documents&as_of=105")
        assert page.words.count(key("alice").address()) == 2
        hostile = read(explored.base, '/sql?q=SELECT+"%3Ci%3Etext%3C/i%3E",+NULL+AS+n+FROM+notes')
        assert "<script>alert(1)</script>" in hostile.words
        assert "null" in hostile.words

    def test_files(self, explored: Explored) -> None:
        """CSV and JSON are files."""
        csv = get(explored.base, "/sql?q=SELECT+1+AS+a,+2+AS+a&format=csv")
        assert csv.body == b"a,a\r\n1,2\r\n"
        assert csv.headers["content-disposition"] == 'attachment; filename="result.csv"'
        json = get(explored.base, "/sql?q=SELECT+1.50+AS+a,+'%5Cxff'::bytea+AS+b&format=json")
        assert json.body == b'[\n{"a": 1.50, "b": "\\\\xff"}\n]\n'


def test_the_database_is_away(explored: Explored, database_server: DatabaseServer) -> None:
    """Every page says so, and says it as a page."""
    database = database_server.clone()
    with served(database) as base:
        assert "A new deployment" in read(base, "/").words
        assert "Nothing is followed yet" in read(base, "/").words
        assert "No block has been taken yet" in read(base, "/blocks").words
        assert "nothing to plot" in read(base, "/plots").words
        with psycopg.connect(explored.database, autocommit=True) as connection:
            name = urlsplit(database).path[1:]
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
        time.sleep(0.2)  # until the version that was read before is no longer the present one
        for path in ("/", "/apps/notary", "/blocks", "/sql", "/search?q=1", "/plots"):
            answer = get(base, path)
            assert answer.status == 503, path
            assert "The database" in checked(path, answer).words
    with psycopg.connect(explored.database, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    database_server.drop(database)


class TestWords:
    """How values are written."""

    @pytest.mark.parametrize(
        ("text", "html"),
        [
            ("<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"),
            ("a\u202eb", 'a<span class="esc">\\u202e</span>b'),
            ("\0\t\n\x7f", "".join(f'<span class="esc">{e}</span>' for e in ("\\0", "\\t", "\\n", "\\x7f"))),
            ("\u200b\ufeff", '<span class="esc">\\u200b</span><span class="esc">\\ufeff</span>'),
            ("\U000e0041", '<span class="esc">\\U000e0041</span>'),
            ("\u3164\u00a0", '<span class="esc">\\u3164</span><span class="esc">\\xa0</span>'),
            ("e\u0301é", "e\u0301é"),
        ],
    )
    def test_hidden_characters_are_shown(self, text: str, html: str) -> None:
        """What cannot be seen is written as an escape, and markup as text."""
        assert shown(text) == html

    def test_accents_cannot_pile_up(self) -> None:
        """Of many accents on a letter, a few are shown."""
        assert shown("e" + "\u0301" * 50).count("esc") == 48

    def test_numbers(self) -> None:
        """Amounts, sizes and durations have units."""
        assert [amount(n) for n in (0, 12_345, 150_000_000)] == ["0 sat", "12,345 sat", "1.50000000 BTC"]
        assert [amount(n, "LTC") for n in (0, 12_345)] == ["0.00000000 LTC", "0.00012345 LTC"]
        assert [size(n) for n in (1, 999, 1_500)] == ["1 byte", "999 bytes", "1.5 kB"]
        assert [duration(n) for n in (0.007, 59, 3_700, 200_000)] == [
            "7 ms",
            "59 s",
            "1 h 2 min",
            "2 days 7 h",
        ]


def test_a_pruned_transaction(explored: Explored) -> None:
    """Its pages say that it was pruned, and the API has null for what is gone."""
    with psycopg.connect(explored.database, autocommit=True) as connection, ExitStack() as stack:
        [app, block_id, number, txindex, txid] = (
            connection.execute(
                "SELECT app, block_id, vtxindex, txindex, txid FROM virtualchain.ops ORDER BY 2 LIMIT 1"
            ).fetchone()
            or [None] * 5
        )
        place = [block_id, txindex]
        kept = connection.execute(
            "SELECT raw, spent FROM vc.inputs WHERE block_id = %s AND txindex = %s", place
        ).fetchone()
        change = "UPDATE vc.inputs SET raw = %s, spent = %s WHERE block_id = %s AND txindex = %s"
        connection.execute(change, [None, None, *place])
        try:
            base = stack.enter_context(served(explored.database))  # which has no pages of before
            for path in (f"/tx/{txid}", f"/apps/{app}/ops/{block_id}/{number}"):
                assert "with its senders and outputs, was pruned here" in read(base, path).words
            answer = get(base, f"/api/v1/apps/{app}/ops/{block_id}/{number}")
            transaction = json.loads(answer.body)["transaction"]
            assert [transaction[name] for name in ("raw", "senders", "outputs")] == [None] * 3
        finally:
            connection.execute(change, [*(kept or ()), *place])
