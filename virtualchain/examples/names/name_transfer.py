"""`>` NAME_TRANSFER: give a name to a new owner."""

from virtualchain.examples.names.operation import NAMEREC, NameOperation, position_of
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import Transaction, hash128, is_p2sh, write_hash, write_name
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import require, require_some
from virtualchain.model import Json


class NameTransfer(NameOperation):
    """Body: `>` or `~` (1 byte), hash of the name (16), consensus hash (16).

    `>` keeps the name's value, `~` drops it. The script of the first payable output is the new owner.
    """

    opcode = b">"
    fields = (*NAMEREC, "name_hash128", "consensus_hash", "keep_data")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name's hash, whether its value stays, and the new owner."""
        require(len(payload) == 33, f"the body has {len(payload)} bytes; a transfer has 33")
        require(payload[:1] in {b">", b"~"}, "the body starts with neither > nor ~")
        return {
            "op": ">" + payload[:1].decode("ascii"),
            "keep_data": payload[:1] == b">",
            "name_hash128": payload[1:17].hex(),
            "consensus_hash": payload[17:].hex(),
            **tx.sender(),
            **tx.recipient(),
        }

    def encode(self, name: str, consensus_hash: str, *, keep_data: bool = True) -> bytes:
        """Write whether the value stays, the name's hash and a recent consensus hash."""
        keeps = b">" if keep_data else b"~"
        mark = bytes.fromhex(hash128(write_name(name).decode("ascii")))
        return keeps + mark + write_hash(consensus_hash, 16)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require the owner, a recent consensus hash, and another recipient who may own more names."""
        record = require_some(registry.live_name_by_hash(op["name_hash128"]), "there is no such name")
        require(not record["revoked"], "the name is revoked")
        require(registry.ready_namespace(record["namespace_id"]) is not None, "the namespace is not ready")
        require(not registry.is_in_grace(record), "the name has expired and can only be renewed")
        require(registry.is_fresh(op["consensus_hash"]), "the consensus hash is not from the last 24 blocks")
        require(registry.owns(op["sender"], record), "the sender does not own the name")
        require(op["sender"] != op["recipient"], "the recipient is the sender")
        require(
            len(registry.names_owned_by(op["recipient"])) < MAX_NAMES,
            f"the recipient already owns {MAX_NAMES} names",
        )
        require(
            registry.epoch.has_multisig or not is_p2sh(op["sender"]),
            "a script cannot transfer names in this epoch",
        )
        return {
            **record,
            **position_of(op),
            "op": op["op"],
            "sender": op["recipient"],
            "address": op["recipient_address"],
            "sender_pubkey": None,
            "value_hash": record["value_hash"] if op["keep_data"] else None,
        }

    def hashed_fields(self, record: Json, op: Json) -> Json:
        """Return the hashed fields; the consensus hash is the last update's, if there was one."""
        return {
            **super().hashed_fields(record, op),
            "name_hash128": op["name_hash128"],
            "consensus_hash": record["consensus_hash"] or op["consensus_hash"],
            "keep_data": op["keep_data"],
        }
