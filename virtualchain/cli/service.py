"""Reports to a service manager such as systemd how a command is: that it is ready, alive, and ending.

The protocol is that of sd_notify(3). Without NOTIFY_SOCKET in the environment, nothing is sent.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Protocol

from virtualchain.cli.output import visible
from virtualchain.errors import UsageError

_STATUS_EVERY: Final = 1.0
"""Seconds between two reports of a block, at least."""


class _Notifier(Protocol):
    socket: socket.socket | None

    def notify(self, state: str) -> None:
        """Send a message; failures are ignored."""


class Service:
    """How this process is, as a service manager is to know it; raises UsageError if it cannot be notified."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._notifier: _Notifier | None = _open() if environ.get("NOTIFY_SOCKET") else None
        self._feed_every = _watchdog_seconds(environ) / 4
        self._fed_at = self._reported_at = 0.0

    def ready(self) -> None:
        """Report that the start is complete."""
        self._send("READY=1")

    def turn(self) -> None:
        """Report that the main loop is alive; called whenever it turns, and by nothing else."""
        if self._notifier is not None and time.monotonic() - self._fed_at >= self._feed_every:
            self._fed_at = time.monotonic()
            self._send("WATCHDOG=1")

    def waiting(self, reason: str) -> None:
        """Report what is waited for."""
        # The library encodes as Latin-1, and the manager expects UTF-8: both have ASCII.
        self._send(f"STATUS={visible(reason).encode('ascii', 'backslashreplace').decode()}")

    def block(self, block_id: int, goal: int) -> None:
        """Report which block was processed, once a second at most."""
        if self._notifier is not None and time.monotonic() - self._reported_at >= _STATUS_EVERY:
            self._reported_at = time.monotonic()
            self._send(f"STATUS=block {block_id:,} of {goal:,}")

    def stopping(self) -> None:
        """Report that the process ends now."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state)


def _open() -> _Notifier:
    try:
        from sdnotify import SystemdNotifier
    except ModuleNotFoundError as error:
        raise UsageError(
            "NOTIFY_SOCKET is set, as by a unit with Type=notify, and that needs the extra service: "
            "pip install 'virtualchain[service]'"
        ) from error
    notifier: _Notifier = SystemdNotifier()
    if notifier.socket is not None:
        notifier.socket.setblocking(False)
    return notifier


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Return within how many seconds the manager expects to hear of this process; infinite if it does not."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    is_meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1e6 if microseconds.isdecimal() and is_meant else float("inf")
