"""`/live`: what an open page must know, as server-sent events: that there is another block, or a rollback.

One task asks for the version while a page is open, however many there are. A page that falls behind gets the
last event only: it shows the present.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import Request
from starlette.responses import StreamingResponse

from virtualchain.web.version import Version, Versions

_PAUSE: Final = 1.0
"""Seconds between two looks, and so between two events."""
_KEEP_ALIVE: Final = 15.0
"""Seconds after which a comment shows that the connection is alive."""


class Live:
    """Tells open pages of new versions."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._changed = asyncio.Condition()
        self._event: tuple[int, str] = (0, "")
        """The number of the last event, and its text."""
        self._pages = 0
        self._task: asyncio.Task[None] | None = None

    async def answer(self, request: Request) -> StreamingResponse:
        """Answer `/live` until the page is closed."""
        del request
        return StreamingResponse(
            self._events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _events(self) -> AsyncIterator[str]:
        self._pages += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        try:
            yield "retry: 3000\n\n"
            number = self._event[0]
            while True:
                try:
                    async with asyncio.timeout(_KEEP_ALIVE), self._changed:
                        await self._changed.wait_for(lambda: self._event[0] > number)  # noqa: B023 - called here
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                number, text = self._event
                yield f"data: {text}\n\n"
        finally:
            self._pages -= 1
            if not self._pages and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _look(self) -> None:
        """Ask for the version again and again, and publish each that differs from the one before."""
        before = await self._versions.current()
        while True:
            await asyncio.sleep(_PAUSE)
            now = await self._versions.current()
            if (now and now.digest) == (before and before.digest):
                continue
            async with self._changed:
                self._event = self._event[0] + 1, json.dumps(_describe(before, now))
                self._changed.notify_all()
            before = now


def _describe(before: Version | None, now: Version | None) -> dict[str, object]:
    """Return what a page should know: the last block, and the rollback if there was one since."""
    if now is None:
        return {"unreachable": True}
    rollback = None
    if before is not None and now.reorg_id > before.reorg_id:
        rollback = {"to": now.fork_block_id, "blocks": now.blocks_undone, "ops": now.ops_undone}
    return {"block_id": now.block_id, "block_hash": now.block_hash, "rollback": rollback}
