"""What is said to the operator: a sentence, and with it the event that it reports, a level and fields.

A `Notice` is text, so whoever takes a sentence takes it as well. docs/logs.md describes every event.
"""

from collections.abc import Mapping
from typing import Final, Literal, Self

Level = Literal["debug", "info", "warning", "error"]
"""How much an event matters: what a person should look at is a warning or an error."""
LogFormat = Literal["text", "json"]

EVENTS: Final[Mapping[str, Level]] = {
    # What a command does
    "note": "info",
    "detail": "debug",
    "block_taken": "info",
    "progress": "info",
    "inputs_counted": "info",
    "app_found": "info",
    "app_joins": "info",
    "checkpoint_used": "info",
    "app_catches_up": "info",
    "settings_changed": "warning",
    "file_changed": "warning",
    "worker_lost": "warning",
    "serving": "info",
    "stopped": "info",
    # What it waits for
    "waiting_for_block": "info",
    "waiting_for_chain": "warning",
    "waiting_for_node": "warning",
    "waiting_for_upstream": "warning",
    "upstream_believed": "info",
    "waiting_for_database": "warning",
    "waiting_for_writer": "warning",
    "waiting_for_readers": "warning",
    "node_failed": "warning",
    "node_connected": "info",
    "node_unused": "warning",
    "node_switched": "warning",
    "node_recovered": "info",
    "nodes_disagree": "error",
    "database_failed": "warning",
    "database_connected": "info",
    "database_differs": "warning",
    "schema_upgrades": "info",
    "connected": "info",
    # What happens to apps
    "rolled_back": "warning",
    "app_halted": "error",
    "app_swapped": "warning",
    "app_warned": "warning",
    "inputs_failed": "warning",
    "digest_unexpected": "error",
    "expected_unreadable": "warning",
    "pending_not_judged": "warning",
    "not_notified": "warning",
    "notified_again": "info",
    # Beside the writer
    "server_ended": "warning",
    "webhook_waits": "warning",
    "webhook_failed": "warning",
    "webhook_recovered": "info",
    "webhook_elsewhere": "info",
    # What is wrong
    "password_exposed": "warning",
    "deprecated": "warning",
    "log": "info",
    "python_warning": "warning",
    "interrupted": "warning",
    "usage_error": "error",
    "deep_fork_refused": "error",
    "failed": "error",
    "bug": "error",
}
"""All events, each with its usual level."""


class Notice(str):
    """A sentence for the operator that also says which event it reports."""

    __slots__ = ("event", "fields", "level")

    event: str
    """One of `EVENTS`."""
    level: Level
    fields: Mapping[str, object]
    """What programs need not read out of the sentence; values are JSON's."""

    def __new__(cls, text: str, event: str, level: Level | None = None, /, **fields: object) -> Self:
        """Make a notice; raises KeyError if there is no such event."""
        notice = super().__new__(cls, text)
        notice.event, notice.level, notice.fields = event, level or EVENTS[event], fields
        return notice

    def __getnewargs__(self) -> tuple[str, str, Level]:  # type: ignore[override] # what copies are made of
        return str(self), self.event, self.level


def notice_of(text: str) -> Notice:
    """Return text as a notice: what nobody has named an event for is a `note`."""
    return text if isinstance(text, Notice) else Notice(text, "note")
