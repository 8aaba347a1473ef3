"""The API: every path, every mistake, pages, blocks of the past, and what its own description promises."""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks

from tests.integration.web.conftest import Answer, Ask, Served
from tests.support.serving import served
from virtualchain.consensus.row_proofs import RowClaim, state_root
from virtualchain.proof.checking import Known, check_file
from virtualchain.reading import views
from virtualchain.web import proving
from virtualchain.web.api import proofs

PROBLEM = "application/problem+json"


def follow(ask: Ask, path: str) -> Iterator[Any]:
    """Yield the items of all pages of a list."""
    following: str | None = path
    while following is not None:
        answer = ask(following)
        assert answer.status == 200, answer.body
        yield from answer.value
        following = answer.next


def documented(ask: Ask) -> dict[str, Any]:
    """Return the paths of the API's description."""
    paths: dict[str, Any] = ask("openapi.json").value["paths"]
    return paths


EXAMPLES = {
    "app": "odd",
    "block": "100",
    "block_id": "103",
    "vtxindex": "0",
}
NEEDED = {"q": "select 1", "from": "101", "to": "120", "id": "3", "at": "3", "key.at": "3", "key.key.at": "3"}


def example(path: str, operation: dict[str, Any]) -> str:
    """Write a documented path with values that there are, and the parameters that it requires."""
    required = [item["name"] for item in operation.get("parameters", ()) if item.get("required")]
    filled = re.sub(r"{(\w+)}", lambda match: EXAMPLES.get(match[1], match[0]), path)
    query = "&".join(f"{name}={NEEDED[name].replace(' ', '+')}" for name in required if name in NEEDED)
    return f"{filled.removeprefix('/')}{'?' if query else ''}{query}"


class TestPaths:
    """What is documented is there."""

    def test_every_documented_path_answers(self, ask: Ask) -> None:
        """Each answers in JSON, to HEAD without a body, and has its own ETag unless it must not be kept."""
        tags = set()
        asked = 0
        for path, operations in documented(ask).items():
            if path == "/watch" or "get" not in operations:
                continue
            whole = example(path, operations["get"])
            if "{txid}" in whole:
                whole = f"tx/{ask('apps/odd/ops').value[0]['txid']}"
            whole = whole.replace("%7B", "{") if "%" not in path else whole
            if "owners/" in whole or "marks/" in whole:
                continue  # they need a row that there is
            answer = ask(whole)
            assert answer.status == 200, (whole, answer.body)
            assert answer.headers["content-type"] == "application/json", whole
            answer.value  # noqa: B018 - it is JSON
            head = ask(whole, "HEAD")
            assert (head.status, head.body) == (200, b"")
            assert int(head.headers["content-length"]) > 0
            tag = answer.headers.get("etag")
            assert head.headers.get("etag") == tag
            if tag is None:  # it holds ages, whose digits change
                assert answer.headers["cache-control"] == "no-store"
            else:
                assert head.headers["content-length"] == str(len(answer.body)), whole
                assert tag not in tags, "another resource has this ETag"
                tags.add(tag)
                assert ask(whole, If_None_Match=tag).status == 304
            asked += 1
        assert asked > 20
        assert ask("pending", If_None_Match=tags.pop()).status == 200

    def test_a_table_with_the_name_of_a_path(self, ask: Ask) -> None:
        """`ops` of an app are its ops; the projection has a path of its own, and both are documented."""
        assert "opcode" in ask("apps/odd/ops").value[0]
        assert "100% of 'it'" in ask("apps/odd/tables/ops").value[0]
        assert ask("apps/odd/pairs").value == ask("apps/odd/tables/pairs").value
        paths = documented(ask)
        assert {"/apps/odd/tables/ops", "/apps/odd/pairs", "/apps/plain/owners"} <= paths.keys()
        parameters = {item["name"]: item for item in paths["/apps/odd/tables/ops"]["get"]["parameters"]}
        assert "A column whose name is that of a parameter." in parameters["filter.order"]["description"]
        assert "numeric" in parameters["filter.limit"]["description"]

    def test_filters_reach_every_column(self, ask: Ask) -> None:
        """Columns whose names mean something else are filtered by them all the same."""
        paths = documented(ask)
        parameters = [item["name"] for item in paths["/apps/odd/tables/ops"]["get"]["parameters"]][5:]
        row = ask("apps/odd/tables/ops?id=eq.3").value[0]
        assert len(parameters) == len(row)
        for parameter, (column, value) in zip(parameters, row.items(), strict=True):
            text = (
                {True: "true", False: "false", None: "null"}.get(value, value)
                if not isinstance(value, (dict, list))
                else None
            )
            if text is None:
                continue
            rows = ask(f"apps/odd/tables/ops?{quote(parameter)}=eq.{quote(str(text))}").value
            assert row in rows, column

    def test_the_status_is_that_of_the_command(self, ask: Ask, deployment: Served) -> None:
        """What both know has the same keys and values."""
        status = ask("status").value
        with views.snapshot(deployment.url) as connection:
            apps = views.apps(connection)
            reorg = views.last_reorg(connection)
        assert [app["consensus_hash"] for app in status["apps"]] == [app["consensus_hash"] for app in apps]
        assert reorg is not None
        assert status["last_reorg"]["blocks_undone"] == reorg["blocks_undone"] == 3
        assert status["network"] == "regtest"
        assert status["writer"] is None

    def test_health(self, ask: Ask) -> None:
        """The server is well; an operator's monitor learns that nobody writes."""
        plain, checked = ask("health"), ask("health?check=1")
        assert (plain.status, checked.status) == (200, 503)
        assert plain.value == checked.value
        assert plain.value["troubles"] == ["no writer is running"]

    def test_search_leads_to_paths(self, ask: Ask) -> None:
        """Whatever is found can be followed."""
        op = ask("apps/odd/ops").value[0]
        block = ask("blocks").value[0]
        digest = ask("apps/odd/consensus").value[0]
        for text in (
            op["txid"],
            block["hash"],
            str(block["block_id"]),
            digest["consensus_hash"],
            "odd",
            "pairs",
        ):
            hits = ask(f"search?q={text}").value
            assert hits, text
            for hit in hits:
                assert ask(hit["url"]).status == 200, hit

    def test_the_page_for_people(self, ask: Ask) -> None:
        """It lists every path, and has nothing of another host."""
        page = ask("/api")
        text = page.body.decode()
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        for path in documented(ask):
            assert path.replace('"', "&#34;").replace("'", "&#39;") in text, path
        assert not re.search(r"(src|href)=.https?:", text)


MISTAKES = {
    400: (
        "apps?as_of=x",
        "apps?as_of=",
        "apps?as_of=1&as_of=2",
        "apps?asof=1",
        "apps/odd/ops?limit=0",
        "apps/odd/ops?limit=1001",
        "apps/odd/ops?limit=x",
        "apps/odd/ops?after=x",
        "apps/odd/ops?opcode=xyz",
        "apps/odd/ops?block_id=-1",
        "apps/odd/rejections?step=none",
        "apps/odd/ops?after=W10",
        "apps/odd/changes?from=1",
        "apps/odd/pairs?note=alice",
        "apps/odd/pairs?note=eqq.alice",
        "apps/odd/pairs?nothing=eq.1",
        "apps/odd/pairs?at=eq.x",
        "apps/odd/pairs?at=eq.99999999999999999999",
        "apps/odd/pairs?order=nothing",
        "apps/odd/pairs?select=nothing",
        "apps/odd/pairs?limit=0",
        "apps/odd/pairs?after=garbage",
        "apps/odd/pairs?or=(at.eq.1)",
        "apps/odd/pairs?as_of=x",
        "apps/odd/pairs?note=eq.%00",
        "apps/odd/pairs/proof?key.at=1",
        "apps/odd/pairs/history?key.at=1",
        "apps/odd/pairs/history?key.at=1&key.key.at=1&limit=51",
        "apps/odd/tables/ops/proof?id=x",
        "apps/odd/tables/ops/proof?id=1&at=x",
        "apps/odd/tables/ops/proof?id=1&id=1",
        "blocks/x",
        "blocks?after=99999999999",
        "blocks?after=x",
        "tx/x",
        "search",
        "search?q=a%00b",
        "sql",
        "sql?q=",
        "sql?q=selec",
        "sql?q=select+1;select+2",
        "sql?q=select+*+from+vc.blocks",
        "sql?q=select+1&format=xml",
        "watch?after=x",
        "watch?from=-1",
        "watch?from=1&after=1",
        "watch?app=odd&pending=2",
        "watch?nothing=1",
    ),
    404: (
        "nothing",
        "apps/nothing",
        "apps/%00",
        "blocks/%0A",
        "%0D%0A",
        "/api/%0A",
        "apps/nothing/ops",
        "apps/nothing/pairs",
        "apps/odd/nothing",
        "apps/odd/tables/nothing",
        "apps/odd/tables/nothing/proof?id=1",
        "apps/odd/nothing/history?id=1",
        "apps/odd/ops/103/77",
        "apps/odd/ops/103/77/proof",
        "apps/odd/ops/9999/0/proof",
        "apps/odd/ops/103/0/proof?from=9999",
        "apps/odd/consensus?block_id=9999",
        "apps/odd/changes?from=1&to=9999",
        "apps?as_of=9999",
        "apps?as_of=9999999999",
        f"blocks?as_of={'00' * 32}",
        "apps/odd/pairs?as_of=9999",
        "sql?q=select+*+from+pairs&as_of=9999",
        "blocks/9999",
        "blocks/9999999999",
        f"blocks/{'00' * 32}",
        f"tx/{'00' * 32}",
        "watch?app=nothing",
        f"watch?after=100-{'00' * 32}-0",
        "/api/",
        "/api/v2/apps",
        "/api/v1",
        "/api/v1/",
        "apps/",
    ),
}


class TestMistakes:
    """Whatever is wrong is answered with a status and a problem that says what."""

    @pytest.mark.parametrize("status", MISTAKES)
    def test_mistakes(self, ask: Ask, status: int) -> None:
        """The status says whose fault it is, the detail which, and nothing of it is kept."""
        for path in MISTAKES[status]:
            answer = ask(path)
            assert answer.status == status, (path, answer.status, answer.body)
            problem(answer, path)

    def test_methods(self, ask: Ask) -> None:
        """What a path does not do is 405, with what it does."""
        for path in ("apps", "apps/odd/pairs", "watch", "nothing/at/all"):
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                answer = ask(path, method)
                if path == "nothing/at/all":
                    assert answer.status == 404
                else:
                    assert answer.status == 405, (path, method)
                    assert "GET" in answer.headers["allow"]
                problem(answer, path)

    def test_a_statement_is_not_sent_by_a_page_elsewhere(self, ask: Ask) -> None:
        """Bodies that browsers send to anyone without asking are not run; nor are long or broken ones."""
        assert ask("sql", "POST", b"select 1 as a", Content_Type="application/sql").value == [{"a": 1}]
        body = json.dumps({"query": "select 1 as a", "format": "csv"}).encode()
        assert ask("sql", "POST", body, Content_Type="application/json").body == b"a\r\n1\r\n"
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert ask("sql", "POST", b"select 1", Content_Type=kind).status == 415
        wrong: tuple[tuple[bytes, int], ...] = (
            (b"[]", 400),
            (b"{", 400),
            (b'{"query": 1}', 400),
            (b'{"query": "select 1", "more": 1}', 400),
            (b'{"query": "select 1", "as_of": "x"}', 400),
            (b'{"query": "select 1", "format": []}', 400),
            (b"\xff", 400),
            (b"[" * 60_000, 400),
            (b" " * 70_000, 413),
        )
        for body, status in wrong:
            answer = ask("sql", "POST", body, Content_Type="application/json")
            assert answer.status == status, (body[:40], answer.body)
            problem(answer, "sql")

    def test_few_proofs_at_once(self, ask: Ask) -> None:
        """Proofs cost more than all else, so there are only so many at a time."""
        with proving._turns, proving._turns:
            busy = ask("apps/odd/ops/103/0/proof?from=111")
        assert (busy.status, "retry-after" in busy.headers) == (503, True)
        assert ask("apps/odd/ops/103/0/proof?from=111").status == 200

    def test_a_proof_that_takes_too_long(self, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is canceled although each of its statements is short, and the next one is not."""
        finished = threading.Event()

        def slow(connection: Any, *_: object, **__: object) -> Any:
            while not finished.wait(0.01):
                connection.execute("SELECT pg_sleep(0.05)")

        with monkeypatch.context() as patch:
            patch.setattr(proving, "TIMEOUT", 0.3)
            patch.setattr(proofs, "prove", slow)
            answer = ask("apps/odd/ops/103/0/proof?from=112")
            finished.set()
        assert answer.status == 503, answer.body
        assert "took" in answer.value["title"]
        assert ask("apps/odd/ops/103/0/proof?from=112").status == 200


def problem(answer: Answer, path: str) -> None:
    """Check that an answer is a problem as RFC 9457 has it."""
    assert answer.headers["content-type"] == PROBLEM, path
    assert answer.value.keys() == {"type", "title", "status", "detail"}, path
    assert answer.value["status"] == answer.status
    assert answer.value["detail"], path
    assert answer.headers["cache-control"] == "no-store", path
    assert "etag" not in answer.headers


class TestPages:
    """Pages make up the whole, whatever their size and order."""

    def test_lists(self, ask: Ask) -> None:
        """The pages of a list, however small, hold what one large page holds."""
        lists = (
            "apps/odd/ops?limit=",
            "apps/plain/rejections?limit=",
            "apps/odd/consensus?limit=",
            "blocks?limit=",
            "apps/plain/changes?from=100&to=120&limit=",
            "apps/odd/pairs?order=note.desc,at&limit=",
            'apps/odd/tables/ops?order="limit".asc.nullslast&limit=',
            "apps/odd/tables/ops?order=order.desc.nullsfirst&flag=is.true&limit=",
        )
        for path in lists:
            whole = ask(f"{path}1000")
            assert whole.next is None
            assert whole.value, path
            for size in (1, 7):
                assert list(follow(ask, f"{path}{size}")) == whole.value, path

    def test_an_old_block_stays_as_it_was(self, ask: Ask, deployment: Served) -> None:
        """Rows as of each block, by height or hash, are those that SQL shows."""
        for block in ask("blocks?limit=20").value:
            place = block["block_id"]
            with views.snapshot(deployment.url) as connection:
                _, rows = views.query(
                    connection, 'SELECT at, note FROM odd.pairs ORDER BY at, "key.at"', as_of=str(place)
                )
                expected = [{"at": at, "note": note} for at, note in rows]
            for name in (place, block["hash"]):
                assert ask(f"apps/odd/pairs?select=at,note&limit=1000&as_of={name}").value == expected
            assert ask(f"apps/odd?as_of={place}").value["block_id"] == place
            assert ask(f"blocks?as_of={place}&limit=1").value[0]["block_id"] == place


class TestProofs:
    """What the API proves is checked as what the command line proves is."""

    def test_an_op(self, ask: Ask) -> None:
        """The proof leads to the consensus hash, and to that of an earlier block if asked."""
        op = ask("apps/odd/ops").value[-1]
        path = f"apps/odd/ops/{op['block_id']}/{op['vtxindex']}/proof"
        for block_id, query in (("", ""), (op["block_id"] + 2, f"?from={op['block_id'] + 2}")):
            [digest, *_] = ask(f"apps/odd/consensus{f'?block_id={block_id}' if block_id else ''}").value
            checked: Any = check_file(ask(path + query).body, digest["consensus_hash"], Known(app="odd"))
            assert checked.proven.block_id == op["block_id"]

    def test_a_row(self, ask: Ask) -> None:
        """A row is shown to be there, and another one not to be."""
        for key, exists in (("key.at=3&key.key.at=3", True), ("key.at=3&key.key.at=nobody", False)):
            body = ask(f"apps/odd/pairs/proof?{key}").body
            root = state_root(json.loads(body)["state"])
            claim = check_file(body, root, Known(table="pairs"))
            assert isinstance(claim, RowClaim)
            assert (claim.row is not None) == exists

    def test_the_history_of_a_row(self, ask: Ask) -> None:
        """Its versions follow each other, newest first, also in pages, and name what caused them."""
        names = {
            change["key"]["name"] for change in ask("apps/plain/changes?from=100&to=126&table=owners").value
        }
        assert names
        for name in names:
            path = f"apps/plain/owners/history?name={name}"
            versions = ask(path).value["versions"]
            assert versions, name
            paged: list[Any] = []
            following: str | None = f"{path}&limit=1"
            while following is not None:
                answer = ask(following)
                paged += answer.value["versions"]
                following = answer.next
            assert [v for v in paged if v["row"]] == [v for v in versions if v["row"]]


class TestOrigins:
    """Pages of named origins may use the API, and only these."""

    def test_a_preflight(self, deployment: Served) -> None:
        """A browser learns what such a page may send."""
        wish: Any = {
            "Access_Control_Request_Method": "POST",
            "Access_Control_Request_Headers": "content-type",
        }
        with served(deployment.url, origins={"https://a.example"}) as base:
            ask = Served(base, deployment.url, deployment.node).ask
            allowed = ask("sql", "OPTIONS", Origin="https://a.example", **wish)
            refused = ask("sql", "OPTIONS", Origin="https://b.example", **wish)
            answer = ask("apps", Origin="https://a.example")
            again = ask("apps", Origin="https://a.example", If_None_Match=answer.headers["etag"])
            other = ask("apps", Origin="https://b.example")
        assert allowed.status == 204
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "Content-Type" in allowed.headers["access-control-allow-headers"]
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        assert refused.status == 405
        assert "access-control-allow-origin" not in {**refused.headers, **other.headers}
        for read in (answer, again):
            assert read.headers["access-control-allow-origin"] == "https://a.example"
            assert "Origin" in read.headers["vary"]
        assert again.status == 304


def test_the_description_is_kept(deployment: Served) -> None:
    """What fits the description is answered as it says: no server error, no other status, type or form."""
    description: Any = schemathesis.openapi.from_url(f"{deployment.base}/api/v1/openapi.json")

    def no_bug(_: Any, response: Any, __: Any) -> None:
        assert response.status_code != 500

    kept = [
        no_bug,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    for result in description.exclude(path="/watch").get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=2,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def keeps(case: Any) -> None:
            case.call_and_validate(checks=kept)

        keeps()
