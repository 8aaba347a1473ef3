"""`#` ANNOUNCE: the network's developers send a message to its nodes; the state does not change."""

from virtualchain.examples.names.operation import Operation, position_of
from virtualchain.examples.names.reading import Transaction, write_hash
from virtualchain.examples.names.registry import Registry
from virtualchain.examples.names.rules import require
from virtualchain.model import Json
from virtualchain.store.state import State


class Announce(Operation):
    """Body: hash of the message (20 bytes). The operation does not enter the consensus hash."""

    opcode = b"#"
    fields = ()

    def read(self, payload: bytes, tx: Transaction) -> Json:
        """Read the message's hash."""
        require(len(payload) == 20, f"the body has {len(payload)} bytes; an announcement has 20")
        return {"op": "#", "message_hash": payload.hex(), **tx.sender()}

    def encode(self, message_hash: str) -> bytes:
        """Write the message's hash."""
        return write_hash(message_hash, 20)

    def judge(self, op: Json, registry: Registry) -> Json:
        """Accept it only from the owner of one of a few names."""
        records = [record for name in self.params.announcers if (record := registry.name(name))]
        announcers = [record["sender"] for record in records if registry.is_live(record)]
        require(op["sender"] in announcers, "the sender may not announce")
        return {**op, **position_of(op), "block_id": registry.height}

    def store(self, record: Json, registry: Registry) -> None:
        """Store it for readers."""
        registry.add_announcement(record)

    def commit(self, op: Json, state: State) -> list[Json]:
        """Store it, and return no operation to be hashed."""
        super().commit(op, state)
        return []
