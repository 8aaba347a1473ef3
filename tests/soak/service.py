"""What runs during a soak: a database server, a node, `virtualchain run`, and whoever starts it again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import psycopg

from tests.soak.apps import ACCOUNTS
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing import FakeNode

CONFIRMATIONS: Final = 6
DAY: Final = 144
"""Blocks of a day."""
FIRST: Final = 101
"""The last block before the first day."""
_FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
_FOREVER: Final = 180.0
"""Seconds in which the service must have caught up, whatever happened."""
_SPACE: Final = 3_000_000_000
"""Bytes of the database server's disk, if the soak can make one."""
_SETTINGS: Final = (
    "ALTER SYSTEM SET autovacuum_naptime = '5s'",  # a day passes in seconds here
    "ALTER SYSTEM SET max_wal_size = '256MB'",
    "SELECT pg_reload_conf()",
)


_TIP: Final = "SELECT hash FROM virtualchain.blocks ORDER BY block_id DESC LIMIT 1"


class Service:
    """A deployment as an operator has it; the process that follows is started again whenever it has ended."""

    def __init__(self, folder: Path, dice: Random) -> None:
        self.folder = folder
        self.dice = dice
        self.node = FakeNode(spent_outputs=False)
        self.log = folder / "run.log"
        self.restarts = 0
        """How often the process had ended by itself, or was killed."""
        self.codes: list[int] = []
        """The exit codes of those that ended by themselves."""
        self._offset = folder / "offset"
        self._offset.write_text("+0")
        self.disk = folder / "disk"
        self.disk.mkdir(mode=0o711)
        self.has_own_disk = _mounts(self.disk)
        self.server = EmbeddedServer(self.disk / "postgresql")
        self.url = self.server.start()
        for statement in _SETTINGS:
            self.as_superuser(statement)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def close(self) -> None:
        """End everything."""
        self.end(signal.SIGTERM)
        self.node.close()
        self.server.stop()
        if self.has_own_disk:
            subprocess.run(["umount", str(self.disk)], check=True)

    @property
    def has_own_clock(self) -> bool:
        """Whether the clock of the process can be set."""
        return _FAKETIME.exists()

    @property
    def pid(self) -> int:
        """The number of the process that follows."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self) -> None:
        """Start the process that follows."""
        environment = dict(os.environ)
        if self.has_own_clock:
            environment |= {
                "LD_PRELOAD": str(_FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        command = [sys.executable, "-m", "virtualchain", "run", "--app", "tests.soak.apps"]
        command += ["--app", "virtualchain.examples.notary", "--confirmations", str(CONFIRMATIONS)]
        environment |= {"VIRTUALCHAIN_BITCOIN": self.node.url, "VIRTUALCHAIN_DATABASE": self.url}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def supervise(self) -> None:
        """Start the process again if it has ended."""
        assert self._process is not None, "it was started"
        if self._process.poll() is not None:
            self.codes.append(self._process.returncode)
            self.restarts += 1
            self.start()

    def end(self, number: signal.Signals) -> int:
        """End the process by a signal; return its exit code."""
        assert self._process is not None, "it was started"
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        return self._process.wait(60)

    def until_caught_up(self) -> None:
        """Wait until the tape ends with the node's last block that has enough confirmations."""
        goal = self.node.chain.tree.chain[self.node.height - CONFIRMATIONS].block.hash

        def holds() -> bool:
            return self.ask(_TIP) == [(goal,)]

        self.until(holds, "the service has not caught up")

    def until(self, holds: Callable[[], bool], failure: str) -> None:
        """Wait until a condition holds, and keep the process running meanwhile."""
        deadline = time.monotonic() + _FOREVER
        while True:
            try:
                if holds():
                    return
            except psycopg.Error:  # the server may be away
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise AssertionError(f"{failure}:\n{self.log.read_text()[-3000:]}")
            self.supervise()
            time.sleep(0.02)

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Return the rows of a statement, in a session of its own."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(statement.encode()).fetchall()

    def as_superuser(self, statement: str) -> None:
        """Execute a statement with all rights."""
        with psycopg.connect(self.server.url_for("virtualchain"), autocommit=True) as connection:
            password = (self.server.folder / "postgres.password").read_text().strip()
            port = connection.info.port
        login = f"host=127.0.0.1 port={port} user=postgres dbname=postgres password={password}"
        with psycopg.connect(login, autocommit=True) as connection:
            connection.execute(statement.encode())

    # A day of blocks

    def mine(self, blocks: int) -> None:
        """Mine blocks with a few inputs each, of which some are refused."""
        for _ in range(blocks):
            self.node.mine([self.node.send(self._payload()) for _ in range(self.dice.randrange(4))])

    def _payload(self) -> bytes:
        kind = self.dice.random()
        if kind < 0.4:
            return b"skp%d,%d" % (self.dice.randrange(ACCOUNTS), self.dice.randrange(1000))
        if kind < 0.8:
            account, to = self.dice.randrange(ACCOUNTS), self.dice.randrange(ACCOUNTS)
            return b"skt%d,%d,%d" % (account, to, self.dice.randrange(1000))
        return b"ntc" + self.dice.randbytes(32) if kind < 0.95 else b"skt" + self.dice.randbytes(9)

    # What happens to a service

    def shallow_fork(self) -> None:
        """Replace blocks that are not confirmed yet."""
        self.node.reorg(self.dice.randint(1, CONFIRMATIONS))

    def deep_fork(self) -> None:
        """Replace blocks that were taken."""
        self.node.reorg(CONFIRMATIONS + self.dice.randint(1, 40))

    def restart(self) -> None:
        """End the process in order, as for an upgrade, and start it again."""
        code = self.end(signal.SIGTERM)
        assert code == 0, code
        self.start()

    def kill(self) -> None:
        """Kill the process in the middle of a block."""
        self.mine(20)
        time.sleep(self.dice.random() / 4)
        self.end(signal.SIGKILL)
        self.restarts += 1
        self.start()

    def upgrade_node(self) -> None:
        """Stop the node, and start one that has spent outputs over REST, or no longer has."""
        self.node.stop()
        time.sleep(self.dice.random() * 2)
        self.node._service.spent_outputs = not self.node._service.spent_outputs
        self.node.start()

    def stop_database(self) -> None:
        """Restart the database server in order."""
        self.server.stop()
        time.sleep(self.dice.random() * 2)
        self.server.start()

    def crash_database(self) -> None:
        """Kill the database server, as a power failure does."""
        pid = int((self.server.folder / "data" / "postmaster.pid").read_text().split()[0])
        _signal(_tree(pid), signal.SIGKILL)
        # Where nobody takes note of ended processes, as in some containers, the server's number stays in use.
        for lock in (*self.server.folder.glob("data/postmaster.pid"), *self.server.folder.glob("run/.s.*")):
            lock.unlink()
        self.server.start()

    def fill_disk(self) -> None:
        """Fill the database's disk, and free it again once somebody has noticed."""
        if not self.has_own_disk:
            return
        filler, noticed = self.disk / "filler", self.log.stat().st_size
        with suppress(OSError), filler.open("wb") as stream:
            while True:
                stream.write(bytes(1_000_000))
                stream.flush()
        deadline = time.monotonic() + 10
        while b"disk" not in self._since(noticed) and time.monotonic() < deadline:
            self.mine(5)
            time.sleep(0.2)
        filler.unlink()
        with suppress(psycopg.Error):
            self.ask("SELECT 1")
        self.server.start()  # a server that could not write its log of changes has ended

    def slow_disk(self) -> None:
        """Let the database server hang again and again, once for longer than is patiently waited."""
        pid = int((self.server.folder / "data" / "postmaster.pid").read_text().split()[0])
        for seconds in (0.3, 0.3, 11, 0.3):
            self.mine(5)
            children = _tree(pid)
            _signal(children, signal.SIGSTOP)
            time.sleep(seconds)
            _signal(children, signal.SIGCONT)

    def jump_clock(self) -> None:
        """Set the clock of the process a day back, then a week forward, then right."""
        if not self.has_own_clock:
            return
        for offset in ("-1d", "+7d", "+0"):
            self._offset.write_text(offset)
            self.mine(5)
            time.sleep(1.2)

    def _since(self, place: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(place)
            return log.read()


EVENTS: Final[dict[str, Callable[[Service], None]]] = {
    "fork of unconfirmed blocks": Service.shallow_fork,
    "deep fork": Service.deep_fork,
    "restart": Service.restart,
    "kill -9": Service.kill,
    "another version of the node": Service.upgrade_node,
    "restart of the database": Service.stop_database,
    "crash of the database": Service.crash_database,
    "clock set wrong": Service.jump_clock,
    "full disk": Service.fill_disk,
    "slow disk": Service.slow_disk,
}
"""What happens, one on each day, in this order and then again."""


def _mounts(folder: Path) -> bool:
    """Mount a small disk, in memory, if the system allows."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SPACE},mode=711", "tmpfs", str(folder)]
    with suppress(OSError):
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    return False


def _tree(pid: int) -> list[int]:
    """Return a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _signal(processes: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may have ended."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
