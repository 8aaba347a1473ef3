"""The JSON of events: the same on the command line, in the API and in webhooks."""

from dataclasses import fields
from datetime import UTC

from virtualchain.model import Json
from virtualchain.reading.events import (
    AcceptedOp,
    BlockEvent,
    Change,
    PendingEvent,
    PendingInput,
    RollbackEvent,
)


def event_json(event: BlockEvent | RollbackEvent | PendingEvent) -> Json:
    """Return an event as an object for `json_text`; its keys are in docs/protocol/interfaces.md."""
    if isinstance(event, PendingEvent):
        return {
            "event": "pending",
            "inputs": [item_json(item) for item in event.inputs],
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
        "ops": [item_json(op) for op in event.ops],
        "changes": [item_json(change) for change in event.changes],
    }


def item_json(value: AcceptedOp | Change | PendingInput) -> Json:
    """Return an op, a change or a pending input as an object, by its fields."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
