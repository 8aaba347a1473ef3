"""Between HTTP and the node: who may ask, whom a request is for, and what goes wrong with it."""

import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from virtualchain.testing import jsonrpc, rest
from virtualchain.testing.answers import (
    BUSY,
    NOT_FOUND,
    ONLY_POST,
    UNAUTHORIZED,
    Answer,
    json_answer,
    rest_error,
)
from virtualchain.testing.faults import Fault, Faults
from virtualchain.testing.methods import RpcError
from virtualchain.testing.server import Request
from virtualchain.testing.state import NodeState

_REST: Final = "/rest/"
_WARM_UP: Final = "Loading block index…"
_GARBAGE: Final = Answer(200, "application/json", b"\x00\xffneither JSON nor a block")

_Compute = Callable[[NodeState], Answer]


@dataclass(slots=True)
class Service:
    """What a node offers over HTTP."""

    state: NodeState
    user: str
    password: str
    rest: bool
    """Whether there is a REST interface."""
    spent_outputs: bool
    """Whether it has /rest/spenttxouts."""
    faults: Faults = field(default_factory=Faults)
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while the chain changes and while an answer is made from it."""

    def respond(self, request: Request) -> Answer | None:
        """Answer a request; None breaks off the connection."""
        path, _, query = request.target.partition("?")
        if path.startswith(_REST):
            return self._respond_rest(path, query)
        if path != "/" and not path.startswith("/wallet/"):
            return NOT_FOUND
        if request.method != "POST":
            return ONLY_POST
        if request.authorization != self._credentials():
            return UNAUTHORIZED
        return self._respond_rpc(jsonrpc.parse(request.body))

    def _respond_rest(self, path: str, query: str) -> Answer | None:
        self._count(["/".join(path.split("/")[:3])])
        starting = rest_error(503, f"Service temporarily unavailable: {_WARM_UP}")

        def compute(state: NodeState) -> Answer:
            if not self.rest:
                return NOT_FOUND
            return rest.answer(state, path.removeprefix(_REST), query, spent_outputs=self.spent_outputs)

        return self._strike(self.faults.take(path), starting, compute)

    def _respond_rpc(self, call: object) -> Answer | None:
        names = jsonrpc.method_names(call)
        self._count(names)
        starting = jsonrpc.answer(self.state, call, RpcError(jsonrpc.WARMING_UP, _WARM_UP))
        return self._strike(
            self.faults.take(" ".join(names)), starting, lambda state: jsonrpc.answer(state, call)
        )

    def _strike(self, fault: Fault | None, starting: Answer, compute: _Compute) -> Answer | None:
        """Make the answer, and spoil it where a fault says so."""
        kind = None if fault is None else fault.kind
        instead = {"garbage": _GARBAGE, "busy": BUSY, "unauthorized": UNAUTHORIZED, "warming_up": starting}
        if kind in instead:
            return instead[kind]
        if kind == "refuse":
            return None
        if fault is not None and kind in {"hang", "slow"}:
            self.faults.wait(None if kind == "hang" else fault.seconds)
        with self.lock:
            answer = compute(replace(self.state, confused=kind == "wrong_block"))
        if kind == "cut":
            return replace(answer, breaks_off=True)
        return _half(answer) if kind == "truncate" else answer

    def _count(self, names: list[str]) -> None:
        with self.lock:
            self.calls.update(names)

    def _credentials(self) -> str:
        return "Basic " + b64encode(f"{self.user}:{self.password}".encode()).decode()


def _half(answer: Answer) -> Answer:
    """Keep the first half of what was to be told; JSON stays whole around a block in hex."""
    if answer.status == 200 and answer.content_type == "application/json":
        reply = json.loads(answer.body)
        if isinstance(reply, dict) and isinstance(reply.get("result"), str):
            block = reply["result"]
            return json_answer(reply | {"result": block[: len(block) // 4 * 2]})
    return replace(answer, body=answer.body[: len(answer.body) // 4 * 2])
