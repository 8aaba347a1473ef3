"""Fixtures that several kinds of tests share: a generated chain, and a real node that has it."""

import os
import time
from collections.abc import Iterator

import pytest

from tests.support.generated import GENERATOR, GeneratedChain, generate, load
from virtualchain.testing.bitcoind import Bitcoind


def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: each often waits for its servers."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedChain:
    """Generate a small chain once per session; skip if the generator is missing."""
    if not GENERATOR.exists():
        pytest.skip("shared/tools/genchain.py is missing")
    return generate(tmp_path_factory.mktemp("generated"), full=4, small=3, keys=40)


@pytest.fixture(scope="session")
def loaded_bitcoind(generated: GeneratedChain) -> Iterator[Bitcoind]:
    """Return a real node that has the generated chain, and an index of its transactions."""
    node = load(generated, "-txindex=1")
    while not node.rpc("getindexinfo")["txindex"]["synced"]:
        time.sleep(0.1)
    yield node
    node.stop()
