"""`?` NAME_PREORDER: commit to a name without telling which."""

from virtualchain.examples.names.namespace_preorder import preorder_record, read_preorder
from virtualchain.examples.names.operation import Operation
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import needs
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json


class NamePreorder(Operation):
    """Body: hash (20 bytes), consensus hash (16). The fee is burnt; the registration looks at its amount."""

    opcode = b"?"
    fields = (
        "preorder_hash",
        "consensus_hash",
        "sender",
        "sender_pubkey",
        "address",
        "block_number",
        "op",
        "txid",
        "vtxindex",
        "op_fee",
    )

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the two hashes."""
        return read_preorder("?", payload, tx, tx.preorder_fee())

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take a new hash from somebody who saw a recent block, pays something, and may have more names."""
        needs(registry.find_preorder(op["preorder_hash"], "?") is None, "the hash is preordered already")
        needs(registry.is_fresh(op["consensus_hash"]), "the consensus hash is none of the last 24 blocks'")
        needs(registry.count(op["sender"]) < MAX_NAMES, f"the sender has {MAX_NAMES} names")
        needs(op["op_fee"] is not None, "it pays no fee")
        return preorder_record(op, registry)

    def keep(self, record: Json, registry: Registry) -> None:
        """Store it."""
        registry.add_preorder(record)
