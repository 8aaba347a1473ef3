"""Faults to order: what goes wrong with the next requests of a fake node."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from virtualchain.errors import UsageError

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "refuse": "the connection is closed without an answer",
        "hang": "no answer comes before heal() or close()",
        "slow": "the answer comes late, after `seconds`",
        "cut": "the connection breaks in the middle of the answer",
        "garbage": "HTTP 200 with a body that is neither JSON nor a block",
        "truncate": "the first half of a block or of spent outputs, as if that were all",
        "wrong_block": "another block than the one asked for",
        "busy": "HTTP 503, `Work queue depth exceeded`",
        "unauthorized": "HTTP 401 in spite of the right password (JSON-RPC only)",
        "warming_up": "error -28, as from a node that starts",
    }
)
"""Every kind of fault and what it does."""

_BLOCKS = ("getblock", "/rest/block/")
_ONLY_ON: Final = {
    "truncate": (*_BLOCKS, "/rest/spenttxouts/"),
    "wrong_block": _BLOCKS,
}


@dataclass(slots=True)
class Fault:
    """A fault that waits for its requests."""

    kind: str
    left: int | None
    """For how many requests it lasts; None until it is healed."""
    on: str
    """What the name of a request must contain."""
    seconds: float

    def meets(self, name: str) -> bool:
        """Say whether the fault strikes a request: a method's name, or the path of a REST request."""
        if self.on not in name:
            return False
        if self.kind == "unauthorized":
            return not name.startswith("/rest/")
        if self.kind not in _ONLY_ON:
            return True
        return any(name == each or (each[0] == "/" and name.startswith(each)) for each in _ONLY_ON[self.kind])


class Faults:
    """The faults of one node, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self._healed = threading.Event()

    def plan(self, kind: str, times: int | None, on: str, seconds: float) -> None:
        """Add a fault; raises UsageError where there is no such kind, or no request would meet it."""
        if kind not in KINDS:
            raise UsageError(f"there is no fault {kind!r}: choose one of {', '.join(KINDS)}")
        if times is not None and times < 1:
            raise UsageError(f"a fault lasts for at least one request, not {times}")
        with self._lock:
            self._planned.append(Fault(kind, times, on, seconds))

    def take(self, name: str) -> Fault | None:
        """Give the first fault that strikes this request, and count it."""
        with self._lock:
            fault = next((planned for planned in self._planned if planned.meets(name)), None)
            if fault is not None and fault.left is not None:
                fault.left -= 1
                if fault.left == 0:
                    self._planned.remove(fault)
            return fault

    def heal(self) -> None:
        """End every fault, also for the requests that wait in one."""
        with self._lock:
            self._planned.clear()
            self._healed.set()
            self._healed = threading.Event()

    def wait(self, seconds: float | None) -> None:
        """Wait so long, or until the faults are healed."""
        with self._lock:
            healed = self._healed
        healed.wait(seconds)
