"""`+` NAME_UPDATE: give a name another value."""

from virtualchain.examples.names.encoding import hash128
from virtualchain.examples.names.operation import NAMEREC, NameOperation, place_of
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import Transaction
from virtualchain.examples.names.refusal import needs, needs_some
from virtualchain.examples.names.registry import Registry
from virtualchain.model import Json


class NameUpdate(NameOperation):
    """Body: hash of the name and a recent consensus hash (16 bytes), value hash (20)."""

    opcode = b"+"
    fields = (*NAMEREC, "name_consensus_hash", "consensus_hash")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the two hashes."""
        needs(len(payload) == 36, f"its body has {len(payload)} bytes, and 36 are an update's")
        return {
            "op": "+",
            "name_consensus_hash": payload[:16].hex(),
            "value_hash": payload[16:].hex(),
            **tx.sender(),
        }

    def judge(self, op: Json, registry: Registry) -> Json:
        """Take it from the owner, who saw a recent block."""
        owned = registry.owned(op["sender"])
        needs(len(owned) <= MAX_NAMES, f"the sender has more than {MAX_NAMES} names")
        wanted = op["name_consensus_hash"]
        record, consensus_hash = needs_some(
            _find(wanted, owned, registry), "it fits no name of the sender's with any of the last 24 hashes"
        )
        needs(registry.ready(record["namespace_id"]) is not None, "the namespace is not ready")
        needs(not registry.is_in_grace(record), "the name has expired and can only be renewed")
        return {
            **record,
            **place_of(op),
            "op": "+",
            "value_hash": op["value_hash"],
            "consensus_hash": consensus_hash,
            "name_consensus_hash": wanted,
        }

    def hashed(self, record: Json, op: Json) -> Json:
        """Give the hashed fields."""
        return {
            **super().hashed(record, op),
            **{field: record[field] for field in ("name_consensus_hash", "consensus_hash")},
        }


def _find(wanted: str, owned: list[Json], registry: Registry) -> tuple[Json, str] | None:
    """Find the name and the consensus hash that a hash was made of."""
    for consensus_hash in registry.fresh_hashes() if owned else ():
        for record in owned:
            if hash128(record["name"] + consensus_hash) == wanted:
                return record, consensus_hash
    return None
