"""The networks and the names by which they are found."""

import pytest

from tests.support.shared_data import shared
from virtualchain.bitcoin.header import read_header
from virtualchain.bitcoin.networks import NETWORKS, network, signet, signet_of, with_easy_work
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


def test_no_two_networks_of_bitcoin_share_a_genesis_a_port_or_a_message_start() -> None:
    """The values that identify a network are unique to it."""
    bitcoin = [known for known in NETWORKS.values() if known.is_bitcoin]
    for field in ("genesis_hash", "rpc_port", "message_start", "subfolder", "chain"):
        assert len({getattr(known, field) for known in bitcoin}) == len(bitcoin) == 5, field


def test_only_namecoin_s_regtest_is_like_another_network() -> None:
    """All others differ in their first block, or in the message start; the pair has to be asked for."""
    seen: dict[tuple[str, bytes], str] = {}
    for known in NETWORKS.values():
        place = known.genesis_hash, known.message_start
        assert (place in seen) == (known.name == "namecoin-regtest")
        seen[place] = known.name


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


@pytest.mark.parametrize(
    ("challenge", "message_start"),
    [
        ("512103b3b3721560a0d98a211a4bf38b910c4a0c97f435861e65e136c9993cd99fb34151ae", "8de45da0"),
        ("00140b24b854187ee6dcd5a0a7063156b83a4605443c", "4605eff3"),
        ("51", "54d26fbd"),
    ],
)
def test_a_custom_signet_is_named_by_its_message_start(challenge: str, message_start: str) -> None:
    """Bitcoin Core derived these from the challenges, and names the folder by them, too."""
    custom = signet_of(bytes.fromhex(challenge))
    assert custom.message_start.hex() == message_start
    assert custom == network(f"signet-{message_start}") == signet(bytes.fromhex(message_start))
    assert (custom.chain, custom.subfolder) == ("signet", f"signet_{message_start}")
    assert custom != network("signet")


def test_the_public_signet_follows_from_its_challenge() -> None:
    """It has the name without a message start, however it is found."""
    challenge = (
        "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430"
        "210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae"
    )
    assert signet_of(bytes.fromhex(challenge)) is network("signet")
    assert network("signet-0a03cf40") is network("signet")


@pytest.mark.parametrize(
    "name", ["signet-", "signet-0a03cf4", "signet-0A03CF41", "signet_0a03cf41", "signets"]
)
def test_what_only_resembles_a_custom_signet_is_rejected(name: str) -> None:
    """The message says what follows `signet-`."""
    with pytest.raises(UsageError, match="or signet- and the eight hex digits"):
        network(name)


def test_easy_work_changes_nothing_else() -> None:
    """Tests and recordings use it for made-up chains, under the network's own name."""
    main, easy = network("mainnet"), with_easy_work(network("mainnet"))
    assert (easy.name, easy.genesis_hash, easy.p2pkh) == (main.name, main.genesis_hash, main.p2pkh)
    assert easy.largest_target > main.largest_target
