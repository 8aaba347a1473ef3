"""`~` NAME_REVOKE: make a name useless until it expires."""

from virtualchain.examples.names.encoding import read_name
from virtualchain.examples.names.operation import NAMEREC, NameOperation, place_of
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json


class NameRevoke(NameOperation):
    """Body: the whole name."""

    opcode = b"~"
    fields = NAMEREC

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the name."""
        return {"op": "~", "name": read_name(payload), **tx.sender()}

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from the owner of a name that lives in this very block, too."""
        record = needs_some(registry.name(op["name"]), "there is no such name")
        needs(registry.is_live(record) and registry.is_live_now(record), "the name has expired")
        needs(registry.ready(record["namespace_id"]) is not None, "the namespace is not ready")
        needs(not registry.is_in_grace(record), "the name has expired and can only be renewed")
        needs(not record["revoked"], "the name is revoked already")
        needs(registry.owns(op["sender"], record), "the sender does not own the name")
        return {**record, **place_of(op), "op": "~", "revoked": True, "value_hash": None}
