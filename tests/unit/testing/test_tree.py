"""The builder's coins and undo data, forward and backward along the chain."""

import random

from virtualchain.testing import ChainBuilder, key
from virtualchain.testing.tree import Coins
from virtualchain.testing.undo import Coin, make_undo, read_undo


def test_spent_outputs_come_back_as_they_were_written() -> None:
    """Amount, script, height and whether a coinbase created them all round-trip."""
    spent = [
        [],
        [Coin(1, b"", 0, generated=False)],
        [Coin(5_000_000_000, b"\x51" * 300, 499_999, generated=True), Coin(0, b"\x6a", 7, generated=False)],
    ]
    assert read_undo(make_undo(spent)) == spent


def test_spent_outputs_are_serialized_as_by_bitcoind() -> None:
    """Counts come first, then each amount, script length and script, without heights."""
    undo = make_undo([[], [Coin(1, b"\x51", 9, generated=True)]])
    assert undo.outputs.hex() == "02000101000000000000000151"
    assert undo.origins.hex() == "13000000"


def test_coins_that_moved_back_and_forth_equal_new_ones() -> None:
    """After sixty random blocks and reorgs, the coins depend only on the tip, not on the way there."""
    chance = random.Random(7)
    chain = ChainBuilder()
    wandering = Coins()
    for _ in range(60):
        names = chance.sample(["alice", "bob", "carol", "dave"], 2)
        txs = [chain.send(b"x", names[0], [(names[1], 7_000)]) for _ in range(chance.randrange(3))]
        if chance.random() < 0.3:
            chain.reorg(chance.randint(1, 5), txs=txs)
        else:
            chain.mine(txs)
        wandering.move(chance.choice(chain.tree.chain))
    wandering.move(chain.tree.tip)
    new = Coins()
    new.move(chain.tree.tip)
    for name in ("alice", "bob", "carol", "dave", "faucet"):
        assert wandering.owned(key(name).script_pubkey) == new.owned(key(name).script_pubkey)
    for stored in chain.tree.chain:
        assert wandering.confirmed(bytes.fromhex(stored.block.merkle_root)[::-1]) == new.confirmed(
            bytes.fromhex(stored.block.merkle_root)[::-1]
        )


def test_the_undo_data_of_unknown_coins_are_unknown() -> None:
    """A block that spends what no earlier block creates is served without undo data, not with a guess."""
    chain = ChainBuilder(premine=3)
    tx = ChainBuilder().send(b"elsewhere")
    chain.coins.move(chain.tree.tip)
    strange = ChainBuilder(premine=3)
    strange.coins.get = lambda outpoint: Coin(10**10, b"", 1, generated=False)  # type: ignore[method-assign]
    strange.mine([tx.raw])
    loaded = ChainBuilder.from_blocks("regtest", strange.raw_blocks())
    assert loaded.undo(loaded.tree.tip) is None
    loaded.reorg(1)
    assert loaded.undo(loaded.tree.tip) is not None
