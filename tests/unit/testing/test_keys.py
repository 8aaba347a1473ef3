"""Named identities."""

import pytest

from virtualchain.errors import UsageError
from virtualchain.testing import key
from virtualchain.testing.keys import KINDS


def test_a_name_has_the_same_key_everywhere() -> None:
    """Derived from the name alone, so that hashes of blocks can stand in a test."""
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
def test_each_kind_owns_by_its_own_form_of_address(kind: str, address: str) -> None:
    """The four forms that a sender can have."""
    assert key("alice", kind).address() == address


def test_an_address_belongs_to_a_network() -> None:
    """The same script, written for mainnet."""
    assert key("alice").address("mainnet").startswith("bc1q")


def test_a_key_is_printed_without_its_secret() -> None:
    """Nobody should get used to secrets in logs."""
    assert key("alice").secret.hex() not in repr(key("alice"))
    assert "secret" not in repr(key("alice"))


def test_an_unknown_kind_is_a_mistake_of_the_user() -> None:
    """The message names the kinds there are."""
    with pytest.raises(UsageError, match=", ".join(KINDS)):
        key("alice", "p2pk")
