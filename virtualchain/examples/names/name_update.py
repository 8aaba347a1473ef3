"""`+` NAME_UPDATE: give a name a new value."""

from virtualchain.examples.names.operation import NAMEREC, NameOperation, position_of
from virtualchain.examples.names.params import MAX_NAMES
from virtualchain.examples.names.reading import Transaction, hash128, write_hash, write_name
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import require, require_some
from virtualchain.model import Json


class NameUpdate(NameOperation):
    """Body: hash of the name and a recent consensus hash together (16 bytes), value hash (20)."""

    opcode = b"+"
    fields = (*NAMEREC, "name_consensus_hash", "consensus_hash")

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the two hashes."""
        require(len(payload) == 36, f"the body has {len(payload)} bytes; an update has 36")
        return {
            "op": "+",
            "name_consensus_hash": payload[:16].hex(),
            "value_hash": payload[16:].hex(),
            **tx.sender(),
        }

    def encode(self, name: str, value_hash: str, consensus_hash: str) -> bytes:
        """Write the hash of the name and a recent consensus hash together, and the value hash."""
        seen = write_hash(consensus_hash, 16).hex()
        mark = hash128(write_name(name).decode("ascii") + seen)
        return bytes.fromhex(mark) + write_hash(value_hash, 20)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Require the owner and a recent consensus hash."""
        owned = registry.names_owned_by(op["sender"])
        require(len(owned) <= MAX_NAMES, f"the sender owns more than {MAX_NAMES} names")
        name_consensus_hash = op["name_consensus_hash"]
        record, consensus_hash = require_some(
            _find_name(name_consensus_hash, owned, registry),
            "the hash matches none of the sender's names with any of the last 24 consensus hashes",
        )
        require(registry.ready_namespace(record["namespace_id"]) is not None, "the namespace is not ready")
        require(not registry.is_in_grace(record), "the name has expired and can only be renewed")
        return {
            **record,
            **position_of(op),
            "op": "+",
            "value_hash": op["value_hash"],
            "consensus_hash": consensus_hash,
            "name_consensus_hash": name_consensus_hash,
        }

    def hashed_fields(self, record: Json, op: Json) -> Json:
        """Return the hashed fields."""
        return {
            **super().hashed_fields(record, op),
            **{field: record[field] for field in ("name_consensus_hash", "consensus_hash")},
        }


def _find_name(name_consensus_hash: str, owned: list[Json], registry: Registry) -> tuple[Json, str] | None:
    """Find the name and the consensus hash that a combined hash was made of."""
    for consensus_hash in registry.fresh_hashes() if owned else ():
        for record in owned:
            if hash128(record["name"] + consensus_hash) == name_consensus_hash:
                return record, consensus_hash
    return None
