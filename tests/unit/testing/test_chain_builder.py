"""The chain builder: sending, mining, reorgs."""

from pathlib import Path
from time import perf_counter

import pytest

from tests.support.shared_data import shared
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.testing import ChainBuilder, Tx, key
from virtualchain.testing.transactions import KEY_KINDS
from virtualchain.testing.undo import read_undo
from virtualchain.testing.wire import read_block


def _txids(chain: ChainBuilder) -> list[str]:
    """List the tip's transactions after its coinbase."""
    return [tx.txid[::-1].hex() for tx in read_block(chain.raw_blocks()[-1])[1:]]


def _senders(chain: ChainBuilder) -> list[list[bytes]]:
    """List the scripts whose outputs the tip's transactions spend."""
    undo = chain.undo(chain.tree.tip)
    assert undo is not None
    return [[coin.script for coin in coins] for coins in read_undo(undo)[1:]]


def test_the_same_calls_build_the_same_chain() -> None:
    """Neither clock nor chance is involved, so a test can contain the tip's hash."""
    tips = []
    for _ in range(2):
        chain = ChainBuilder()
        chain.mine([chain.send(b"hello", to=[("bob", 10_000)])])
        tips.append(chain.tip)
    assert tips == ["22c1c1cecd49b2251fcd2a0c7b0016d5d4eca5840c1503ce68d468db6ce7c81e"] * 2


def test_the_first_transaction_of_a_name_follows_its_funding() -> None:
    """The faucet's transaction is mined before it, once for each name."""
    chain = ChainBuilder()
    txs = [chain.send(b"one", "alice"), chain.send(b"two", "alice"), chain.send(b"three", "bob")]
    chain.mine(txs)
    assert len(_txids(chain)) == 5
    assert [txid for txid in _txids(chain) if txid in {tx.txid for tx in txs}] == [tx.txid for tx in txs]
    chain.mine([chain.send(b"four", "alice")])
    assert len(_txids(chain)) == 1


def test_a_sender_owns_what_is_spent() -> None:
    """This holds for each kind of key, and for several senders, whose order is kept."""
    chain = ChainBuilder()
    owners = [key("alice", kind) for kind in KEY_KINDS]
    chain.mine([chain.send(b"x", owner) for owner in owners])
    assert [owner.script_pubkey for owner in owners] == [
        scripts[0] for scripts in _senders(chain) if scripts[0] != key("faucet").script_pubkey
    ]
    chain.mine([chain.send(b"x", ["carol", *owners], [("dave", 500_000)])])
    assert _senders(chain)[-1] == [key("carol").script_pubkey, *(owner.script_pubkey for owner in owners)]


def test_a_recipient_spends_what_it_received() -> None:
    """Bob pays from alice's output if that is enough."""
    chain = ChainBuilder()
    paid = chain.send(None, "alice", [("bob", 20_000)])
    chain.mine([paid])
    spending = chain.send(b"from bob", "bob", [("carol", 19_000)])
    assert spending.funding is None
    chain.mine([spending])
    assert _txids(chain) == [spending.txid]


def test_change_is_never_dust() -> None:
    """A coin that would leave less is skipped, as no real node would relay the change."""
    chain = ChainBuilder()
    chain.mine([chain.send(None, "alice", [("bob", 10_000)])])
    assert chain.send(None, "bob", [("carol", 9_000 - 546)]).funding is None
    chain.mine([chain.send(None, "alice", [("dave", 10_000)])])
    assert chain.send(None, "dave", [("carol", 9_000 - 545)]).funding is not None


def test_the_fee_is_as_requested() -> None:
    """It goes to the miner, so no money disappears."""
    chain = ChainBuilder()
    tx = chain.send(b"x", fee=12_345)
    chain.mine([tx])
    undo = chain.undo(chain.tree.tip)
    assert undo is not None
    transactions = read_block(chain.raw_blocks()[-1])
    spent = sum(coin.value for coin in read_undo(undo)[-1])
    assert tx.fee == spent - sum(value for value, _ in transactions[-1].outputs) == 12_345
    assert sum(value for value, _ in transactions[0].outputs) == 5_000_000_000 + 12_345 + 1_000


def test_a_large_amount_gets_a_coin_of_its_own() -> None:
    """The faucet grants more than its usual coin, but at most one coinbase."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"rich", "alice", [("bob", 4_000_000_000)])])
    with pytest.raises(UsageError, match="faucet has no coin"):
        chain.send(b"richer", "alice", [("bob", 6_000_000_000)])


def test_wrong_amounts_and_senders_are_usage_errors() -> None:
    """Negative amounts, no senders and no blocks are rejected."""
    chain = ChainBuilder()
    with pytest.raises(UsageError, match="is negative"):
        chain.send(b"x", to=[("bob", -1)])
    with pytest.raises(UsageError, match="needs a sender"):
        chain.send(b"x", [])
    with pytest.raises(UsageError, match="a fee that is not negative"):
        chain.send(b"x", fee=-1)
    with pytest.raises(UsageError, match="at least one block"):
        chain.mine(n=0)


def test_more_names_than_one_coinbase_can_fund() -> None:
    """The faucet continues with its next coinbase, and every name gets its coin."""
    chain = ChainBuilder(premine=300)
    txs = [chain.send(b"x", f"name {number}", [("sink", 90_000_000)]) for number in range(120)]
    chain.mine(txs)
    assert {tx.txid for tx in txs} <= set(_txids(chain))


def test_a_thousand_names_send_before_anything_is_mined() -> None:
    """The faucet's chain gets long, but its transactions can be printed, compared and put into a set."""
    chain = ChainBuilder()
    txs = [chain.send(b"x", f"name {number}") for number in range(1_200)]
    assert len(set(txs)) == 1_200
    assert txs[-1].txid in repr(txs[-1])
    chain.mine(txs)
    assert chain.tree.tip.transactions == 2_401


def test_a_raw_transaction_is_mined_as_it_is() -> None:
    """Its coins must exist, or it must declare what it spends."""
    chain = ChainBuilder()
    tx = chain.send(b"x")
    with pytest.raises(UsageError, match="first mine what creates it"):
        chain.mine([tx.raw])
    assert tx.funding is not None
    chain.mine([tx.funding.raw, tx.raw])
    assert _txids(chain) == [tx.funding.txid, tx.txid]
    with pytest.raises(MalformedBlock):
        chain.mine([b"no transaction"])


def test_what_is_spent_cannot_be_mined_again() -> None:
    """This holds for the same transaction and for its conflict, in one block or two."""
    chain = ChainBuilder()
    tx = chain.send(b"x")
    conflict = chain.double_spend(tx, b"y", [("bob", 5)])
    with pytest.raises(UsageError, match="spent or not in the chain"):
        chain.mine([tx, conflict])
    chain.mine([tx])
    for again in (tx, conflict):
        with pytest.raises(UsageError, match="spent or not in the chain"):
            chain.mine([again])
    with pytest.raises(UsageError, match="not signed here"):
        chain.double_spend(Tx(b"", "00" * 32), b"z")
    with pytest.raises(UsageError, match="satoshi short"):
        chain.double_spend(tx, b"z", [("bob", 2_000_000)])


def test_money_cannot_be_created() -> None:
    """A raw transaction cannot pay out more than it spends."""
    chain = ChainBuilder()
    tx = chain.send(None, to=[("bob", 1_000)], fee=0)
    assert tx.funding is not None
    chain.mine([tx.funding])
    raised = tx.raw.replace((1_000).to_bytes(8, "little"), (1_001).to_bytes(8, "little"))
    with pytest.raises(UsageError, match="1 satoshi more"):
        chain.mine([raised])


def test_the_weight_of_a_block_is_limited() -> None:
    """A payload of a million bytes weighs too much."""
    chain = ChainBuilder()
    with pytest.raises(UsageError, match="would weigh"):
        chain.mine([chain.send(b"x" * 1_000_000)])
    assert chain.height == 101


def test_a_reorg_replaces_blocks_by_others() -> None:
    """By default there is one more, and only transactions that are passed are in the new ones."""
    chain = ChainBuilder()
    tx = chain.send(b"x")
    old = chain.mine([tx], n=3)
    new = chain.reorg(2)
    assert chain.height == 105
    assert len(new) == 3
    assert not set(old) & set(new)
    assert [stored.block.hash for stored in chain.tree.chain[102:]] == [old[0], *new]
    newest = chain.reorg(4, 4, [tx])
    assert [stored.block.hash for stored in chain.tree.chain[102:]] == newest
    assert tx.txid in [tx.txid[::-1].hex() for tx in read_block(chain.raw_blocks()[102])]


def test_transactions_survive_any_reorg() -> None:
    """A transaction can be mined on the new branch with or without its former neighbors."""
    chain = ChainBuilder()
    first, second = chain.send(b"1"), chain.send(b"2")
    chain.mine([first])
    chain.mine([second])
    third = chain.send(b"3")
    chain.mine([third])
    chain.reorg(3)
    fourth = chain.send(b"4")
    chain.mine([fourth])
    chain.mine([third])
    chain.mine([second])
    chain.mine([first, chain.send(b"5", "bob")])
    assert first.txid in _txids(chain)


def test_a_coin_is_signed_away_only_once() -> None:
    """This holds even if the faucet's coins run out while some are spent by unmined transactions."""
    chain = ChainBuilder()
    txs = [chain.send(b"%d" % number) for number in range(10)]
    chain.mine(txs[:1])
    txs.append(chain.send(b"10", to=[("bob", 998_400)]))
    chain.mine(txs[1:])
    assert {tx.txid for tx in txs[1:]} <= set(_txids(chain))


def test_a_conflict_can_replace_a_transaction_on_another_branch() -> None:
    """This is the double spend that a deep fork allows."""
    chain = ChainBuilder()
    tx = chain.send(b"pay bob")
    chain.mine([tx])
    conflict = chain.double_spend(tx, b"pay myself")
    chain.reorg(1, txs=[conflict])
    assert [stored.transactions for stored in chain.tree.chain[102:]] == [3, 1]


def test_a_reorg_to_less_work_forgets_the_old_branch() -> None:
    """The node then looks as if it never saw it; with equal work, the branch stays as a fork."""
    chain = ChainBuilder()
    old = chain.mine(n=3)
    chain.reorg(3, 1)
    assert chain.height == 102
    assert [chain.tree.find(block_hash) for block_hash in old] == [None] * 3
    equal = chain.mine()
    chain.reorg(1, 1)
    assert chain.tree.find(equal[0]) is not None


def test_a_shorter_branch_may_have_more_work() -> None:
    """Its target is harder, later blocks inherit it, and the old branch stays known."""
    chain = ChainBuilder()
    old = chain.mine(n=3)
    chain.reorg(3, 1, bits=0x200FFFFF)
    assert chain.height == 102
    assert chain.tree.find(old[-1]) is not None
    chain.mine()
    works = [stored.chainwork - stored.parent.chainwork for stored in chain.tree.chain[101:] if stored.parent]
    assert works == [2, 16, 16]


def test_an_impossible_reorg_leaves_the_chain_unchanged() -> None:
    """It may be too deep, add no blocks, or hold a transaction that spends a missing coin."""
    chain = ChainBuilder()
    tip = chain.tip
    for depth, n in ((0, None), (102, None), (1, 0)):
        with pytest.raises(UsageError, match="cannot be replaced"):
            chain.reorg(depth, n)
    bad = chain.send(b"x").raw
    with pytest.raises(UsageError, match="not in the chain"):
        chain.reorg(2, txs=[bad])
    assert (chain.tip, chain.height) == (tip, 101)


def test_a_reorg_below_the_faucets_coinbase_makes_it_start_over() -> None:
    """Its old transactions are gone, and funding works on the new branch."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"x")])
    chain.reorg(102)
    chain.mine([chain.send(b"y"), chain.send(b"z", "bob")])
    assert len(_txids(chain)) == 4


def test_a_chain_is_built_from_existing_blocks() -> None:
    """The branch with the most work wins, with or without the genesis block in the list."""
    chain = ChainBuilder()
    chain.mine([chain.send(b"x", to=[("bob", 5_000)])], n=2)
    old = chain.raw_blocks()
    chain.reorg(1)
    again = ChainBuilder.from_blocks("regtest", [*old, *chain.raw_blocks()[-2:]])
    assert again.tip == chain.tip
    assert ChainBuilder.from_blocks("regtest", old[1:]).height == 103
    chain.reorg(1, 1)
    rival = chain.raw_blocks()[-1]
    assert ChainBuilder.from_blocks("regtest", [*again.raw_blocks(), rival]).tip == again.tip
    assert again.undo(again.tree.chain[102]) == chain.undo(chain.tree.chain[102])
    again.mine([again.send(b"goes on")])


def test_blocks_must_follow_their_parents() -> None:
    """A gap or another network's blocks are a usage error."""
    blocks = ChainBuilder(premine=3).raw_blocks()
    with pytest.raises(UsageError, match="which is unknown"):
        ChainBuilder.from_blocks("regtest", [blocks[2]])
    with pytest.raises(UsageError, match="blocks of mainnet"):
        ChainBuilder.from_blocks("mainnet", blocks)
    with pytest.raises(MalformedBlock):
        ChainBuilder.from_blocks("regtest", [b"short"])


def test_real_mainnet_blocks_become_a_chain() -> None:
    """What blocks 0 to 599 spend is derived from the blocks alone."""
    file = shared("mainnet/blocks-0-599.dat").read_bytes()
    blocks, at = [], 0
    while at < len(file):
        length = int.from_bytes(file[at + 4 : at + 8], "little")
        blocks.append(file[at + 8 : at + 8 + length])
        at += 8 + length
    chain = ChainBuilder.from_blocks("mainnet", blocks)
    assert chain.height == 599
    undo = chain.undo(chain.tree.chain[170])
    assert undo is not None
    # The first payment ever spends 50 bitcoin from block 9.
    assert [(coin.value, coin.height, coin.generated) for coin in read_undo(undo)[1]] == [
        (5_000_000_000, 9, True)
    ]
    chain.mine(n=2)
    assert chain.height == 601


def test_a_chain_is_saved_in_the_format_of_a_nodes_files(tmp_path: Path) -> None:
    """The genesis block comes first, and each block is framed."""
    chain = ChainBuilder(premine=2)
    chain.save(tmp_path / "blocks.dat")
    saved = (tmp_path / "blocks.dat").read_bytes()
    assert saved[:8] == bytes.fromhex("fabfb5da1d010000")
    assert saved.count(bytes.fromhex("fabfb5da")) == 3


def test_a_builder_starts_fast() -> None:
    """It mines a hundred blocks in a quarter of a second."""
    started = perf_counter()
    ChainBuilder()
    assert perf_counter() - started < 0.25
