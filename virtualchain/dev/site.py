"""The pages of one run: their address, the process that has them, and what it asks for.

Each load of the app has a new process for the pages, at the same address: requests that come in between wait.
"""

import secrets
import shlex
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from virtualchain.dev import entry, lines, process
from virtualchain.dev.messages import FORM, HOST
from virtualchain.dev.outcomes import Outcome, mistake
from virtualchain.errors import UsageError
from virtualchain.model import Json
from virtualchain.web.serving import listen

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

PORT: Final = 8090
_KEPT: Final = 20
"""What the last forms have come to, for pages that show it."""

Do = Callable[[lines.Request, str], Outcome]


class Site:
    """Shows a session; `say` gets what forms have asked for, and what came of it."""

    def __init__(
        self, port: int | None, state: Callable[[], Json], do: Do, say: Callable[[str, Outcome], None]
    ) -> None:
        """Open the port; None: the usual one, or any other if that is in use. Raises UsageError."""
        self._state, self._do, self._say = state, do, say
        try:
            self._socket = listen(HOST, PORT if port is None else port)
        except UsageError:
            if port is not None:
                raise
            self._socket = listen(HOST, 0)
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/"
        self.form = f"{self.url.rstrip('/')}{FORM}"
        self._token = secrets.token_urlsafe(32)
        self._process: BaseProcess | None = None
        self._outcomes: deque[tuple[int, str, Outcome]] = deque(maxlen=_KEPT)
        self._count = 0

    def show(self, use: str | None, database: str | None) -> None:
        """Show an app as it is on disk now, and its database."""
        before = self._process
        ours, theirs = process.pipe()
        started = process.start(entry.show, self._socket, use, database, self._token, theirs)
        theirs.close()
        self._process = started
        threading.Thread(target=self._serve, args=(ours, started), name="form", daemon=True).start()
        if before is not None:
            process.end(before)

    def close(self) -> None:
        """End the process, and close the port."""
        last, self._process = self._process, None
        if last is not None:
            process.end(last)
        self._socket.close()

    def _serve(self, pipe: Connection, served: "BaseProcess") -> None:
        """Answer what one process asks, until it ends."""
        with suppress(EOFError, OSError):
            while True:
                what, argument = pipe.recv()
                pipe.send(self._take(argument) if what == "do" else self._look(argument))
        if served is self._process:
            self._say("", mistake("pages", "the process of the pages has ended: `reload` starts another one"))

    def _take(self, words: list[str]) -> int:
        """Do what a form asks for; return the number of what came of it."""
        try:
            outcome = self._do(lines.read_words(words), words[0])
        except UsageError as error:
            outcome = mistake(words[0], str(error))
        line = shlex.join(word for word in words if word != "--")
        self._count += 1
        self._outcomes.append((self._count, line, outcome))
        self._say(line, outcome)
        return self._count

    def _look(self, number: str | None) -> Json:
        shown: Any = None
        for count, line, outcome in self._outcomes:
            if str(count) == number:
                inputs = outcome.data.get("inputs") or [{}]
                block_id = inputs[0].get("block_id")
                shown = {"ok": not outcome.is_bad, "line": line, "lines": outcome.lines, "block_id": block_id}
        return {**self._state(), "outcome": shown}
