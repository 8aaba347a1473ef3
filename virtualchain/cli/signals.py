"""SIGINT and SIGTERM, so that a command ends between two steps of its work."""

import signal
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Signals:
    """Turns SIGINT and SIGTERM into a quiet end: through `stop` where it is set, at once before that."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self._asked = 0

    def may_go_on(self) -> bool:
        """Tell whether nobody has asked for the end; for work that asks this between its steps."""
        return not self._asked

    def work_in_steps(self) -> None:
        """Let the first signal only be noted: the work asks `may_go_on`."""
        self.stop = lambda: None

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return kind is KeyboardInterrupt and self._asked == 1

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked += 1
        if self.stop is None or self._asked > 1:
            raise KeyboardInterrupt
        self.stop()
