"""Whom a rate of requests is counted for."""

import pytest

from virtualchain.web.gate import _asker


@pytest.mark.parametrize(
    ("address", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("a socket", "another:one", False),
    ],
)
def test_an_ipv6_network_is_one(address: str, other: str, is_same: bool) -> None:
    """Who has a whole network of addresses has the rate of one."""
    assert (_asker(address) == _asker(other)) == is_same
