"""The database server that benchmarks measure on."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing.database import DatabaseServer


@contextmanager
def temporary_server() -> Iterator[DatabaseServer]:
    """Run a throw-away server that writes as a real one does: the tests' does not wait for the disk."""
    with tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-") as folder:
        Path(folder).chmod(0o711)  # the server may run as another user
        server = EmbeddedServer(Path(folder) / "postgresql")
        try:
            yield DatabaseServer(server.start())
        finally:
            server.stop()
