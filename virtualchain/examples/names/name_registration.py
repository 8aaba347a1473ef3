"""`:` NAME_REGISTRATION and renewal: take a preordered name, or keep one for another term."""

from virtualchain.examples.names.encoding import hash128, namespace_of, preorder_hash, read_name
from virtualchain.examples.names.operation import NAMEREC, NameOperation, place_of
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.prices import fee_receiver, name_price
from virtualchain.examples.names.reading import Transaction, is_p2sh
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json

_LONGEST_NAME = 37
_VALUE_SIZE = 20


class NameRegistration(NameOperation):
    """Body: the whole name.

    The first payable output's script will own the name. A renewal burns its fee. From epoch 3 on the name may
    be padded with NUL to 37 bytes and followed by a value hash (20).
    """

    opcode = b":"
    fields = (*NAMEREC, "sender", "address")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name, and whose it will be."""
        value_hash = None
        if tx.has_positions and len(payload) == _LONGEST_NAME + _VALUE_SIZE:
            value_hash = payload[_LONGEST_NAME:].hex()
            payload = payload[:_LONGEST_NAME].rstrip(b"\0")
        name = read_name(payload)
        op = {**tx.sender(), **tx.recipient()}
        return {
            **op,
            **tx.renewal_fee(),
            "op": ":",
            "name": name,
            "value_hash": value_hash,
            "preorder_hash": preorder_hash(name, op["sender"], op["recipient_address"]),
        }

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take what both need; what else is needed depends on whether the name lives."""
        before = registry.name(op["name"])
        is_live = before is not None and registry.is_live(before)
        needs(not (before and is_live and before["revoked"]), "the name is revoked")
        namespace = needs_some(
            registry.ready(namespace_of(op["name"])), "the namespace is not ready for registrations"
        )
        needs(registry.count(op["recipient"]) < MAX_NAMES, f"the recipient has {MAX_NAMES} names")
        needs(
            registry.epoch.has_multisig or not is_p2sh(op["recipient"]),
            "scripts own no names in this epoch",
        )
        if before and is_live:
            return self._renew(op, before, namespace, registry)
        return self._register(op, before, namespace, registry)

    def _register(self, op: Json, before: Json | None, namespace: Json, registry: Registry) -> Json:
        """Take a name from the one who preordered it for this very recipient, and paid its price then."""
        preorder = needs_some(
            registry.find_preorder(op["preorder_hash"], "?"),
            "the sender did not preorder it for this recipient",
        )
        preordered: int = preorder["block_number"]
        needs(preordered >= namespace["ready_block"], "it was preordered before its namespace was ready")
        self._needs_fee(preorder, op["name"], namespace, preordered)
        return {
            **place_of(op),
            "name": op["name"],
            "namespace_id": namespace["namespace_id"],
            "name_hash128": hash128(op["name"]),
            "value_hash": op["value_hash"],
            "sender": op["recipient"],
            "sender_pubkey": op["sender_pubkey"],
            "address": op["recipient_address"],
            "block_number": (before or preorder)["block_number"],
            "preorder_block_number": preordered,
            "first_registered": registry.height,
            "last_renewed": registry.height,
            "revoked": False,
            "imported": False,
            "op": ":",
            "op_fee": preorder["op_fee"],
            "importer": None,
            "importer_address": None,
            "preorder_hash": op["preorder_hash"],
            "consensus_hash": None,
        }

    def _renew(self, op: Json, before: Json, namespace: Json, registry: Registry) -> Json:
        """Take a renewal from the owner, who stays it; all but the term, the fee and the place stays, too."""
        needs(registry.owns(op["sender"], before), "the sender does not own the name")
        is_kept = op["recipient"] == before["sender"]
        needs(is_kept or registry.epoch.has_positions, "the recipient does not own the name")
        needs(op["op_fee"] is not None, "it pays no fee")
        self._needs_fee(op, op["name"], namespace, registry.height)
        renewed = {
            **before,
            **place_of(op),
            "op": "::",
            "last_renewed": registry.height,
            "op_fee": op["op_fee"],
        }
        if op["value_hash"] is not None:
            renewed["value_hash"] = op["value_hash"]
        if not is_kept:
            renewed |= {"sender": op["recipient"], "address": op["recipient_address"], "sender_pubkey": None}
        return renewed

    def _needs_fee(self, paid: Json, name: str, namespace: Json, height: int) -> None:
        price = name_price(name, namespace, height, self.params)
        needs(paid["op_fee"] >= price, f"{paid['op_fee']} satoshi were paid of {price:.0f}")
        receiver = fee_receiver(namespace, height, self.params)
        needs(paid["fee_address"] == receiver, f"the fee was not paid to {receiver}")

    def keep(self, record: Json, registry: Registry) -> None:
        """Store the name; a registration uses up its preorder."""
        if record["op"] == ":":
            registry.drop_preorders(record["preorder_hash"])
        super().keep(record, registry)
