"""Tools for tests and demonstrations: a fake node, a chain builder, named keys, and a check for poison."""

from virtualchain.testing.chain import BuiltBlock, ChainBuilder
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.poison import PoisonReport, check_poison
from virtualchain.testing.transactions import Key, Tx, foreign, key, op_return

__all__ = [
    "BuiltBlock",
    "ChainBuilder",
    "FakeNode",
    "Key",
    "PoisonReport",
    "Tx",
    "check_poison",
    "foreign",
    "key",
    "op_return",
]
