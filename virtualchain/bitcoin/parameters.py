"""What a network is: the values in which Bitcoin-like chains differ.

`docs/chains.md` describes them for who adds a chain. The defaults are those of Bitcoin's main network.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from virtualchain.consensus.hashing import sha256d
from virtualchain.errors import UsageError, quoted

EASIEST_TARGET: Final = (1 << 255) - 1
"""Regtest's limit: every second hash is below it."""

COIN: Final = 100_000_000
"""Base units of a coin, on every chain."""
LARGEST_AMOUNT: Final = 10**18
"""Base units: the largest amount on any chain that virtualchain knows, Dogecoin's."""

_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_UNIT: Final = re.compile(r"[A-Za-z]{1,10}")
_PREFIX: Final = re.compile(r"[a-z0-9]{1,83}")
_SCRYPT_MEMORY: Final = 1 << 20
"""Bytes that scrypt may take: it needs 128 KiB and some."""


@lru_cache(maxsize=4096)  # a header's work is checked with its chain, and again with its block
def scrypt(header: bytes) -> bytes:
    """Hash a header with scrypt (N = 1024, r = 1, p = 1, the header as salt), as Litecoin and others do."""
    return hashlib.scrypt(header, salt=header, n=1024, r=1, p=1, maxmem=_SCRYPT_MEMORY, dklen=32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a Bitcoin-like chain; the values are those of its node's chain parameters.

    Raises UsageError for a value that cannot be right.
    """

    name: str
    """virtualchain's name, small letters, digits and hyphens; Bitcoin's are mainnet, testnet3, testnet4,
    signet, regtest, and signet- with eight hex digits."""
    coin: str = "Bitcoin"
    """The name of the node's data folder, as on macOS and Windows; on Linux it is a dot and small letters."""
    unit: str = "BTC"
    """The sign of its coin, of 10^8 base units, behind amounts."""
    chain: str
    """The node's name for it, as `getblockchaininfo` returns it: main, test, regtest."""
    message_start: bytes
    """The four bytes in front of every block in `blk*.dat`."""
    genesis_hash: str
    """The hash of block 0, in display order."""
    genesis_block: bytes = b""
    """Block 0, serialized: only the test kit needs it, to make up chains."""
    rpc_port: int
    """The port of the node's JSON-RPC and REST, if a URL names none."""
    p2pkh: bytes
    """Version byte of pay-to-public-key-hash addresses."""
    p2sh: bytes
    """Version byte of pay-to-script-hash addresses."""
    p2sh_also_read: bytes = b""
    """Another version byte with which such addresses are read, but not shown; empty if there is none."""
    bech32_hrp: str = ""
    """Human-readable part of segwit addresses (BIP 173); empty if witness programs have no address."""
    mweb_hrp: str = ""
    """Human-readable part of MWEB addresses; empty unless the chain has MWEB blocks (LIP 2 and 3)."""
    subfolder: str
    """The folder of the network's files and cookie inside the data folder; empty for a main network."""
    proof_of_work: Callable[[bytes], bytes] | None = sha256d
    """Hashes 80 bytes of a header to 32, the least significant first, for the proof of work; None: no work is
    checked."""
    largest_target: int
    """The easiest work: a block's hash, as a number, is at most its target, which is at most this."""
    segwit_block_id: int | None
    """From this height on, a coinbase that commits to witnesses must be right (BIP 141); None: the chain has
    no witnesses."""
    coinbase_height_block_id: int
    """From this height on, a coinbase must begin with its block's height (BIP 34)."""
    retargets: bool = True
    """Whether the difficulty is adjusted once in a period, by Bitcoin's rule; False: what it must be is not
    checked."""
    period: int = 2016
    """Blocks from one adjustment to the next."""
    period_seconds: int = 14 * 24 * 60 * 60
    """How long a period should take."""
    whole_period_block_id: int | None = None
    """From this height on, an adjustment measures a period from its parent's last block, not its first."""
    eases: bool = False
    """Whether a block may have the easiest target if it comes a while after its parent: two spacings."""
    adjusts_first_target: bool = False
    """Whether the adjustment starts from the period's first target and not from its last (BIP 94)."""
    auxpow_chain_id: int | None = None
    """The number of a chain whose blocks may have their work in another chain's (AuxPoW); None: they may
    not."""
    auxpow_block_id: int = 0
    """From this height on, they may."""
    strict_chain_id: bool = True
    """Whether a header must state the chain's own number, and the header with the work another one."""
    legacy_versions: tuple[int, ...] = (1,)
    """With `strict_chain_id`: versions that a header without AuxPoW may have though they state no chain."""
    auxpow_index_is_zero: bool = False
    """Whether the transaction that commits to the block must be said to be the first of the other block."""
    spacing: int = 600
    """Seconds from one block to the next, on average."""
    confirmations: int = 6
    """Confirmations from which on a block counts as final, where an app and its operator name none."""
    largest_amount: int = 21_000_000 * COIN
    """Base units (satoshi): no amount is larger."""

    def written(self, amount: int) -> str:
        """Write base units as coins, with all eight decimals and the unit."""
        return f"{amount // COIN}.{amount % COIN:08} {self.unit}"

    def require_possible(self, amount: int) -> None:
        """Raise UsageError for an amount, in base units, that no output can hold."""
        if amount > self.largest_amount:
            raise UsageError(f"{self.written(amount)} is more than there can be")

    def __post_init__(self) -> None:
        for field, is_right, expected in (
            (
                "name",
                _matches(_NAME, self.name),
                "small letters and digits, with single hyphens between them",
            ),
            ("message_start", _has_bytes(self.message_start, 4), "4 bytes"),
            ("genesis_hash", _matches(_HASH, self.genesis_hash), "64 hex digits, in display order"),
            ("unit", _matches(_UNIT, self.unit), "up to ten letters"),
            ("rpc_port", _is_number(self.rpc_port, 1, 65_535), "a port"),
            ("p2pkh", _has_bytes(self.p2pkh, 1, 2), "1 or 2 bytes"),
            ("p2sh", _has_bytes(self.p2sh, 1, 2), "1 or 2 bytes"),
            ("p2sh_also_read", _has_bytes(self.p2sh_also_read, 0, 1, 2), "1 or 2 bytes, or none"),
            ("bech32_hrp", not self.bech32_hrp or _matches(_PREFIX, self.bech32_hrp), "small letters"),
            ("mweb_hrp", not self.mweb_hrp or _matches(_PREFIX, self.mweb_hrp), "small letters"),
            (
                "proof_of_work",
                self.proof_of_work is None or callable(self.proof_of_work),
                "a function or None",
            ),
            ("largest_target", _is_number(self.largest_target, 1, 2**256 - 1), "a number below 2^256"),
            (
                "segwit_block_id",
                self.segwit_block_id is None or _is_number(self.segwit_block_id, 0),
                "a height or None",
            ),
            ("coinbase_height_block_id", _is_number(self.coinbase_height_block_id, 0), "a height"),
            ("period", _is_number(self.period, 1), "a number of blocks"),
            ("period_seconds", _is_number(self.period_seconds, 1), "a number of seconds"),
            (
                "auxpow_chain_id",
                self.auxpow_chain_id is None or _is_number(self.auxpow_chain_id, 0, 2**16 - 1),
                "a number below 65536 or None",
            ),
            ("auxpow_block_id", _is_number(self.auxpow_block_id, 0), "a height"),
            ("spacing", _is_number(self.spacing, 1), "a number of seconds"),
            ("confirmations", _is_number(self.confirmations, 1), "a number of blocks"),
            ("largest_amount", _is_number(self.largest_amount, 1, LARGEST_AMOUNT), "at most 10^18"),
        ):
            if not is_right:
                raise UsageError(
                    f"network {quoted(self.name)}: {field} must be {expected}, not {getattr(self, field)!r}"
                )
        for text in ("coin", "chain", "subfolder"):
            if not isinstance(getattr(self, text), str):
                raise UsageError(f"network {quoted(self.name)}: {text} must be a string")
        if self.genesis_block and sha256d(self.genesis_block[:80])[::-1].hex() != self.genesis_hash:
            raise UsageError(
                f"network {quoted(self.name)}: genesis_block does not have the hash {self.genesis_hash}"
            )

    @property
    def forms(self) -> tuple[bytes, bytes, str, bool, int]:
        """What compiled code needs to know, see `compiled.Forms`."""
        has_witnesses = self.segwit_block_id is not None
        return self.p2pkh, self.p2sh, self.bech32_hrp, has_witnesses, self.largest_amount

    @property
    def encodes_like_bitcoin(self) -> bool:
        """Whether blocks are always as Bitcoin's: without AuxPoW and MWEB."""
        return self.auxpow_chain_id is None and not self.mweb_hrp

    @property
    def address_form(self) -> str | None:
        """How another coin writes addresses, for the database (`vc.deployment`); None for Bitcoin's."""
        if self.is_bitcoin:
            return None
        versions = (self.p2pkh.hex(), self.p2sh.hex(), self.p2sh_also_read.hex())
        programs = "" if self.segwit_block_id is None else "mweb" if self.mweb_hrp else "segwit"
        return ":".join((*versions, self.bech32_hrp, programs))

    @property
    def is_bitcoin(self) -> bool:
        """Whether this is one of Bitcoin's networks."""
        return self.coin == "Bitcoin"


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _has_bytes(value: object, *lengths: int) -> bool:
    return isinstance(value, bytes) and len(value) in lengths


def _is_number(value: object, least: int, most: int | None = None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return least <= value and (most is None or value <= most)
