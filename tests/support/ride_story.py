"""A chain on which balances ride in all ways, and the apps that follow them.

The apps differ in how their payloads are found: by opcode, in every OP_RETURN and in coinbases (a rule of the
app's own), and as runestones. The first one needs the heights of what is spent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.rides import ALICE, coin, rides_app, spending
from virtualchain import App
from virtualchain.bitcoin.payload import runestone
from virtualchain.bitcoin.script import op_return
from virtualchain.testing import FakeNode
from virtualchain.testing.transactions import OwnedCoin, Tx, sign
from virtualchain.testing.wire import read_transaction

COMMITMENT = "6a24aa21a9ed"
"""How the output of a coinbase begins that commits to the witnesses of its block."""


def every_op_return(outputs: Sequence[Mapping[str, Any]]) -> list[bytes] | None:
    """Find the payload of every OP_RETURN with one push; a coinbase with a commitment has one, too."""
    scripts = [output["script_pubkey"] for output in outputs]
    payloads = [bytes.fromhex(script[4:]) for script in scripts if script.startswith("6a")]
    return [b"mu0" if script.startswith(b"\xaa\x21\xa9\xed") else script for script in payloads] or None


every_op_return.coinbase = True  # type: ignore[attr-defined]  # that is how a function says so


def ride_apps(*, by_statements: bool = False) -> list[App]:
    """Make the apps; their reducers use the table helper, or statements."""
    several = {"magic": b"mu", "opcodes": None, "payload_rule": every_op_return, "first_block_id": 106}
    stones = {"magic": b"", "opcodes": None, "payload_rule": runestone}
    return [
        rides_app(by_statements=by_statements, needs=("height",)),
        rides_app("several", by_statements=by_statements, **several),
        rides_app("stones", by_statements=by_statements, **stones),
    ]


@dataclass(frozen=True)
class Story:
    """What is left of the story: coins of which an app each tracks one."""

    coins: tuple[OwnedCoin, ...]

    def go_on(self, node: FakeNode) -> "Story":
        """Mine two blocks in which each balance moves twice."""
        first = [spending([each]) for each in self.coins]
        node.mine(first)
        second = [spending([coin(tx)]) for tx in first]
        node.mine(second)
        return Story(tuple(coin(tx) for tx in second))


def carrying(coins: Sequence[OwnedCoin], *scripts: bytes) -> Tx:
    """Spend coins into an output of alice's, and others with these scripts."""
    value = sum(each.value for each in coins) - 1_000
    raw = sign(coins, [(ALICE.script_pubkey, value), *((script, 0) for script in scripts)])
    return Tx(raw, read_transaction(raw).txid[::-1].hex())


def ride(node: FakeNode) -> Story:
    """Mine blocks 102 to 108."""
    minted = node.send(b"rim7")
    node.mine([minted])
    moved = spending([coin(minted, 1)], outputs=2)
    node.mine([moved])
    # The last but one spends what nothing rides on, of a transaction that is seen in this block.
    chained = [spending([coin(moved)])]
    chained.append(spending([coin(chained[-1])], outputs=2))
    empty = spending([coin(chained[-1], 1)])
    chained.append(spending([coin(chained[-1])]))
    node.mine([*chained[:2], empty, chained[2]])
    with_payload = spending([coin(chained[-1])], b"rim5")
    node.mine([with_payload, node.send(b"riz"), node.send(b"rimany")])
    two = carrying([coin(empty)], *map(op_return, (b"mu3", b"zz", b"mu4", b"muno")))
    other_opcode = spending([coin(with_payload)], b"riz")
    node.mine([two, other_opcode])
    stone = carrying([coin(moved, 1)], runestone_script(b"77"), op_return(b"ri"))
    node.mine([stone, spending([coin(two)])])
    last = [spending([coin(stone)]), node.send(b"mu9"), node.send(b"rim2")]
    node.mine(last)
    return Story((coin(last[0]), coin(last[1], 1), coin(last[2], 1), coin(other_opcode)))


def runestone_script(data: bytes) -> bytes:
    """Return OP_RETURN, OP_13 and what follows."""
    return b"\x6a\x5d" + data
