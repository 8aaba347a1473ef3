"""Read what an operation's payload and transaction say: names, hashes, sender, recipient, fee.

Scripts, keys and hashes are lowercase hex. Refused is raised for a transaction of the wrong form.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.script import pushes
from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names.params import BURN_SCRIPT
from virtualchain.examples.names.rules import require, require_some
from virtualchain.model import Json

MAX_NAME_LENGTH: Final = 37
_MAX_NAMESPACE_LENGTH: Final = 19
_NAME: Final = re.compile(rb"[a-z0-9_-]+\.[a-z0-9_-]+")
_NAMESPACE: Final = re.compile(rb"[a-z0-9_-]+")
_BASE40_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz-_.+"
_HASH_IN_SCRIPT: Final = {"pubkeyhash": slice(6, 46), "scripthash": slice(4, 44)}
"""The types of script that may own names, and where in the script's hex its 20-byte hash is."""


# Names and hashes.


def read_name(text: bytes) -> str:
    """Read a full name, such as `judecn.id`; raises Refused for anything else."""
    require(_NAME.fullmatch(text) is not None and len(text) <= MAX_NAME_LENGTH, "not a valid name")
    name = text.decode("ascii")
    require(len(namespace_of(name)) <= _MAX_NAMESPACE_LENGTH, "the namespace id is too long")
    return name


def read_namespace_id(text: bytes) -> str:
    """Read a namespace id, such as `id`; raises Refused for anything else."""
    require(
        _NAMESPACE.fullmatch(text) is not None and len(text) <= _MAX_NAMESPACE_LENGTH,
        "not a valid namespace id",
    )
    return text.decode("ascii")


def write_name(name: str) -> bytes:
    """Write a full name; raises Refused for anything else."""
    return read_name(name.encode()).encode("ascii")


def write_namespace_id(namespace_id: str) -> bytes:
    """Write a namespace id; raises Refused for anything else."""
    return read_namespace_id(namespace_id.encode()).encode("ascii")


def write_hash(text: str, size: int) -> bytes:
    """Write a hash of so many bytes from its hex; raises Refused for anything else."""
    require(
        re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text) is not None, f"{text!r} is not {2 * size} hex digits"
    )
    return bytes.fromhex(text)


def write_number(number: int, size: int) -> bytes:
    """Write a number in so many bytes; raises Refused if it does not fit."""
    require(0 <= number < 1 << 8 * size, f"{number} does not fit into {size} bytes")
    return number.to_bytes(size, "big")


def write_nibbles(numbers: Sequence[int]) -> bytes:
    """Write an even count of numbers from 0 to 15, two in a byte; raises Refused for others."""
    require(all(0 <= number <= 15 for number in numbers), "a bucket or discount is not from 0 to 15")
    return bytes.fromhex("".join(f"{number:x}" for number in numbers))


def namespace_of(name: str) -> str:
    """Return the namespace id of a full name."""
    return name.partition(".")[2]


def base40(text: str) -> bytes:
    """Encode text as a big-endian base-40 number in as few whole bytes as possible, at least one."""
    number = 0
    for character in text:
        number = 40 * number + _BASE40_DIGITS.index(character)
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")


def preorder_hash(text: str, script: str, address: str) -> str:
    """Compute the commitment to a name or namespace id: 40 hex digits.

    `script` (hex) is the sender's. `address` is the recipient's in the later registration, import or reveal.
    """
    return hash160(base40(text) + bytes.fromhex(script) + address.encode("ascii")).hex()


def hash128(text: str) -> str:
    """Return the first 16 bytes of text's SHA-256 as hex."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


# Senders, recipients and fees.


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as the engine passes it, and whether its epoch finds outputs by position."""

    senders: Sequence[Json]
    inputs: Sequence[Json]
    outputs: Sequence[Json]
    has_positions: bool

    def sender(self) -> Json:
        """Read the sender from what the first input spends: `sender`, `address`, `sender_pubkey`."""
        first = self.senders[0]
        require(first["type"] in _HASH_IN_SCRIPT, f"the sender is {first['type']}, not p2pkh or p2sh")
        script = first["script_pubkey"]
        return {
            "sender": script,
            "address": first["addresses"][0],
            "sender_pubkey": None if is_p2sh(script) else self._public_key(script),
        }

    def recipient(self) -> Json:
        """Read who receives a name, from the first payable output: `recipient`, `recipient_address`.

        In epochs with positions it is the second output.
        """
        return self._recipient(self._output(1) if self.has_positions else next(iter(self._payable()), None))

    def second_recipient(self) -> Json:
        """Read who receives a namespace, from the second of three outputs; the keys are `recipient()`'s."""
        self._require_three_outputs()
        return self._recipient(self._output(1))

    def burned_fee(self) -> Json:
        """Read the fee of the first output that burns: `op_fee` in satoshis or None, and `fee_address`."""
        burning = (output for output in self.outputs if output["script_pubkey"] == BURN_SCRIPT)
        return _fee(next(burning, None))

    def preorder_fee(self) -> Json:
        """Read the fee of a name's preorder; in epochs with positions it is the last of three outputs."""
        if not self.has_positions:
            return self.burned_fee()
        self._require_three_outputs()
        return _fee(self._output(2))

    def renewal_fee(self) -> Json:
        """Read the fee of a renewal; in epochs with positions it is the fourth output."""
        return _fee(self._output(3)) if self.has_positions else self.burned_fee()

    def import_value(self, recipient: str) -> str:
        """Read the hash (40 hex digits) in the first payable output that does not pay the recipient."""
        others = (output for output in self._payable() if output["script_pubkey"] != recipient)
        output = require_some(next(others, None), "no output holds a value hash")
        kind = output["type"]
        require(kind in _HASH_IN_SCRIPT, f"the output with the value hash is {kind}, not p2pkh or p2sh")
        value: str = output["script_pubkey"][_HASH_IN_SCRIPT[kind]]
        return value

    def _output(self, position: int) -> Json | None:
        return self.outputs[position] if position < len(self.outputs) else None

    def _payable(self) -> list[Json]:
        return [output for output in self.outputs if not output["script_pubkey"].startswith("6a")]

    def _require_three_outputs(self) -> None:
        require(len(self.outputs) == 3, f"the transaction has {len(self.outputs)} outputs instead of 3")

    def _recipient(self, output: Json | None) -> Json:
        output = require_some(output, "the transaction has no recipient")
        require(output["type"] in _HASH_IN_SCRIPT, f"the recipient is {output['type']}, not p2pkh or p2sh")
        return {"recipient": output["script_pubkey"], "recipient_address": output["addresses"][0]}

    def _public_key(self, script: str) -> str | None:
        """Find the sender's public key in the first input that shows it, which may be any input."""
        for spending in self.inputs:
            pushed = pushes(bytes.fromhex(spending["script_sig"]))[1:2]
            if (
                pushed
                and len(pushed[0]) in {33, 65}
                and hash160(pushed[0]).hex() == script[_HASH_IN_SCRIPT["pubkeyhash"]]
            ):
                return pushed[0].hex()
        return None


def is_p2sh(script: str) -> bool:
    """Check whether a script that may own names is pay-to-script-hash."""
    return script.startswith("a914")


def _fee(output: Json | None) -> Json:
    if output is None or not output["addresses"]:
        return {"op_fee": None, "fee_address": None}
    return {"op_fee": output["value"], "fee_address": output["addresses"][0]}
