"""Scripts and transactions of the builder."""

import pytest

from virtualchain.bitcoin.script import op_return_payload
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing import ChainBuilder, foreign, key, op_return
from virtualchain.testing.transactions import push
from virtualchain.testing.wire import read_transaction


@pytest.mark.parametrize(
    ("size", "form"),
    [
        (0, "00"),
        (1, "01"),
        (75, "4b"),
        (76, "4c4c"),
        (255, "4cff"),
        (256, "4d0001"),
        (65_535, "4dffff"),
        (65_536, "4e00000100"),
    ],
)
def test_a_push_has_the_shortest_form_that_holds_its_data(size: int, form: str) -> None:
    """Direct, OP_PUSHDATA1, 2 and 4, and the payload is found again."""
    data = b"x" * size
    assert push(data) == bytes.fromhex(form) + data
    if size:
        assert op_return_payload(op_return(data)) == data


def test_one_small_byte_is_pushed_and_not_named() -> None:
    """OP_1 would be shorter, but the payload rule takes only pushes."""
    assert op_return(b"\x01").hex() == "6a0101"


def test_a_transaction_signs_alike_each_time() -> None:
    """Two builders that do the same give the same bytes, for every form of sender."""
    for kind in ("p2wpkh", "p2pkh", "p2sh-p2wpkh", "p2tr"):
        first, second = (ChainBuilder().send(b"same", key("alice", kind)) for _ in range(2))
        assert first == second


def test_a_foreign_transaction_brings_what_it_spends() -> None:
    """Its fee follows, and a block takes it although the chain never had its coins."""
    raw = ChainBuilder().send(b"hello", "zoe").raw
    tx = foreign(raw, [SpentOutput(1_000_000, key("zoe").script_pubkey)])
    assert tx.fee == 1_000
    other = ChainBuilder()
    other.mine(n=5)
    other.mine([tx])
    assert other.tree.tip.transactions == 2
    other.reorg(2)
    other.mine([tx])


def test_a_foreign_transaction_needs_one_output_for_each_input() -> None:
    """Neither none nor two."""
    raw = ChainBuilder().send(b"hello").raw
    coin = SpentOutput(1, b"")
    for spends in ([], [coin, coin]):
        with pytest.raises(UsageError, match="has 1 inputs"):
            foreign(raw, spends)
    with pytest.raises(MalformedBlock):
        foreign(b"no transaction", [])


def test_a_payload_stands_in_the_first_output_and_the_change_in_the_last() -> None:
    """The order that an app author sees."""
    tx = read_transaction(ChainBuilder().send(b"hello", "alice", [("bob", 10_000), (b"\x51", 7)]).raw)
    assert tx.outputs == (
        (0, op_return(b"hello")),
        (10_000, key("bob").script_pubkey),
        (7, b"\x51"),
        (1_000_000 - 10_007 - 1_000, key("alice").script_pubkey),
    )
