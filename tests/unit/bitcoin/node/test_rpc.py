"""JSON-RPC: every way in which a node can fail has its own error, and what passes is tried again."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from urllib3.util import wait_for_read

from tests.unit.bitcoin.node.scripted import Reply, Request, Scripted, basic, error, result
from virtualchain.bitcoin.node import retry
from virtualchain.bitcoin.node import rpc as rpc_module
from virtualchain.bitcoin.node.login import Cookie, NodeUrl, find_login, read_url
from virtualchain.bitcoin.node.rpc import NotOffered, Rpc
from virtualchain.errors import MissingData, NodeError, NodeUnavailable

BUSY = Reply(503, b"Work queue depth exceeded", "text/html")
DENIED = Reply(401, b"", "text/html; charset=ISO-8859-1")


def test_call_sends_method_parameters_and_login(scripted: Scripted, rpc: Rpc) -> None:
    """The request is a POST to / with the method, its parameters and the login."""
    scripted.will(result("aa"))
    assert rpc.call("getblock", "00ff", 0) == "aa"
    (request,) = scripted.requests
    assert (request.path, request.authorization) == ("/", basic("alice:secret"))
    assert (request.body["method"], request.body["params"]) == ("getblock", ["00ff", 0])


def test_call_unquotes_user_and_password(scripted: Scripted) -> None:
    """A password with characters that a URL must encode reaches the node as it is."""
    where = read_url(f"http://al%40ice:p%3A%2F%40%25%C3%BC@{scripted.address}")
    rpc = Rpc(where, find_login(where, None, None))
    scripted.will(result(1))
    rpc.call("getblockcount")
    rpc.close()
    assert scripted.requests[0].authorization == basic("al@ice:p:/@%ü")


def test_call_reads_fractions_exactly(scripted: Scripted, rpc: Rpc) -> None:
    """An amount is a Decimal, as it was printed, and no float."""
    scripted.will(result(b'{"value": 20999999.97690001, "n": 7}'))
    answer = rpc.call("getrawtransaction")
    assert answer == {"value": Decimal("20999999.97690001"), "n": 7}
    assert isinstance(answer["value"], Decimal)


def test_call_keeps_its_connection(scripted: Scripted, rpc: Rpc) -> None:
    """Calls one after the other, failed ones too, go over one connection."""
    scripted.will(result(1), error(-5), result(3))
    rpc.call("a")
    with pytest.raises(MissingData):
        rpc.call("b")
    rpc.call("c")
    assert len({request.connection for request in scripted.requests}) == 1


def test_call_connects_anew_after_an_idle_drop(
    scripted: Scripted, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that the node closed meanwhile costs a new one and no attempt."""
    monkeypatch.setattr(retry, "PAUSES", ())
    scripted.will(result(1, hang_up=True), result(2))
    rpc.call("first")
    connection = rpc._idle[0]
    assert wait_for_read(connection.sock, timeout=5)
    assert rpc.call("second") == 2
    assert [request.connection for request in scripted.requests] == [0, 1]


@pytest.mark.parametrize(
    "fault",
    [
        BUSY,
        error(-28, "Loading block index…"),
        Reply(say_nothing=True),
        result("aabb", missing=10),
        Reply(503, b'{"error": null, "result": 1}'),
    ],
    ids=["busy", "warming up", "hangs up", "cut", "busy in JSON"],
)
def test_call_tries_again_what_passes(scripted: Scripted, rpc: Rpc, fault: Reply) -> None:
    """Two such faults are got over without a word; a third is NodeUnavailable."""
    scripted.will(fault, fault, result(42))
    assert rpc.call("getblockcount") == 42
    scripted.will(fault, fault, fault, result(42))
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
def test_call_names_what_stays_wrong(
    scripted: Scripted, rpc: Rpc, reply: Reply, kind: type[NodeError]
) -> None:
    """What another attempt would not change is raised after one, as what it is, with the node's address."""
    scripted.will(reply, result(1))
    with pytest.raises(NodeError, match=scripted.address) as caught:
        rpc.call("getblock", "00ff")
    assert type(caught.value) is kind
    assert len(scripted.requests) == 1
    assert rpc.call("getblockcount") == 1


def test_call_says_what_was_asked_and_answered(scripted: Scripted, rpc: Rpc) -> None:
    """The message holds the question, the node's words and its code, and never the password."""
    scripted.will(error(-8, "Block height out of range"))
    with pytest.raises(MissingData) as caught:
        rpc.call("getblockhash", 700)
    message = str(caught.value)
    assert "getblockhash 700" in message
    assert "Block height out of range" in message
    assert "-8" in message
    assert "secret" not in message


def test_call_refused_connection(where: NodeUrl, scripted: Scripted) -> None:
    """Where nobody listens the node is unavailable, and the message asks whether it runs."""
    nobody = NodeUrl("127.0.0.1", 1, "alice", "secret")
    with pytest.raises(NodeUnavailable, match=r"Connection refused.*running"):
        Rpc(nobody, find_login(nobody, None, None)).call("getblockcount")


def test_call_times_out(scripted: Scripted, rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that says nothing is given up, once, and asked over another connection later."""
    monkeypatch.setattr(rpc_module, "TIMEOUT", 0.3)
    monkeypatch.setattr(retry, "LONGEST", 0.01)
    late = threading.Event()
    scripted.will(result("late", wait_for=late), result("in time"))
    with pytest.raises(NodeUnavailable, match="timed out"):
        rpc.call("getblockcount")
    assert rpc.call("getblockcount") == "in time"
    late.set()
    assert len(scripted.requests) == 2


def test_call_with_wrong_password(scripted: Scripted, rpc: Rpc) -> None:
    """A refused password is no passing fault; the message names the user only."""
    scripted.will(DENIED)
    with pytest.raises(NodeError, match="alice") as caught:
        rpc.call("getblockcount")
    assert not isinstance(caught.value, NodeUnavailable)
    assert "secret" not in str(caught.value)
    assert len(scripted.requests) == 1


def test_call_reads_a_cookie_again(scripted: Scripted, where: NodeUrl, tmp_path: Path) -> None:
    """A node that was restarted has a new cookie: it is read at the first refusal."""
    file = tmp_path / ".cookie"
    file.write_text("__cookie__:old\n")
    rpc = Rpc(where, Cookie(where, file))
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


@pytest.mark.parametrize("refused", [1, 6], ids=["same cookie", "ever new cookies"])
def test_call_with_a_refused_cookie(scripted: Scripted, where: NodeUrl, tmp_path: Path, refused: int) -> None:
    """A cookie that is refused although it is fresh may be that of a node about to write another."""
    file = tmp_path / ".cookie"
    file.write_text("__cookie__:0")

    def refuse(_: Request) -> Reply:
        file.write_text(f"__cookie__:{len(scripted.requests) % refused}")
        return DENIED

    scripted.always = refuse
    rpc = Rpc(where, Cookie(where, file))
    with pytest.raises(NodeUnavailable, match="refuses"):
        rpc.call("getblockcount")
    rpc.close()
    assert len(scripted.requests) == (3 if refused == 1 else 6)


def test_call_without_cookie_file(where: NodeUrl, tmp_path: Path) -> None:
    """Without the file the node is starting, or elsewhere: unavailable, and the message names the file."""
    file = tmp_path / "regtest" / ".cookie"
    with pytest.raises(NodeUnavailable, match="regtest"):
        Rpc(where, Cookie(where, file)).call("getblockcount")


def test_calls_of_many_threads_do_not_mix(scripted: Scripted, rpc: Rpc) -> None:
    """Each call gets the answer to its own question, however many run at once."""
    scripted.always = lambda request: result(request.body["params"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: rpc.call("echo", number), range(200)))
    assert answers == [[number] for number in range(200)]
    assert len({request.connection for request in scripted.requests}) <= 8


def test_call_dumps_no_result_for_the_debug_log(
    scripted: Scripted, rpc: Rpc, caplog: pytest.LogCaptureFixture
) -> None:
    """The library would turn each block into text once more, for a log that nobody reads."""
    caplog.set_level(logging.DEBUG, "BitcoinRPC")
    scripted.will(result("c0ffee"))
    rpc.call("getblock", "00ff")
    assert "c0ffee" not in caplog.text


def test_close_also_closes_what_is_in_use(scripted: Scripted, rpc: Rpc) -> None:
    """A connection that is in use while its client is closed is not kept when its call ends."""
    going_on = threading.Event()
    scripted.will(result(1, wait_for=going_on))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(rpc.call, "getblockcount")
        rpc.close()
        going_on.set()
        assert call.result() == 1
    assert not rpc._idle


def test_interrupted_call_does_not_leave_its_answer_to_the_next(
    scripted: Scripted, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a KeyboardInterrupt in the middle of a call its connection is not used again."""
    monkeypatch.setattr(retry, "PAUSES", ())
    scripted.always = lambda request: result(request.body["method"])

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rpc_module._Question, "_get_response", interrupt)
        with pytest.raises(KeyboardInterrupt):
            rpc.call("first")
    assert rpc.call("second") == "second"
