"""PgBouncer in front of a test's database."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.support.servers import reachable_folder
from virtualchain.store.embedded.host import server_account

CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
pool_mode = {mode}
default_pool_size = 2
auth_type = scram-sha-256
auth_file = {users}
"""


@contextmanager
def pooled(url: str, mode: str) -> Iterator[str]:
    """Run PgBouncer for the user of a URL, and yield that user's URL there; skips if it is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("no pgbouncer on PATH: install the package of that name")
    place = urlsplit(url)
    account = server_account()
    with reachable_folder() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = probe.getsockname()[1]
        folder.mkdir()
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{place.username}" "{place.password}"\n')
        configuration.write_text(
            CONFIGURATION.format(host=place.hostname, port=place.port, listen=listen, mode=mode, users=users)
        )
        probe.close()
        # PgBouncer does not run as root, either.
        with subprocess.Popen(
            [program, "-q", configuration], user=account.uid if account else None, stderr=subprocess.DEVNULL
        ) as process:
            try:
                _wait_for(listen)
                yield place._replace(netloc=place.netloc.rpartition(":")[0] + f":{listen}").geturl()
            finally:
                process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.02)
        else:
            return
