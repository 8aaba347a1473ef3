"""The chains that benchmarks run on, each on a node in a process of its own."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.generated import GENERATOR, generate, load, read
from virtualchain.testing.bitcoind import find_bitcoind
from virtualchain.testing.mainnet_like import SEED_BLOCKS


@dataclass(frozen=True)
class Chain:
    """A chain on a running node, and the stretch of it that is measured."""

    name: str
    node: str
    url: str
    cookie: Path | None
    first: int
    last: int


@contextmanager
def full_blocks(count: int, folder: Path | None, *, fake: bool) -> Iterator[Chain]:
    """Serve blocks as full as mainnet's: the generator's from a real node where there are both, else ours.

    `folder` holds what the generator wrote before. With `fake`, or without a real node, it is a fake one.
    """
    if fake or find_bitcoind() is None or not (folder or GENERATOR).exists():
        with _served("--full", count) as url:
            yield Chain("full", "fake node", url, None, SEED_BLOCKS + 1, SEED_BLOCKS + count)
        return
    with tempfile.TemporaryDirectory(prefix="virtualchain-benchmark-") as made:
        generated = read(folder) if folder else generate(Path(made), full=count, small=0)
        node = load(generated)
        try:
            first = next(row[0] for row in generated.index if row[5] == "full")
            last = min(first + count - 1, generated.tip)
            yield Chain("full", "bitcoind", node.url, node.cookie, first, last)
        finally:
            node.stop()


@contextmanager
def empty_blocks(count: int) -> Iterator[Chain]:
    """Serve blocks with nothing but a coinbase, from a fake node: what a block costs in itself."""
    with _served("--empty", count) as url:
        yield Chain("empty", "fake node", url, None, 1, count)


@contextmanager
def single_ops(count: int) -> Iterator[Chain]:
    """Serve blocks with one op in each, whose payload begins with `mvo`, from a fake node."""
    with _served("--single", count) as url:
        yield Chain("single", "fake node", url, None, 102, 101 + count)


@contextmanager
def _served(kind: str, count: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.serve", kind, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the fake node did not start: {' '.join(command)}")
        yield url
        process.stdin.close()
