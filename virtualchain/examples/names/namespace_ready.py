"""`!` NAMESPACE_READY: end the imports; from now on anyone may register names."""

from virtualchain.examples.names.namespace_reveal import REVEAL_FIELDS
from virtualchain.examples.names.operation import Operation, position_of
from virtualchain.examples.names.reading import Transaction, read_namespace_id, write_namespace_id
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import READY, require, require_some
from virtualchain.model import Json


class NamespaceReady(Operation):
    """Body: a dot and the namespace id."""

    opcode = b"!"
    fields = (*REVEAL_FIELDS, "ready_block")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the namespace id."""
        require(payload.startswith(b"."), "the body does not start with a dot")
        return {
            "op": READY,
            "namespace_id": read_namespace_id(payload[1:]),
            **tx.sender(),
        }

    def encode(self, namespace_id: str) -> bytes:
        """Write the namespace id."""
        return b"." + write_namespace_id(namespace_id)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require the recipient of the reveal, while the namespace accepts imports."""
        namespace = require_some(
            registry.revealed_namespace(op["namespace_id"]), "the namespace does not accept imports"
        )
        require(op["sender"] == namespace["recipient"], "the sender is not the namespace's importer")
        # The creator's key and address stay.
        return {
            **namespace,
            **position_of(op),
            "op": READY,
            "ready_block": registry.height,
            "sender": op["sender"],
        }

    def store(self, record: Json, registry: Registry) -> None:
        """Store the namespace."""
        registry.store_namespace(record)
