"""Fixtures that several kinds of tests share: a generated chain, and a real node that has it."""

import gc
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.generated import GENERATOR, GeneratedChain, generate, load
from virtualchain.testing.bitcoind import Bitcoind

LONG = (
    "integration/engine/test_second_machine.py",
    "benchmarks/test_benchmarks.py",
    "integration/testing/test_determinism.py",
    "integration/runes/test_poison.py",
    "acceptance/test_wheel.py",
    "integration/names/test_poison.py",
    "contract/test_source.py",
    "browser/test_explorer.py",
    "simulation/test_simulation.py",
    "integration/engine/test_large_transactions.py",
    "property/test_transactions_in_sql.py",
    "integration/engine/test_faults.py",
    "integration/engine/test_in_flight.py",
    "integration/engine/test_large_blocks.py",
    "integration/web/test_api_watch.py",
    "integration/webhooks/test_deliveries.py",
    "integration/embedded/test_upgrade.py",
    "integration/backup/test_physical.py",
    "acceptance/test_cli_run.py",
    "acceptance/test_cli_hung.py",
    "acceptance/test_readme.py",
    "acceptance/test_site.py",
    "acceptance/test_snippets.py",
)
"""The files that take longest: they come first, so that no process still has one when the others are done."""


def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: each often waits for its servers."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector pass over what the collection of the tests makes.

    These are millions of objects, which stay; it would look at all of them again and again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> GeneratedChain:
    """Generate a small chain once per session; skip if the generator is missing."""
    if not GENERATOR.exists():
        pytest.skip("shared/tools/genchain.py is missing")
    return generate(tmp_path_factory.mktemp("generated"), full=2, small=3, keys=40)


@pytest.fixture(scope="session")
def loaded_bitcoind(generated: GeneratedChain) -> Iterator[Bitcoind]:
    """Return a real node that has the generated chain, and an index of its transactions."""
    node = load(generated, "-txindex=1")
    while not node.rpc("getindexinfo")["txindex"]["synced"]:
        time.sleep(0.1)
    yield node
    node.stop()
