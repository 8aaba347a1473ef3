"""What is delivered: an event as one or several signed messages, whose form is in docs/webhooks.md."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from virtualchain.app.fields import NO_OPCODE, NO_PAYLOAD, opcode_text
from virtualchain.model import Json
from virtualchain.reading.event_json import event_json, item_json
from virtualchain.reading.events import AcceptedOp, BlockEvent, Change, RollbackEvent
from virtualchain.reading.json_text import json_text
from virtualchain.settings import WebhookSetting

LARGEST: Final = 256 * 1024
"""Bytes of ops and changes in one message, unless a single one is larger."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where and what to deliver, and the secret to sign it with."""

    setting: WebhookSetting
    key: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return self.setting.name

    @property
    def wants_ops(self) -> bool:
        """Whether ops are delivered: not if only tables are named."""
        return self.setting.opcodes is not None or self.setting.tables is None

    @property
    def wants_changes(self) -> bool:
        """Whether changes are delivered: not if only opcodes are named."""
        return self.setting.tables is not None or self.setting.opcodes is None

    @property
    def opcodes(self) -> list[bytes] | None:
        """The opcodes as the log has them; None: all."""
        if self.setting.opcodes is None:
            return None
        return sorted({_opcode_bytes(text) for text in self.setting.opcodes})

    def takes_op(self, op: AcceptedOp) -> bool:
        """Return whether an op is delivered."""
        names = self.setting.opcodes
        return self.wants_ops and (names is None or opcode_text(op.opcode, op.payload) in names)

    def takes_change(self, change: Change) -> bool:
        """Return whether a change is delivered."""
        names = self.setting.tables
        return self.wants_changes and (names is None or change.table in names)


def _opcode_bytes(text: str) -> bytes:
    if text in {NO_OPCODE, NO_PAYLOAD}:
        return b""
    return text.encode() if len(text) == 1 else bytes.fromhex(text.removeprefix("0x"))


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery."""

    event: str
    """block or rollback."""
    id: str
    """Name of the webhook, position and number of the part: the same at each attempt and replay."""
    body: bytes

    def headers(self, key: bytes, timestamp: int) -> Mapping[str, str]:
        """Return the headers of an attempt at this time, in seconds since 1970."""
        return {
            "Content-Type": "application/json",
            "Virtualchain-Event": self.event,
            "Virtualchain-Id": self.id,
            "Virtualchain-Timestamp": str(timestamp),
            "Virtualchain-Signature": f"v1={signature(key, timestamp, self.body)}",
        }


def signature(key: bytes, timestamp: int, body: bytes) -> str:
    """Return the HMAC-SHA256 of time and body, in hex."""
    return hmac.new(key, b"%d.%b" % (timestamp, body), hashlib.sha256).hexdigest()


def rollback_message(webhook: Webhook, event: RollbackEvent) -> Message:
    """Return the message of a rollback."""
    return Message(
        "rollback",
        _id(webhook, event, 1),
        json_text({**event_json(event), **_origin(webhook, event, 1, 1)}).encode(),
    )


def block_messages(webhook: Webhook, event: BlockEvent, *, changes_pruned: bool) -> list[Message]:
    """Return the messages of what the webhook wants of a block; none if that is nothing.

    Ops come before changes, so that pruned changes do not move an op into another part.
    """
    ops = [json_text(item_json(op)) for op in event.ops if webhook.takes_op(op)]
    changes = [json_text(item_json(change)) for change in event.changes if webhook.takes_change(change)]
    if not ops and not changes and not changes_pruned:
        return []
    items = [("ops", text) for text in ops] + [("changes", text) for text in changes]
    parts = list(_parts(items)) or [[]]
    head = event_json(replace(event, ops=(), changes=()))
    del head["ops"], head["changes"]
    head["changes_pruned"] = changes_pruned
    messages = []
    for number, part in enumerate(parts, 1):
        body = _body({**head, **_origin(webhook, event, number, len(parts))}, part)
        messages.append(Message("block", _id(webhook, event, number), body))
    return messages


def _id(webhook: Webhook, event: BlockEvent | RollbackEvent, part: int) -> str:
    return f"{webhook.name}/{event.position}/{part}"


def _origin(webhook: Webhook, event: BlockEvent | RollbackEvent, part: int, parts: int) -> Json:
    return {
        "id": _id(webhook, event, part),
        "webhook": webhook.name,
        "app": webhook.setting.app,
        "part": part,
        "parts": parts,
    }


def _parts(items: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    part: list[tuple[str, str]] = []
    size = 0
    for item in items:
        size += len(item[1])
        if part and size > LARGEST:
            yield part
            part, size = [], len(item[1])
        part.append(item)
    if part:
        yield part


def _body(head: Json, part: Sequence[tuple[str, str]]) -> bytes:
    """Put a part's ops and changes, which are JSON already, into the object."""
    lists = (
        f'"{kind}": [{", ".join(text for kind_of_item, text in part if kind_of_item == kind)}]'
        for kind in ("ops", "changes")
    )
    return f"{json_text(head)[:-1]}, {', '.join(lists)}}}".encode()
