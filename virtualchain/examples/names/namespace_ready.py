"""`!` NAMESPACE_READY: end the imports; from now on anyone registers names."""

from virtualchain.examples.names.encoding import read_namespace_id
from virtualchain.examples.names.lifetime import READY
from virtualchain.examples.names.namespace_reveal import REVEAL_FIELDS
from virtualchain.examples.names.operation import Operation, place_of
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json


class NamespaceReady(Operation):
    """Body: a dot and the namespace's id."""

    opcode = b"!"
    fields = (*REVEAL_FIELDS, "ready_block")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read which namespace."""
        needs(payload.startswith(b"."), "its body does not start with a dot")
        return {
            "op": READY,
            "namespace_id": read_namespace_id(payload[1:]),
            **tx.sender(),
        }

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from the recipient of the reveal, while the namespace takes imports."""
        namespace = needs_some(registry.revealed(op["namespace_id"]), "the namespace takes no imports")
        needs(op["sender"] == namespace["recipient"], "the sender is not the namespace's importer")
        # The creator's key and address stay.
        return {
            **namespace,
            **place_of(op),
            "op": READY,
            "ready_block": registry.height,
            "sender": op["sender"],
        }

    def keep(self, record: Json, registry: Registry) -> None:
        """Store it."""
        registry.keep_namespace(record)
