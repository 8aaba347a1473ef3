"""The webhooks of the settings and of the database, for people; needs no more than a reader's rights."""

from collections.abc import Sequence

import psycopg
from psycopg.rows import dict_row

from virtualchain.model import Json
from virtualchain.settings import WebhookSetting
from virtualchain.store.sql import queries

_Q = queries("webhooks")


def listed(connection: psycopg.Connection, settings: Sequence[WebhookSetting]) -> list[Json]:
    """Return how far all webhooks are, by name.

    Keys: name, app, receiver (None if the settings do not have it), is_delivered (whether a process delivers
    it), block_id (None if it is new), app_block_id, delivered, delivered_at, failures, error, failed_at,
    next_try.
    """
    receivers = {setting.name: setting.receiver for setting in settings}
    known = {setting.name: setting.app for setting in settings}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_Q["list"], {"names": list(known), "apps": list(known.values())}).fetchall()
    return [{**row, "receiver": receivers.get(row["name"])} for row in rows]
