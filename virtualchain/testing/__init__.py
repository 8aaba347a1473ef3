"""What tests and demonstrations are made of: a fake node, a chain builder, named keys, and poison."""

from virtualchain.testing.chain import BuiltBlock, ChainBuilder
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.keys import Key, key
from virtualchain.testing.poison import PoisonReport, check_poison
from virtualchain.testing.transactions import Tx, foreign, op_return

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
