"""`:` NAME_REGISTRATION and renewal: take a preordered name, or keep one for another term."""

from virtualchain.examples.names.operation import NAMEREC, NameOperation, position_of
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import (
    MAX_NAME_LENGTH,
    Transaction,
    hash128,
    is_p2sh,
    namespace_of,
    preorder_hash,
    read_name,
    write_hash,
    write_name,
)
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import fee_receiver, name_price, require, require_some
from virtualchain.model import Json

_VALUE_SIZE = 20


class NameRegistration(NameOperation):
    """Body: the full name.

    The script of the first payable output becomes the owner. A renewal burns its fee. From epoch 3 on the
    name may be padded with NUL to 37 bytes and followed by a value hash (20).
    """

    opcode = b":"
    fields = (*NAMEREC, "sender", "address")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name and its owner to be."""
        value_hash = None
        if tx.has_positions and len(payload) == MAX_NAME_LENGTH + _VALUE_SIZE:
            value_hash = payload[MAX_NAME_LENGTH:].hex()
            payload = payload[:MAX_NAME_LENGTH].rstrip(b"\0")
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

    def encode(self, name: str, value_hash: str | None = None) -> bytes:
        """Write the name, with a value from epoch 3 on."""
        if value_hash is None:
            return write_name(name)
        return write_name(name).ljust(MAX_NAME_LENGTH, b"\0") + write_hash(value_hash, _VALUE_SIZE)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Check what both require, then judge a renewal if the name is live, else a registration."""
        earlier = registry.name(op["name"])
        is_live = earlier is not None and registry.is_live(earlier)
        require(not (earlier and is_live and earlier["revoked"]), "the name is revoked")
        namespace = require_some(
            registry.ready_namespace(namespace_of(op["name"])), "the namespace is not ready for registrations"
        )
        require(
            registry.count_names(op["recipient"]) < MAX_NAMES, f"the recipient already owns {MAX_NAMES} names"
        )
        require(
            registry.epoch.has_multisig or not is_p2sh(op["recipient"]),
            "a script cannot own names in this epoch",
        )
        if earlier and is_live:
            return self._renew(op, earlier, namespace, registry)
        return self._register(op, earlier, namespace, registry)

    def _register(self, op: Json, earlier: Json | None, namespace: Json, registry: Registry) -> Json:
        """Require a preorder by this sender for this recipient that paid the price of its time."""
        preorder = require_some(
            registry.find_preorder(op["preorder_hash"], "?"), "no preorder by this sender for this recipient"
        )
        preordered: int = preorder["block_number"]
        require(
            preordered >= namespace["ready_block"], "the name was preordered before its namespace was ready"
        )
        self._require_fee(preorder, op["name"], namespace, preordered)
        return {
            **position_of(op),
            "name": op["name"],
            "namespace_id": namespace["namespace_id"],
            "name_hash128": hash128(op["name"]),
            "value_hash": op["value_hash"],
            "sender": op["recipient"],
            "sender_pubkey": op["sender_pubkey"],
            "address": op["recipient_address"],
            "block_number": (earlier or preorder)["block_number"],
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

    def _renew(self, op: Json, earlier: Json, namespace: Json, registry: Registry) -> Json:
        """Require the owner as sender and, before epoch 3, as recipient, too.

        Only the term, the fee and the transaction change; from epoch 3 on also value and owner, if the
        operation names new ones.
        """
        require(registry.owns(op["sender"], earlier), "the sender does not own the name")
        keeps_owner = op["recipient"] == earlier["sender"]
        require(keeps_owner or registry.epoch.has_positions, "the recipient does not own the name")
        require(op["op_fee"] is not None, "no fee was paid")
        self._require_fee(op, op["name"], namespace, registry.height)
        renewed = {
            **earlier,
            **position_of(op),
            "op": "::",
            "last_renewed": registry.height,
            "op_fee": op["op_fee"],
        }
        if op["value_hash"] is not None:
            renewed["value_hash"] = op["value_hash"]
        if not keeps_owner:
            renewed |= {"sender": op["recipient"], "address": op["recipient_address"], "sender_pubkey": None}
        return renewed

    def _require_fee(self, payment: Json, name: str, namespace: Json, height: int) -> None:
        price = name_price(name, namespace, height, self.params)
        paid = payment["op_fee"]
        require(paid >= price, f"the fee of {paid} satoshis is less than the price of {price:.0f}")
        receiver = fee_receiver(namespace, height, self.params)
        require(payment["fee_address"] == receiver, f"the fee was not paid to {receiver}")

    def store(self, record: Json, registry: Registry) -> None:
        """Store the name, and remove the preorder that a registration used."""
        if record["op"] == ":":
            registry.drop_preorders(record["preorder_hash"])
        super().store(record, registry)
