"""`~` NAME_REVOKE: make a name unusable until it expires."""

from virtualchain.examples.names.operation import NAMEREC, NameOperation, position_of
from virtualchain.examples.names.reading import Transaction, read_name, write_name
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import require, require_some
from virtualchain.model import Json


class NameRevoke(NameOperation):
    """Body: the full name."""

    opcode = b"~"
    fields = NAMEREC

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name."""
        return {"op": "~", "name": read_name(payload), **tx.sender()}

    def encode(self, name: str) -> bytes:
        """Write the name."""
        return write_name(name)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require the owner; unlike in other operations, the name must also be live in this very block."""
        record = require_some(registry.name(op["name"]), "there is no such name")
        require(registry.is_live(record) and registry.is_live_now(record), "the name has expired")
        require(registry.ready_namespace(record["namespace_id"]) is not None, "the namespace is not ready")
        require(not registry.is_in_grace(record), "the name has expired and can only be renewed")
        require(not record["revoked"], "the name is already revoked")
        require(registry.owns(op["sender"], record), "the sender does not own the name")
        return {**record, **position_of(op), "op": "~", "revoked": True, "value_hash": None}
