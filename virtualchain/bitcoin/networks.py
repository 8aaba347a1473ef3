"""The Bitcoin networks: the parameters that differ between them, and the names by which they are found.

Anyone can start a signet of their own. All signets have the same genesis block; what distinguishes one is its
challenge, the script that each of its blocks must satisfy (BIP 325), and the message start that follows from
the challenge. The public signet is called `signet`, any other one `signet-` and its message start.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import UsageError, quoted

_EASIEST: Final = (1 << 255) - 1
"""Regtest's limit: every second hash is below it."""
_FIRST_LIMIT: Final = 0xFFFF << 208
_SIGNET_LIMIT: Final = 0x377AE << 216
_CUSTOM_SIGNET: Final = re.compile("signet-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Network:
    """One Bitcoin network; the values are those of Bitcoin Core's chain parameters."""

    name: str
    """virtualchain's name: mainnet, testnet3, testnet4, signet, regtest, or signet- and eight hex digits."""
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
    largest_target: int
    """The easiest work: a block's hash, as a number, is at most its target, which is at most this."""
    segwit_block_id: int
    """From this height on, a coinbase that commits to witnesses must be right (BIP 141)."""
    coinbase_height_block_id: int
    """From this height on, a coinbase must begin with its block's height (BIP 34)."""
    retargets: bool = True
    """Whether the difficulty is adjusted every 2,016 blocks."""
    eases: bool = False
    """Whether a block may have the easiest target if it comes 20 minutes after its parent."""
    adjusts_first_target: bool = False
    """Whether the adjustment starts from the period's first target and not from its last (BIP 94)."""


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
        largest_target=_FIRST_LIMIT,
        segwit_block_id=481_824,
        coinbase_height_block_id=227931,
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
        largest_target=_FIRST_LIMIT,
        segwit_block_id=834_624,
        coinbase_height_block_id=21111,
        eases=True,
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
        largest_target=_FIRST_LIMIT,
        segwit_block_id=1,
        coinbase_height_block_id=1,
        eases=True,
        adjusts_first_target=True,
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
        largest_target=_SIGNET_LIMIT,
        segwit_block_id=1,
        coinbase_height_block_id=1,
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
        largest_target=_EASIEST,
        segwit_block_id=0,
        coinbase_height_block_id=1,
        retargets=False,
    ),
)

NETWORKS: Final[Mapping[str, Network]] = MappingProxyType({known.name: known for known in _ALL})
"""Every network by virtualchain's name for it."""


def network(name: str) -> Network:
    """Find a network by virtualchain's name or bitcoind's; raises UsageError if there is none."""
    for known in NETWORKS.values():
        if name in {known.name, known.chain}:
            return known
    custom = _CUSTOM_SIGNET.fullmatch(name)
    if custom:
        return signet(bytes.fromhex(custom[1]))
    raise UsageError(
        f"there is no network {quoted(name)}: choose one of {', '.join(NETWORKS)}, or signet- and the eight "
        "hex digits of a custom signet's message start"
    )


def signet(message_start: bytes) -> Network:
    """Return the signet whose blocks are stored after this message start.

    A custom one may have another block spacing, which no node states, so its difficulty is not followed.
    """
    public = NETWORKS["signet"]
    if message_start == public.message_start:
        return public
    name = message_start.hex()
    subfolder = f"{public.subfolder}_{name}"
    return replace(
        public, name=f"signet-{name}", message_start=message_start, subfolder=subfolder, retargets=False
    )


def signet_of(challenge: bytes) -> Network:
    """Return the signet with this challenge, a script of fewer than 2^16 bytes (BIP 325)."""
    size = len(challenge)
    length = bytes([size]) if size < 0xFD else b"\xfd" + size.to_bytes(2, "little")
    return signet(sha256d(length + challenge)[:4])


def with_easy_work(network: Network) -> Network:
    """Return the network with regtest's proof of work, for chains that are made up and cheap to mine.

    No node's chain is checked against it unless a caller asks for just that.
    """
    return replace(network, largest_target=_EASIEST, retargets=False, eases=False)
