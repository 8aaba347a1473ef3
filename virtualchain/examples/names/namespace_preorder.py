"""`*` NAMESPACE_PREORDER: commit to a namespace without telling which."""

from virtualchain.examples.names.operation import Operation, place_of
from virtualchain.examples.names.reading import Transaction, is_p2sh
from virtualchain.examples.names.refusal import needs
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json


class NamespacePreorder(Operation):
    """Body: hash (20 bytes), consensus hash (16). The fee, which is the namespace's price, is burnt."""

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
        return read_preorder("*", payload, tx, tx.burnt())

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take a new hash from somebody who saw a recent block and pays something."""
        needs(not is_p2sh(op["sender"]), "a script cannot preorder a namespace")
        needs(registry.find_preorder(op["preorder_hash"], "*") is None, "the hash is preordered already")
        needs(registry.is_fresh(op["consensus_hash"]), "the consensus hash is none of the last 24 blocks'")
        needs(op["op_fee"] is not None, "it pays no fee")
        return preorder_record(op, registry)

    def keep(self, record: Json, registry: Registry) -> None:
        """Store it."""
        registry.add_preorder(record)


def read_preorder(kind: str, payload: bytes, tx: Transaction, fee: Json) -> Json:
    """Read what both kinds of preorder have."""
    needs(len(payload) == 36, f"its body has {len(payload)} bytes, and 36 are a preorder's")
    return {
        "op": kind,
        "preorder_hash": payload[:20].hex(),
        "consensus_hash": payload[20:].hex(),
        **tx.sender(),
        **fee,
    }


def preorder_record(op: Json, registry: Registry) -> Json:
    """Give the row of a preorder of either kind."""
    return {**op, **place_of(op), "block_number": registry.height}
