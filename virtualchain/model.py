"""The frozen values that the rooms pass to each other.

Hashes and transaction ids are lower-case hex in display order (as block explorers print them);
scripts, keys and witness items are hex; amounts are satoshi; a ``block_id`` is a block's height.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
"""One JSON object, as callbacks get it and as the database stores it."""

FindPayload = Callable[[Sequence[Mapping[str, Any]]], bytes | None]
"""A payload rule: a transaction's outputs (as `Output.as_dict`) to its payload, or None."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a chain as its 80-byte header describes it."""

    block_id: int
    hash: str
    prev_hash: str
    merkle_root: str
    time: int
    """Unix seconds, as the miner wrote it."""
    bits: int
    """The compact target (BIP and consensus field `nBits`)."""
    header: bytes


@dataclass(frozen=True, slots=True)
class TxIn:
    """One input of a transaction."""

    txid: str
    vout: int
    script_sig: str
    sequence: int
    witness: tuple[str, ...]

    def as_dict(self) -> Json:
        """Give a fresh dict, as callbacks get it."""
        return {
            "txid": self.txid,
            "vout": self.vout,
            "script_sig": self.script_sig,
            "sequence": self.sequence,
            "witness": list(self.witness),
        }


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a transaction; `type` is the name that bitcoind gives its script."""

    n: int
    value: int
    script_pubkey: str
    type: str
    addresses: tuple[str, ...]

    def as_dict(self) -> Json:
        """Give a fresh dict, as callbacks and `vc.inputs` get it."""
        return {
            "n": self.n,
            "value": self.value,
            "script_pubkey": self.script_pubkey,
            "type": self.type,
            "addresses": list(self.addresses),
        }


@dataclass(frozen=True, slots=True)
class SpentOutput:
    """What a source tells of an output that an input spends."""

    value: int
    script_pubkey: bytes


@dataclass(frozen=True, slots=True)
class Sender:
    """The output that an input spends, and the public keys that the spending reveals."""

    txid: str
    vout: int
    value: int
    script_pubkey: str
    type: str
    addresses: tuple[str, ...]
    public_keys: tuple[str, ...]

    def as_dict(self) -> Json:
        """Give a fresh dict, as callbacks and `vc.inputs` get it."""
        return {
            "txid": self.txid,
            "vout": self.vout,
            "value": self.value,
            "script_pubkey": self.script_pubkey,
            "type": self.type,
            "addresses": list(self.addresses),
            "public_keys": list(self.public_keys),
        }


@dataclass(frozen=True, slots=True)
class Input:
    """A transaction whose payload starts with a registered magic, as the tape keeps it."""

    block_id: int
    txindex: int
    txid: str
    raw: bytes
    magics: tuple[bytes, ...]
    senders: tuple[Sender, ...]
    outputs: tuple[Output, ...]
    fee: int


@dataclass(frozen=True, slots=True)
class ScannedBlock:
    """A block and all of its inputs: what is appended to the tape at once."""

    block: Block
    inputs: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """One thing the scan looks for: payloads that start with `magic`, found by a payload rule.

    `rule` names the payload rule; the tape's coverage is kept by (magic, rule).
    """

    magic: bytes
    rule: str
    find_payload: FindPayload
    prefilter: bool
    """Whether the rule only finds payloads that a byte search for OP_RETURN, push and magic meets."""
