"""Named keys, scripts and signed transactions."""

import pytest

from virtualchain.bitcoin.script import op_return_payload, push
from virtualchain.errors import MalformedBlock, UsageError
from virtualchain.model import SpentOutput
from virtualchain.testing import ChainBuilder, foreign, key, op_return
from virtualchain.testing.transactions import KEY_KINDS
from virtualchain.testing.wire import read_transaction


def test_a_name_has_the_same_key_everywhere() -> None:
    """It is derived only from the name, so tests can contain block hashes."""
    assert (
        key("alice").public_key.hex() == "02fdca0c937cc1374287fcc5f2d6f467dc88337450e650d053679da2979f2692a9"
    )
    assert key("alice").public_key == key("alice", "p2tr").public_key
    assert key("alice").secret != key("bob").secret


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("p2wpkh", "bcrt1q95l3km6z4mwwmp8r7zr4gsnwckgkmc20cdnpe2"),
        ("p2pkh", "mjeCJT1K2iFuUoaLtCftLHhrt61aEomur8"),
        ("p2sh-p2wpkh", "2NFCr2mMfVqQdSWNaq9ygSA1aTopLPwjeFe"),
        ("p2tr", "bcrt1purn2hre8r9zftkdq8z7lrunc9wa64ltjhddyzprgmjyz453qx6aq7r4z4r"),
    ],
)
def test_each_kind_has_its_own_form_of_address(kind: str, address: str) -> None:
    """A sender's address can have four forms."""
    assert key("alice", kind).address() == address


def test_an_address_belongs_to_a_network() -> None:
    """The same script has another address on mainnet."""
    assert key("alice").address("mainnet").startswith("bc1q")


def test_a_key_is_printed_without_its_secret() -> None:
    """Secrets must not get into logs, not even those of tests."""
    assert key("alice").secret.hex() not in repr(key("alice"))
    assert "secret" not in repr(key("alice"))


def test_an_unknown_kind_is_a_usage_error() -> None:
    """The message lists the valid kinds."""
    with pytest.raises(UsageError, match=", ".join(KEY_KINDS)):
        key("alice", "p2pk")


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
    """It is direct or OP_PUSHDATA1, 2 or 4, and the payload can be read back."""
    data = b"x" * size
    assert push(data) == bytes.fromhex(form) + data
    if size:
        assert op_return_payload(op_return(data)) == data


def test_one_small_byte_is_pushed_as_data() -> None:
    """OP_1 would be shorter, but the payload rule accepts only pushes."""
    assert op_return(b"\x01").hex() == "6a0101"


def test_signing_is_deterministic() -> None:
    """Two builders with the same calls produce the same bytes, for every kind of sender."""
    for kind in ("p2wpkh", "p2pkh", "p2sh-p2wpkh", "p2tr"):
        first, second = (ChainBuilder().send(b"same", key("alice", kind)) for _ in range(2))
        assert first == second


def test_a_foreign_transaction_brings_what_it_spends() -> None:
    """That determines its fee, and it can be mined although the chain never had its coins."""
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
    """With none or two for its one input, it is an error."""
    raw = ChainBuilder().send(b"hello").raw
    coin = SpentOutput(1, b"")
    for spends in ([], [coin, coin]):
        with pytest.raises(UsageError, match="has 1 inputs"):
            foreign(raw, spends)
    with pytest.raises(MalformedBlock):
        foreign(b"no transaction", [])


def test_the_payload_is_the_first_output_and_the_change_the_last() -> None:
    """Recipients are in between, in their order."""
    tx = read_transaction(ChainBuilder().send(b"hello", "alice", [("bob", 10_000), (b"\x51", 7)]).raw)
    assert tx.outputs == (
        (0, op_return(b"hello")),
        (10_000, key("bob").script_pubkey),
        (7, b"\x51"),
        (1_000_000 - 10_007 - 1_000, key("alice").script_pubkey),
    )
