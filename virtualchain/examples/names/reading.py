"""What an operation's transaction tells beside its payload (`names.md` §1).

Scripts and keys are hex; Refused is raised where a transaction is none of the registry's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from virtualchain.bitcoin.script import pushes
from virtualchain.consensus.hashing import hash160
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.model import Json

BURN_SCRIPT: Final = "76a914" + "00" * 20 + "88ac"
"""Pay-to-public-key-hash of the hash that nobody has a key for: fees go there."""
_KINDS: Final = {"pubkeyhash": slice(6, 46), "scripthash": slice(4, 44)}
"""The scripts that may own names, and where in their hex the hash of 20 bytes stands."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction as the engine hands it out, and whether its epoch finds outputs by their place."""

    senders: Sequence[Json]
    inputs: Sequence[Json]
    outputs: Sequence[Json]
    has_positions: bool

    def sender(self) -> Json:
        """Give who sent it, by what its first input spends: `sender`, `address`, `sender_pubkey`."""
        first = self.senders[0]
        needs(first["type"] in _KINDS, f"its sender is {first['type']}, and p2pkh or p2sh can be one")
        script = first["script_pubkey"]
        return {
            "sender": script,
            "address": first["addresses"][0],
            "sender_pubkey": None if is_p2sh(script) else self._public_key(script),
        }

    def recipient(self) -> Json:
        """Give who gets a name: `recipient`, `recipient_address` of the first payable output.

        Where outputs have positions, it is the second output.
        """
        return self._paid(self._at(1) if self.has_positions else next(iter(self._payable()), None))

    def second_recipient(self) -> Json:
        """Give who gets a namespace: `recipient`, `recipient_address` of the second of three outputs."""
        needs(len(self.outputs) == 3, f"it has {len(self.outputs)} outputs, and should have 3")
        return self._paid(self._at(1))

    def burnt(self) -> Json:
        """Give the fee that the first burning output pays: `op_fee` in satoshi (or None), `fee_address`."""
        burning = (output for output in self.outputs if output["script_pubkey"] == BURN_SCRIPT)
        return _fee(next(burning, None))

    def preorder_fee(self) -> Json:
        """Give the fee of a name's preorder, as above; with positions it is the last of three outputs."""
        if not self.has_positions:
            return self.burnt()
        needs(len(self.outputs) == 3, f"it has {len(self.outputs)} outputs, and should have 3")
        return _fee(self._at(2))

    def renewal_fee(self) -> Json:
        """Give the fee of a renewal, as above; with positions it is the fourth output."""
        return _fee(self._at(3)) if self.has_positions else self.burnt()

    def import_value(self, recipient: str) -> str:
        """Give the hash (40 hex digits) in the first payable output that is not the recipient's."""
        others = (output for output in self._payable() if output["script_pubkey"] != recipient)
        found = needs_some(next(others, None), "no output holds a value hash")
        needs(found["type"] in _KINDS, f"its value's output is {found['type']}, and p2pkh or p2sh holds one")
        value: str = found["script_pubkey"][_KINDS[found["type"]]]
        return value

    def _at(self, place: int) -> Json | None:
        return self.outputs[place] if place < len(self.outputs) else None

    def _payable(self) -> list[Json]:
        return [output for output in self.outputs if not output["script_pubkey"].startswith("6a")]

    def _paid(self, output: Json | None) -> Json:
        output = needs_some(output, "it pays nobody")
        needs(output["type"] in _KINDS, f"its recipient is {output['type']}, and p2pkh or p2sh can be one")
        return {"recipient": output["script_pubkey"], "recipient_address": output["addresses"][0]}

    def _public_key(self, script: str) -> str | None:
        """Give the sender's key as the first input shows it that does: any input may."""
        for spending in self.inputs:
            pushed = pushes(bytes.fromhex(spending["script_sig"]))[1:2]
            if (
                pushed
                and len(pushed[0]) in {33, 65}
                and hash160(pushed[0]).hex() == script[_KINDS["pubkeyhash"]]
            ):
                return pushed[0].hex()
        return None


def is_p2sh(script: str) -> bool:
    """Whether a script that may own names is pay-to-script-hash."""
    return script.startswith("a914")


def _fee(output: Json | None) -> Json:
    if output is None or not output["addresses"]:
        return {"op_fee": None, "fee_address": None}
    return {"op_fee": output["value"], "fee_address": output["addresses"][0]}
