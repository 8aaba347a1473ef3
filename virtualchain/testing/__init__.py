"""Tools for tests and demonstrations: a fake node, a chain builder, named keys, checks of an app."""

from virtualchain.bitcoin.script import op_return
from virtualchain.testing.chain import BuiltBlock, ChainBuilder
from virtualchain.testing.determinism import DeterminismReport, check_determinism
from virtualchain.testing.expecting import Unexpected
from virtualchain.testing.fakenode import FakeNode
from virtualchain.testing.golden import GoldenReport, RulesChanged, check_golden
from virtualchain.testing.poison import PoisonReport, check_poison
from virtualchain.testing.reorgs import ReorgDiffers, ReorgReport, check_reorgs
from virtualchain.testing.story import ReplayDiffers, Story, scenario
from virtualchain.testing.transactions import Key, Tx, foreign, key

__all__ = [
    "BuiltBlock",
    "ChainBuilder",
    "DeterminismReport",
    "FakeNode",
    "GoldenReport",
    "Key",
    "PoisonReport",
    "ReorgDiffers",
    "ReorgReport",
    "ReplayDiffers",
    "RulesChanged",
    "Story",
    "Tx",
    "Unexpected",
    "check_determinism",
    "check_golden",
    "check_poison",
    "check_reorgs",
    "foreign",
    "key",
    "op_return",
    "scenario",
]
