"""The JSON of events: the same on the command line, in the API and in webhooks."""

from dataclasses import fields
from datetime import UTC
from typing import Any

from virtualchain.model import Json
from virtualchain.reading.events import BlockEvent, PendingEvent, RollbackEvent


def event_json(event: BlockEvent | RollbackEvent | PendingEvent) -> Json:
    """Return an event as an object for `json_text`; its keys are in docs/protocol/interfaces.md."""
    if isinstance(event, PendingEvent):
        return {
            "event": "pending",
            "inputs": [_fields(item) for item in event.inputs],
            "gone": [
                dict(zip(("app", "txid", "payload_index"), item.key, strict=True)) for item in event.gone
            ],
        }
    place = {
        "block_id": event.block_id,
        "block_hash": event.block_hash,
        "position": str(event.position),
    }
    if isinstance(event, RollbackEvent):
        return {"event": "rollback", **place}
    return {
        "event": "block",
        **place,
        "time": event.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ops": [_fields(op) for op in event.ops],
        "changes": [_fields(change) for change in event.changes],
    }


def _fields(value: Any) -> Json:  # noqa: ANN401 - any frozen dataclass of virtualchain
    return {field.name: getattr(value, field.name) for field in fields(value)}
