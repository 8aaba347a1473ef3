"""The Bitcoin networks: the parameters that differ between them, and the names by which they are found."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from virtualchain.errors import UsageError, quoted


@dataclass(frozen=True, slots=True)
class Network:
    """One Bitcoin network; the values are those of Bitcoin Core's chain parameters."""

    name: str
    """virtualchain's name: mainnet, testnet3, testnet4, signet or regtest."""
    chain: str
    """bitcoind's name, as `getblockchaininfo` returns it."""
    message_start: bytes
    """The four bytes in front of every block in `blk*.dat`."""
    genesis_hash: str
    rpc_port: int
    p2pkh: bytes
    """Version byte of pay-to-public-key-hash addresses."""
    p2sh: bytes
    """Version byte of pay-to-script-hash addresses."""
    bech32_hrp: str
    """Human-readable part of segwit addresses (BIP 173)."""
    subfolder: str
    """The folder of the network's files and cookie inside bitcoind's data folder; empty for mainnet."""


_ALL = (
    Network(
        name="mainnet",
        chain="main",
        message_start=bytes.fromhex("f9beb4d9"),
        genesis_hash="000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
        rpc_port=8332,
        p2pkh=b"\x00",
        p2sh=b"\x05",
        bech32_hrp="bc",
        subfolder="",
    ),
    Network(
        name="testnet3",
        chain="test",
        message_start=bytes.fromhex("0b110907"),
        genesis_hash="000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
        rpc_port=18332,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        bech32_hrp="tb",
        subfolder="testnet3",
    ),
    Network(
        name="testnet4",
        chain="testnet4",
        message_start=bytes.fromhex("1c163f28"),
        genesis_hash="00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
        rpc_port=48332,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        bech32_hrp="tb",
        subfolder="testnet4",
    ),
    Network(
        name="signet",
        chain="signet",
        message_start=bytes.fromhex("0a03cf40"),
        genesis_hash="00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
        rpc_port=38332,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        bech32_hrp="tb",
        subfolder="signet",
    ),
    Network(
        name="regtest",
        chain="regtest",
        message_start=bytes.fromhex("fabfb5da"),
        genesis_hash="0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        rpc_port=18443,
        p2pkh=b"\x6f",
        p2sh=b"\xc4",
        bech32_hrp="bcrt",
        subfolder="regtest",
    ),
)

NETWORKS: Final[Mapping[str, Network]] = MappingProxyType({known.name: known for known in _ALL})
"""Every network by virtualchain's name for it."""


def network(name: str) -> Network:
    """Find a network by virtualchain's name or bitcoind's; raises UsageError if there is none."""
    for known in _ALL:
        if name in {known.name, known.chain}:
            return known
    raise UsageError(f"there is no network {quoted(name)}: choose one of {', '.join(NETWORKS)}")
