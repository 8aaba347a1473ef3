"""What tests and demonstrations are made of: a fake node, a chain builder, and named keys."""

from virtualchain.testing.chain import BuiltBlock, ChainBuilder
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.keys import Key, key
from virtualchain.testing.transactions import Tx, foreign, op_return

__all__ = ["BuiltBlock", "ChainBuilder", "FakeNode", "Key", "Tx", "foreign", "key", "op_return"]
