"""The chain of the demonstration: a few people, a few documents, and what they do with them."""

import hashlib
from dataclasses import dataclass
from typing import Final

from virtualchain.testing import FakeNode, Tx

PEOPLE: Final = ("alice", "bob", "carol")
FIRST_BLOCKS: Final = 10
"""Empty ones: somebody has to earn the coins that are spent later."""
_BETWEEN: Final = 2
_LAST_BLOCKS: Final = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction: who does what with which document, in words and as a payload."""

    told: str
    who: str
    opcode: bytes
    document: str
    to: str | None = None
    cut: int = 0
    """How many bytes its payload lacks."""


@dataclass(frozen=True, slots=True)
class Told:
    """A step that was taken: its block and its transaction."""

    block_id: int
    txid: str
    step: Step


_BLOCKS: Final = (
    (
        Step("alice claims the contract", "alice", b"c", "contract"),
        Step("bob claims it in the same block", "bob", b"c", "contract"),
    ),
    (Step("bob claims the letter", "bob", b"c", "letter"),),
    (Step("bob claims the contract again", "bob", b"c", "contract"),),
    (Step("alice gives the contract to carol", "alice", b"t", "contract", to="carol"),),
    (Step("alice gives it to bob, too", "alice", b"t", "contract", to="bob"),),
    (
        Step("bob revokes the letter", "bob", b"r", "letter"),
        Step("carol claims the recipe", "carol", b"c", "recipe"),
    ),
    (Step("alice claims with half a hash", "alice", b"c", "poem", cut=16),),
)


def tell(node: FakeNode) -> list[Told]:
    """Mine the story; give its steps in the order of the chain."""
    told: list[Told] = []
    for steps in _BLOCKS:
        sent = [(step, _send(node, step)) for step in steps]
        node.mine([tx for _, tx in sent])
        told += [Told(node.height, tx.txid, step) for step, tx in sent]
        node.mine(n=_BETWEEN)
    node.mine(n=_LAST_BLOCKS - _BETWEEN)
    return told


_FORK: Final = Step("alice gives the contract to bob instead", "alice", b"t", "contract", to="bob")
_FORK_BLOCK: Final = 3
"""The first of the story's blocks with transactions that is replaced."""


def fork(node: FakeNode) -> Told:
    """Have the node leave the end of the story for a longer branch, on which it went otherwise."""
    block_id = FIRST_BLOCKS + 1 + _FORK_BLOCK * (1 + _BETWEEN)
    sent = _send(node, _FORK)
    node.reorg(node.height - block_id + 1, txs=[sent])
    return Told(block_id, sent.txid, _FORK)


def _send(node: FakeNode, step: Step) -> Tx:
    content = hashlib.sha256(step.document.encode()).digest()
    payload = b"nt" + step.opcode + content[: len(content) - step.cut]
    return node.send(payload, step.who, to=[] if step.to is None else [(step.to, 10_000)])
