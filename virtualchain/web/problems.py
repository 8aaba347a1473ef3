"""What an error means to who asked over HTTP: a status, and a title; the detail is the error's message."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from virtualchain.errors import DatabaseUnavailable, StoreError, UsageError, VirtualchainError
from virtualchain.reading.views import BlockNotShown
from virtualchain.web.sessions import Busy, Interrupted, TooSlow

RETRY_AFTER: Final = "2"
"""Seconds after which a request that came too early may be repeated."""


class NotFound(UsageError):
    """There is no such app, table, row, block, transaction or page."""


class PageFailed(VirtualchainError):
    """A page of an app's own is wrong: its author must mend it."""


class NotOffered(UsageError):
    """This server does not do that."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as RFC 9457 describes it."""

    status: HTTPStatus
    title: str
    detail: str

    def as_json(self) -> dict[str, object]:
        """Return the members of `application/problem+json`."""
        return {"type": "about:blank", "title": self.title, "status": int(self.status), "detail": self.detail}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        is_early = self.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}
        return {"Cache-Control": "no-store"} | ({"Retry-After": RETRY_AFTER} if is_early else {})


_ADDRESS: Final = re.compile(r"(the database )?postgresql://\S+")
_BY_ERROR: Final = (
    (NotFound, HTTPStatus.NOT_FOUND, "Not found"),
    (NotOffered, HTTPStatus.FORBIDDEN, "Not offered"),
    (BlockNotShown, HTTPStatus.NOT_FOUND, "This block cannot be shown"),
    (UsageError, HTTPStatus.BAD_REQUEST, "This request cannot be answered"),
    (Busy, HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests"),
    (Interrupted, HTTPStatus.SERVICE_UNAVAILABLE, "This was interrupted"),
    (TooSlow, HTTPStatus.SERVICE_UNAVAILABLE, "This took too long"),
    (DatabaseUnavailable, HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be reached"),
    (StoreError, HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be read"),
    (PageFailed, HTTPStatus.INTERNAL_SERVER_ERROR, "This page of the app does not work"),
)


def problem_of(error: Exception) -> Problem:
    """Return what an error means.

    Where the database is remains in the log. Of an error that is not virtualchain's, which is a bug, nothing
    is shown at all.
    """
    if isinstance(error, DatabaseUnavailable):
        error = DatabaseUnavailable("it may be starting, or be stopped; the server's log says more")
    for kind, status, title in _BY_ERROR:
        if isinstance(error, kind):
            return Problem(status, title, _ADDRESS.sub("the database", str(error)))
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here", "The server's log says more."
    )
