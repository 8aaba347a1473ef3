"""A fake node that lies: everything it answers is well-formed, and some of it is false."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from virtualchain.testing import FakeNode
from virtualchain.testing.fakenode.server import Answer, Request, json_answer
from virtualchain.testing.tree import StoredBlock
from virtualchain.testing.undo import Coin, make_undo, read_undo


def spend_otherwise(node: FakeNode, height: int, change: Callable[[Coin], Coin]) -> None:
    """Have a node report, wherever it reports it, that a block's transactions spend other outputs."""
    stored = node.chain.tree.chain[height]
    undo = node.chain.undo(stored)
    assert undo is not None
    stored.undo = make_undo([[change(coin) for coin in coins] for coins in read_undo(undo)])


def put(node: FakeNode, raw: bytes) -> StoredBlock:
    """Have a node take a block as its tip that no other node would take."""
    stored = node.chain.tree.add(raw)
    node.chain.tree.activate(stored)
    return stored


def intercept(
    node: FakeNode,
    method: str,
    *,
    ask: Callable[[list[Any]], list[Any]] = lambda parameters: parameters,
    answer: Callable[[list[Any], Any], Any] = lambda _parameters, result: result,
) -> None:
    """Change the parameters of each call of an RPC method, or its result."""
    assert node._server is not None
    server = node._server._server
    honest = server.respond

    def respond(request: Request) -> Answer | None:
        parsed = json.loads(request.body) if request.body else []
        calls = parsed if isinstance(parsed, list) else [parsed]
        if method not in [call["method"] for call in calls]:
            return honest(request)
        asked = [call["params"] for call in calls]
        for call in calls:
            if call["method"] == method:
                call["params"] = ask(list(call["params"]))
        reply = honest(replace(request, body=json.dumps(parsed).encode()))
        if reply is None or reply.status != 200:
            return reply
        replies = json.loads(reply.body)
        for call, parameters, each in zip(
            calls, asked, replies if isinstance(parsed, list) else [replies], strict=True
        ):
            if call["method"] == method and each.get("result") is not None:
                each["result"] = answer(parameters, each["result"])
        return json_answer(replies)

    server.respond = respond
