"""`?` NAME_PREORDER: commit to a name without disclosing it."""

from virtualchain.examples.names.namespace_preorder import preorder_record, read_preorder
from virtualchain.examples.names.operation import Operation
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import Transaction, write_hash
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import require
from virtualchain.model import Json


class NamePreorder(Operation):
    """Body: hash (20 bytes), consensus hash (16). The fee is burned; the registration checks its amount."""

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

    def encode(self, preorder_hash: str, consensus_hash: str) -> bytes:
        """Write the two hashes; `reading.preorder_hash` computes the first."""
        return write_hash(preorder_hash, 20) + write_hash(consensus_hash, 16)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require a new hash, a recent consensus hash, a fee, and a sender who may own more names."""
        require(registry.find_preorder(op["preorder_hash"], "?") is None, "the hash is already preordered")
        require(registry.is_fresh(op["consensus_hash"]), "the consensus hash is not from the last 24 blocks")
        require(registry.count_names(op["sender"]) < MAX_NAMES, f"the sender already owns {MAX_NAMES} names")
        require(op["op_fee"] is not None, "no fee was paid")
        return preorder_record(op, registry)

    def store(self, record: Json, registry: Registry) -> None:
        """Store the preorder."""
        registry.add_preorder(record)
