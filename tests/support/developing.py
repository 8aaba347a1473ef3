"""An app that is written with `virtualchain dev`, and a dev that runs, for tests."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtualchain.model import Json

if TYPE_CHECKING:
    from tests.acceptance.conftest import Running

APP = """
from virtualchain import App, Rejected

app = App("guestbook", magic=b"gb", projections="guestbook.sql")


@app.opcode(b"s", fields=["author", "message"])
class Sign:
    def parse(self, payload, senders):
        return {"author": senders[0]["addresses"][0], "message": payload.decode()}

    def encode(self, message: str):
        return message.encode()

    def check(self, op, state):
        signed = state.one("SELECT count(*) AS n FROM entries WHERE author = %s", [op["author"]])
        return signed["n"] < 2 or Rejected("an author may sign twice")

    def commit(self, op, state, block_id, vtxindex):
        divisor = len(op["message"]) - 4
        share = 100 // divisor
        state.execute(
            "INSERT INTO entries VALUES (%s, %s, %s, %s)", [block_id, vtxindex, op["author"], op["message"]]
        )
"""
SQL = """
CREATE TABLE entries (
    block_id integer, vtxindex integer, author text, message text, PRIMARY KEY (block_id, vtxindex)
);
"""
PREMINED = 101
DIVISION = "100 // divisor"


class Dev:
    """A running dev, which prints JSON."""

    def __init__(self, running: "Running") -> None:
        self._running = running
        self.seen = 0

    def next(self, event: str) -> Json:
        """Wait for the next outcome of this kind, and return it; those before it are passed over."""
        outcomes: list[Json] = []

        def look() -> bool:
            lines = self._running.out.splitlines(keepends=True)
            for number, line in enumerate(lines[self.seen :], self.seen + 1):
                if line.endswith("\n") and json.loads(line)["event"] == event:
                    outcomes.append(json.loads(line))
                    self.seen = number
                    return True
            return False

        self._running.until(look)
        return outcomes[0]

    def do(self, line: str) -> Json:
        """Write a line, and return its outcome."""
        self._running.write(line)
        return self.next(line.split(maxsplit=1)[0])

    def rows(self) -> list[Any]:
        """Return the messages in the table, in order."""
        return [row["message"] for row in self.do("rows entries")["rows"]]

    def kill(self) -> None:
        """Kill it, as if the machine failed."""
        self._running.signal(signal.SIGKILL)

    def end(self) -> int:
        """End its input; return its exit code."""
        return self._running.end().code


def save(file: Path, old: str, new: str) -> None:
    """Change a file as an editor does that writes all of it."""
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new))
