"""The networks and the names by which they are found."""

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import NETWORKS, network
from virtualchain.errors import UsageError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mainnet", "mainnet"),
        ("main", "mainnet"),
        ("testnet3", "testnet3"),
        ("test", "testnet3"),
        ("testnet4", "testnet4"),
        ("signet", "signet"),
        ("regtest", "regtest"),
    ],
)
def test_a_network_is_found_by_our_name_and_by_bitcoinds(name: str, expected: str) -> None:
    """The name in the settings and the name that the node returns mean the same network."""
    assert network(name) is NETWORKS[expected]


def test_an_unknown_network_is_rejected_with_the_known_names() -> None:
    """The message lists the choices, for a typo."""
    with pytest.raises(UsageError, match=r"'bitcoin'.*mainnet, testnet3, testnet4, signet, regtest"):
        network("bitcoin")


def test_no_two_networks_share_a_genesis_a_port_or_a_message_start() -> None:
    """The values that identify a network are unique to it."""
    for field in ("genesis_hash", "rpc_port", "message_start", "subfolder", "chain"):
        assert len({getattr(known, field) for known in NETWORKS.values()}) == len(NETWORKS), field


@pytest.mark.parametrize(
    ("name", "file", "start"),
    [
        ("mainnet", "mainnet/blocks-0-599.dat", 8),
        ("testnet3", "headers/testnet3_0_10000.bin", 0),
        ("signet", "headers/signet_0_2015.bin", 0),
    ],
)
def test_the_genesis_hash_is_that_of_the_real_chain(name: str, file: str, start: int) -> None:
    """Recorded chains begin with the hash in our table."""
    raw = shared(file).read_bytes()
    assert read_header(0, raw[start : start + 80]).hash == network(name).genesis_hash


def test_block_files_begin_with_the_message_start() -> None:
    """The frames of real block files have the four bytes in our table."""
    assert shared("mainnet/blocks-0-599.dat").read_bytes().startswith(network("main").message_start)
