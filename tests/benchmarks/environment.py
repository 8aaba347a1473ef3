"""The environment of benchmarks: chains, each on a node in a process of its own, and a database server."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.generated import GENERATOR, generate, load, read
from virtualchain.store.embedded.server import EmbeddedServer
from virtualchain.testing.bitcoind import find_bitcoind
from virtualchain.testing.database import DatabaseServer
from virtualchain.testing.mainnet_like import SEED_BLOCKS


@dataclass(frozen=True)
class Chain:
    """A chain on a running node, and the range of blocks that is measured."""

    name: str
    node: str
    url: str
    cookie: Path | None
    first: int
    last: int
    folder: Path | None = None
    """The data folder of a real node."""


@contextmanager
def full_blocks(count: int, folder: Path | None, *, fake: bool) -> Iterator[Chain]:
    """Serve blocks as full as mainnet's: generated ones from a real node, or similar ones from a fake node.

    The fake node is used with `fake`, or if bitcoind or the generator is missing. `folder` holds the output
    of an earlier run of the generator.
    """
    if fake or find_bitcoind() is None or not (folder or GENERATOR).exists():
        with _serve("--full", count) as url:
            yield Chain("full", "fake node", url, None, SEED_BLOCKS + 1, SEED_BLOCKS + count)
        return
    with tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-") as temporary:
        generated = read(folder) if folder else generate(Path(temporary), full=count, small=0)
        node = load(generated)
        try:
            first = next(row[0] for row in generated.index if row[5] == "full")
            last = min(first + count - 1, generated.tip)
            yield Chain("full", "bitcoind", node.url, node.cookie, first, last, node.datadir)
        finally:
            node.stop()


@contextmanager
def empty_blocks(count: int) -> Iterator[Chain]:
    """Serve blocks with only a coinbase from a fake node; they show the cost of a block itself."""
    with _serve("--empty", count) as url:
        yield Chain("empty", "fake node", url, None, 1, count)


@contextmanager
def single_ops(count: int) -> Iterator[Chain]:
    """Serve blocks of one op each, whose payload starts with `mvo`, from a fake node."""
    with _serve("--single", count) as url:
        yield Chain("single", "fake node", url, None, 102, 101 + count)


@contextmanager
def temporary_server() -> Iterator[DatabaseServer]:
    """Run a temporary database server that waits for the disk, as a real one does and the tests' does not."""
    with tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-") as folder:
        Path(folder).chmod(0o711)  # the server may run as another user
        server = EmbeddedServer(Path(folder) / "postgresql")
        try:
            yield DatabaseServer(server.start())
        finally:
            server.stop()


@contextmanager
def _serve(kind: str, count: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.serve", kind, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the fake node did not start: {' '.join(command)}")
        yield url
        process.stdin.close()
