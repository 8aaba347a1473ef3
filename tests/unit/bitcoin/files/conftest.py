"""Sources on files, which are closed after each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtualchain.bitcoin.files.source import open_blocks
from virtualchain.bitcoin.networks import network
from virtualchain.bitcoin.source import BlockSource


@pytest.fixture
def opened() -> Iterator[Callable[..., BlockSource]]:
    """Provide `open_blocks`; what it opens is closed after the test."""
    sources: list[BlockSource] = []

    def open_one(path: Path, name: str | None = None) -> BlockSource:
        sources.append(open_blocks(path, None if name is None else network(name)))
        return sources[-1]

    yield open_one
    for source in sources:
        source.close()
