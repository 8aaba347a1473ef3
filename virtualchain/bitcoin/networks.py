"""The networks: Bitcoin's own, those of other coins, and the names by which they are found.

An extension adds networks by an entry point of the group `virtualchain.chains` (`docs/chains.md`). Entry
points are looked at only if no network here is the one that is looked for.

Anyone can start a signet of their own. All signets have the same genesis block; what distinguishes one is its
challenge, the script that each of its blocks must satisfy (BIP 325), and the message start that follows from
the challenge. The public signet is called `signet`, any other one `signet-` and its message start.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

from virtualchain.bitcoin.other_coins import OTHER_COINS
from virtualchain.bitcoin.parameters import EASIEST_TARGET, Network, scrypt
from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import UsageError, quoted

__all__ = [
    "EASIEST_TARGET",
    "GROUP",
    "NETWORKS",
    "Network",
    "every_network",
    "network",
    "scrypt",
    "sha256d",
    "signet",
    "signet_of",
    "with_easy_work",
]

GROUP: Final = "virtualchain.chains"
"""The group of entry points with which extensions add networks."""

_FIRST_LIMIT: Final = 0xFFFF << 208
_SIGNET_LIMIT: Final = 0x377AE << 216
_CUSTOM_SIGNET: Final = re.compile("signet-([0-9a-f]{8})")


_BITCOIN: Final = (
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
        largest_target=EASIEST_TARGET,
        segwit_block_id=0,
        coinbase_height_block_id=1,
        retargets=False,
    ),
)

NETWORKS: Final[Mapping[str, Network]] = MappingProxyType(
    {known.name: known for known in (*_BITCOIN, *OTHER_COINS)}
)
"""Every network that virtualchain brings along, by its name; Bitcoin's are first."""


def network(name: str) -> Network:
    """Find a network by virtualchain's name or, of Bitcoin's, by bitcoind's.

    Raises UsageError if there is none, or if an extension that may have it cannot be used.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    for known in _BITCOIN:
        if name == known.chain:
            return known
    custom = _CUSTOM_SIGNET.fullmatch(name)
    if custom:
        return signet(bytes.fromhex(custom[1]))
    added = _extensions()
    if name in added:
        return added[name]
    others = f", {', '.join(sorted(added))}" if added else ""
    raise UsageError(
        f"there is no network {quoted(name)}: choose one of {', '.join(NETWORKS)}{others}, or signet- and "
        "the eight hex digits of a custom signet's message start; a network of an extension is there once "
        "the package with it is installed (docs/chains.md)"
    )


def every_network() -> Iterator[Network]:
    """Yield every network, Bitcoin's first and those of extensions last.

    Extensions are loaded when the others did not do: raises UsageError if one cannot be used.
    """
    yield from NETWORKS.values()
    yield from _extensions().values()


@cache
def _extensions() -> Mapping[str, Network]:
    """Load the networks of all extensions, by name."""
    added: dict[str, Network] = {}
    origins: dict[str, str] = {}
    # By name, so that messages do not depend on the order of folders.
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        origin = _described(entry)
        for each in _load(entry, origin):
            if each.name in NETWORKS or each.name.startswith("signet-") or _is_alias(each.name):
                raise UsageError(
                    f"{origin} adds a network {quoted(each.name)}, a name that virtualchain uses itself: "
                    "have it choose another name"
                )
            if each.name in added and added[each.name] != each:
                raise UsageError(
                    f"{origins[each.name]} and {origin} both add a network {quoted(each.name)}: uninstall "
                    "one of them, or have it choose another name"
                )
            added[each.name], origins[each.name] = each, origin
    return added


def _load(entry: EntryPoint, origin: str) -> list[Network]:
    try:
        loaded = entry.load()
        if callable(loaded) and not isinstance(loaded, Network):
            loaded = loaded()
        networks = [loaded] if isinstance(loaded, Network) else list(loaded)
    except Exception as error:  # an extension's own code may raise anything
        raise UsageError(
            f"{origin} cannot be loaded: {error or type(error).__name__}; mend it, or uninstall it"
        ) from error
    for each in networks:
        if not isinstance(each, Network):
            raise UsageError(
                f"{origin} holds {quoted(type(each).__name__)}: it must be a Network, several of them, or a "
                "function that returns them"
            )
    return networks


def _described(entry: EntryPoint) -> str:
    package = "an unknown package" if entry.dist is None else f"the package {entry.dist.name}"
    return f"the entry point {entry.name} = {entry.value} ({GROUP}) of {package}"


def _is_alias(name: str) -> bool:
    return any(name == known.chain for known in _BITCOIN)


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
    return replace(network, largest_target=EASIEST_TARGET, retargets=False, eases=False)
