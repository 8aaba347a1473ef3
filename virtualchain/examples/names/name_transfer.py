"""`>` NAME_TRANSFER: give a name to somebody else."""

from virtualchain.examples.names.operation import NAMEREC, NameOperation, place_of
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import Transaction, is_p2sh
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json


class NameTransfer(NameOperation):
    """Body: `>` or `~` (1 byte), hash of the name (16), consensus hash (16).

    `>` keeps the name's value, `~` drops it. The first payable output's script is the new owner.
    """

    opcode = b">"
    fields = (*NAMEREC, "name_hash128", "consensus_hash", "keep_data")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read which name, what becomes of its value, and whose it will be."""
        needs(len(payload) == 33, f"its body has {len(payload)} bytes, and 33 are a transfer's")
        needs(payload[:1] in {b">", b"~"}, "it says neither > nor ~")
        return {
            "op": ">" + payload[:1].decode("ascii"),
            "keep_data": payload[:1] == b">",
            "name_hash128": payload[1:17].hex(),
            "consensus_hash": payload[17:].hex(),
            **tx.sender(),
            **tx.recipient(),
        }

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from the owner, who saw a recent block; the new one may have more names, and is another."""
        record = needs_some(registry.live_name_of(op["name_hash128"]), "there is no such name")
        needs(not record["revoked"], "the name is revoked")
        needs(registry.ready(record["namespace_id"]) is not None, "the namespace is not ready")
        needs(not registry.is_in_grace(record), "the name has expired and can only be renewed")
        needs(registry.is_fresh(op["consensus_hash"]), "the consensus hash is none of the last 24 blocks'")
        needs(registry.owns(op["sender"], record), "the sender does not own the name")
        needs(op["sender"] != op["recipient"], "the recipient is the sender")
        needs(len(registry.owned(op["recipient"])) < MAX_NAMES, f"the recipient has {MAX_NAMES} names")
        needs(
            registry.epoch.has_multisig or not is_p2sh(op["sender"]),
            "scripts give no names away in this epoch",
        )
        return {
            **record,
            **place_of(op),
            "op": op["op"],
            "sender": op["recipient"],
            "address": op["recipient_address"],
            "sender_pubkey": None,
            "value_hash": record["value_hash"] if op["keep_data"] else None,
        }

    def hashed(self, record: Json, op: Json) -> Json:
        """Give the hashed fields: the consensus hash is the last update's, where there was one."""
        return {
            **super().hashed(record, op),
            "name_hash128": op["name_hash128"],
            "consensus_hash": record["consensus_hash"] or op["consensus_hash"],
            "keep_data": op["keep_data"],
        }
