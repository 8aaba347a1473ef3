"""A fake Bitcoin node: bitcoind's JSON-RPC and REST interfaces over real blocks, and methods to break it."""

from virtualchain.testing.fakenode.node import FakeNode
from virtualchain.testing.fakenode.service import FAULT_KINDS

__all__ = ["FAULT_KINDS", "FakeNode"]
