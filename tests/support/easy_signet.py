"""A signet whose blocks a test can mine: its fake node's chain has regtest's targets."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from virtualchain.bitcoin import networks
from virtualchain.testing import FakeNode

EASY = 0x207FFFFF


@contextmanager
def easy_work() -> Iterator[None]:
    """Let the code under test accept the little work of blocks on signets, custom ones as well."""
    easy = {**networks.NETWORKS, "signet": networks.with_easy_work(networks.NETWORKS["signet"])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "NETWORKS", easy)
        yield


@contextmanager
def easy_signet(blocks: int) -> Iterator[FakeNode]:
    """Run a node with so many blocks, whose little work is accepted."""
    with easy_work(), FakeNode("signet", premine=0) as node:
        node.mine(n=blocks, bits=EASY)
        yield node
