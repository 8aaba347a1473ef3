"""The clients of a node: each of its faults has its own error, and temporary faults are retried."""

import logging
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from tests.unit.bitcoin.node.fakes import Reply, Request, ScriptedServer, basic, error, result
from virtualchain.bitcoin.node import client
from virtualchain.bitcoin.node.client import NotOffered, Rest, Rpc, with_retries
from virtualchain.bitcoin.node.login import Cookie, NodeUrl, find_login, read_url
from virtualchain.errors import MissingData, NodeError, NodeUnavailable

BUSY = Reply(503, b"Work queue depth exceeded", "text/html")
DENIED = Reply(401, b"", "text/html; charset=ISO-8859-1")
BLOCK = Reply(200, bytes(range(256)) * 40, "application/octet-stream")
SIZE = len(BLOCK.body)


# Retries


def test_with_retries_pauses_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is between two attempts, and the error of the last attempt is raised."""
    events: list[object] = []

    def fail() -> None:
        events.append("attempt")
        raise NodeUnavailable(f"attempt {events.count('attempt')}")

    monkeypatch.setattr(client, "RETRY_PAUSES", (0.25, 0.5))
    monkeypatch.setattr("virtualchain.bitcoin.node.client.time.sleep", events.append)
    with pytest.raises(NodeUnavailable, match="attempt 3"):
        with_retries(fail)
    assert events == ["attempt", 0.25, "attempt", 0.5, "attempt"]


def test_with_retries_raises_other_errors_at_once() -> None:
    """A permanent error is raised after one attempt."""
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise MissingData("pruned")

    with pytest.raises(MissingData):
        with_retries(fail)
    assert len(attempts) == 1


def test_with_retries_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that took longer than the retry time is the last one, whatever pauses are left."""
    now = iter([0.0, client.RETRY_TIME + 1])
    monkeypatch.setattr("virtualchain.bitcoin.node.client.time.monotonic", lambda: next(now))
    attempts = []

    def fail() -> None:
        attempts.append(1)
        raise NodeUnavailable("timed out")

    with pytest.raises(NodeUnavailable):
        with_retries(fail)
    assert len(attempts) == 1


# JSON-RPC


def test_call_sends_method_parameters_and_login(scripted: ScriptedServer, rpc: Rpc) -> None:
    """The request is a POST to / with the method, its parameters and the login."""
    scripted.plan(result("aa"))
    assert rpc.call("getblock", "00ff", 0) == "aa"
    (request,) = scripted.requests
    assert (request.path, request.authorization) == ("/", basic("alice:secret"))
    assert (request.body["method"], request.body["params"]) == ("getblock", ["00ff", 0])


def test_call_unquotes_user_and_password(scripted: ScriptedServer) -> None:
    """A password with characters that a URL must encode reaches the node decoded."""
    url = read_url(f"http://al%40ice:p%3A%2F%40%25%C3%BC@{scripted.address}")
    rpc = Rpc(url, find_login(url, None, None))
    scripted.plan(result(1))
    rpc.call("getblockcount")
    rpc.close()
    assert scripted.requests[0].authorization == basic("al@ice:p:/@%ü")


def test_call_reads_fractions_exactly(scripted: ScriptedServer, rpc: Rpc) -> None:
    """An amount is a Decimal as it was printed, not a float."""
    scripted.plan(result(b'{"value": 20999999.97690001, "n": 7}'))
    answer = rpc.call("getrawtransaction")
    assert answer == {"value": Decimal("20999999.97690001"), "n": 7}
    assert isinstance(answer["value"], Decimal)


def test_call_keeps_its_connection(scripted: ScriptedServer, rpc: Rpc) -> None:
    """Successive calls, even failed ones, use one connection."""
    scripted.plan(result(1), error(-5), result(3))
    rpc.call("a")
    with pytest.raises(MissingData):
        rpc.call("b")
    rpc.call("c")
    assert len({request.connection for request in scripted.requests}) == 1


def test_call_reconnects_after_an_idle_drop(
    scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that the node has closed is replaced without using up an attempt."""
    monkeypatch.setattr(client, "RETRY_PAUSES", ())
    scripted.plan(result(1, hang_up=True), result(2))
    rpc.call("first")
    connection = rpc._pool._idle[0]
    assert connection.sock is not None
    assert select.select([connection.sock], [], [], 5)[0]
    assert rpc.call("second") == 2
    assert [request.connection for request in scripted.requests] == [0, 1]


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        error(-28, "Loading block index…"),
        Reply(no_answer=True),
        result("aabb", missing=10),
        Reply(503, b'{"error": null, "result": 1}'),
    ],
    ids=["busy", "warming up", "hangs up", "truncated", "busy in JSON"],
)
def test_call_retries_temporary_faults(scripted: ScriptedServer, rpc: Rpc, fault: Reply) -> None:
    """Two such faults are recovered from silently; a third is NodeUnavailable."""
    scripted.plan(fault, fault, result(42))
    assert rpc.call("getblockcount") == 42
    scripted.plan(fault, fault, fault, result(42))
    with pytest.raises(NodeUnavailable):
        rpc.call("getblockcount")
    assert len(scripted.requests) == 6


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(-5, "Block not found"), MissingData),
        (error(-8, "Block height out of range"), MissingData),
        (error(-1, "Block not available (pruned data)"), MissingData),
        (error(-32603, "Undo data expected but can't be read"), MissingData),
        (error(-32601, "Method not found", status=404), NotOffered),
        (Reply(403, b"", "text/html"), NotOffered),
        (error(-32700, "Parse error"), NodeError),
        (Reply(200, b"<html>It works!</html>", "text/html"), NodeError),
        (Reply(200, b"\xff\xfe", "application/json"), NodeError),
        (Reply(200, b'{"result": 1', "application/json"), NodeError),
        (Reply(200, b"[1]", "application/json"), NodeError),
        (Reply(200, b'{"error": "no"}', "application/json"), NodeError),
        (Reply(200, b'{"error": {"message": "no"}}', "application/json"), NodeError),
        (Reply(200, b"{}", "application/json"), NodeError),
        (Reply(404, b"", "text/html"), NodeError),
    ],
)
def test_call_classifies_permanent_faults(
    scripted: ScriptedServer, rpc: Rpc, reply: Reply, kind: type[NodeError]
) -> None:
    """What another attempt would not change is raised after one, by its kind and with the node's address."""
    scripted.plan(reply, result(1))
    with pytest.raises(NodeError, match=scripted.address) as caught:
        rpc.call("getblock", "00ff")
    assert type(caught.value) is kind
    assert len(scripted.requests) == 1
    assert rpc.call("getblockcount") == 1


def test_call_reports_the_call_and_the_answer(scripted: ScriptedServer, rpc: Rpc) -> None:
    """The message has the call, the node's message and its code, and never the password."""
    scripted.plan(error(-8, "Block height out of range"))
    with pytest.raises(MissingData) as caught:
        rpc.call("getblockhash", 700)
    message = str(caught.value)
    assert "getblockhash 700" in message
    assert "Block height out of range" in message
    assert "-8" in message
    assert "secret" not in message


def test_call_refused_connection(url: NodeUrl, scripted: ScriptedServer) -> None:
    """If nothing listens, the node is unavailable, and the message asks whether it is running."""
    unused = NodeUrl("127.0.0.1", 1, "alice", "secret")
    with pytest.raises(NodeUnavailable, match=r"Connection refused.*running"):
        Rpc(unused, find_login(unused, None, None)).call("getblockcount")


def test_call_times_out(scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not answer is given up after one attempt, and later asked over another connection."""
    monkeypatch.setattr(client, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(client, "RETRY_TIME", 0.01)
    late = threading.Event()
    scripted.plan(result("late", wait_for=late), result("in time"))
    with pytest.raises(NodeUnavailable, match="timed out"):
        rpc.call("getblockcount")
    assert rpc.call("getblockcount") == "in time"
    late.set()
    assert len(scripted.requests) == 2


def test_call_with_wrong_password(scripted: ScriptedServer, rpc: Rpc) -> None:
    """A refused password is not a temporary fault; the message names only the user."""
    scripted.plan(DENIED)
    with pytest.raises(NodeError, match="alice") as caught:
        rpc.call("getblockcount")
    assert not isinstance(caught.value, NodeUnavailable)
    assert "secret" not in str(caught.value)
    assert len(scripted.requests) == 1


def test_call_reads_a_cookie_again(scripted: ScriptedServer, url: NodeUrl, tmp_path: Path) -> None:
    """If the node restarts, its new cookie is read when the old one is refused."""
    file = tmp_path / ".cookie"
    file.write_text("__cookie__:old\n")
    rpc = Rpc(url, Cookie(url, file))
    scripted.always = lambda request: (
        result(1) if request.authorization == basic("__cookie__:old") else DENIED
    )
    assert rpc.call("getblockcount") == 1
    scripted.always = lambda request: (
        result(2) if request.authorization == basic("__cookie__:new") else DENIED
    )
    file.write_text("__cookie__:new")
    assert rpc.call("getblockcount") == 2
    rpc.close()


@pytest.mark.parametrize("cookies", [1, 6], ids=["same cookie", "always new cookies"])
def test_call_with_a_refused_cookie(
    scripted: ScriptedServer, url: NodeUrl, tmp_path: Path, cookies: int
) -> None:
    """A new cookie may be refused by a node that is about to write another, so the node is unavailable."""
    file = tmp_path / ".cookie"
    file.write_text("__cookie__:0")

    def refuse(_: Request) -> Reply:
        file.write_text(f"__cookie__:{len(scripted.requests) % cookies}")
        return DENIED

    scripted.always = refuse
    rpc = Rpc(url, Cookie(url, file))
    with pytest.raises(NodeUnavailable, match="refuses"):
        rpc.call("getblockcount")
    rpc.close()
    assert len(scripted.requests) == (3 if cookies == 1 else 6)


def test_call_without_cookie_file(url: NodeUrl, tmp_path: Path) -> None:
    """Without the file the node is unavailable, and the message names the file."""
    file = tmp_path / "regtest" / ".cookie"
    with pytest.raises(NodeUnavailable, match="regtest"):
        Rpc(url, Cookie(url, file)).call("getblockcount")


def test_calls_of_many_threads_do_not_mix(scripted: ScriptedServer, rpc: Rpc) -> None:
    """Each call gets its own answer, however many run at once."""
    scripted.always = lambda request: result(request.body["params"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: rpc.call("echo", number), range(200)))
    assert answers == [[number] for number in range(200)]
    assert len({request.connection for request in scripted.requests}) <= 8


def test_call_dumps_no_result_for_the_debug_log(
    scripted: ScriptedServer, rpc: Rpc, caplog: pytest.LogCaptureFixture
) -> None:
    """The library would convert each block to text a second time, for a log that nobody reads."""
    caplog.set_level(logging.DEBUG, "BitcoinRPC")
    scripted.plan(result("c0ffee"))
    rpc.call("getblock", "00ff")
    assert "c0ffee" not in caplog.text


def test_close_also_closes_connections_in_use(scripted: ScriptedServer, rpc: Rpc) -> None:
    """A connection that is in use while its client is closed is not kept when its call ends."""
    resume = threading.Event()
    scripted.plan(result(1, wait_for=resume))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(rpc.call, "getblockcount")
        rpc.close()
        resume.set()
        assert call.result() == 1
    assert not rpc._pool._idle


def test_interrupted_call_does_not_leave_its_answer_for_the_next(
    scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a KeyboardInterrupt during a call, its connection is not used again."""
    monkeypatch.setattr(client, "RETRY_PAUSES", ())
    scripted.always = lambda request: result(request.body["method"])

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client._Call, "_get_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rpc.call("first")
    assert rpc.call("second") == "second"


# REST


def test_get_returns_the_body(scripted: ScriptedServer, rest: Rest) -> None:
    """The bytes are unchanged, even if they fill the limit; the password is not sent."""
    scripted.plan(BLOCK)
    assert rest.get("/rest/block/00ff.bin", SIZE) == BLOCK.body
    assert scripted.requests[0].path == "/rest/block/00ff.bin"
    assert scripted.requests[0].authorization == ""


def test_get_keeps_its_connection(scripted: ScriptedServer, rest: Rest) -> None:
    """Successive requests use one connection, whatever their status."""
    scripted.plan(BLOCK, Reply(404, b"nothing here", "text/plain"), Reply(200, b""), BLOCK)
    rest.get("/1", SIZE)
    with pytest.raises(MissingData):
        rest.get("/2", SIZE)
    assert rest.get("/3", SIZE) == b""
    rest.get("/4", SIZE)
    assert {request.connection for request in scripted.requests} == {0}


@pytest.mark.parametrize(
    "fault",
    [
        Reply(503, b"Work queue depth exceeded", "text/html"),
        Reply(503, b"Service temporarily unavailable: Loading block index", "text/plain"),
        Reply(no_answer=True),
        Reply(200, BLOCK.body[:100], missing=SIZE - 100),
        Reply(404, b"not", "text/plain", missing=10),
    ],
    ids=["busy", "starting", "hangs up", "truncated", "truncated error"],
)
def test_get_retries_temporary_faults(scripted: ScriptedServer, rest: Rest, fault: Reply) -> None:
    """Two such faults are recovered from silently; a third is NodeUnavailable."""
    scripted.plan(fault, fault, BLOCK)
    assert rest.get("/rest/block/00ff.bin", SIZE) == BLOCK.body
    scripted.plan(fault, fault, fault, BLOCK)
    with pytest.raises(NodeUnavailable, match=scripted.address):
        rest.get("/rest/block/00ff.bin", SIZE)
    assert len(scripted.requests) == 6


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(404, b"00ff not available (pruned data)", "text/plain"), MissingData, "pruned data"),
        (Reply(404, b"", "text/html"), NotOffered, "no reason"),
        (Reply(400, b"Invalid hash: 00ff", "text/plain"), NodeError, "Invalid hash"),
        (Reply(403, b"", "text/html"), NodeError, "403"),
        (Reply(500, b"oh", "text/plain"), NodeError, "oh"),
        (Reply(302, b"elsewhere", "text/plain"), NodeError, "elsewhere"),
    ],
)
def test_get_classifies_permanent_faults(
    scripted: ScriptedServer, rest: Rest, reply: Reply, kind: type[NodeError], words: str
) -> None:
    """What another attempt would not change is raised after one, with the node's own message."""
    scripted.plan(reply)
    with pytest.raises(NodeError, match=words) as caught:
        rest.get("/rest/block/00ff.bin", SIZE)
    assert type(caught.value) is kind
    assert len(scripted.requests) == 1


def test_get_reads_no_more_than_the_limit(scripted: ScriptedServer, rest: Rest) -> None:
    """An answer that is too long is an error, and its rest is not taken for the next answer."""
    scripted.plan(BLOCK, Reply(200, b"next"))
    with pytest.raises(NodeError, match=f"more than {SIZE - 1} bytes"):
        rest.get("/rest/block/00ff.bin", SIZE - 1)
    assert rest.get("/next", SIZE) == b"next"


def test_get_times_out(url: NodeUrl, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that does not answer is given up after one attempt, and later asked over another connection."""
    monkeypatch.setattr(client, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(client, "RETRY_TIME", 0.01)
    rest = Rest(url)
    late = threading.Event()
    scripted.plan(Reply(200, b"late", wait_for=late), Reply(200, b"in time"))
    with pytest.raises(NodeUnavailable, match="timed out"):
        rest.get("/1", SIZE)
    assert rest.get("/2", SIZE) == b"in time"
    late.set()
    rest.close()


def test_get_refused_connection() -> None:
    """If nothing listens, the node is unavailable, and the message asks whether it is running."""
    with pytest.raises(NodeUnavailable, match="running"):
        Rest(NodeUrl("127.0.0.1", 1, None, "")).get("/", 1)


def test_gets_of_many_threads_do_not_mix(scripted: ScriptedServer, rest: Rest) -> None:
    """Each request gets its own answer, however many run at once."""
    scripted.always = lambda request: Reply(200, request.path.encode())
    paths = [f"/{number}" for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: rest.get(path, 100), paths))
    assert answers == [path.encode() for path in paths]


@pytest.mark.parametrize(("status", "offered"), [(200, True), (404, False), (400, False), (403, False)])
def test_offers(scripted: ScriptedServer, rest: Rest, status: int, offered: bool) -> None:
    """Only status 200 means that something is there."""
    scripted.plan(Reply(status, b"x"))
    assert rest.offers("/rest/chaininfo.json") is offered


def test_offers_does_not_mistake_busy_for_no(scripted: ScriptedServer, rest: Rest) -> None:
    """A node that is busy now must not lose its fast interface for good."""
    busy = Reply(503, b"Work queue depth exceeded")
    scripted.plan(busy, Reply(200, b"{}"))
    assert rest.offers("/rest/chaininfo.json")
    scripted.plan(busy, busy, busy)
    with pytest.raises(NodeUnavailable):
        rest.offers("/rest/chaininfo.json")
