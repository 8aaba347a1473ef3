"""`/`: the deployment at a glance."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from virtualchain.engine.expectations import describe_mismatch
from virtualchain.model import Json
from virtualchain.reading import journal
from virtualchain.web.rendering import page, render, site_of
from virtualchain.web.words import ago, as_time, counted

_BLOCKS: Final = 10
_SILENT: Final = 60.0
"""Seconds after which a writer that has not reported may be gone."""
_RECENT: Final = 300.0
"""Seconds over which the rate is measured."""


@page
def show(request: Request) -> Response:
    """Show the deployment."""
    with site_of(request).sessions.snapshot() as connection:
        glance = journal.deployment(connection)
        blocks = journal.blocks(connection, limit=_BLOCKS).rows
        samples = [item.value for item in journal.progress(connection)]
    return render(
        "overview.html",
        here="/",
        live=True,
        glance=glance,
        blocks=blocks,
        writer=describe_writer(glance),
        rate=rate(samples),
        lag=lag_of(glance),
        warnings=warnings(glance),
    )


def describe_writer(glance: Json) -> dict[str, str]:
    """Describe the process that follows the chain: its state in a word, a note, and how it looks."""
    writer = glance["writer"]
    if writer is None or (writer["started_at"] is None and writer["seen_at"] is None):
        return {"state": "none", "note": "none has reported here yet", "kind": "is-warn"}
    if writer["stopped_at"] is not None:
        return {"state": "stopped", "note": f"it ended {ago(writer['stopped_at'])}", "kind": "is-warn"}
    confirmations = counted(writer["confirmations"], "confirmation")
    seen = as_time(writer["seen_at"])
    now = as_time(glance["now"]) or datetime.now(UTC)
    if seen is None or (now - seen).total_seconds() > _SILENT:
        return {
            "state": "silent",
            "note": f"it reported {ago(writer['seen_at'])}: it is busy, or gone",
            "kind": "is-warn",
        }
    return {"state": "running", "note": f"takes blocks with {confirmations}", "kind": "is-good"}


def lag_of(glance: Json) -> int | None:
    """Count the blocks between the tape's last and the node's, as the writer knew it; None if unknown."""
    writer, last = glance["writer"], glance["last_block"]
    if writer is None or writer["node_block_id"] is None or last is None:
        return None
    return max(0, int(writer["node_block_id"]) - int(last["block_id"]))


def rate(samples: Sequence[Json]) -> float | None:
    """Return how many blocks a second were taken in the last minutes; None if that is not known."""
    known = [sample for sample in samples if sample["block_id"] is not None]
    if len(known) < 2:
        return None
    last = known[-1]
    recent = [sample for sample in known if _seconds(sample, last) <= _RECENT]
    first = recent[0] if len(recent) > 1 else known[-2]
    seconds = _seconds(first, last)
    return max(0, last["block_id"] - first["block_id"]) / seconds if seconds > 0 else None


def _seconds(first: Json, last: Json) -> float:
    before, after = as_time(first["at"]), as_time(last["at"])
    return (after - before).total_seconds() if before and after else 0.0


def warnings(glance: Json) -> list[dict[str, Any]]:
    """Describe what an operator must look at: title, words, and how bad it is."""
    found_apps = glance["apps"]
    listed: list[dict[str, Any]] = []
    for app in found_apps:
        if app["status"] == "halted":
            error = app["error"] or {}
            listed.append(
                {
                    "kind": "is-bad",
                    "title": f"{app['name']} is halted before block {error.get('block_id', '?'):,}"
                    if isinstance(error.get("block_id"), int)
                    else f"{app['name']} is halted",
                    "words": error.get("error", "It does not say why."),
                    "app": app["name"],
                }
            )
        if app["unexpected"] is not None:
            listed.append(
                {
                    "kind": "is-bad",
                    "title": f"{app['name']} has another digest than expected",
                    "words": describe_mismatch(app["unexpected"]),
                    "app": app["name"],
                }
            )
        if app["code_changed"]:
            listed.append(
                {
                    "kind": "is-warn",
                    "title": f"The code of {app['name']} has changed",
                    "words": "Its tables were begun with other code under the same version: `virtualchain "
                    "upgrade` derives them with the new code, and says what differs.",
                    "app": app["name"],
                }
            )
    return listed


ROUTES: Final = (("/", show),)
