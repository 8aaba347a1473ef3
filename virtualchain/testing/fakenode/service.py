"""From an HTTP request to its answer: the password, the interface that answers, and faults."""

import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from virtualchain.errors import UsageError
from virtualchain.testing.fakenode import rest, rpc
from virtualchain.testing.fakenode.server import (
    BUSY,
    NOT_FOUND,
    ONLY_POST,
    UNAUTHORIZED,
    Answer,
    Request,
    json_answer,
    rest_error,
)
from virtualchain.testing.fakenode.state import ChainLock, NodeState

FAULT_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "refuse": "the connection is closed without an answer",
        "hang": "no answer comes before heal() or close()",
        "slow": "the answer comes late, after `seconds`",
        "cut": "the connection breaks in the middle of the answer",
        "garbage": "HTTP 200 with a body that is neither JSON nor a block",
        "truncate": "only the first half of a block or of spent outputs, as if it were complete",
        "wrong_block": "a block other than the requested one",
        "busy": "HTTP 503, `Work queue depth exceeded`",
        "unauthorized": "HTTP 401 despite the right password (JSON-RPC only)",
        "warming_up": "error -28, as from a node that is starting",
    }
)
"""Every kind of fault and its effect."""

_BLOCK_REQUESTS = ("getblock", "/rest/block/")
_ONLY_ON: Final = {
    "truncate": (*_BLOCK_REQUESTS, "/rest/spenttxouts/"),
    "wrong_block": _BLOCK_REQUESTS,
}
"""The RPC methods and the prefixes of REST paths to which a fault is limited."""

_REST: Final = "/rest/"
_WARM_UP: Final = "Loading block index…"
_GARBAGE: Final = Answer(200, "application/json", b"\x00\xffneither JSON nor a block")

_Compute = Callable[[NodeState], Answer]


@dataclass(slots=True)
class Fault:
    """A fault that waits for requests."""

    kind: str
    remaining: int | None
    """The number of requests that it still affects; None until it is healed."""
    on: str
    """What the name of a request must contain."""
    seconds: float

    def affects(self, name: str) -> bool:
        """Check whether the fault affects a request, named by its RPC method or its REST path."""
        if self.on not in name:
            return False
        if self.kind == "unauthorized":
            return not name.startswith(_REST)
        if self.kind not in _ONLY_ON:
            return True
        return any(name == each or (each[0] == "/" and name.startswith(each)) for each in _ONLY_ON[self.kind])


class Faults:
    """The planned faults of one node, in the order in which they were requested."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self._healed = threading.Event()

    def plan(self, kind: str, times: int | None, on: str, seconds: float) -> None:
        """Add a fault; raises UsageError if the kind is unknown or `times` is below 1."""
        if kind not in FAULT_KINDS:
            raise UsageError(f"there is no fault {kind!r}: choose one of {', '.join(FAULT_KINDS)}")
        if times is not None and times < 1:
            raise UsageError(f"a fault lasts for at least one request, not {times}")
        with self._lock:
            self._planned.append(Fault(kind, times, on, seconds))

    def take(self, name: str) -> Fault | None:
        """Return the first fault that affects this request, and count the request."""
        with self._lock:
            fault = next((planned for planned in self._planned if planned.affects(name)), None)
            if fault is not None and fault.remaining is not None:
                fault.remaining -= 1
                if fault.remaining == 0:
                    self._planned.remove(fault)
            return fault

    def heal(self) -> None:
        """End every fault, also for requests that are waiting because of one."""
        with self._lock:
            self._planned.clear()
            self._healed.set()
            self._healed = threading.Event()

    def wait(self, seconds: float | None) -> None:
        """Wait for this time (None: without limit), or until the faults are healed."""
        with self._lock:
            healed = self._healed
        healed.wait(seconds)


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

    @property
    def lock(self) -> ChainLock:
        """Held while the chain changes and while an answer is computed from it."""
        return self.state.lock

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
        return self._respond_rpc(rpc.parse(request.body))

    def _respond_rest(self, path: str, query: str) -> Answer | None:
        self._count(["/".join(path.split("/")[:3])])
        warming_up = rest_error(503, f"Service temporarily unavailable: {_WARM_UP}")

        def compute(state: NodeState) -> Answer:
            if not self.rest:
                return NOT_FOUND
            return rest.answer(state, path.removeprefix(_REST), query, spent_outputs=self.spent_outputs)

        return self._answer(self.faults.take(path), warming_up, compute)

    def _respond_rpc(self, call: object) -> Answer | None:
        names = rpc.method_names(call)
        self._count(names)
        warming_up = rpc.answer(self.state, call, rpc.RpcError(rpc.WARMING_UP, _WARM_UP))
        return self._answer(
            self.faults.take(" ".join(names)), warming_up, lambda state: rpc.answer(state, call)
        )

    def _answer(self, fault: Fault | None, warming_up: Answer, compute: _Compute) -> Answer | None:
        """Compute the answer, and damage or replace it as a fault requires."""
        kind = None if fault is None else fault.kind
        substitutes = {
            "garbage": _GARBAGE,
            "busy": BUSY,
            "unauthorized": UNAUTHORIZED,
            "warming_up": warming_up,
        }
        if kind in substitutes:
            return substitutes[kind]
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
    """Keep the first half of the content; if it is a block in hex, the JSON around it stays intact."""
    if answer.status == 200 and answer.content_type == "application/json":
        reply = json.loads(answer.body)
        if isinstance(reply, dict) and isinstance(reply.get("result"), str):
            block = reply["result"]
            return json_answer(reply | {"result": block[: len(block) // 4 * 2]})
    return replace(answer, body=answer.body[: len(answer.body) // 4 * 2])
