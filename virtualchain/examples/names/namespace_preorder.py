"""`*` NAMESPACE_PREORDER: commit to a namespace without disclosing it."""

from virtualchain.examples.names.operation import Operation, position_of
from virtualchain.examples.names.reading import Transaction, is_p2sh, write_hash
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import require
from virtualchain.model import Json


class NamespacePreorder(Operation):
    """Body: hash (20 bytes), consensus hash (16). The fee, which is the namespace's price, is burned."""

    opcode = b"*"
    fields = (
        "preorder_hash",
        "consensus_hash",
        "op",
        "op_fee",
        "txid",
        "vtxindex",
        "block_number",
        "sender",
        "sender_pubkey",
        "address",
    )

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the two hashes."""
        return read_preorder("*", payload, tx, tx.burned_fee())

    def encode(self, preorder_hash: str, consensus_hash: str) -> bytes:
        """Write the two hashes; `reading.preorder_hash` computes the first."""
        return write_hash(preorder_hash, 20) + write_hash(consensus_hash, 16)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require a new hash, a recent consensus hash and a fee, from a key."""
        require(not is_p2sh(op["sender"]), "a script cannot preorder a namespace")
        require(registry.find_preorder(op["preorder_hash"], "*") is None, "the hash is already preordered")
        require(registry.is_fresh(op["consensus_hash"]), "the consensus hash is not from the last 24 blocks")
        require(op["op_fee"] is not None, "no fee was paid")
        return preorder_record(op, registry)

    def store(self, record: Json, registry: Registry) -> None:
        """Store the preorder."""
        registry.add_preorder(record)


def read_preorder(kind: str, payload: bytes, tx: Transaction, fee: Json) -> Json:
    """Read a preorder of either kind."""
    require(len(payload) == 36, f"the body has {len(payload)} bytes; a preorder has 36")
    return {
        "op": kind,
        "preorder_hash": payload[:20].hex(),
        "consensus_hash": payload[20:].hex(),
        **tx.sender(),
        **fee,
    }


def preorder_record(op: Json, registry: Registry) -> Json:
    """Return the row of a preorder of either kind."""
    return {**op, **position_of(op), "block_number": registry.height}
