"""Notify listeners of blocks and rollbacks, on the channel `virtualchain`.

The server keeps notifications in one queue for all of its databases. A session that listens, to whatever, and
does not end its transaction keeps the queue from being emptied; once it is full, every transaction that
notifies fails. So notifications are sent after the transaction that they report, and may fail: whoever
listens must look at the tables from time to time in any case.
"""

import re
from collections.abc import Callable

import psycopg
from psycopg.rows import dict_row

from virtualchain.model import Block, Json
from virtualchain.notices import Notice
from virtualchain.store.sql import queries

_Q = queries("notifications")


class Notifier:
    """Sends notifications, and reports when that becomes impossible, and possible again."""

    def __init__(self, connection: psycopg.Connection, on_message: Callable[[str], None]) -> None:
        """Use a connection in autocommit; `on_message` is called with a line for the operator."""
        self._connection = connection
        self._on_message = on_message
        self._fails = False

    def block(self, block: Block) -> None:
        """Notify listeners of a block that was committed."""
        self._send("block", {"block_id": block.block_id, "hash": block.hash})

    def rollback(self, fork_block_id: int) -> None:
        """Notify listeners that every block above the fork was undone."""
        self._send("rollback", {"fork": fork_block_id})

    def pending(self) -> None:
        """Notify those who listen for it that pending inputs were judged again."""
        self._send("pending", {})

    def _send(self, query: str, parameters: dict[str, object]) -> None:
        notices: list[str] = []

        def keep(notice: psycopg.errors.Diagnostic) -> None:
            notices.append(notice.message_detail or "")

        self._connection.add_notice_handler(keep)
        try:
            try:
                self._try_to_send(query, parameters)
            except psycopg.errors.ProgramLimitExceeded:
                self._connection.execute(_Q["free_queue"])
                self._try_to_send(query, parameters)
        except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.LockNotAvailable) as error:
            if not self._fails:
                self._on_message(Notice(self._reason(error, notices), "not_notified"))
            self._fails = True
        else:
            if self._fails:
                self._on_message(Notice("notifications are sent again", "notified_again"))
            self._fails = False
        finally:
            self._connection.remove_notice_handler(keep)

    def _try_to_send(self, query: str, parameters: dict[str, object]) -> None:
        with self._connection.transaction():
            self._connection.execute(_Q["set_lock_timeout"])
            self._connection.execute(_Q[query], parameters)

    def _reason(self, error: psycopg.Error, notices: list[str]) -> str:
        """Describe why nothing can be sent, and which session is to blame."""
        if isinstance(error, psycopg.errors.LockNotAvailable):
            cause = "another session's notification does not come to an end"
        else:
            cause = "the server's queue of notifications is full"
        return f"{cause}, so blocks are taken without notifications; {self._holders(notices)}"

    def _holders(self, notices: list[str]) -> str:
        """Name the session that keeps the queue from being emptied, or those of which one does.

        The server names its process, in its own language, but to somebody only every five seconds.
        """
        processes = [match[0] for notice in notices if (match := re.search(r"\d+", notice))]
        pid = int(processes[-1]) if processes else None
        with self._connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_Q["holders"], {"pid": pid}).fetchall()
        if all(row["xact_start"] for row in rows):
            rows = rows[:1]  # the oldest one
        if not rows:
            return "have an administrator end the oldest transaction in pg_stat_activity"
        sessions = " or ".join(map(_describe, rows))
        return f"it is held up by {sessions}: end that session, or its transaction"


def _describe(row: Json) -> str:
    fields = {
        "user": row["usename"],
        "database": row["datname"],
        "application": row["application_name"],
        "address": row["client_addr"],
        "in a transaction since": row["xact_start"],
    }
    known = ", ".join(f"{name} {value}" for name, value in fields.items() if value)
    return f"server process {row['pid']} ({known})"
