"""A signet whose blocks a test can mine: its fake node's chain has regtest's targets."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from virtualchain.bitcoin import networks
from virtualchain.testing import FakeNode

EASY = 0x207FFFFF


@contextmanager
def easy_signet(blocks: int) -> Iterator[FakeNode]:
    """Run a node with so many blocks, and let the code under test accept their little work."""
    easy = {**networks.NETWORKS, "signet": networks.with_easy_work(networks.NETWORKS["signet"])}
    with pytest.MonkeyPatch.context() as patch, FakeNode("signet", premine=0) as node:
        patch.setattr(networks, "NETWORKS", easy)
        node.mine(n=blocks, bits=EASY)
        yield node
