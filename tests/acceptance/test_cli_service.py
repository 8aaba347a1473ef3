"""`run` as a service: what it tells a service manager, and the unit that is shipped."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT, Commands
from virtualchain.cli.service import Service
from virtualchain.testing import FakeNode

PAGE = ROOT / "docs" / "service.md"
UNIT = ROOT / "docs" / "deploy" / "virtualchain.service"


class Manager:
    """Receives what a service tells, on a socket without a file, as systemd's may be."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(30)
        self._socket.bind(f"\0virtualchain-test-{os.getpid()}")
        self.address = f"@virtualchain-test-{os.getpid()}"
        self.messages: list[str] = []

    def until(self, pattern: str) -> list[str]:
        """Wait for a message that fits; return the new ones, up to it."""
        new: list[str] = []
        deadline = time.monotonic() + 30
        while not (new and re.fullmatch(pattern, new[-1])):
            assert time.monotonic() < deadline, new
            new.append(self._socket.recv(4096).decode())
        self.messages += new
        return new

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    """Provide a service manager."""
    manager = Manager()
    yield manager
    manager.close()


def test_run_tells_the_service_manager_how_it_is(
    cli: Commands, manager: Manager, fake_node: FakeNode, database_url: str
) -> None:
    """It waits, is ready once it has started, is alive while the node is away, too, and stops."""
    cli.environment |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    options = ("--app", "apps", "--database", database_url, "--bitcoin", fake_node.url, "--confirmations", 0)
    fake_node.stop()
    process = cli.start("run", *options)
    assert [state for state in manager.until("STATUS=.*is it running.*") if state == "READY=1"] == []
    fake_node.start()
    manager.until("READY=1")
    fake_node.mine()
    manager.until(f"STATUS=waiting for block {fake_node.height + 1}.*")
    fake_node.stop()
    manager.until("STATUS=.*is it running.*")
    manager.until("WATCHDOG=1")
    assert process.signal().code == 0
    manager.until("STOPPING=1")
    assert manager.messages.count("READY=1") == 1
    assert all(state.isprintable() for state in manager.messages)


def test_a_manager_that_does_not_read_holds_nothing_up(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue is full soon; what does not fit is lost. The watchdog of another process is not fed."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    service = Service({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"})
    service.turn()
    service.waiting("für\nnichts →")
    for number in range(10_000):
        service.waiting(str(number))
    assert manager.until("STATUS=.*") == ["STATUS=f\\xfcr\\nnichts ->"]
    assert service._notifier is not None
    assert service._notifier.socket is not None
    service._notifier.socket.close()


def test_the_unit_is_valid_and_confined(tmp_path: Path) -> None:
    """Systemd accepts it, and finds little that it could do to the machine."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/virtualchain/bin/virtualchain", "/bin/true"))
    subprocess.run(["systemd-analyze", "verify", unit], check=True, capture_output=True)
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    subprocess.run(command, check=True, capture_output=True)


def test_the_unit_restarts_only_what_another_attempt_may_help() -> None:
    """Which exit codes end it for good is in docs/service.md; 0 and 130 are no failures."""
    rows = re.findall(r"^\| (\d+) \| .* \| (yes|no)", PAGE.read_text(), re.MULTILINE)
    unit = UNIT.read_text()
    listed = {
        name: set(re.findall(f"^{name}=(.*)$", unit, re.MULTILINE)[0].split())
        for name in ("RestartPreventExitStatus", "SuccessExitStatus", "Restart")
    }
    final = {code for code, restarts in rows if restarts == "no"}
    assert listed["RestartPreventExitStatus"] | listed["SuccessExitStatus"] | {"0"} == final
    assert listed["Restart"] == {"on-failure"}
    assert {code for code, _ in rows} - final == {"3", "5"}
