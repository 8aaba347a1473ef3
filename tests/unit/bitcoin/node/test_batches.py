"""Batches of calls: each answer belongs to its question, and what refuses batches is asked one by one."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.bitcoin.node.fakes import Reply, Request, ScriptedServer
from virtualchain.bitcoin.node import client
from virtualchain.bitcoin.node.client import MOST_IN_BATCH, NotOffered, Rpc
from virtualchain.bitcoin.node.login import find_login, read_url
from virtualchain.errors import MissingData, NodeError, NodeUnavailable
from virtualchain.testing import FakeNode

Questions = list[dict[str, Any]]
QUESTIONS = [(number,) for number in range(5)]
SQUARES = [number * number for number in range(5)]


def square(question: dict[str, Any]) -> dict[str, Any]:
    """Answer a question with the square of its parameter."""
    (number,) = question["params"]
    return {"jsonrpc": "2.0", "result": number * number, "id": question["id"]}


def squares(questions: Questions) -> object:
    """Answer a batch."""
    return [square(each) for each in questions]


def serve(
    scripted: ScriptedServer,
    answer: Callable[[Questions], object] = squares,
    single: Callable[[dict[str, Any]], dict[str, Any]] = square,
) -> None:
    """Answer batches in one way and single questions in another; a reply is sent as it is."""

    def reply(request: Request) -> Reply:
        answered = answer(request.body) if isinstance(request.body, list) else single(request.body)
        return answered if isinstance(answered, Reply) else Reply(body=json.dumps(answered).encode())

    scripted.always = reply


def sizes(scripted: ScriptedServer) -> list[int]:
    """Return how many questions each request had, 0 for one that is not a batch."""
    return [len(request.body) if isinstance(request.body, list) else 0 for request in scripted.requests]


@pytest.mark.parametrize("order", [1, -1])
def test_answers_belong_to_their_questions(scripted: ScriptedServer, rpc: Rpc, order: int) -> None:
    """One request has all questions, and the order of the answers does not matter."""
    serve(scripted, lambda questions: [square(each) for each in questions][::order])
    assert list(rpc.call_each("square", QUESTIONS)) == SQUARES
    assert sizes(scripted) == [5]
    assert scripted.requests[0].authorization
    assert len({each["id"] for each in scripted.requests[0].body}) == 5
    assert list(rpc.call_each("square", [])) == []
    assert list(rpc.call_each("square", [(9,)])) == [81]
    assert sizes(scripted) == [5, 0]


def test_batches_have_a_most_and_come_when_they_are_needed(scripted: ScriptedServer, rpc: Rpc) -> None:
    """Many questions are several batches; the next one is sent once the one before is used up."""
    serve(scripted)
    answers = rpc.call_each("square", ((number,) for number in range(2 * MOST_IN_BATCH + 1)))
    assert [next(answers) for _ in range(MOST_IN_BATCH)] == [n * n for n in range(MOST_IN_BATCH)]
    assert sizes(scripted) == [MOST_IN_BATCH]
    assert len(list(answers)) == MOST_IN_BATCH + 1
    assert sizes(scripted) == [MOST_IN_BATCH, MOST_IN_BATCH, 0]


def with_error(code: int, message: str = "no") -> Callable[[Questions], object]:
    """Answer the third question with an error."""

    def answer(questions: Questions) -> object:
        answers = [square(each) for each in questions]
        answers[2] = {"error": {"code": code, "message": message}, "id": questions[2]["id"]}
        return answers

    return answer


@pytest.mark.parametrize(
    ("code", "kind"),
    [(-5, MissingData), (-8, MissingData), (-32603, MissingData), (-32601, NotOffered), (-3, NodeError)],
)
def test_an_error_is_that_of_a_single_call(
    scripted: ScriptedServer, rpc: Rpc, code: int, kind: type[NodeError]
) -> None:
    """It is raised at its turn, after one request, and names the call."""
    serve(scripted, with_error(code))
    answers = rpc.call_each("square", QUESTIONS)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(NodeError, match=r"square 2.*code") as caught:
        next(answers)
    assert type(caught.value) is kind
    assert sizes(scripted) == [5]


def test_temporary_faults_are_retried(scripted: ScriptedServer, rpc: Rpc) -> None:
    """A node that is starting, in one answer or in all, and one that hangs up are asked again."""
    faults: list[Callable[[Questions], object]] = [
        lambda _: Reply(no_answer=True),
        with_error(-28, "Loading block index…"),
    ]

    def answer(questions: Questions) -> object:
        return faults.pop()(questions) if faults else squares(questions)

    serve(scripted, answer)
    assert list(rpc.call_each("square", QUESTIONS)) == SQUARES
    assert sizes(scripted) == [5, 5, 5]


REFUSALS: dict[str, Callable[[Questions], object]] = {
    "an error instead of answers": lambda _: {"error": {"code": -32600, "message": "no batches"}, "id": None},
    "not allowed": lambda _: Reply(405, b"", "text/html"),
    "forbidden": lambda _: Reply(403, b"", "text/html"),
    "too large": lambda _: Reply(413, b"<html>", "text/html"),
    "busy": lambda _: Reply(503, b"", "text/html"),
    "hangs up": lambda _: Reply(no_answer=True),
    "no JSON": lambda _: Reply(200, b"hello"),
    "only the first": lambda questions: [square(questions[0])],
    "none": lambda _: [],
    "one more": lambda questions: [*map(square, questions), square(questions[0]) | {"result": 666}],
    "one twice": lambda questions: [square(each) for each in [*questions[:4], questions[0]]],
    "another number": lambda questions: [square({**each, "id": 7}) for each in questions],
    "numbers as text": lambda questions: [square(each) | {"id": str(each["id"])} for each in questions],
    "numbers that are no integers": lambda questions: [
        square(each) | {"id": True if each["id"] == 1 else each["id"]} for each in questions
    ],
    "no numbers": lambda questions: [{"result": square(each)["result"]} for each in questions],
    "lists as numbers": lambda questions: [square(each) | {"id": [each["id"]]} for each in questions],
    "no results": lambda questions: [{"id": each["id"]} for each in questions],
    "no objects": lambda questions: [square(each)["result"] for each in questions],
    "errors that are none": lambda questions: [square(each) | {"error": "no"} for each in questions],
    "single answer": lambda questions: square(questions[0]),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_what_refuses_batches_is_asked_one_by_one(
    scripted: ScriptedServer,
    rpc: Rpc,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Callable[[Questions], object],
) -> None:
    """In whatever way it refuses; it is spared further batches for a while."""
    monkeypatch.setattr(client, "REFUSAL_TIME", 1.0)
    serve(scripted, refusal)
    assert list(rpc.call_each("square", QUESTIONS)) == SQUARES
    scripted.requests.clear()
    assert list(rpc.call_each("square", QUESTIONS)) == SQUARES
    assert sizes(scripted) == [0] * 5
    rpc._batches._refused_until = 0.0  # the while is over
    serve(scripted)
    assert list(rpc.call_each("square", QUESTIONS)) == SQUARES
    assert sizes(scripted) == [0] * 5 + [5]


def test_a_fault_of_the_node_is_not_one_of_its_batches(scripted: ScriptedServer, rpc: Rpc) -> None:
    """If single calls fail as well, batches are sent again."""
    scripted.always = lambda _: Reply(503, b"Work queue depth exceeded", "text/html")
    with pytest.raises(NodeUnavailable):
        list(rpc.call_each("square", QUESTIONS))
    serve(scripted)
    scripted.requests.clear()
    assert list(rpc.call_each("square", QUESTIONS)) == SQUARES
    assert sizes(scripted) == [5]


def test_a_batch_whose_answers_are_too_long_is_halved(
    scripted: ScriptedServer, rpc: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers have the limit of one answer together, and a smaller batch may keep it."""
    monkeypatch.setattr(client, "LARGEST_ANSWER", 1000)

    def long(question: dict[str, Any]) -> dict[str, Any]:
        return {"result": "x" * 300, "id": question["id"]}

    serve(scripted, lambda questions: [long(each) for each in questions], long)
    assert list(rpc.call_each("getrawtransaction", [(each, 0) for each in "abcdefg"])) == ["x" * 300] * 7
    assert sizes(scripted) == [7, 3, 4, 2, 2]
    assert rpc._batches.is_due()
    monkeypatch.setattr(client, "LARGEST_ANSWER", 200)
    with pytest.raises(NodeError, match="more than 200 bytes"):
        list(rpc.call_each("getrawtransaction", [("a", 0), ("b", 0)]))


def test_a_refused_login_is_renewed(scripted: ScriptedServer, rpc: Rpc) -> None:
    """A wrong password is an error of its own, as it is for a single call."""
    scripted.always = lambda _: Reply(401, b"", "text/html")
    with pytest.raises(NodeError, match="password"):
        list(rpc.call_each("square", QUESTIONS))


def test_batches_against_the_fake_node(node: FakeNode) -> None:
    """A node's own form of answers is understood, its errors included."""
    url = read_url(node.url)
    rpc = Rpc(url, find_login(url, None, None))
    hashes = list(rpc.call_each("getblockhash", [(height,) for height in range(100)]))
    assert hashes == [rpc.call("getblockhash", height) for height in range(100)]
    with pytest.raises(MissingData, match="getblockhash 9999"):
        list(rpc.call_each("getblockhash", [(0,), (9999,)]))
    rpc.close()
