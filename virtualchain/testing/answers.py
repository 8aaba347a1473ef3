"""HTTP answers in the forms that bitcoind uses."""

from dataclasses import dataclass
from typing import Final

from virtualchain.testing.verbose import dumps

HTML: Final = "text/html; charset=ISO-8859-1"
"""What bitcoind's HTTP library writes where bitcoind itself names no type."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    content_type: str
    body: bytes
    challenge: bool = False
    """Whether it asks for a user and password."""
    breaks_off: bool = False
    """Whether the connection ends in the middle of the body."""


NOT_FOUND: Final = Answer(404, HTML, b"")
UNAUTHORIZED: Final = Answer(401, HTML, b"", challenge=True)
ONLY_POST: Final = Answer(405, HTML, b"JSONRPC server handles only POST requests")
BUSY: Final = Answer(503, HTML, b"Work queue depth exceeded")
NO_CONTENT: Final = Answer(204, HTML, b"")


def json_answer(value: object, status: int = 200) -> Answer:
    """Answer with JSON and a line end."""
    return Answer(status, "application/json", dumps(value) + b"\n")


def binary_answer(body: bytes) -> Answer:
    """Answer with bytes."""
    return Answer(200, "application/octet-stream", body)


def hex_answer(body: bytes) -> Answer:
    """Answer with bytes as hex and a line end."""
    return Answer(200, "text/plain", body.hex().encode() + b"\n")


def rest_error(status: int, message: str) -> Answer:
    """Refuse a REST request."""
    return Answer(status, "text/plain", f"{message}\r\n".encode())
